"""The queue in memory: what was last read from the database, and what was done to it since."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from napari_emtransfer.core.data.queue_records import QueueEntry
    from napari_emtransfer.core.data.tiles import Tile
    from napari_emtransfer.session.labelling import LabellingController

_OVER: Final = ("done", "skipped")


class QueueMemory:
    """Open entries in the order in which they come. What the user did wins over what is read, which may be older.

    Entries that were passed over come after those that were not; put aside, last. A tile that is done or skipped, or of
    a grid that is gone, is not in it.
    """

    def __init__(self, labelling: LabellingController) -> None:
        self._labelling = labelling
        self._entries: dict[int, QueueEntry] = {}
        self._mine: dict[int, QueueEntry] = {}
        self._passed: dict[int, None] = {}

    def clear(self) -> None:
        """The project was closed."""
        self._entries.clear()
        self._mine.clear()
        self._passed.clear()

    def read(self, entries: Iterable[QueueEntry], shown: QueueEntry | None) -> None:
        """Take what is in the database; `shown`, whose tile is on the screen, stays unless its tile was proposed anew.

        A ranking may have replaced it before it heard that somebody looks at it; then it comes back to the database
        with what is done to it.
        """
        found = {entry.number: self._as_left(entry) for entry in entries}
        if shown is not None and not any(_cell(entry) == _cell(shown) for entry in found.values()):
            found[shown.number] = shown
        self._entries = dict(sorted(found.items(), key=lambda item: item[1].position))

    def put(self, entry: QueueEntry) -> None:
        """What the user did to an entry."""
        self._entries[entry.number] = self._mine[entry.number] = entry

    def pass_over(self, entry: QueueEntry) -> None:
        """The user has left an entry as it was: it comes again after the others."""
        self._passed.pop(entry.number, None)
        self._passed[entry.number] = None

    def get(self, number: int) -> QueueEntry | None:
        """An entry by its number."""
        return self._entries.get(number)

    def of(self, tile: Tile) -> QueueEntry | None:
        """The entry that proposed a tile, also when the user has ended it in the meantime."""
        cell = tile.micrograph, tile.row, tile.column
        known = (*self._entries.values(), *self._mine.values())  # as it was proposed last, if it was more than once
        return next((entry for entry in known if entry.tile == cell and self.tile(entry) is not None), None)

    def tile(self, entry: QueueEntry) -> Tile | None:
        """The tile of an entry; None where the project has no such tile any more."""
        return self._labelling.find_tile(entry.stem, entry.grid, entry.row, entry.column)

    def open_entries(self) -> list[QueueEntry]:
        """Entries whose tile still has to be labelled, in the order in which they come."""
        found = [entry for entry in self._entries.values() if entry.state not in _OVER and self._is_open(entry)]
        passed = {number: place for place, number in enumerate(self._passed, start=1)}
        return sorted(found, key=lambda entry: (entry.state == "deferred", passed.get(entry.number, 0)))

    def coming(self, current: Tile | None) -> list[Tile]:
        """The tiles of waiting entries but for the current one, in the order in which they come."""
        tiles = (self.tile(entry) for entry in self.open_entries() if entry.state == "waiting")
        return [tile for tile in tiles if tile is not None and tile != current]

    def _is_open(self, entry: QueueEntry) -> bool:
        tile = self.tile(entry)
        return tile is not None and self._labelling.tile_state(tile) not in _OVER

    def _as_left(self, entry: QueueEntry) -> QueueEntry:
        mine = self._mine.get(entry.number)
        return entry if mine is None else replace(mine, position=entry.position)


def _cell(entry: QueueEntry) -> tuple[object, ...]:
    return entry.grid, *entry.tile
