"""What the engine keeps between two strokes: features of tiles, and the labelled pixels that it has gathered."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.data.annotation import CHUNK_PX
from napari_emtransfer.core.data.annotation_counts import Stamp, chunk_files
from napari_emtransfer.core.data.intensity import Standardization
from napari_emtransfer.core.data.labels import IGNORE_INDEX, to_targets
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.project_records import MicrographRecord
from napari_emtransfer.core.data.resample import WorkingView
from napari_emtransfer.core.data.tiles import Tile, TileGrid, Window
from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.core.nn.feature_cache import FeatureCache, Features, feature_key
from napari_emtransfer.core.nn.features import FeatureSource, with_relative
from napari_emtransfer.core.nn.live import MAX_TILE_PIXELS, LabelledPixels, balanced
from napari_emtransfer.worker.models import open_for, working_view

# Of the tiles looked at last; the others are mapped from the disk again.
_TILES_IN_MEMORY: Final = 6


@dataclass
class _Labelled:
    """Labels of one tile as they were, and the pixels gathered from it."""

    digest: bytes
    pixels: LabelledPixels


@dataclass
class _Ground:
    """One micrograph: its view, its tiles, and what of its labels has been read."""

    record: MicrographRecord
    view: WorkingView
    grid: TileGrid
    statistics: Features | None = None
    stamps: dict[str, Stamp] = field(default_factory=dict)
    tiles: dict[tuple[int, int], _Labelled] = field(default_factory=dict)

    def tile_window(self, tile: Tile) -> Window:
        """The working pixels that cover a tile."""
        return self.view.to_working(tile.window)


# A micrograph, the name of a chunk file of its annotation, and the chunk's stamp now; None where it is gone.
_Change = tuple[MicrographRecord, str, Stamp | None]


class LiveState:
    """Features and labelled pixels of one project, as one source of features sees it.

    Parameters
    ----------
    recipe
        Standardisation and working pixel size of the micrographs.
    n_classes
        Labels above it are of no class and left out.
    on_fault
        Told once of each micrograph that cannot be opened now: its labels are left out until it can.
    """

    def __init__(
        self,
        source: FeatureSource,
        cache: FeatureCache,
        standardization: Standardization,
        working_pixel_size_nm: float | None,
        *,
        n_classes: int,
        seed: int,
        on_fault: Callable[[EMTransferError], None] = lambda _error: None,
    ) -> None:
        self._source = source
        self._cache = cache
        self._standardization = standardization
        self._working_nm = working_pixel_size_nm
        self._n_classes = n_classes
        self._seed = seed
        self._on_fault = on_fault
        self._unopened: set[str] = set()
        self._grounds: dict[str, _Ground] = {}
        self._recent: OrderedDict[str, Features] = OrderedDict()

    # ---- labelled pixels

    def read_labels(
        self,
        project: Project,
        should_stop: Callable[[], bool],
        on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        """Gather what was painted or erased since the last call: only chunks that changed are read.

        Synthetic micrographs are left out: they are labelled whole, and a few strokes would drown among them.
        When stopped, the rest is read by the next call. `on_progress` is told the chunks done and those in all.
        """
        records = {record.stem: record for record in project.micrographs()}
        self._grounds = {stem: ground for stem, ground in self._grounds.items() if records.get(stem) == ground.record}
        real = [record for record in records.values() if not record.synthetic]
        changed = [change for record in real for change in self._changes(project, record)]
        for n_done, (record, chunk, stamp) in enumerate(changed):
            if should_stop():
                return
            on_progress(n_done, len(changed))
            if self._opens(project, record):
                self._read_chunk(project, record, chunk, stamp)

    def labelled_pixels(self, stem: str, window: Window) -> list[LabelledPixels]:
        """All that was gathered; that of tiles in `window` (native) of the micrograph `stem` is marked as in view."""
        return [
            LabelledPixels(
                labelled.pixels.features,
                labelled.pixels.classes,
                name == stem and ground.grid.tile(*place).window.intersection(window) is not None,
            )
            for name, ground in sorted(self._grounds.items())
            for place, labelled in sorted(ground.tiles.items())
        ]

    def _changes(self, project: Project, record: MicrographRecord) -> Iterator[_Change]:
        files = chunk_files(project.annotations.root / record.stem)
        known = self._grounds.get(record.stem)
        stamps = known.stamps if known is not None else {}
        for name in sorted(stamps.keys() | files.keys()):
            if stamps.get(name) != files.get(name):
                yield record, name, files.get(name)

    def _opens(self, project: Project, record: MicrographRecord) -> bool:
        """Whether a micrograph can be opened: one on a drive that was removed is no reason to stand still."""
        try:
            self.ground(project, record)
        except EMTransferError as error:
            if record.stem not in self._unopened:
                self._on_fault(error)
            self._unopened.add(record.stem)
            return False
        self._unopened.discard(record.stem)
        return True

    def _read_chunk(self, project: Project, record: MicrographRecord, name: str, stamp: Stamp | None) -> None:
        ground = self.ground(project, record)
        for tile in _tiles_of_chunk(name, ground):
            self._read_tile(project, ground, tile)
        if stamp is not None:
            ground.stamps[name] = stamp
        else:
            del ground.stamps[name]

    def _read_tile(self, project: Project, ground: _Ground, tile: Tile) -> None:
        place = tile.row, tile.column
        targets = to_targets(project.annotations.read(tile.micrograph, tile.window))
        targets[targets >= self._n_classes] = IGNORE_INDEX
        digest = hashlib.sha256(targets.tobytes()).digest()
        known = ground.tiles.get(place)
        if (targets == IGNORE_INDEX).all():
            ground.tiles.pop(place, None)
        elif known is None or known.digest != digest:
            ground.tiles[place] = _Labelled(digest, self._gathered(ground, tile, targets))

    def _gathered(self, ground: _Ground, tile: Tile, targets: NDArray[np.uint8]) -> LabelledPixels:
        """Features of the labelled pixels of a tile; where many are, of some of each class."""
        y, x = np.nonzero(targets != IGNORE_INDEX)
        place, features = ground.tile_window(tile), self.features(ground, tile)
        (native_h, native_w), (height, width) = ground.view.micrograph.shape, ground.view.shape
        # The working pixel that a native pixel's centre lies in; in whole numbers.
        rows = (2 * (y + tile.window.y0) + 1) * height // (2 * native_h) - place.y0
        columns = (2 * (x + tile.window.x0) + 1) * width // (2 * native_w) - place.x0
        found = LabelledPixels(np.asarray(features[:, rows, columns]).T, targets[y, x])
        return LabelledPixels(*balanced([found], MAX_TILE_PIXELS, seed=self._seed))

    # ---- features

    def ground(self, project: Project, record: MicrographRecord) -> _Ground:
        """One micrograph, opened anew when something about it has changed."""
        known = self._grounds.get(record.stem)
        if known is None or known.record != record:
            view = working_view(open_for(project, record.stem), self._standardization, self._working_nm)
            known = self._grounds[record.stem] = _Ground(record, view, project.tile_grid(record.stem))
        return known

    def features(self, ground: _Ground, tile: Tile) -> Features:
        """Features (2F, h, w) of the working pixels that cover a tile: as they are, and relative to the micrograph."""
        window = ground.tile_window(tile)
        key = self._key(ground, window.model_dump())
        if key not in self._recent:
            if ground.statistics is None:
                where = self._key(ground, "statistics")
                ground.statistics = self._cache.get(where, lambda: self._source.statistics(ground.view))
            found = self._cache.get(key, lambda: self._source(ground.view, window))
            self._recent[key] = with_relative(found, ground.statistics)
        self._recent.move_to_end(key)
        while len(self._recent) > _TILES_IN_MEMORY:
            self._recent.popitem(last=False)
        return self._recent[key]

    def _key(self, ground: _Ground, what: Any) -> str:
        record = ground.record
        return feature_key(
            source=self._source.fingerprint,
            intensity=ground.view.intensity.model_dump(),
            checksum=record.checksum,
            frame=record.frame,
            shape=ground.view.shape,
            what=what,
        )

    def pieces(self, ground: _Ground, window: Window) -> Iterator[tuple[Tile, Window, Features]]:
        """Tiles that meet `window` (native), the working pixels that cover each, and their features."""
        first, last = (ground.grid.tile_at(y, x) for y, x in ((window.y0, window.x0), (window.y1 - 1, window.x1 - 1)))
        for row in range(first.row, last.row + 1):
            for column in range(first.column, last.column + 1):
                tile = ground.grid.tile(row, column)
                yield tile, ground.tile_window(tile), self.features(ground, tile)


def _tiles_of_chunk(name: str, ground: _Ground) -> list[Tile]:
    """Tiles that meet a chunk file of the annotation, by its name "c.ROW.COLUMN"."""
    height, width = ground.record.shape
    y, x = (int(index) * CHUNK_PX for index in name.split(".")[1:])
    first = ground.grid.tile_at(y, x)
    last = ground.grid.tile_at(min(y + CHUNK_PX, height) - 1, min(x + CHUNK_PX, width) - 1)
    return [
        ground.grid.tile(row, column)
        for row in range(first.row, last.row + 1)
        for column in range(first.column, last.column + 1)
    ]
