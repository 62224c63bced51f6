"""The classes as a palette: one click or one digit chooses what the brush paints."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QButtonGroup, QGridLayout, QPushButton, QSizePolicy, QWidget

from napari_emtransfer.core.data.labels import LabelClass, LabelSchema
from napari_emtransfer.gui.widgets import swatch, wrapped_label

N_COLUMNS = 2
WIDEST_IN_COLUMN_PX = 150
"""With a longer name among them the classes stand below each other: half a word is no name."""


class ClassPalette(QWidget):
    """A checkable button per class with its colour, name and digit; emits the label value that is chosen."""

    class_chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self._layout = QGridLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(4)
        self._group = QButtonGroup(self)
        self._group.idClicked.connect(self.class_chosen)
        self._empty = wrapped_label("No classes yet: add them in the Project tab.")
        self._layout.addWidget(self._empty, 0, 0, 1, N_COLUMNS)

    def set_schema(self, schema: LabelSchema) -> None:
        """Rebuild the buttons for these classes."""
        for old in self._group.buttons():
            self._group.removeButton(old)
            self._layout.removeWidget(old)
            old.hide()
            old.deleteLater()
        self._empty.setVisible(len(schema) == 0)
        buttons = [self._button(label_class) for label_class in schema.classes]
        n_columns = N_COLUMNS if all(b.sizeHint().width() <= WIDEST_IN_COLUMN_PX for b in buttons) else 1
        for index, (label_class, widget) in enumerate(zip(schema.classes, buttons, strict=True)):
            self._group.addButton(widget, label_class.value)
            span = N_COLUMNS // n_columns
            self._layout.addWidget(widget, 1 + index // n_columns, index % n_columns, 1, span)

    def set_chosen(self, value: int) -> None:
        """Press the button of a label value without a signal; 0 and unknown values press none."""
        self._group.setExclusive(False)
        for widget in self._group.buttons():
            widget.setChecked(self._group.id(widget) == value)
        self._group.setExclusive(True)

    @property
    def chosen(self) -> int:
        """The label value that is pressed, 0 for none."""
        return max(self._group.checkedId(), 0)

    def button(self, value: int) -> QPushButton:
        """The button of a label value."""
        return self._group.button(value)

    @staticmethod
    def _button(label_class: LabelClass) -> QPushButton:
        digit = f"{label_class.value}  " if label_class.value <= 9 else ""
        widget = QPushButton()
        widget.setText(f"{digit}{label_class.name}")
        widget.setIcon(swatch(label_class.color))
        widget.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        widget.setCheckable(True)
        widget.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        key = f" Key {label_class.value}." if label_class.value <= 9 else ""
        widget.setToolTip(f"Paint “{label_class.name}” (label value {label_class.value}).{key}")
        return widget
