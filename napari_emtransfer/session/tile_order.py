"""Which tile to label next, before any model can say: specimen by specimen, spread over each micrograph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, zip_longest

import numpy as np

from napari_emtransfer.core.data.tiles import Tile, TileGrid

_GOLDEN_RATIO = 0.6180339887498949


def spread(grid: TileGrid) -> Iterator[Tile]:
    """All tiles of a grid in an order in which any first few lie far apart."""
    for number in np.argsort((np.arange(len(grid)) + 0.5) * _GOLDEN_RATIO % 1, kind="stable").tolist():
        yield grid.tile(*divmod(number, grid.n_columns))


class SpecimenOrder:
    """Tiles of one specimen in the order in which they are best labelled: its micrographs take turns.

    Made one by one while they are asked for: a project may have 10⁵ of them.
    """

    def __init__(self, grids: Sequence[TileGrid]) -> None:
        self._grids = grids

    def __iter__(self) -> Iterator[Tile]:
        turns = chain.from_iterable(zip_longest(*map(spread, self._grids)))
        return (tile for tile in turns if tile is not None)


def pick(
    by_specimen: Mapping[str, Iterable[Tile]], last_specimen: str | None, rank: Callable[[Tile], int | None]
) -> Tile | None:
    """The tile of lowest rank, from the specimen whose turn it is.

    Parameters
    ----------
    by_specimen
        Tiles of each specimen in the order in which they should be labelled.
    last_specimen
        Specimen of the tile before; the turn goes to the one after it.
    rank
        0 is best; None leaves the tile out.
    """
    specimens = list(by_specimen)
    if last_specimen is not None and last_specimen in by_specimen:
        turn = specimens.index(last_specimen) + 1
        specimens = specimens[turn:] + specimens[:turn]
    best: tuple[int, Tile] | None = None
    for tile in chain.from_iterable(by_specimen[specimen] for specimen in specimens):
        value = rank(tile)
        if value == 0:
            return tile
        if value is not None and (best is None or value < best[0]):
            best = (value, tile)
    return best[1] if best else None
