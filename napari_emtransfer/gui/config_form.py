"""A form for `TrainConfig` in sections that fold away; every value survives the round trip."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Collection
from typing import Any

from magicgui.widgets import CheckBox, ComboBox
from magicgui.widgets.bases import ValueWidget
from pydantic import ValidationError
from qtpy.QtCore import QPoint, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap, QPolygon
from qtpy.QtWidgets import QCompleter, QFormLayout, QHBoxLayout, QLabel, QLineEdit, QVBoxLayout, QWidget

from napari_emtransfer.core.config import AUTO_WEIGHTS, Modality, TrainConfig
from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.core.nn import store
from napari_emtransfer.gui.augment_box import AugmentBox
from napari_emtransfer.gui.config_fields import COMPUTE_FIELDS, FIELDS, SECTIONS, Field, folds_of, folds_shown
from napari_emtransfer.gui.section import Section
from napari_emtransfer.session.idle_settings import idle_settings

__all__ = ["FIELDS", "ConfigForm", "OptionalField"]

LABEL_PX = 98


class OptionalField(QWidget):
    """A tick and an editor; the value is None while the tick is off."""

    toggled = Signal()

    def __init__(self, editor: ValueWidget, value_when_off: Any, tooltip: str) -> None:
        super().__init__()
        self._editor = editor
        self._tick = CheckBox(text="")
        self._tick.native.setToolTip(f"Use it. {tooltip}")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._tick.native)
        layout.addWidget(editor.native, 1)
        editor.value = value_when_off
        self._tick.native.toggled.connect(editor.native.setEnabled)
        self._tick.native.toggled.connect(lambda _on: self.toggled.emit())
        self.set_value(None)

    def value(self) -> Any:
        """The editor's value, or None."""
        return self._editor.value if self._tick.value else None

    def set_value(self, value: Any) -> None:
        """Set the editor and the tick."""
        self._tick.value = value is not None
        self._editor.native.setEnabled(value is not None)
        if value is not None:
            self._editor.value = value


