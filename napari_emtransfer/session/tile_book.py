"""Tiles of the open project, in memory: their grids, their states, and how much of each is labelled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.data.labels import UNLABELLED
from napari_emtransfer.core.data.tiles import Tile, TileGrid, Window
from napari_emtransfer.session.tile_order import SpecimenOrder

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project import Project
    from napari_emtransfer.core.data.project_records import MicrographRecord, ProjectSettings, TileState

ReadLabels = Callable[[str, Window], NDArray[np.uint8]]
TileKey = tuple[str, int, int]


class TileBook:
    """What is known of every tile of a project.

    `by_specimen` holds the tiles of each specimen in the order in which they are best labelled. Tiles of synthetic
    micrographs are "done" unless said otherwise, and not counted: nobody has to label them.

    Parameters
    ----------
    read_labels
        (stem, window) → labels (h, w); takes the copy in memory where there is one.
    """

    def __init__(self, project: Project, records: Iterable[MicrographRecord], read_labels: ReadLabels) -> None:
        self._project = project
        self._read_labels = read_labels
        self._grids: dict[str, TileGrid] = {}
        self._made_for: dict[str, tuple[ProjectSettings, float | None]] = {}
        self._states: dict[TileKey, TileState] = {}
        self._labelled_whole: set[str] = set()
        self._labelled_some: set[str] = set()
        self._labelled: dict[TileKey, float] = {}
        self._specimens: dict[str, list[str]] = {}
        self._synthetic: set[str] = set()
        self.by_specimen: dict[str, SpecimenOrder] = {}
        self.update(records)

    def update(self, records: Iterable[MicrographRecord]) -> None:
        """Micrographs have come, gone, or changed their specimen or pixel size."""
        before, self._grids, self._specimens = self._grids, {}, defaultdict(list)
        settings = self._project.settings
        made_for, self._made_for = self._made_for, {}
        self._synthetic.clear()
        for record in records:
            stem = record.stem
            if record.synthetic:
                self._synthetic.add(stem)
            self._specimens[record.specimen].append(stem)
            self._made_for[stem] = (settings, record.pixel_size_nm)  # what a grid depends on
            if made_for.get(stem) == self._made_for[stem]:
                self._grids[stem] = before[stem]
            else:
                self._grids[stem] = self._project.tile_grid(stem)
                self._read_states(stem)
        self.by_specimen = {
            specimen: SpecimenOrder([self._grids[stem] for stem in stems])
            for specimen, stems in self._specimens.items()
        }

    def forget_labels(self, stems: Iterable[str]) -> None:
        """Labels and states of these micrographs were written by somebody else: read them again."""
        for stem in set(stems) & self._grids.keys():
            self._read_states(stem)

    def grid(self, stem: str) -> TileGrid:
        """The tile grid of a micrograph, in native pixels."""
        return self._grids[stem]

    def find(self, stem: str, key: str, row: int, column: int) -> Tile | None:
        """The tile of a cell of the grid `key`; None where the micrograph is gone or has another grid by now."""
        grid = self._grids.get(stem)
        return grid.tile(row, column) if grid is not None and grid.key == key else None

    def knows(self, tile: Tile) -> bool:
        """Whether the tile is still one of the project's."""
        grid = self._grids.get(tile.micrograph)
        return (
            grid is not None
            and tile.row < grid.n_rows
            and tile.column < grid.n_columns
            and grid.tile(tile.row, tile.column) == tile
        )

    def specimen_of(self, stem: str) -> str | None:
        """The specimen that a micrograph shows."""
        return next((specimen for specimen, stems in self._specimens.items() if stem in stems), None)

    def state(self, tile: Tile) -> TileState:
        """The state of a tile; on a micrograph that came with all its pixels labelled, "done" unless said otherwise."""
        stem = tile.micrograph
        default: TileState = "done" if stem in self._labelled_whole or stem in self._synthetic else "unlabelled"
        return self._states.get(_key(tile), default)

    def states(self, stem: str) -> dict[tuple[int, int], TileState]:
        """(row, column) → state for every tile of a micrograph."""
        return {(tile.row, tile.column): self.state(tile) for tile in self._grids[stem]}

    def set_state(self, tile: Tile, state: TileState) -> None:
        """Remember a state; writing it is the autosave's work."""
        self._states[_key(tile)] = state

    def labelled_fraction(self, tile: Tile) -> float:
        """Labelled part of a tile, 0..1; counted once and remembered until the tile is painted on."""
        key = _key(tile)
        if key not in self._labelled:
            self._labelled[key] = float(np.mean(self._read_labels(tile.micrograph, tile.window) != UNLABELLED))
        return self._labelled[key]

    def painted(self, stem: str, window: Window) -> list[Tile]:
        """Labels in this window have changed; returns the tiles concerned."""
        grid = self._grids[stem]
        first, last = grid.tile_at(window.y0, window.x0), grid.tile_at(window.y1 - 1, window.x1 - 1)
        rows, columns = range(first.row, last.row + 1), range(first.column, last.column + 1)
        tiles = [grid.tile(row, column) for row in rows for column in columns]
        for tile in tiles:
            self._labelled.pop(_key(tile), None)
        self._labelled_some.add(stem)
        return tiles

    @property
    def has_labels(self) -> bool:
        """Whether any real micrograph has been labelled, be it that all of it was erased since."""
        return bool(self._labelled_some & self._counted)

    @property
    def n_tiles(self) -> int:
        """Number of tiles in the project that are to be labelled."""
        return sum(len(self._grids[stem]) for stem in self._counted)

    @property
    def n_done(self) -> int:
        """Number of tiles that the user has called done."""
        counted = self._counted
        whole = self._labelled_whole & counted
        n_stated = sum(state == "done" and key[0] in counted for key, state in self._states.items())
        n_otherwise = sum(key[0] in whole for key in self._states)
        return n_stated + sum(len(self._grids[stem]) for stem in whole) - n_otherwise

    @property
    def _counted(self) -> set[str]:
        return self._grids.keys() - self._synthetic

    def _read_states(self, stem: str) -> None:
        self._labelled = {key: value for key, value in self._labelled.items() if key[0] != stem}
        self._states = {key: value for key, value in self._states.items() if key[0] != stem}
        states = self._project.tile_states(stem)
        self._states |= {(stem, row, column): state for (row, column), state in states.items()}
        fraction = self._project.annotations.labelled_fraction(stem)
        for stems, is_one in ((self._labelled_whole, fraction == 1), (self._labelled_some, fraction > 0)):
            (stems.add if is_one else stems.discard)(stem)


def _key(tile: Tile) -> TileKey:
    return tile.micrograph, tile.row, tile.column
