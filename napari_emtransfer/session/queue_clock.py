"""What a tile costs: seconds that somebody spent on it, and clicks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple

IDLE_SECONDS: Final = 60.0
"""So long after the last stroke or click somebody still looks at the tile; what comes after is not counted."""


class Effort(NamedTuple):
    """Seconds and clicks spent on a tile."""

    seconds: float = 0.0
    clicks: int = 0


NOTHING: Final = Effort()


class TileClock:
    """Runs while a tile is shown; between two acts it counts `IDLE_SECONDS` at most.

    Nobody has to wake it: what was idle is known at the next act, or at the end.

    Parameters
    ----------
    clock
        Seconds; monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds, self._clicks = 0.0, 0
        self._last = 0.0
        self._running = False
        self.worked = False
        """Whether anything was clicked or painted since the tile was shown."""

    @property
    def quiet_seconds(self) -> float:
        """Seconds since the last act, or since the tile was shown."""
        return self._clock() - self._last

    def start(self) -> None:
        """A tile is shown."""
        self._seconds, self._clicks = NOTHING
        self._last = self._clock()
        self._running, self.worked = True, False

    def act(self, n_clicks: int = 0) -> None:
        """Somebody paints or clicks."""
        self._count()
        self._clicks += n_clicks
        self.worked = True

    def so_far(self) -> Effort:
        """What the tile has cost since it was shown."""
        self._count()
        return Effort(self._seconds, self._clicks)

    def stop(self) -> None:
        """The tile is left."""
        self._running = False

    def _count(self) -> None:
        now = self._clock()
        if self._running:
            self._seconds += min(now - self._last, IDLE_SECONDS)
        self._last = now
