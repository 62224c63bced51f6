"""How the prediction is shown: outlines or areas, with or without uncertainty and tile grid."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QGridLayout, QGroupBox, QLabel

STYLES = (("Outlines", "contour"), ("Areas", "fill"), ("Hidden", "off"))


class ViewBox(QGroupBox):
    """Three choices about the canvas; none changes the data."""

    style_changed = Signal(str)
    entropy_toggled = Signal(bool)
    grid_toggled = Signal(bool)

    def __init__(self) -> None:
        super().__init__("View")
        layout = QGridLayout(self)
        layout.addWidget(QLabel("Prediction"), 0, 0)
        self.style_box = QComboBox()
        self.style_box.setToolTip("How the overlay of the live head or the newest model is drawn. Changes no data.")
        for text, style in STYLES:
            self.style_box.addItem(text, style)
        self.style_box.currentIndexChanged.connect(lambda _i: self.style_changed.emit(self.style_box.currentData()))
        self.entropy_check = QCheckBox("Uncertainty")
        self.entropy_check.setToolTip("Shows where the overlay is unsure (entropy, bright is unsure). Changes no data.")
        self.entropy_check.toggled.connect(self.entropy_toggled)
        self.grid_check = QCheckBox("Tile grid")
        self.grid_check.setToolTip("Shows the tiles: green is done, orange unsure. Changes no data.")
        self.grid_check.setChecked(True)
        self.grid_check.toggled.connect(self.grid_toggled)
        layout.addWidget(self.style_box, 0, 1)
        layout.addWidget(self.entropy_check, 1, 0)
        layout.addWidget(self.grid_check, 1, 1)
        layout.setColumnStretch(1, 1)
