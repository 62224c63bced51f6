"""How long each step of a request has taken."""

from __future__ import annotations

import time


class Clock:
    """Seconds of each step."""

    def __init__(self) -> None:
        self._begin = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """What has passed since the last lap went into `name`."""
        now = time.perf_counter()
        self._laps[name] = self._laps.get(name, 0.0) + now - self._last
        self._last = now

    def seconds(self) -> dict[str, float]:
        """The laps, and the total."""
        return self._laps | {"total": time.perf_counter() - self._begin}
