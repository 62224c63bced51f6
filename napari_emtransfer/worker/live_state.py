"""What the engine keeps between two strokes: features of tiles, and the labelled pixels that it has gathered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.data.intensity import Standardization
from napari_emtransfer.core.data.labels import IGNORE_INDEX
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.project_records import MicrographRecord
from napari_emtransfer.core.data.resample import WorkingView
from napari_emtransfer.core.data.tiles import Tile, TileGrid, Window
from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.core.nn.feature_cache import FeatureCache, Features, feature_key
from napari_emtransfer.core.nn.features import FeatureSource, with_relative
from napari_emtransfer.core.nn.live import MAX_TILE_PIXELS, LabelledPixels, balanced
from napari_emtransfer.worker.label_watch import LabelWatch
from napari_emtransfer.worker.models import open_for, working_view

# Of the tiles looked at last; the others are mapped from the disk again.
_TILES_IN_MEMORY: Final = 6


@dataclass
class _Ground:
    """One micrograph: its view and its tiles."""

    record: MicrographRecord
    view: WorkingView
    grid: TileGrid
    statistics: Features | None = None

    def tile_window(self, tile: Tile) -> Window:
        """The working pixels that cover a tile."""
        return self.view.to_working(tile.window)


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
        self._labels = LabelWatch(n_classes, self._gathered)
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
        When stopped, the rest is read by the next call. `on_progress` is told the tiles done and those in all.
        """
        records = {record.stem: record for record in project.micrographs()}
        self._grounds = {stem: ground for stem, ground in self._grounds.items() if records.get(stem) == ground.record}
        self._labels.read(project, lambda record: self._opened_grid(project, record), should_stop, on_progress)

    def labelled_pixels(self, stem: str, window: Window) -> list[LabelledPixels]:
        """All that was gathered; that of tiles in `window` (native) of the micrograph `stem` is marked as in view."""
        return [
            LabelledPixels(
                tile.gathered.features,
                tile.gathered.classes,
                name == stem and self._grounds[name].grid.tile(*place).window.intersection(window) is not None,
            )
            for name, place, tile in self._labels.tiles()
        ]

    def _opened_grid(self, project: Project, record: MicrographRecord) -> TileGrid | None:
        """The grid, if a micrograph can be opened: one on a drive that was removed is no reason to stand still."""
        try:
            grid = self.ground(project, record).grid
        except EMTransferError as error:
            if record.stem not in self._unopened:
                self._on_fault(error)
            self._unopened.add(record.stem)
            return None
        self._unopened.discard(record.stem)
        return grid

    def _gathered(
        self, project: Project, record: MicrographRecord, tile: Tile, targets: NDArray[np.uint8]
    ) -> LabelledPixels:
        """Features of the labelled pixels of a tile; where many are, of some of each class."""
        ground = self.ground(project, record)
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
