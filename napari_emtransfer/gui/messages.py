"""Faults and notices as dismissible rows inside the dock: one sentence, a way out, never a traceback dialog."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QStyle, QVBoxLayout, QWidget

from napari_emtransfer.gui.widgets import button, small_button, wrapped_label

MAX_ROWS = 3
"""More than this at once would push the work out of sight; the oldest gives way."""


class MessageRow(QFrame):
    """An icon, a sentence with its hint, optionally a button that mends, and ✕."""

    def __init__(
        self,
        message: str,
        hint: str,
        *,
        is_error: bool,
        on_dismiss: Callable[[MessageRow], None],
        action: tuple[str, Callable[[], object]] | None = None,
        dismiss_on_action: bool = True,
    ) -> None:
        super().__init__()
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.message = message
        self._on_dismiss = on_dismiss
        layout = QHBoxLayout(self)
        layout.setContentsMargins(6, 4, 2, 4)
        layout.addWidget(self._icon(is_error), 0, Qt.AlignmentFlag.AlignTop)
        column = QVBoxLayout()
        column.setSpacing(4)
        self.label = wrapped_label(f"{message} {hint}".strip(), name="message")
        column.addWidget(self.label)
        if action is not None:
            act = self._dismissing(action[1]) if dismiss_on_action else action[1]
            self.mend_button = button(action[0], hint or message, act, name="mend")
            column.addWidget(self.mend_button)
        layout.addLayout(column, 1)
        self.dismiss_button = small_button("✕", "Dismiss this message; the data stay as they are.", self.dismiss)
        layout.addWidget(self.dismiss_button, 0, Qt.AlignmentFlag.AlignTop)

    def dismiss(self) -> None:
        """Take the row away."""
        self._on_dismiss(self)

    def _dismissing(self, action: Callable[[], object]) -> Callable[[], None]:
        def act() -> None:
            self.dismiss()
            action()

        return act

    def _icon(self, is_error: bool) -> QWidget:
        standard = QStyle.StandardPixmap
        kind = standard.SP_MessageBoxWarning if is_error else standard.SP_MessageBoxInformation
        label = QLabel()
        label.setFixedSize(20, 18)
        label.setPixmap(self.style().standardIcon(kind).pixmap(16, 16))
        return label


class MessageArea(QWidget):
    """The rows, newest at the top; the same sentence is never shown twice."""

    def __init__(self) -> None:
        super().__init__()
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(4)
        self.rows: list[MessageRow] = []
        self.hide()

    def post(
        self,
        message: str,
        hint: str = "",
        *,
        is_error: bool = False,
        action: tuple[str, Callable[[], object]] | None = None,
    ) -> None:
        """Show a sentence; `action` is (text, function) of a button that mends the matter."""
        for row in [r for r in self.rows if r.message == message]:
            self._remove(row)
        row = MessageRow(message, hint, is_error=is_error, on_dismiss=self._remove, action=action)
        self.rows.insert(0, row)
        self._layout.insertWidget(0, row)
        for old in self.rows[MAX_ROWS:]:
            self._remove(old)
        self.show()

    def texts(self) -> list[str]:
        """What is shown now, newest first."""
        return [row.label.text() for row in self.rows]

    def clear(self) -> None:
        """Take all rows away."""
        for row in list(self.rows):
            self._remove(row)

    def _remove(self, row: MessageRow) -> None:
        if row in self.rows:
            self.rows.remove(row)
            self._layout.removeWidget(row)
            row.hide()
            row.deleteLater()
        self.setVisible(bool(self.rows))
