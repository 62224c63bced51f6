"""A heading that folds away what is below it: several of them fit a narrow dock."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QSizePolicy, QToolButton, QVBoxLayout, QWidget

INDENT_PX = 10


class Section(QWidget):
    """A heading with an arrow, and a column that it shows and hides. Folded away at first."""

    toggled = Signal(bool)

    def __init__(self, title: str, tooltip: str, *, indented: bool = True) -> None:
        super().__init__()
        self._title = title
        self.heading = QToolButton()
        self.heading.setToolTip(tooltip)
        self.heading.setCheckable(True)
        self.heading.setAutoRaise(True)
        self.heading.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.heading.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.heading.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.body = QWidget()
        self.column = QVBoxLayout(self.body)
        self.column.setContentsMargins(INDENT_PX if indented else 0, 2, 0, 4)
        self.column.setSpacing(4)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.heading)
        layout.addWidget(self.body)
        self.heading.toggled.connect(self._show)
        self.set_note("")
        self._show(False)

    @property
    def is_expanded(self) -> bool:
        """Whether what is below the heading is shown."""
        return self.heading.isChecked()

    def expand(self, **_how: bool) -> None:
        """Show what is below the heading."""
        self.heading.setChecked(True)

    def collapse(self) -> None:
        """Fold it away."""
        self.heading.setChecked(False)

    def set_note(self, note: str) -> None:
        """A word beside the title, such as how much was changed inside."""
        self.heading.setText(f"{self._title} · {note}" if note else self._title)

    def _show(self, shown: bool) -> None:
        self.body.setVisible(shown)
        self.heading.setArrowType(Qt.ArrowType.DownArrow if shown else Qt.ArrowType.RightArrow)
        self.toggled.emit(shown)
