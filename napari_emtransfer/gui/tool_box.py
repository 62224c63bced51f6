"""Napari's own painting tools as buttons with their keys, brush size, undo and redo."""

from __future__ import annotations

from typing import Final

from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QButtonGroup, QGridLayout, QLabel, QPushButton, QWidget
from superqt import QLabeledSlider
from superqt.utils import signals_blocked

from napari_emtransfer.gui.widgets import button

TOOLS: Final = (
    ("paint", "Brush", "B", "Paint the chosen class while the mouse button is held."),
    ("erase", "Eraser", "E", "Take labels away: erased pixels are unlabelled again."),
    ("polygon", "Polygon", "P", "Click corners around an area; a double click fills it with the chosen class."),
    ("fill", "Fill", "F", "Click to fill the connected area of equal label with the chosen class."),
    ("pan_zoom", "Move", "M", "Drag and zoom the canvas; labels stay as they are."),
)


class ToolBox(QWidget):
    """Buttons that set the mode of the annotation layer, and follow it when napari's own controls change it."""

    def __init__(self) -> None:
        super().__init__()
        self._layer: Labels | None = None
        self._group = QButtonGroup(self)
        self.buttons: dict[str, QPushButton] = {}
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for index, (mode, text, key, tip) in enumerate(TOOLS):
            widget = button(f"{text} {key}", tip, lambda mode=mode: self.set_mode(mode), name=mode)
            widget.setCheckable(True)
            self._group.addButton(widget)
            self.buttons[mode] = widget
            layout.addWidget(widget, index // 3, index % 3)
        self.undo_button = button(
            "Undo", "Take back the last stroke (Ctrl+Z).", lambda: self._layer and self._layer.undo()
        )
        self.redo_button = button(
            "Redo",
            "Paint the stroke again that was taken back (Ctrl+Shift+Z).",
            lambda: self._layer and self._layer.redo(),
        )
        self.brush_slider = QLabeledSlider(Qt.Orientation.Horizontal)
        self.brush_slider.setRange(1, 100)
        self.brush_slider.setToolTip("Diameter of brush and eraser, in pixels of the micrograph. Keys [ and ].")
        self.brush_slider.valueChanged.connect(self._set_brush_size)
        layout.addWidget(self.undo_button, 2, 0)
        layout.addWidget(self.redo_button, 2, 1)
        layout.addWidget(QLabel("Brush size (px)"), 3, 0)
        layout.addWidget(self.brush_slider, 3, 1, 1, 2)
        self.set_layer(None)

    def set_layer(self, layer: Labels | None) -> None:
        """Work on this layer from now on."""
        if self._layer is not None:
            self._layer.events.mode.disconnect(self._follow)
            self._layer.events.brush_size.disconnect(self._follow)
        self._layer = layer
        self.setEnabled(layer is not None)
        if layer is not None:
            layer.events.mode.connect(self._follow)
            layer.events.brush_size.connect(self._follow)
            self._follow()

    def set_mode(self, mode: str) -> None:
        """Choose a tool."""
        if self._layer is not None:
            self._layer.mode = mode

    def step_brush(self, steps: int) -> None:
        """Make the brush larger or smaller."""
        self.brush_slider.setValue(self.brush_slider.value() + steps)

    def _set_brush_size(self, size: int) -> None:
        if self._layer is not None:
            self._layer.brush_size = size

    def _follow(self, _event: object = None) -> None:
        if self._layer is None:
            return
        mode = str(self._layer.mode)
        self._group.setExclusive(False)
        for name, widget in self.buttons.items():
            widget.setChecked(name == mode)
        self._group.setExclusive(True)
        with signals_blocked(self.brush_slider):
            self.brush_slider.setValue(round(self._layer.brush_size))
