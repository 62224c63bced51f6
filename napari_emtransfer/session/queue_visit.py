"""The tile that is shown, the entry that proposed it, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from napari_emtransfer.core.active.queue import LEAST_LABELLED
from napari_emtransfer.session.queue_clock import NOTHING, Effort, TileClock

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project_records import TileState
    from napari_emtransfer.core.data.queue_records import QueueEntry
    from napari_emtransfer.core.data.tiles import Tile
    from napari_emtransfer.session.context import Context
    from napari_emtransfer.session.labelling import LabellingController
    from napari_emtransfer.session.queue_memory import QueueMemory

NOTE_SECONDS: Final = 5.0
"""While a tile is worked on, its seconds and clicks are written so often: a kill loses no more of them."""
_BECOMES: Final[dict[TileState, Literal["done", "skipped", "deferred"]]] = {
    "done": "done",
    "skipped": "skipped",
    "unsure": "deferred",
}


class Visits:
    """Follows the user from tile to tile, and has the writer keep what becomes of entries.

    An entry has a time in the database from the moment that its tile is shown, so that no ranking replaces it; it loses
    it again when the tile is left as it was.
    """

    def __init__(
        self, context: Context, labelling: LabellingController, memory: QueueMemory, clock: Callable[[], float]
    ) -> None:
        self._context, self._labelling, self._memory = context, labelling, memory
        self._time, self._clock = clock, TileClock(clock)
        self._shown: Tile | None = None
        self._number: int | None = None
        self._before = NOTHING
        self._glances: dict[int, float] = {}
        self._noted = 0.0

    @property
    def entry(self) -> QueueEntry | None:
        """The open entry of the tile that is shown."""
        return None if self._number is None else self._memory.get(self._number)

    @property
    def quiet_seconds(self) -> float:
        """Seconds since somebody painted, clicked, or came to this tile."""
        return self._clock.quiet_seconds

    def clear(self) -> None:
        """The project is about to be closed."""
        self.look(None)
        self._glances.clear()

    def look(self, tile: Tile | None) -> bool:
        """Another tile is shown, or none; False where it is the same one."""
        if tile == self._shown:
            return False
        self._leave()
        self._shown = tile
        self._clock.start()
        self._begin()
        return True

    def renew(self) -> None:
        """The queue was read anew: the tile that is shown may have been proposed, or have another entry by now."""
        if self._shown is not None and self.entry is None:
            self._begin()

    def act(self, stem: str | None = None, n_clicks: int = 0) -> None:
        """Somebody paints (on this micrograph) or clicks."""
        if self._shown is not None and stem not in (None, self._shown.micrograph):
            return
        self._clock.act(n_clicks)
        if self._time() - self._noted >= NOTE_SECONDS:
            self._note()

    def end(self, tile: Tile, state: TileState) -> None:
        """A tile was called done, unsure or skipped."""
        entry, becomes = self._memory.of(tile), _BECOMES.get(state)
        if entry is None or becomes is None or entry.state == becomes == "done":
            return
        if entry.number == self._number:
            entry = self._with_effort(entry)
            self._clock.start()
            self._number, self._before = None, NOTHING
        if entry.control and becomes == "done":
            self._check_control(tile)
        ended = None if becomes == "deferred" else datetime.now(UTC).isoformat(timespec="milliseconds")
        self._keep(replace(entry, state=becomes, ended=ended))

    # ---- inside

    def _check_control(self, tile: Tile) -> None:
        """Say at once what would else show only in the IoU that does not come."""
        labelled = self._labelling.labelled_fraction(tile)
        if labelled < LEAST_LABELLED:
            self._context.signals.notice_posted.emit(
                f"{labelled:.0%} of this random control is labelled; it is measured on only from "
                f"{LEAST_LABELLED:.0%} of the specimen in it on.",
                "Go back to it, label more of it, and press Done again; or skip it if it cannot be labelled.",
            )

    def _begin(self) -> None:
        entry = None if self._shown is None else self._memory.of(self._shown)
        if entry is None or entry.state in ("done", "skipped"):
            return
        self._number, self._noted = entry.number, self._time()
        self._before = Effort(entry.seconds or self._glances.pop(entry.number, 0.0), entry.clicks or 0)
        if entry.seconds is None:
            self._keep(replace(entry, seconds=0.0))

    def _leave(self) -> None:
        entry = self.entry
        if entry is not None:
            left = self._with_effort(entry)
            if not self._clock.worked and entry.clicks is None:
                self._glances[entry.number] = left.seconds or 0.0
                left = replace(entry, seconds=None)
            self._keep(left)
            self._memory.pass_over(entry)
        self._clock.stop()
        self._number, self._before = None, NOTHING

    def _note(self) -> None:
        entry = self.entry
        if entry is not None:
            self._noted = self._time()
            self._keep(self._with_effort(entry))

    def _keep(self, entry: QueueEntry) -> None:
        self._memory.put(entry)
        write = partial(self._context.require_project().active.keep, entry)
        self._labelling.record((entry.stem, entry.number), write)

    def _with_effort(self, entry: QueueEntry) -> QueueEntry:
        now = self._clock.so_far()
        seconds, clicks = self._before.seconds + now.seconds, self._before.clicks + now.clicks
        return replace(entry, seconds=round(seconds, 3), clicks=clicks)
