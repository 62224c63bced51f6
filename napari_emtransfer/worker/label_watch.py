"""What of a project's labels has changed since one looked last: only those tiles are read again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.data.annotation import CHUNK_PX
from napari_emtransfer.core.data.annotation_counts import Stamp, chunk_files
from napari_emtransfer.core.data.labels import IGNORE_INDEX, to_targets
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.project_records import MicrographRecord
from napari_emtransfer.core.data.tiles import Tile, TileGrid

T = TypeVar("T")

Place = tuple[int, int]
"""(row, column) of a tile in the grid of its micrograph."""


@dataclass(frozen=True)
class LabelledTile(Generic[T]):
    """A tile with labels: a digest of them, and what was gathered from them."""

    digest: bytes
    gathered: T


@dataclass
class _Known(Generic[T]):
    """What has been read of one micrograph: its grid then, its chunks and the tiles that had labels."""

    record: MicrographRecord
    grid: TileGrid
    stamps: dict[str, Stamp] = field(default_factory=dict)
    tiles: dict[Place, LabelledTile[T]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Change:
    """Chunks of one micrograph that are other than they were, with their stamps now, and the tiles that meet them."""

    record: MicrographRecord
    stamps: Mapping[str, Stamp | None]
    tiles: tuple[Tile, ...]


class LabelWatch(Generic[T]):
    """Labelled tiles of the real micrographs of a project, and what is gathered from each.

    Synthetic micrographs are left out: they are labelled whole, and a few strokes would drown among them.

    Parameters
    ----------
    n_classes
        Labels above it are of no class and left out.
    gather
        Called for each tile whose labels have changed, with its targets (h, w): class indices, 255 = unlabelled.
    """

    def __init__(
        self, n_classes: int, gather: Callable[[Project, MicrographRecord, Tile, NDArray[np.uint8]], T]
    ) -> None:
        self._n_classes = n_classes
        self._gather = gather
        self._known: dict[str, _Known[T]] = {}

    def read(
        self,
        project: Project,
        grid_of: Callable[[MicrographRecord], TileGrid | None],
        should_stop: Callable[[], bool],
        on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        """Take in what was painted or erased since the last call: only chunks that changed are read.

        When stopped, the rest is read by the next call. Micrographs without a grid are passed over until they have one.
        `on_progress` is told the tiles done and those in all.
        """
        records = {record.stem: record for record in project.micrographs() if not record.synthetic}
        self._known = {stem: known for stem, known in self._known.items() if records.get(stem) == known.record}
        changes = [change for record in records.values() for change in self._changes(project, record, grid_of)]
        n_done, n_all = 0, sum(len(change.tiles) for change in changes)
        for change in changes:
            for tile in change.tiles:
                if should_stop():
                    return
                on_progress(n_done, n_all)
                self._read_tile(project, change.record, tile)
                n_done += 1
            self._remember(change)

    def tiles(self) -> Iterator[tuple[str, Place, LabelledTile[T]]]:
        """(Micrograph, place, what is known) of each labelled tile, in this order."""
        for stem, known in sorted(self._known.items()):
            for place, tile in sorted(known.tiles.items()):
                yield stem, place, tile

    def _changes(
        self, project: Project, record: MicrographRecord, grid_of: Callable[[MicrographRecord], TileGrid | None]
    ) -> Iterator[_Change]:
        files = chunk_files(project.annotations.root / record.stem)
        known = self._known.get(record.stem)
        before = known.stamps if known is not None else {}
        names = (name for name in before.keys() | files.keys() if before.get(name) != files.get(name))
        changed = {name: files.get(name) for name in names}
        if not changed:
            return
        grid = grid_of(record)
        if grid is None:
            return
        if known is None:
            self._known[record.stem] = _Known(record, grid)
        places = sorted({place for name in changed for place in _places_of_chunk(name, record, grid)})
        yield _Change(record, changed, tuple(grid.tile(*place) for place in places))

    def _remember(self, change: _Change) -> None:
        stamps = self._known[change.record.stem].stamps
        for name, stamp in change.stamps.items():
            if stamp is not None:
                stamps[name] = stamp
            else:
                del stamps[name]

    def _read_tile(self, project: Project, record: MicrographRecord, tile: Tile) -> None:
        tiles, place = self._known[record.stem].tiles, (tile.row, tile.column)
        targets = targets_of(project, tile, self._n_classes)
        if (targets == IGNORE_INDEX).all():
            tiles.pop(place, None)
            return
        digest = digest_of(targets)
        known = tiles.get(place)
        if known is None or known.digest != digest:
            tiles[place] = LabelledTile(digest, self._gather(project, record, tile, targets))


def targets_of(project: Project, tile: Tile, n_classes: int) -> NDArray[np.uint8]:
    """Targets (h, w) of a tile in native pixels: class indices, 255 = unlabelled or of no class."""
    targets = to_targets(project.annotations.read(tile.micrograph, tile.window))
    targets[targets >= n_classes] = IGNORE_INDEX
    return targets


def digest_of(targets: NDArray[np.uint8]) -> bytes:
    """What tells these labels from others."""
    return hashlib.sha256(targets.tobytes()).digest()


def _places_of_chunk(name: str, record: MicrographRecord, grid: TileGrid) -> list[Place]:
    """Tiles that meet a chunk file of the annotation, by its name "c.ROW.COLUMN"."""
    height, width = record.shape
    y, x = (int(index) * CHUNK_PX for index in name.split(".")[1:])
    first = grid.tile_at(y, x)
    last = grid.tile_at(min(y + CHUNK_PX, height) - 1, min(x + CHUNK_PX, width) - 1)
    rows, columns = range(first.row, last.row + 1), range(first.column, last.column + 1)
    return [(row, column) for row in rows for column in columns]
