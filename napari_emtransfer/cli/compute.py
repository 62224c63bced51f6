"""Verbs that compute: train, predict, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from napari_emtransfer.cli.manage import ProjectFolder, expand_paths
from napari_emtransfer.cli.output import Outcome, describe_ground, format_iou, format_table
from napari_emtransfer.cli.perform import perform
from napari_emtransfer.cli.verb import Device, Seed, Threads, add_verb
from napari_emtransfer.core.config import (
    Architecture,
    AugmentPreset,
    ComputeConfig,
    PredictConfig,
    StrategyName,
    TrainConfig,
)
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.errors import ProjectError
from napari_emtransfer.core.legality import check_transforms
from napari_emtransfer.worker.protocol import EvaluateRequest, PredictRequest, TrainRequest
from napari_emtransfer.worker.replay import replay_request

ModelRun = Annotated[str, typer.Option("--run", help="A run's id, the beginning of it, latest, or best.")]
_DEFAULTS = TrainConfig()


def register(app: typer.Typer) -> None:
    """Add this module's verbs."""
    add_verb(app, "train", train)
    add_verb(app, "predict", predict)
    add_verb(app, "evaluate", evaluate)


def train(
    project: ProjectFolder,
    strategy: Annotated[StrategyName, typer.Option(help="From scratch, or go on from weights.")] = _DEFAULTS.strategy,
    weights: Annotated[
        str, typer.Option(help="none, a name of `weights list`, a file, or run:ID.")
    ] = _DEFAULTS.weights,
    encoder: Annotated[str, typer.Option(help="Any encoder of segmentation-models-pytorch.")] = _DEFAULTS.encoder,
    architecture: Annotated[Architecture, typer.Option(help="The network.")] = _DEFAULTS.architecture,
    iterations: Annotated[int, typer.Option(help="Optimiser steps.")] = _DEFAULTS.iterations,
    minutes: Annotated[float | None, typer.Option(help="Stop after so long, whatever comes first.")] = None,
    split: Annotated[
        str | None, typer.Option(help="A split that came with the data set. Default: by specimen.")
    ] = None,
    train_: Annotated[list[str] | None, typer.Option("--train", help="Train on this micrograph; repeat it.")] = None,
    validation: Annotated[list[str] | None, typer.Option(help="Validate on this micrograph; repeat it.")] = None,
    augment: Annotated[AugmentPreset, typer.Option(help="Augmentation preset.")] = _DEFAULTS.augment,
    allow_illegal: Annotated[
        list[str] | None,
        typer.Option(metavar="TRANSFORM", help="Augment so although the modality forbids it; recorded. Repeat it."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Crops per step.")] = _DEFAULTS.batch_size,
    crop: Annotated[int, typer.Option(help="Edge of a crop in working pixels.")] = _DEFAULTS.crop_px,
    learning_rate: Annotated[float, typer.Option(help="Of the decoder and head.")] = _DEFAULTS.learning_rate,
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
    check_transforms(allow_illegal or ())
    config = TrainConfig(
        strategy=strategy,
        weights=weights,
        encoder=encoder,
        architecture=architecture,
        iterations=iterations,
        minutes=minutes,
        split=split,
        train=tuple(train_ or ()),
        validation=tuple(validation or ()),
        augment=augment,
        illegal_augment=tuple(allow_illegal or ()),
        batch_size=batch_size,
        crop_px=crop,
        learning_rate=learning_rate,
        compute=ComputeConfig(device=device, seed=seed, threads=threads),
    )
    result, code = perform(_train_request(project, config, resume, replay))
    return Outcome(result, _describe_training(result), code)


def _train_request(project: Path, config: TrainConfig, resume: str | None, replay: str | None) -> TrainRequest:
    if resume is not None and replay is not None:
        raise ProjectError(
            "--resume and --replay exclude each other.", "Go on with a run, or repeat it."
        )
    with Project.open(project) as opened:
        if replay is not None:
            return replay_request(opened, replay, device=config.compute.device)
        if resume is None:
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
    uncertainty: Annotated[Literal["none", "entropy"], typer.Option(help="Write this map too.")] = "entropy",
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
        config=PredictConfig(compute=ComputeConfig(device=device, seed=seed, threads=threads)),
    )
    result, code = perform(request)
    return Outcome(result, _describe_prediction(result), code)


def evaluate(
    project: ProjectFolder,
    run: ModelRun = "latest",
    on: Annotated[
        list[str] | None, typer.Option(help="validation, test, another part of the split, or a micrograph; repeat it.")
    ] = None,
    device: Device = "auto",
    seed: Seed = 0,
    threads: Threads = None,
) -> Outcome:
    """Class-mean IoU of a run, per class, with a 95 % interval over specimens."""
    with Project.open(project) as opened:
        run_id = opened.run(run).id
    request = EvaluateRequest(
        run_id="evaluate",
        project=project,
        model_run=run_id,
        on=tuple(on or ("validation",)),
        config=PredictConfig(compute=ComputeConfig(device=device, seed=seed, threads=threads)),
    )
    result, code = perform(request)
    return Outcome(result, _describe_evaluation(result), code)


def _describe_training(result: dict[str, Any]) -> str:
    if "mean_iou" not in result:
        return f"Run {result.get('run', '')} stopped before its first validation."
    head = (
        f"Run {result['run']}: mean IoU {format_iou(result['mean_iou'])}{_interval(result)}, "
        f"{result['iterations']} iterations in {result['seconds']:.0f} s on {result['device']}"
    )
    replayed = [result["replay"]["words"]] if "replay" in result else []
    return "\n".join([head, *replayed, *_ground(result), _iou_table(result)])


def _describe_prediction(result: dict[str, Any]) -> str:
    lines = [str(p) for p in result.get("predictions", [])]
    if "seconds" in result:
        lines.append(f"{len(lines)} prediction(s), {result['megapixels']:.1f} megapixels in {result['seconds']:.1f} s")
    return "\n".join(lines)


def _describe_evaluation(result: dict[str, Any]) -> str:
    if "mean_iou" not in result:
        return "Stopped; nothing was measured."
    head = f"mean IoU {format_iou(result['mean_iou'])}{_interval(result)}, {result['n_specimens']} specimen(s)"
    return "\n".join([head, *_ground(result), _iou_table(result)])


def _interval(result: dict[str, Any]) -> str:
    ci = result.get("ci95")
    return f" [{ci[0]:.3f}–{ci[1]:.3f}]" if ci else ""


def _ground(result: dict[str, Any]) -> list[str]:
    """The honest sentence about what was measured."""
    if result.get("note"):
        return [result["note"]]
    return [describe_ground(result["ground"])] if result.get("ground") else []


def _iou_table(result: dict[str, Any]) -> str:
    boundary = result.get("boundary_iou") or {}
    header = ["class", "IoU", *(["boundary IoU"] if boundary else [])]
    rows = [
        [name, format_iou(value), *([format_iou(boundary.get(name))] if boundary else [])]
        for name, value in (result.get("iou") or {}).items()
    ]
    return format_table([header, *rows])
