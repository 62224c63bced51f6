"""The walk from tile to tile: back through what was seen, and on to what is worth labelling next."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from napari_emtransfer.session.tile_order import pick

if TYPE_CHECKING:
    from napari_emtransfer.core.data.tiles import Tile
    from napari_emtransfer.session.tile_book import TileBook

_LEFT_OUT = ("done", "skipped")


class TileWalk:
    """Which tile comes next, and which came before. It only chooses; somebody else goes there."""

    def __init__(self, book: TileBook) -> None:
        self._book = book
        self._history: list[Tile] = []
        self._position = -1
        self._visited: set[Tile] = set()

    def forward(self, current: Tile | None, proposed: Callable[[], Tile | None] = lambda: None) -> Tile | None:
        """The next tile; None when all are done.

        After `back` it first comes again through the history. Then what is `proposed`. Where that is nothing, specimens
        take turns; within one, tiles without labels come before those begun, and those before unsure ones; done and
        skipped tiles are left out.
        """
        while self._position + 1 < len(self._history):
            self._position += 1
            tile = self._history[self._position]
            if self._is_open(tile):
                return tile
        tile_proposed = proposed()
        if tile_proposed is not None:
            return self.jump(tile_proposed)
        last = self._book.specimen_of(current.micrograph) if current else None
        chosen = pick(self._book.by_specimen, last, lambda tile: self._rank(tile, current))
        return None if chosen is None else self.jump(chosen)

    def back(self) -> Tile | None:
        """The tile before, done or not; None when there is none."""
        while self._position > 0:
            self._position -= 1
            if self._book.knows(self._history[self._position]):
                return self._history[self._position]
        return None

    def jump(self, tile: Tile) -> Tile:
        """Any tile, as the newest of the history."""
        self._history = [*self._history[: self._position + 1], tile]
        self._position = len(self._history) - 1
        return tile

    def visit(self, tile: Tile) -> None:
        """The tile is being looked at."""
        self._visited.add(tile)

    def _rank(self, tile: Tile, current: Tile | None) -> int | None:
        if tile == current or not self._is_open(tile):
            return None
        if self._book.state(tile) == "unsure":
            return 3
        if tile in self._visited:
            return 2
        return int(self._book.labelled_fraction(tile) > 0)

    def _is_open(self, tile: Tile) -> bool:
        return self._book.knows(tile) and self._book.state(tile) not in _LEFT_OUT
