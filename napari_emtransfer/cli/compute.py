"""Verbs that compute: train, predict, evaluate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from napari_emtransfer.cli.describe import describe_evaluation, describe_prediction, describe_training
from napari_emtransfer.cli.manage import ProjectFolder, expand_paths
from napari_emtransfer.cli.output import Outcome
from napari_emtransfer.cli.perform import perform
from napari_emtransfer.cli.train_options import taking_train_options
from napari_emtransfer.cli.verb import Device, Seed, Threads, add_verb
from napari_emtransfer.core.config import ComputeConfig, PredictConfig, TrainConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.errors import ProjectError
from napari_emtransfer.core.rates import check_rates
from napari_emtransfer.worker.protocol import EvaluateRequest, PredictRequest, TrainRequest
from napari_emtransfer.worker.replay import replay_request

ModelRun = Annotated[str, typer.Option("--run", help="A run's id, the beginning of it, latest, or best.")]
Ensemble = Annotated[
    list[str] | None,
    typer.Option(
        metavar="RUN", help="Average the probabilities with those of this run of the same classes; repeat it."
    ),
]
Tta = Annotated[
    bool,
    typer.Option(
        "--tta",
        help="Average over the flips and quarter turns that the modality allows; takes as many times as long.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add this module's verbs."""
    add_verb(app, "train", train)
    add_verb(app, "predict", predict)
    add_verb(app, "evaluate", evaluate)


@taking_train_options
def train(
    project: ProjectFolder,
    settings: Mapping[str, Any],
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with an interrupted run.")] = None,
    replay: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Repeat a run with its settings, frozen labels, split and seed."),
    ] = None,
    device: Device = "auto",
    seed: Seed = 0,
    threads: Threads = None,
) -> Outcome:
    """Fine-tune a network on the labelled micrographs; the score is measured on held-out specimens."""
    config = TrainConfig(**settings, compute=ComputeConfig(device=device, seed=seed, threads=threads))
    result, code = perform(_train_request(project, config, resume, replay))
    return Outcome(result, describe_training(result), code)


def _train_request(project: Path, config: TrainConfig, resume: str | None, replay: str | None) -> TrainRequest:
    if resume is not None and replay is not None:
        raise ProjectError("--resume and --replay exclude each other.", "Go on with a run, or repeat it.")
    with Project.open(project) as opened:
        if replay is not None:
            return replay_request(opened, replay, device=config.compute.device)
        if resume is None:
            check_rates(config)
            run = opened.create_run("train", config.model_dump(mode="json"))
            return TrainRequest(run_id=run.id, project=opened.root, config=config)
        run = opened.run(resume)
        own_config = TrainConfig.model_validate(run.config)
        return TrainRequest(run_id=run.id, project=opened.root, config=own_config, resume=True)


def predict(
    project: ProjectFolder,
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH…]", help="Micrographs of the project by stem, or image files. Default: all."),
    ] = None,
    run: ModelRun = "latest",
    out: Annotated[Path | None, typer.Option(help="Write masks there as TIFF instead of into the project.")] = None,
    probabilities: Annotated[bool, typer.Option(help="Write the class probabilities too.")] = False,
    uncertainty: Annotated[
        Literal["none", "entropy", "disagreement"],
        typer.Option(
            help="Write this map too: the entropy of the probabilities, or how much the networks of folds or "
            "--ensemble (of one network: the orientations of --tta) disagree."
        ),
    ] = "entropy",
    ensemble: Ensemble = None,
    tta: Tta = False,
    device: Device = "auto",
    seed: Seed = 0,
    threads: Threads = None,
) -> Outcome:
    """Predict masks of whole micrographs, tile by tile."""
    if probabilities and out is None:
        raise ProjectError("--probabilities needs a place to go.", "Name a folder with --out.")
    with Project.open(project) as opened:
        known = {record.stem for record in opened.micrographs()}
        run_id = opened.run(run).id
    words = paths or []
    request = PredictRequest(
        run_id="predict",
        project=project,
        model_run=run_id,
        micrographs=tuple(word for word in words if word in known),
        paths=tuple(expand_paths([word for word in words if word not in known])),
        out=out,
        probabilities=probabilities,
        uncertainty=uncertainty,
        ensemble=_run_ids(project, ensemble),
        tta=tta,
        config=PredictConfig(compute=ComputeConfig(device=device, seed=seed, threads=threads)),
    )
    result, code = perform(request)
    return Outcome(result, describe_prediction(result), code)


def evaluate(
    project: ProjectFolder,
    run: ModelRun = "latest",
    on: Annotated[
        list[str] | None, typer.Option(help="validation, test, another part of the split, or a micrograph; repeat it.")
    ] = None,
    ensemble: Ensemble = None,
    tta: Tta = False,
    device: Device = "auto",
    seed: Seed = 0,
    threads: Threads = None,
) -> Outcome:
    """Class-mean IoU of a run, per class, with a 95 % interval over specimens; how far its probabilities are true."""
    with Project.open(project) as opened:
        run_id = opened.run(run).id
    request = EvaluateRequest(
        run_id="evaluate",
        project=project,
        model_run=run_id,
        on=tuple(on or ("validation",)),
        ensemble=_run_ids(project, ensemble),
        tta=tta,
        config=PredictConfig(compute=ComputeConfig(device=device, seed=seed, threads=threads)),
    )
    result, code = perform(request)
    return Outcome(result, describe_evaluation(result), code)


def _run_ids(project: Path, refs: Sequence[str] | None) -> tuple[str, ...]:
    with Project.open(project) as opened:
        return tuple(opened.run(ref).id for ref in refs or ())
