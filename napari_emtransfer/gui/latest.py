"""Values that come faster than anybody can read are shown at most twice a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from qtpy.QtCore import QObject, QTimer

SHOW_MS: Final = 500
"""Whatever is repainted makes Qt compose the whole window anew, canvas included: that costs a stroke its time."""

_NOTHING = object()


class Latest(QObject):
    """Passes the newest value on to `show` after at most `SHOW_MS`; values in between are left out."""

    def __init__(self, show: Callable[[Any], object], parent: QObject) -> None:
        super().__init__(parent)
        self._show = show
        self._value: Any = _NOTHING
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(SHOW_MS)
        self._timer.timeout.connect(self._pass_on)

    def put(self, value: Any, *, at_once: bool = False) -> None:
        """A new value; `at_once` for what the user waits for."""
        self._value = value
        if at_once:
            self._timer.stop()
            self._pass_on()
        elif not self._timer.isActive():
            self._timer.start()

    def _pass_on(self) -> None:
        value, self._value = self._value, _NOTHING
        if value is not _NOTHING:
            self._show(value)
