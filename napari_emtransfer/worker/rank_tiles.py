"""All tiles of a project that are to be labelled, as arrays: 10⁵ of them are handled at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.project_records import MicrographRecord, scale_of
from napari_emtransfer.core.data.resample import working_shape
from napari_emtransfer.core.data.tiles import TileGrid, Window

# Tiles whose features are computed and kept together: a second's work on a slow computer.
PIECE_TILES: Final = 8
# A tile that shows less of the micrograph than this share of its lattice is a piece of data bar.
_LEAST_KEPT: Final = 0.5


class Piece(NamedTuple):
    """Neighbours in one micrograph: `start` to `stop` of the table."""

    micrograph: int
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class TileTable:
    """n tiles of the real micrographs of a project, in reading order.

    Parameters
    ----------
    records, grids
        The micrographs, and how each is cut into tiles.
    micrographs
        (n,) Index into `records`.
    rows, columns
        (n,) Place on the grid.
    windows
        (n, 4) y0, x0, y1, x1 in native pixels.
    shapes
        (m, 2) Shape of each micrograph as the network sees it.
    """

    records: tuple[MicrographRecord, ...]
    grids: tuple[TileGrid, ...]
    micrographs: NDArray[np.intp]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    windows: NDArray[np.int64]
    shapes: NDArray[np.int64]

    @classmethod
    def of(cls, project: Project, working_nm: float | None) -> Self:
        """The tiles of `project`, for a network that wants pixels of `working_nm`. Synthetic micrographs have none."""
        all_grids = project.tile_grids()
        records = tuple(record for record in project.micrographs() if not record.synthetic)
        grids = tuple(all_grids[record.stem] for record in records)
        wanted = project.settings.model_copy(update={"working_pixel_size_nm": working_nm})
        shapes = [working_shape(record.shape, scale_of(record, wanted)) for record in records]
        sizes = [len(grid) for grid in grids]
        places = [np.divmod(np.arange(len(grid)), grid.n_columns) for grid in grids]
        return cls(
            records,
            grids,
            np.repeat(np.arange(len(grids)), sizes),
            _joined([rows for rows, _ in places]),
            _joined([columns for _, columns in places]),
            np.concatenate([np.zeros((0, 4), np.int64), *(grid.windows() for grid in grids)]),
            np.array(shapes, np.int64).reshape(-1, 2),
        )

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(m + 1,) Where the tiles of each micrograph begin, and the end."""
        return np.searchsorted(self.micrographs, np.arange(len(self.records) + 1))

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Stem → index into `records`."""
        return {record.stem: i for i, record in enumerate(self.records)}

    @cached_property
    def stems(self) -> NDArray[np.str_]:
        """(n,) Stem of the micrograph of each tile."""
        return np.array([record.stem for record in self.records], np.str_)[self.micrographs]

    @cached_property
    def specimens(self) -> NDArray[np.intp]:
        """(n,) Number of the specimen of each tile."""
        names = [record.specimen for record in self.records]
        order = {name: i for i, name in enumerate(dict.fromkeys(names))}
        return np.array([order[name] for name in names], np.intp)[self.micrographs]

    def specimen(self, tile: int) -> str:
        """Name of the specimen of one tile."""
        return self.records[int(self.micrographs[tile])].specimen

    def index(self, stem: str, row: int, column: int) -> int | None:
        """Place of a tile in the table; None where it is none of these."""
        number = self.numbers.get(stem)
        if number is None:
            return None
        grid = self.grids[number]
        inside = 0 <= row < grid.n_rows and 0 <= column < grid.n_columns
        return int(self.starts[number]) + row * grid.n_columns + column if inside else None

    def indices(self, cells: Sequence[tuple[str, int, int]]) -> NDArray[np.intp]:
        """Places in the table of those cells that are in it."""
        found = (self.index(*cell) for cell in cells)
        return np.array([i for i in found if i is not None], np.intp)

    def pieces(self, *, whole: bool = False) -> Iterator[Piece]:
        """Runs of at most eight neighbours in a row, or `whole` micrographs, in the order of the table."""
        for number, grid in enumerate(self.grids):
            if whole:
                yield Piece(number, *map(int, self.starts[number : number + 2]))
                continue
            for row in range(grid.n_rows):
                first = int(self.starts[number]) + row * grid.n_columns
                for start in range(first, first + grid.n_columns, PIECE_TILES):
                    yield Piece(number, start, min(start + PIECE_TILES, first + grid.n_columns))

    # ---- places of pixels

    @cached_property
    def working_windows(self) -> NDArray[np.int64]:
        """(n, 4) The working pixels that cover each tile."""
        native = np.array([record.shape for record in self.records], np.int64).reshape(-1, 2)[self.micrographs]
        working = self.shapes[self.micrographs]
        low = self.windows[:, :2] * working // native
        high = -(-self.windows[:, 2:] * working // native)
        return np.concatenate([low, high], axis=1)

    def working_window(self, tile: int) -> Window:
        """As `working_windows`, of one tile."""
        y0, x0, y1, x1 = map(int, self.working_windows[tile])
        return Window(y0=y0, x0=x0, y1=y1, x1=x1)

    def native_pixels(self, number: int, points: NDArray[np.int64]) -> NDArray[np.int64]:
        """Working pixels (…, 2) of one micrograph → the native pixels that hold their centres."""
        native = np.array(self.records[number].shape, np.int64)
        working = self.shapes[number]
        return (2 * points + 1) * native // (2 * working)

    def working_pixels(self, number: int, points: NDArray[np.int64]) -> NDArray[np.int64]:
        """Native pixels (…, 2) of one micrograph → the working pixels that hold their centres."""
        native = np.array(self.records[number].shape, np.int64)
        working = self.shapes[number]
        return (2 * points + 1) * working // (2 * native)

    def outside_bar(self, number: int, points: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether working pixels (…, 2) of one micrograph show the specimen, and not a data bar."""
        bar = self.records[number].info_bar
        if bar is None:
            return np.ones(points.shape[:-1], np.bool_)
        y, x = np.moveaxis(self.native_pixels(number, points), -1, 0)
        return ~((y >= bar.y0) & (y < bar.y1) & (x >= bar.x0) & (x < bar.x1))

    @cached_property
    def share_shown(self) -> NDArray[np.float64]:
        """(n,) Share of each tile's area that is not data bar."""
        share = np.ones(len(self))
        for number, record in enumerate(self.records):
            if record.info_bar is not None:
                here = slice(*self.starts[number : number + 2])
                share[here] = _share_outside(self.windows[here], record.info_bar)
        return share

    @cached_property
    def shows_specimen(self) -> NDArray[np.bool_]:
        """(n,) Tiles that are not, for the greater part, data bar."""
        return self.share_shown >= _LEAST_KEPT


def in_turn(records: Sequence[MicrographRecord], first: str | None) -> list[int]:
    """Order in which micrographs are looked at: `first`, then the first of each specimen, then the second of each."""
    seen: defaultdict[str, int] = defaultdict(int)
    keys: list[tuple[bool, int, int]] = []
    for number, record in enumerate(records):
        keys.append((record.stem != first, seen[record.specimen], number))
        seen[record.specimen] += 1
    return [number for *_, number in sorted(keys)]


def _joined(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _share_outside(windows: NDArray[np.int64], bar: Window) -> NDArray[np.float64]:
    """(n, 4) → share of the area of each that is not in `bar`."""
    y0, x0, y1, x1 = windows.T
    covered = np.clip(np.minimum(y1, bar.y1) - np.maximum(y0, bar.y0), 0, None)
    covered = covered * np.clip(np.minimum(x1, bar.x1) - np.maximum(x0, bar.x0), 0, None)
    share: NDArray[np.float64] = 1 - covered / ((y1 - y0) * (x1 - x0))
    return share
