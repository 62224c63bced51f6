"""Scores of many tiles as arrays: one row per tile, as a model leaves them and as the project keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

_BITS: Final = 20  # rows and columns of a grid lie far below 2^20


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """n tiles and what a model says of them. nan where it says nothing.

    Parameters
    ----------
    stems, rows, columns
        (n,) The cell: micrograph, and place on its grid.
    grids
        (n,) Key of the grid that the cell belongs to (`TileGrid.key`).
    models
        (n,) Key of weights and head that the scores are of.
    entropy, margin, bald, novelty
        (n,) As in `core.active.pool.TilePool`.
    shares, class_entropy
        (n, K) Predicted area of each class; mean entropy where it is predicted, in nats. Kept as float16.
    embeddings
        (n, E) Of length 1. Kept as float16.
    """

    stems: NDArray[np.str_]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    grids: NDArray[np.str_]
    models: NDArray[np.str_]
    entropy: NDArray[np.float32]
    margin: NDArray[np.float32]
    bald: NDArray[np.float32]
    novelty: NDArray[np.float32]
    shares: NDArray[np.float16]
    class_entropy: NDArray[np.float16]
    embeddings: NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: NDArray[np.generic] | slice) -> Self:
        """The rows of an index array, mask or slice."""
        return replace(self, **{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def locate(
        self,
        stems: Sequence[str] | NDArray[np.str_],
        rows: NDArray[np.integer] | Sequence[int],
        columns: NDArray[np.integer] | Sequence[int],
    ) -> NDArray[np.intp]:
        """Cells (m,) → their rows in this table, (m,); −1 where the table has none."""
        wanted_stems = np.asarray(stems, np.str_)
        if not len(self) or not len(wanted_stems):
            return np.full(len(wanted_stems), -1, np.intp)
        names, own = np.unique(self.stems, return_inverse=True)
        place = np.minimum(np.searchsorted(names, wanted_stems), len(names) - 1)
        wanted = np.where(names[place] == wanted_stems, _cell_keys(place, rows, columns), -1)
        keys = _cell_keys(own, self.rows, self.columns)
        order = np.argsort(keys)
        found = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
        return np.where(keys[found] == wanted, found, -1)


def _cell_keys(
    micrographs: NDArray[np.integer],
    rows: NDArray[np.integer] | Sequence[int],
    columns: NDArray[np.integer] | Sequence[int],
) -> NDArray[np.int64]:
    """One number per cell."""
    row, column = np.asarray(rows, np.int64), np.asarray(columns, np.int64)
    return (np.asarray(micrographs, np.int64) << 2 * _BITS) | (row << _BITS) | column


def stacked(blobs: Sequence[bytes]) -> NDArray[np.float16]:
    """Vectors as stored → (n, length); shorter ones, of an older list of classes or other weights, end in nan."""
    lengths = {len(blob) for blob in blobs}
    if len(lengths) <= 1:
        return np.frombuffer(b"".join(blobs), np.float16).reshape(len(blobs), max(lengths, default=0) // 2)
    table = np.full((len(blobs), max(lengths) // 2), np.nan, np.float16)
    for index, blob in enumerate(blobs):
        table[index, : len(blob) // 2] = np.frombuffer(blob, np.float16)
    return table
