"""Which tiles the network of a run was trained on: with its features nothing fair can be measured on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.run import Run
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import ProjectError
from napari_emtransfer.worker.frozen import RUN_PREFIX
from napari_emtransfer.worker.lineage import parent_of
from napari_emtransfer.worker.rank_tiles import TileTable


def trained_on_tiles(project: Project, weights: str, table: TileTable, tiles: Iterable[int]) -> frozenset[int]:
    """Those of `tiles` that "run:ID", or a run that it went on from, was trained on: with a label at its start."""
    if not weights.startswith(RUN_PREFIX):
        return frozenset()
    left, seen = set(tiles), set[int]()
    for run in _with_ancestors(project, project.run(weights.removeprefix(RUN_PREFIX))):
        ground = _training_ground(run)
        seen |= {tile for tile in left if _is_trained_on(run, ground, *_place(table, tile))}
        left -= seen
    return frozenset(seen)


def _with_ancestors(project: Project, run: Run) -> Iterator[Run]:
    yield run
    while (parent := parent_of(project, run)) is not None and parent.record.created < run.record.created:
        yield parent
        run = parent


def _training_ground(run: Run) -> dict[str, list[Window | None]]:
    """Micrograph → its windows that were trained on; None: all of it."""
    ground: defaultdict[str, list[Window | None]] = defaultdict(list)
    try:
        split = run.split()
    except ProjectError:  # it never got as far as training
        return {}
    for region in (*split.train, *(region for fold in split.folds for region in fold.train)):
        ground[region.micrograph].append(region.window)
    return dict(ground)


def _place(table: TileTable, tile: int) -> tuple[str, Window]:
    y0, x0, y1, x1 = map(int, table.windows[tile])
    return str(table.stems[tile]), Window(y0=y0, x0=x0, y1=y1, x1=x1)


def _is_trained_on(run: Run, ground: dict[str, list[Window | None]], stem: str, window: Window) -> bool:
    if stem not in ground or stem not in run.labels:
        return False
    shared = [window if other is None else window.intersection(other) for other in set(ground[stem])]
    return any(run.labels.read(stem, part).any() for part in shared if part is not None)
