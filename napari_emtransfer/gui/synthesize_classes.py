"""Which class of the project each generated class becomes."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QGridLayout, QGroupBox, QLabel

from napari_emtransfer.core.data.labels import PALETTE, LabelSchema
from napari_emtransfer.gui.widgets import swatch, wrapped_label

UNLABELLED = ""
LEAVE = "unlabelled"
SWATCH_PX = 12


class ClassMap(QGroupBox):
    """One row per generated class. Emits `changed` when the user chooses another class for one."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__("Labels")
        self._schema, self._free = LabelSchema(), False
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(6, 6, 6, 6)
        self._grid.setColumnStretch(2, 1)
        self.note = wrapped_label(name="synthesize-classes-note")
        self.boxes: dict[str, QComboBox] = {}
        self._chosen: dict[str, str] = {}
        self._labels: dict[str, QLabel] = {}
        self._swatches: dict[str, QLabel] = {}
        self._grid.addWidget(self.note, 0, 0, 1, 3)

    def set_classes(self, generated: Sequence[str], schema: LabelSchema, *, free: bool) -> None:
        """Ask about these; in a project without classes of its own (`free`) they become its classes."""
        if (tuple(self._labels), self._schema, self._free) == (tuple(generated), schema, free):
            return
        if (schema, free) != (self._schema, self._free):
            self._chosen.clear()
        self._clear()
        self._schema, self._free = schema, free
        for row, name in enumerate(generated):
            self._add_row(row, name)
        self._grid.addWidget(self.note, len(generated), 0, 1, 3)
        self._refresh()

    @property
    def mapping(self) -> dict[str, str | None]:
        """Generated class → class of the project, None where it is left unlabelled."""
        return {name: (box.currentData() or None) for name, box in self.boxes.items()}

    @property
    def colors(self) -> list[str | None]:
        """Colour of each generated class, in order; None for one that is left unlabelled."""
        known = {c.name: c.color for c in self._schema.classes} if not self._free else {}
        new = dict.fromkeys(name for name in self.mapping.values() if name and name not in known)
        taken = {name: PALETTE[(len(known) + i) % len(PALETTE)] for i, name in enumerate(new)}
        return [None if name is None else (known | taken)[name] for name in self.mapping.values()]

    # ---- inside

    def _clear(self) -> None:
        for widgets in (self.boxes, self._labels, self._swatches):
            for widget in widgets.values():
                self._grid.removeWidget(widget)
                widget.hide()
                widget.deleteLater()
            widgets.clear()
        self._grid.removeWidget(self.note)

    def _add_row(self, row: int, name: str) -> None:
        label, color, box = QLabel(name), QLabel(), QComboBox()
        box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(10)
        box.setToolTip(f"Which class of the project the generated class “{name}” becomes.")
        for text, value in self._choices(name):
            box.addItem(text, value)
        box.setCurrentIndex(max(0, box.findData(self._chosen.get(name, self._usual(name)))))
        box.currentIndexChanged.connect(lambda _i: self._choose(name, box.currentData()))
        box.setVisible(not self._free)
        for column, widget in enumerate((color, label, box)):
            self._grid.addWidget(widget, row, column)
        self.boxes[name], self._labels[name], self._swatches[name] = box, label, color

    def _choices(self, name: str) -> list[tuple[str, str]]:
        if self._free:
            return [(name, name)]
        own = [(c.name, c.name) for c in self._schema.classes]
        new = [] if self._own(name) else [(f"new class “{name}”", name)]
        return [(LEAVE, UNLABELLED), *own, *new]

    def _own(self, name: str) -> str | None:
        """The project's class of this name."""
        return next((c.name for c in self._schema.classes if c.name.casefold() == name.casefold()), None)

    def _usual(self, name: str) -> str:
        """What stands there first: never a guess, which would label wrongly without a word."""
        return name if self._free else self._own(name) or UNLABELLED

    def _choose(self, name: str, value: str) -> None:
        self._chosen[name] = value
        self._refresh()
        self.changed.emit()

    def _refresh(self) -> None:
        for name, color in zip(self._swatches, self.colors, strict=True):
            picture = self._swatches[name]
            picture.setPixmap(swatch(color or "#00000000", SWATCH_PX).pixmap(SWATCH_PX, SWATCH_PX))
        self.note.setText(self._words())
        self.note.setVisible(bool(self.note.text()))

    def _words(self) -> str:
        if not self.boxes:
            return "The classes follow with the preview."
        if self._free:
            return "They become the classes of the project."
        if not any(self.mapping.values()):
            return "Choose for at least one of them which class of the project it is."
        return ""
