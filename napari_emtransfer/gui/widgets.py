"""Small building blocks of every panel: buttons, wrapped text, elided lines, plain words for times and numbers."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import QLabel, QPushButton, QSizePolicy, QToolButton, QWidget


def button(text: str, tooltip: str, on_click: Callable[[], object] | None = None, *, name: str = "") -> QPushButton:
    """A push button whose tooltip says what it does to the data; `name` is its Qt object name."""
    widget = QPushButton(text)
    widget.setToolTip(tooltip)
    widget.setObjectName(name)
    widget.setFocusPolicy(Qt.FocusPolicy.TabFocus)  # a click leaves the keys with the canvas
    widget.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    if on_click is not None:
        widget.clicked.connect(lambda _checked=False: on_click())
    return widget


def small_button(text: str, tooltip: str, on_click: Callable[[], object], *, name: str = "") -> QToolButton:
    """A flat button as small as its text: dismiss, remove, help."""
    widget = QToolButton()
    widget.setText(text)
    widget.setToolTip(tooltip)
    widget.setObjectName(name)
    widget.setAutoRaise(True)
    widget.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    widget.clicked.connect(lambda _checked=False: on_click())
    return widget


def wrapped_label(text: str = "", *, name: str = "") -> QLabel:
    """Text that breaks into lines instead of being cut off, and can be selected with the mouse."""
    label = QLabel(text)
    label.setObjectName(name)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Maximum)
    policy.setHeightForWidth(True)
    label.setSizePolicy(policy)
    label.setMinimumWidth(60)
    return label


class _WheelIsForScrolling(QObject):
    """Hands the wheel on to whatever scrolls, unless the widget has the keys."""

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802
        if event.type() == QEvent.Type.Wheel and isinstance(watched, QWidget) and not watched.hasFocus():
            event.ignore()
            return True
        return False


def calm(widget: QWidget, focus: Qt.FocusPolicy = Qt.FocusPolicy.StrongFocus) -> None:
    """The wheel scrolls the panel over this box, where it would change the value and take the keys away."""
    widget.setFocusPolicy(focus)
    widget.installEventFilter(_WheelIsForScrolling(widget))


class ElidedLabel(QLabel):
    """One line of text that gives way with "…" where there is no room; the tooltip then holds all of it."""

    def __init__(self, text: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setMinimumWidth(40)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self._full_text = ""
        self.set_full_text(text)

    def set_full_text(self, text: str) -> None:
        """Show `text`, shortened in the middle where it must be."""
        self._full_text = text
        self._elide()

    @property
    def full_text(self) -> str:
        """The text before shortening."""
        return self._full_text

    def resizeEvent(self, event) -> None:  # noqa: ANN001, N802, D102
        super().resizeEvent(event)
        self._elide()

    def _elide(self) -> None:
        shown = self.fontMetrics().elidedText(self._full_text, Qt.TextElideMode.ElideMiddle, max(self.width(), 40))
        if shown != self.text():
            self.setText(shown)
        if shown != self._full_text:
            self.setToolTip(self._full_text)


def swatch(color: str, size: int = 14) -> QIcon:
    """A square of one colour with a thin dark rim, as an icon."""
    pixmap = QPixmap(size, size)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setBrush(QColor(color))
    painter.setPen(QColor(0, 0, 0, 120))
    painter.drawRect(0, 0, size - 1, size - 1)
    painter.end()
    return QIcon(pixmap)


def clock(seconds: float | None) -> str:
    """41.2 → "0:41", 3700 → "1:01:40"; unknown → ""."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def iou_text(value: float | None) -> str:
    """0.8312 → "0.83"; a class that is absent (None or NaN) → "–"."""
    return "–" if value is None or value != value else f"{value:.2f}"  # NaN is not itself


def interval_text(interval: tuple[float, float] | None) -> str:
    """(0.79, 0.87) → "[0.79–0.87]"; unknown → ""."""
    return "" if interval is None else f"[{interval[0]:.2f}–{interval[1]:.2f}]"


def sentence_case(text: str) -> str:
    """Begin a sentence: "held out: x" → "Held out: x"; the rest stays as it is."""
    return text[:1].upper() + text[1:]