class ConfigForm(QWidget):
    """All choices of a training run. `config` is what the fields say now; setting it fills them.

    `edited(field)` follows what the user changes, and what code sets through `editor`, but not setting `config`. Fields
    without an effect on the run as it is set up are greyed and say why.
    """

    edited = Signal(str)

    def __init__(self, config: TrainConfig | None = None) -> None:
        super().__init__()
        self._editors: dict[str, ValueWidget] = {}
        self._optional: dict[str, OptionalField] = {}
        self._labels: dict[str, QLabel] = {}
        self._rest = config or TrainConfig()
        self._modality: Modality = "sem"
        self._filling = False
        self.augment_box = AugmentBox()
        self.sections = {title: self._section(title, tip, fields) for title, (tip, fields) in SECTIONS.items()}
        self.sections["Augmentation"].column.addWidget(self.augment_box)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        for section in self.sections.values():
            layout.addWidget(section)
        self.config = self._rest
        for name, editor in self._editors.items():
            editor.changed.connect(lambda _value, name=name: self._on_edit(name))
        for name, field in self._optional.items():
            field.toggled.connect(lambda name=name: self._on_edit(name))
        self.augment_box.edited.connect(self._on_illegal)

    @property
    def config(self) -> TrainConfig:
        """The fields as a validated configuration; what has no field keeps the value that was set."""
        values = {name: self._value(name) for name in FIELDS}
        compute = {name: values.pop(name) for name in COMPUTE_FIELDS}
        merged = self._rest.model_dump() | values
        if merged["folds"] not in (None, self._rest.folds):
            merged["validation"] = ()  # each specimen is held out in turn; a ground of before has no field to clear it
        merged["compute"] = self._rest.compute.model_dump() | compute
        return TrainConfig.model_validate(merged)

    @config.setter
    def config(self, config: TrainConfig) -> None:
        self.fill(config)

    def fill(self, config: TrainConfig, keep: Collection[str] = ()) -> None:
        """Fill the fields, all but those named in `keep`."""
        kept = {"illegal_augment": self._rest.illegal_augment} if "illegal_augment" in keep else {}
        self._rest = config.model_copy(update=kept)
        values = config.model_dump() | config.compute.model_dump()
        self._filling = True
        for name in FIELDS:
            if name in keep:
                continue
            if name in self._optional:
                self._optional[name].set_value(values[name])
            else:
                self._set(name, values[name])
        self._filling = False
        self._follow()

    def set_modality(self, modality: Modality) -> None:
        """What the project's micrographs are: that decides which augmentations are possible."""
        self._modality = modality
        self._follow()

    def editor(self, name: str) -> ValueWidget:
        """The magicgui widget of a field."""
        return self._editors[name]

    def mark_changes(self, changed: Collection[str]) -> None:
        """Say beside each section's title how many of its fields differ from the proposal."""
        for title, (_, fields) in SECTIONS.items():
            own = {*fields, "illegal_augment"} if title == "Augmentation" else set(fields)
            count = len(own & set(changed))
            self.sections[title].set_note(f"{count} changed" if count else "")

    def _on_edit(self, name: str) -> None:
        if not self._filling:
            self._follow()
            self.edited.emit(name)

    def _on_illegal(self, illegal: tuple[str, ...]) -> None:
        self._rest = self._rest.model_copy(update={"illegal_augment": illegal})
        self.edited.emit("illegal_augment")

    def _follow(self) -> None:
        """Grey what has no effect now, and show what the augmentation does."""
        try:
            config = self.config
        except ValidationError:  # half a number; the start says so
            return
        self.augment_box.set_state(self._modality, config.augment, config.illegal_augment)
        idle = idle_settings(config)
        for name, field in FIELDS.items():
            why = idle.get(name)
            tip = _wrapped(field.tooltip + (f"\nHas no effect now: {why}" if why else ""))
            for widget in (self._labels[name], self._optional.get(name), self._editors[name].native):
                if widget is not None:
                    widget.setToolTip(tip)
            (self._optional.get(name) or self._editors[name].native).setEnabled(why is None)
            self._labels[name].setEnabled(why is None)

    def _value(self, name: str) -> Any:
        value = self._optional[name].value() if name in self._optional else self._editors[name].value
        return folds_of(value) if name == "folds" else value

    def _set(self, name: str, value: Any) -> None:
        editor = self._editors[name]
        value = folds_shown(value) if name == "folds" else value
        if isinstance(editor, ComboBox) and value not in editor.choices:
            editor.choices = (*editor.choices, value)
        editor.value = value

    # ---- building

    def _section(self, title: str, tooltip: str, fields: dict[str, Field]) -> Section:
        section = Section(title, tooltip)
        rows = QFormLayout()
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setVerticalSpacing(4)
        rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for name, field in fields.items():
            rows.addRow(*self._row(name, field))
        section.column.addLayout(rows)
        return section

    def _row(self, name: str, field: Field) -> tuple[QLabel, QWidget]:
        editor = field.make()
        editor.native.setToolTip(field.tooltip)
        editor.native.setObjectName(name)
        if field.limits is not None:
            editor.native.set_range(*field.limits)
            editor.native.first_step = field.first_step
        if name == "weights":
            _offer_weights(editor.native)
        self._editors[name] = editor
        label = self._labels[name] = QLabel(field.label)
        label.setToolTip(field.tooltip)
        label.setMinimumWidth(LABEL_PX)
        if field.when_off is None:
            return label, editor.native
        self._optional[name] = OptionalField(editor, field.when_off, field.tooltip)
        return label, self._optional[name]


def _wrapped(tip: str) -> str:
    """Qt breaks only rich text into lines; a plain tooltip may become wider than the screen."""
    return f"<p>{html.escape(tip, quote=False).replace(chr(10), '<br>')}</p>"


def _down_arrow() -> QIcon:
    """A triangle in a grey that is seen on dark and on light; Qt's own is black."""
    pixmap = QPixmap(14, 14)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setBrush(QColor(128, 128, 128))
    painter.setPen(Qt.PenStyle.NoPen)
    painter.drawPolygon(QPolygon([QPoint(1, 4), QPoint(13, 4), QPoint(7, 11)]))
    painter.end()
    return QIcon(pixmap)


def _offer_weights(edit: QLineEdit) -> None:
    """Names of weights, offered while one is typed, and all of them at the arrow."""
    names = [AUTO_WEIGHTS, "none", "imagenet", "micronet", "image-micronet"]
    with contextlib.suppress(EMTransferError):  # a card that cannot be read is told where weights are loaded
        names += [entry.name for entry in store.all_entries() if entry.family in ("bundled", "imported")]
    completer = QCompleter(names)
    completer.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
    edit.setCompleter(completer)
    mode = QCompleter.CompletionMode

    def show_all() -> None:
        completer.setCompletionMode(mode.UnfilteredPopupCompletion)
        completer.complete()

    action = edit.addAction(_down_arrow(), QLineEdit.ActionPosition.TrailingPosition)
    action.setToolTip("Show the weights that are known by name.")
    action.triggered.connect(show_all)
    edit.textEdited.connect(lambda _text: completer.setCompletionMode(mode.PopupCompletion))
