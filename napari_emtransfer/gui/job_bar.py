"""Progress of a slow job with its time left, and a way to cancel it."""

from __future__ import annotations

import time

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QWidget

from napari_emtransfer.gui.widgets import button, clock


class JobBar(QWidget):
    """Hidden unless a job is going on. `cancel_requested` follows a click on Cancel."""

    cancel_requested = Signal()

    def __init__(self, cancel_tip: str = "Stop after the file in work; what is added so far stays.") -> None:
        super().__init__()
        self.progress = QProgressBar()
        self.cancel_button = button("Cancel", cancel_tip, self.cancel_requested.emit)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.progress, 1)
        layout.addWidget(self.cancel_button)
        self._started, self._before = 0.0, 0
        self.hide()

    def begin(self, text: str, *, can_cancel: bool = True, done: int = 0) -> None:
        """A job begins, with `done` steps behind it already; the bar is busy until the first step."""
        self._started, self._before = time.monotonic(), done
        self.progress.setRange(0, 0)
        self.progress.setToolTip(text)
        self.progress.setFormat(text)
        self.cancel_button.setVisible(can_cancel)
        self.show()

    def step(self, done: int, total: int) -> None:
        """`done` of `total` equal steps lie behind."""
        left = (time.monotonic() - self._started) / max(done - self._before, 1) * (total - done)
        self.progress.setRange(0, total)
        self.progress.setValue(done)
        self.progress.setFormat(f"{done} of {total} · {clock(left)} left")

    def end(self) -> None:
        """The job is over."""
        self.hide()
