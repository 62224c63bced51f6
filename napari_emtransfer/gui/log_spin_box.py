"""A number field for magnitudes (learning rates): steps multiply, and 1e-5 stays 1e-5.

magicgui's float field rounds to its decimals, which turns a learning rate of 1e-5 into 0.0.
"""

from __future__ import annotations

import math
from typing import Any

from magicgui.backends._qtpy.widgets import QBaseValueWidget
from magicgui.widgets.bases import ValueWidget
from qtpy.QtCore import Signal
from qtpy.QtGui import QValidator
from qtpy.QtWidgets import QAbstractSpinBox, QWidget

STEPS_PER_DECADE = 3


class LogSpinBox(QAbstractSpinBox):
    """A number over many decades; an arrow or wheel step multiplies by 10^(1/3); from 0 it is `first_step`."""

    valueChanged = Signal(float)  # noqa: N815 (Qt's spelling)

    def __init__(self, parent: QWidget | None = None, *, minimum: float = 1e-8, maximum: float = 1.0) -> None:
        super().__init__(parent)
        self._minimum, self._maximum = minimum, maximum
        self._value = maximum
        self.first_step = 1e-6
        self.setKeyboardTracking(False)
        self.editingFinished.connect(self._take_text)
        self.setValue(maximum)

    def value(self) -> float:
        """The number as typed, never rounded; text that has not been confirmed yet counts."""
        typed = _number(self.lineEdit().text())
        return self._value if typed is None or self._shown(self._value) == self.lineEdit().text() else self._clip(typed)

    def set_range(self, minimum: float, maximum: float) -> None:
        """Limits of the number, both allowed."""
        self._minimum, self._maximum = minimum, maximum
        self.setValue(self._value)

    def setValue(self, value: float) -> None:  # noqa: N802 (Qt's spelling)
        """Set the number; outside the limits it becomes the nearest limit."""
        changed = self._clip(value) != self._value
        self._value = self._clip(value)
        self.lineEdit().setText(self._shown(self._value))
        if changed:
            self.valueChanged.emit(self._value)

    def stepBy(self, steps: int) -> None:  # noqa: N802, D102
        if self.value() <= 0:
            self.setValue(self.first_step if steps > 0 else 0.0)
            return
        exponent = round(math.log10(self.value()) * STEPS_PER_DECADE) + steps
        self.setValue(float(f"{10 ** (exponent / STEPS_PER_DECADE):.1g}"))

    def stepEnabled(self) -> QAbstractSpinBox.StepEnabledFlag:  # noqa: N802, D102
        flag = QAbstractSpinBox.StepEnabledFlag
        return flag.StepUpEnabled | flag.StepDownEnabled

    def validate(self, text: str, position: int) -> tuple[QValidator.State, str, int]:  # noqa: D102
        number = _number(text)
        if number is None:
            return QValidator.State.Intermediate, text, position
        inside = self._minimum <= number <= self._maximum
        return (QValidator.State.Acceptable if inside else QValidator.State.Intermediate), text, position

    def fixup(self, _text: str) -> str:  # noqa: D102
        return self._shown(self._value)

    def _take_text(self) -> None:
        number = _number(self.lineEdit().text())
        self.setValue(self._value if number is None else number)

    def _clip(self, value: float) -> float:
        return min(max(value, self._minimum), self._maximum)

    @staticmethod
    def _shown(value: float) -> str:
        """Shortest text that reads back as the same number: 1e-05 → "1e-5"."""
        return repr(float(value)).replace("e-0", "e-").removesuffix(".0")


class _Backend(QBaseValueWidget):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(LogSpinBox, "value", "setValue", "valueChanged", **kwargs)


class LogFloat(ValueWidget):
    """The log-scale number field as a magicgui widget."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(widget_type=_Backend, **kwargs)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
