"""A form for `TrainConfig`: one field per choice with a tooltip; every value survives the round trip."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final, get_args

from magicgui.widgets import CheckBox, ComboBox, LineEdit, SpinBox
from magicgui.widgets.bases import ValueWidget
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QLabel, QWidget

from napari_emtransfer.core.config import Architecture, AugmentPreset, Precision, StrategyName, TrainConfig
from napari_emtransfer.gui.log_spin_box import LogFloat

ENCODERS: Final = ("resnet18", "resnet34", "resnet50", "efficientnet-b0", "mobilenet_v2", "tu-convnext_tiny", "mit_b0")

Make = Callable[[], ValueWidget]


def _choice(choices: tuple[str, ...]) -> Make:
    return lambda: ComboBox(choices=choices)


def _count(minimum: int, maximum: int, step: int = 1) -> Make:
    return lambda: SpinBox(min=minimum, max=maximum, step=step)


# field → (label, tooltip, editor, value shown while an optional field is off; None where the field is not optional)
FIELDS: Final[dict[str, tuple[str, str, Make, Any]]] = {
    "strategy": (
        "Strategy",
        "How much of the network learns; auto decides from labels and weights.",
        _choice(get_args(StrategyName)),
        None,
    ),
    "weights": (
        "Weights",
        "Where learning starts: none, imagenet, a safetensors file, or run:ID of an earlier run.",
        LineEdit,
        None,
    ),
    "architecture": ("Architecture", "The decoder of the network.", _choice(get_args(Architecture)), None),
    "encoder": ("Encoder", "The backbone that turns pixels into features; larger is slower.", _choice(ENCODERS), None),
    "iterations": ("Iterations", "Optimiser steps of the run.", _count(1, 1_000_000, 50), None),
    "minutes": ("At most (min)", "End the run after this many minutes, keeping the best checkpoint.", LogFloat, 10.0),
    "batch_size": ("Batch size", "Crops per step; halved by itself when memory runs out.", _count(1, 512), None),
    "crop_px": ("Crop (px)", "Edge length of the training crops, a multiple of 32.", _count(32, 4096, 32), None),
    "learning_rate": (
        "Learning rate",
        "Step size of decoder and head. Arrows multiply; type 3e-4 freely.",
        LogFloat,
        None,
    ),
    "encoder_learning_rate": ("… of the encoder", "Step size of the encoder, when it is to differ.", LogFloat, 1e-4),
    "weight_decay": ("Weight decay", "Shrinks the weights a little at each step; 0 turns it off.", LogFloat, None),
    "augment": (
        "Augmentation",
        "Random flips, turns, brightness and noise on the training crops.",
        _choice(get_args(AugmentPreset)),
        None,
    ),
    "validate_every": (
        "Validate every",
        "Iterations between two measurements on the held-out ground.",
        _count(1, 1_000_000, 10),
        None,
    ),
    "patience": ("Patience", "End after this many validations without a better IoU.", _count(1, 10_000), 5),
    "device": ("Device", "auto, cpu, cuda, cuda:1 or mps.", LineEdit, None),
    "precision": (
        "Precision",
        "Number format of the computation; auto takes bf16 where the device has it.",
        _choice(get_args(Precision)),
        None,
    ),
    "threads": ("Threads", "Processor threads of the worker; off: one fewer than there are cores.", _count(1, 1024), 1),
    "seed": ("Seed", "Start of the random numbers; the same seed repeats the run.", _count(0, 2**31 - 1), None),
}
COMPUTE_FIELDS: Final = ("device", "precision", "threads", "seed")
LIMITS: Final = {
    "learning_rate": (1e-8, 1.0),
    "encoder_learning_rate": (1e-8, 1.0),
    "weight_decay": (0.0, 10.0),
    "minutes": (0.1, 1e5),
}


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

    `edited(field)` follows what the user changes, and what code sets through `editor`, but not setting `config`.
    """

    edited = Signal(str)

    def __init__(self, config: TrainConfig | None = None) -> None:
        super().__init__()
        self._editors: dict[str, ValueWidget] = {}
        self._optional: dict[str, OptionalField] = {}
        self._rest = config or TrainConfig()
        self._filling = False
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setVerticalSpacing(4)
        layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for name in FIELDS:
            layout.addRow(*self._row(name))
        self.config = self._rest
        for name, editor in self._editors.items():
            editor.changed.connect(lambda _value, name=name: self._on_edit(name))
        for name, field in self._optional.items():
            field.toggled.connect(lambda name=name: self._on_edit(name))

    @property
    def config(self) -> TrainConfig:
        """The fields as a validated configuration; what has no field keeps the value that was set."""
        values = {name: self._value(name) for name in FIELDS}
        compute = {name: values.pop(name) for name in COMPUTE_FIELDS}
        merged = self._rest.model_dump() | values
        merged["compute"] = self._rest.compute.model_dump() | compute
        return TrainConfig.model_validate(merged)

    @config.setter
    def config(self, config: TrainConfig) -> None:
        self.fill(config)

    def fill(self, config: TrainConfig, keep: Collection[str] = ()) -> None:
        """Fill the fields, all but those named in `keep`."""
        self._rest = config
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

    def editor(self, name: str) -> ValueWidget:
        """The magicgui widget of a field."""
        return self._editors[name]

    def _on_edit(self, name: str) -> None:
        if not self._filling:
            self.edited.emit(name)

    def _value(self, name: str) -> Any:
        return self._optional[name].value() if name in self._optional else self._editors[name].value

    def _set(self, name: str, value: Any) -> None:
        editor = self._editors[name]
        if isinstance(editor, ComboBox) and value not in editor.choices:
            editor.choices = (*editor.choices, value)
        editor.value = value

    def _row(self, name: str) -> tuple[QLabel, QWidget]:
        text, tooltip, make, value_when_off = FIELDS[name]
        editor = make()
        editor.native.setToolTip(tooltip)
        editor.native.setObjectName(name)
        if name in LIMITS:
            editor.native.set_range(*LIMITS[name])
        self._editors[name] = editor
        label = QLabel(text)
        label.setToolTip(tooltip)
        if value_when_off is None:
            return label, editor.native
        self._optional[name] = OptionalField(editor, value_when_off, tooltip)
        return label, self._optional[name]
