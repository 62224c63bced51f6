"""Time left of a job of many equal steps."""

from __future__ import annotations

import time

from napari_emtransfer.gui.widgets import clock


class Stopwatch:
    """Counts steps and says "3 of 20 · 0:41 left"."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._started = total, 0, time.monotonic()

    def step(self) -> str:
        """One more step is done: the text for the progress bar."""
        self._done += 1
        left = (time.monotonic() - self._started) / self._done * (self._total - self._done)
        return f"{self._done} of {self._total} · {clock(left)} left"
