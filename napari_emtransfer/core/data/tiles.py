"""Windows and the tile grid: how a micrograph is cut into pieces that a person can label one at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

# Of the edges of n cells, those where cells start and where they end.
_STARTS_ENDS = (slice(None, -1), slice(1, None))


class Window(BaseModel):
    """A half-open rectangle of pixels, rows y0..y1 and columns x0..x1."""

    model_config = ConfigDict(frozen=True)
    y0: int = Field(ge=0)
    x0: int = Field(ge=0)
    y1: int
    x1: int

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of this window into an array (H, W)."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def intersection(self, other: Window) -> Window | None:
        """The common part of two windows, or None where they do not meet."""
        y0, x0 = max(self.y0, other.y0), max(self.x0, other.x0)
        y1, x1 = min(self.y1, other.y1), min(self.x1, other.x1)
        return Window(y0=y0, x0=x0, y1=y1, x1=x1) if y0 < y1 and x0 < x1 else None


class Tile(BaseModel):
    """One cell of a micrograph's grid; `window` in native pixels."""

    model_config = ConfigDict(frozen=True)
    micrograph: str
    row: int
    column: int
    window: Window


class TileGrid:
    """Cells of near-equal size that cover a micrograph once, without overlap or padding.

    A remainder is shared among all rows and columns rather than left as slivers at the edge: a cell measures
    between two thirds and four thirds of `tile_px` (one cell where the micrograph is smaller).

    Parameters
    ----------
    shape
        (H, W) of the micrograph in native pixels.
    tile_px
        Wanted edge length of a cell in native pixels.
    """

    def __init__(self, micrograph: str, shape: tuple[int, int], tile_px: int) -> None:
        self.micrograph = micrograph
        self._edges = tuple(_edges(length, tile_px) for length in shape)

    @property
    def n_rows(self) -> int:
        """Number of rows of cells."""
        return len(self._edges[0]) - 1

    @property
    def n_columns(self) -> int:
        """Number of columns of cells."""
        return len(self._edges[1]) - 1

    @property
    def key(self) -> str:
        """Rows x columns: what was kept of the cells of another grid says nothing about these."""
        return f"{self.n_rows}x{self.n_columns}"

    def __len__(self) -> int:
        return self.n_rows * self.n_columns

    def __iter__(self) -> Iterator[Tile]:
        for row in range(self.n_rows):
            for column in range(self.n_columns):
                yield self.tile(row, column)

    def windows(self) -> NDArray[np.int64]:
        """(n, 4) y0, x0, y1, x1 of all cells in reading order."""
        first, last = (np.meshgrid(*(edges[part] for edges in self._edges), indexing="ij") for part in _STARTS_ENDS)
        return np.stack([*first, *last], axis=-1).reshape(-1, 4).astype(np.int64)

    def tile(self, row: int, column: int) -> Tile:
        """The cell at (row, column)."""
        rows, columns = self._edges
        window = Window(y0=rows[row], x0=columns[column], y1=rows[row + 1], x1=columns[column + 1])
        return Tile(micrograph=self.micrograph, row=row, column=column, window=window)

    def tile_at(self, y: float, x: float) -> Tile:
        """The cell that holds the pixel (y, x); a point outside belongs to the nearest cell."""
        row, column = (
            int(np.clip(np.searchsorted(edges, value, side="right") - 1, 0, len(edges) - 2))
            for edges, value in zip(self._edges, (y, x), strict=True)
        )
        return self.tile(row, column)


def _edges(length: int, tile_px: int) -> tuple[int, ...]:
    n = max(1, round(length / tile_px))
    return tuple(int(e) for e in np.linspace(0, length, n + 1).round())
