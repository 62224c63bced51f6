"""Which runs of a project have a model, what they learnt from, and settings for others like them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.tiles import Tile
from napari_emtransfer.session.state import TileGround

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project import Project
    from napari_emtransfer.core.data.run import Run, RunRecord
    from napari_emtransfer.core.data.splits import Region


def newest_model(project: Project) -> RunRecord | None:
    """The newest training run with a checkpoint to predict with: finished, or ended early with its work banked."""
    return _newest(project, lambda run: run.has_checkpoint)


def newest_to_go_on_from(project: Project) -> RunRecord | None:
    """The newest training run whose best checkpoint another training can start from."""
    return _newest(project, lambda run: run.starting_point() is not None)


def _newest(project: Project, suits: Callable[[Run], bool]) -> RunRecord | None:
    ended = [r for r in project.runs() if r.kind == "train" and r.status not in ("starting", "running")]
    newest_first = sorted(ended, key=lambda record: record.created, reverse=True)
    return next((record for record in newest_first if suits(project.run(record.id))), None)


def settings_of(project: Project, run_id: str) -> TrainConfig:
    """The settings that a run was started with, for another run like it."""
    return TrainConfig.model_validate(project.run(run_id).config)


def ground_to_keep(project: Project, run: Run) -> set[str]:
    """Micrographs that a run held out whole by its own choice, which one that goes on from it holds out, too.

    None where all of them are synthetic and real ones are labelled by now: real ones are measured on then.
    """
    before = TrainConfig.model_validate(run.config)
    if before.split is not None or before.folds is not None:
        return set()
    held_out = {region.micrograph for region in run.split().validation if region.window is None}
    made = {record.stem for record in project.micrographs() if record.synthetic}
    if held_out <= made and any(share for stem, share in project.labelled().items() if stem not in made):
        return set()
    return held_out


def settings_to_go_on(project: Project, run_id: str) -> TrainConfig:
    """Settings of a run that goes on from the best checkpoint of another one, on the same held-out ground.

    A ground that the earlier run has learnt from would flatter: where it chose its own, its micrographs are named.
    What it chose for its own weights (strategy, norms, rate of the encoder) is left to the program.
    """
    run = project.run(run_id)
    before = TrainConfig.model_validate(run.config)
    held_out = ground_to_keep(project, run)
    return before.model_copy(
        update={
            "strategy": "auto",
            "normalization": "auto",
            "freeze": "none",
            "weights": f"run:{run.id}",
            "encoder_learning_rate": None,
            "confirm_uniform_rate": False,
            "train": (),
            "validation": tuple(sorted(held_out)),
        }
    )


class TrainingGround:
    """What the model of a run has learnt from, in this run and in all those that it went on from."""

    def __init__(self, project: Project, run_id: str) -> None:
        self._runs = list(_with_ancestors(project, run_id))
        self._known: dict[Tile, TileGround] = {}

    def of(self, tile: Tile) -> TileGround:
        """On what ground an IoU on this tile stands."""
        if tile not in self._known:
            self._known[tile] = self._look(tile)
        return self._known[tile]

    def _look(self, tile: Tile) -> TileGround:
        seen = [(run, region) for run in self._runs for region in _training_regions(run, tile.micrograph)]
        if any(_learnt_from(run, region, tile) for run, region in seen):
            return "training tile"
        return "training micrograph" if seen else "held-out"


def _with_ancestors(project: Project, run_id: str) -> Iterator[Run]:
    parents = {record.id: record.parent for record in project.runs()}
    current: str | None = run_id
    while current in parents:
        yield project.run(current)
        current = parents.pop(current)


def _training_regions(run: Run, stem: str) -> list[Region]:
    if not (run.root / "split.json").is_file() or stem not in run.labels:
        return []
    return [region for region in run.split().train if region.micrograph == stem]


def _learnt_from(run: Run, region: Region, tile: Tile) -> bool:
    """Whether labels of this tile were among those that the run was trained on."""
    part = tile.window if region.window is None else tile.window.intersection(region.window)
    return part is not None and bool(run.labels.read(tile.micrograph, part).any())
