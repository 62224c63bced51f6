"""Which runs of a project have a model, and what they learnt from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from napari_emtransfer.core.data.tiles import Tile, Window
from napari_emtransfer.session.state import TileGround

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project import Project
    from napari_emtransfer.core.data.run import Run, RunRecord


def newest_model(project: Project) -> RunRecord | None:
    """The newest training run with a checkpoint to predict with: finished, or ended early with its work banked."""
    ended = [r for r in project.runs() if r.kind == "train" and r.status not in ("starting", "running")]
    newest_first = sorted(ended, key=lambda record: record.created, reverse=True)
    return next((record for record in newest_first if project.run(record.id).has_checkpoint), None)


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
        seen = [(run, part) for run in self._runs for part in _training_parts(run, tile)]
        if any(run.labels.read(tile.micrograph, part).any() for run, part in seen):
            return "training tile"
        return "training micrograph" if seen else "held-out"


def _with_ancestors(project: Project, run_id: str) -> Iterator[Run]:
    parents = {record.id: record.parent for record in project.runs()}
    current: str | None = run_id
    while current in parents:
        yield project.run(current)
        current = parents.pop(current)


def _training_parts(run: Run, tile: Tile) -> Iterator[Window]:
    """Parts of a tile that lie on the run's training ground."""
    if not (run.root / "split.json").is_file() or tile.micrograph not in run.labels:
        return
    for region in run.split().train:
        if region.micrograph == tile.micrograph:
            part = tile.window if region.window is None else tile.window.intersection(region.window)
            if part is not None:
                yield part
