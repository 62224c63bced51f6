"""Which network of an earlier run another one goes on from, and what that one had been trained on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.run import Run
from napari_emtransfer.core.data.split import Region, Split
from napari_emtransfer.core.errors import WeightsError
from napari_emtransfer.core.nn import store
from napari_emtransfer.core.rates import learning_rate


def parent_of(project: Project, run: Run) -> Run | None:
    """The run whose weights `run` goes on from, by name or by the path of a checkpoint, where the project has it."""
    weights = str(run.config.get("weights", ""))
    if weights.startswith("run:"):
        ref: str | None = weights.removeprefix("run:")
    else:
        ref = _owner_of(project, weights) or run.record.parent
    return project.run(ref) if ref in {record.id for record in project.runs()} else None


def _owner_of(project: Project, weights: str) -> str | None:
    """Id of the run in whose folder a file of weights lies."""
    path, runs = Path(weights).resolve(), project.root.resolve() / "runs"
    return path.relative_to(runs).parts[0] if path.is_relative_to(runs) and path != runs else None


def inherited_encoder_rate(project: Project, config: TrainConfig) -> float | None:
    """The encoder's rate that measured best for the weights of `config`, or those that its runs began with.

    None where they state none, or where the lineage cannot be followed to its beginning.
    """
    weights, encoder = config.weights, config.encoder
    for _ in project.runs():
        if not weights.startswith("run:"):
            break
        parent = project.run(weights.removeprefix("run:")).config
        weights, encoder = str(parent.get("weights", "none")), str(parent.get("encoder", encoder))
    rate = store.stated_encoder_rate(weights, encoder)
    # Of weights that have been trained since nobody measured that the encoder may overtake the decoder.
    return rate if rate is None or weights == config.weights else min(rate, learning_rate(config))


def start_of(project: Project, parent: Run, measured: Iterable[Region]) -> tuple[Path | None, int | None]:
    """The checkpoint of `parent` to go on from, and its fold.

    Of a run with folds a network that has never seen a specimen of the ground `measured`, so that the figure stays
    honest from round to round; where there is none, the best one, and no fold.
    """
    specimens = {record.stem: record.specimen for record in project.micrographs()}
    wanted = {specimens.get(region.micrograph, region.micrograph) for region in measured}
    finished = [k for k, folder in parent.fold_folders().items() if (folder / "result.json").is_file()]
    for k in finished:
        known = {specimens.get(region.micrograph, region.micrograph) for region in trained_on(project, parent, k)}
        if not wanted & known:
            return parent.fold_folder(k) / "best.safetensors", k
    return parent.starting_point(), None


def no_checkpoint(parent: Run) -> WeightsError:
    """For a run that nothing can go on from."""
    return WeightsError(f"The run {parent.id} has no best checkpoint to go on from.", "Choose another run.")


def measured_on(split: Split, fold: int | None) -> tuple[Region, ...]:
    """The ground that a network is judged on: what its fold holds out, or the validation part."""
    return split.validation if fold is None else split.folds[fold].held_out


def trained_on(project: Project, run: Run, fold: int | None = None) -> tuple[Region, ...]:
    """What the network of one fold of `run` was trained on, here and in the runs that it went on from.

    Without a fold, what any network of the run was.
    """
    split = run.split()
    own = split.train if fold is None else split.folds[fold].train
    return (*own, *inherited(project, run, fold))


def inherited(project: Project, run: Run, fold: int | None = None) -> tuple[Region, ...]:
    """What the weights that a network of `run` started from had been trained on."""
    parent = parent_of(project, run)
    if parent is None or parent.record.created >= run.record.created:  # a run never goes on from a later one
        return ()
    split = run.split()
    if split.folds and fold is None:
        return trained_on(project, parent)
    return trained_on(project, parent, _started_from(project, run, parent, measured_on(split, fold)))


def _started_from(project: Project, run: Run, parent: Run, measured: tuple[Region, ...]) -> int | None:
    """The fold of `parent` whose network one of `run` started from; None for all of them together."""
    path = Path(str(run.config.get("weights", "")))
    if path.suffix:
        folds = {folder.name: k for k, folder in parent.fold_folders().items()}
        return folds.get(path.parent.name)
    return start_of(project, parent, measured)[1]
