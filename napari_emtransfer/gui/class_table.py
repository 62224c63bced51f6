"""The classes of the project: colour, name, remove; and a line to add one."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QColorDialog, QGridLayout, QLabel, QLineEdit, QToolButton, QWidget

from napari_emtransfer.core.data.labels import LabelClass, LabelSchema
from napari_emtransfer.gui.widgets import small_button, swatch


class ClassTable(QWidget):
    """Emits what the user wants: `added(name)`, `renamed(value, name)`, `recolored(value, color)`, `removed(value)`."""

    added = Signal(str)
    renamed = Signal(int, str)
    recolored = Signal(int, str)
    removed = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self._layout = QGridLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setVerticalSpacing(3)
        self._layout.setColumnStretch(2, 1)
        self._widgets: list[QWidget] = []
        self.name_edits: dict[int, QLineEdit] = {}
        self.new_name = QLineEdit()
        self.new_name.setPlaceholderText("Name of a new class, then Enter")
        self.new_name.setToolTip("Adds a class to the project. The background phase is a class too.")
        self.new_name.returnPressed.connect(self._add)
        self.set_schema(LabelSchema())

    def set_schema(self, schema: LabelSchema) -> None:
        """Show these classes."""
        for widget in self._widgets:
            self._layout.removeWidget(widget)
            widget.hide()
            widget.deleteLater()
        self._widgets, self.name_edits = [], {}
        for row, label_class in enumerate(schema.classes):
            self._add_row(row, label_class)
        self._layout.addWidget(self.new_name, len(schema), 1, 1, 3)

    def _add_row(self, row: int, label_class: LabelClass) -> None:
        value = label_class.value
        number = QLabel(str(value))
        number.setToolTip(f"Label value {value}, as stored in the annotation.")
        edit = QLineEdit(label_class.name)
        edit.setToolTip("Name of the class. Rename it and press Enter; labels stay as they are.")
        edit.editingFinished.connect(lambda: self._rename(label_class, edit))
        remove = small_button(
            "✕", "Remove this class; only a class without labels can go.", lambda: self.removed.emit(value)
        )
        for column, widget in enumerate((number, self._color_button(label_class), edit, remove)):
            self._layout.addWidget(widget, row, column)
            self._widgets.append(widget)
        self.name_edits[value] = edit

    def _color_button(self, label_class: LabelClass) -> QToolButton:
        def choose() -> None:
            chosen = QColorDialog.getColor(QColor(label_class.color), self, f"Colour of {label_class.name}")
            if chosen.isValid():
                self.recolored.emit(label_class.value, chosen.name().upper())

        widget = small_button("", "Colour of the class on the canvas. Click to change it.", choose)
        widget.setIcon(swatch(label_class.color))
        return widget

    def _rename(self, label_class: LabelClass, edit: QLineEdit) -> None:
        name = edit.text().strip()
        if not name:
            edit.setText(label_class.name)
        elif name != label_class.name:
            self.renamed.emit(label_class.value, name)

    def _add(self) -> None:
        name = self.new_name.text().strip()
        if name:
            self.new_name.clear()
            self.added.emit(name)
