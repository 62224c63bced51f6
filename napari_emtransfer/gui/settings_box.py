"""Settings of the project as a whole: modality, the scale at which the network sees, the size of a tile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QGroupBox, QLineEdit, QSpinBox
from superqt.utils import signals_blocked

from napari_emtransfer.core.legality import MODALITIES
from napari_emtransfer.gui.micrograph_table import parse_pixel_size

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project_records import ProjectSettings


class SettingsBox(QGroupBox):
    """Emits `changed(field, value)`; the box itself changes nothing in the project."""

    changed = Signal(str, object)

    def __init__(self) -> None:
        super().__init__("Settings")
        self.modality = QComboBox()
        for index, entry in enumerate(MODALITIES):
            self.modality.addItem(entry.name, entry.id)
            self.modality.setItemData(index, entry.what, Qt.ItemDataRole.ToolTipRole)
        # Long names may be cut off in the closed box; the open list shows all of them.
        self.modality.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.modality.setMinimumContentsLength(8)
        self.modality.setToolTip(
            "What the micrographs are. It decides which augmentations are true to them; kept with the project."
        )
        self.modality.activated.connect(lambda _i: self.changed.emit("modality", self.modality.currentData()))
        self.scale = QLineEdit()
        self.scale.setPlaceholderText("as recorded")
        self.scale.setToolTip(
            "Pixel size in nm to which all micrographs are brought before the network sees them. Empty: as recorded."
        )
        self.scale.editingFinished.connect(self._on_scale)
        self.tile = QSpinBox()
        self.tile.setRange(32, 4096)
        self.tile.setSingleStep(32)
        self.tile.setKeyboardTracking(False)
        self.tile.setToolTip("Edge of a tile in pixels at that scale. Labels stay; which tiles are done is asked anew.")
        self.tile.valueChanged.connect(lambda value: self.changed.emit("tile_size_px", value))
        self._shown_scale = ""
        layout = QFormLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.setVerticalSpacing(4)
        layout.addRow("Modality", self.modality)
        layout.addRow("Scale (nm/px)", self.scale)
        layout.addRow("Tile (px)", self.tile)

    def set_settings(self, settings: ProjectSettings) -> None:
        """Show these."""
        size = settings.working_pixel_size_nm
        self._shown_scale = "" if size is None else f"{size:.4g}"
        with signals_blocked(self.modality), signals_blocked(self.scale), signals_blocked(self.tile):
            self.modality.setCurrentIndex(self.modality.findData(settings.modality))
            self.scale.setText(self._shown_scale)
            self.tile.setValue(settings.tile_size_px)

    def _on_scale(self) -> None:
        if self.scale.text() != self._shown_scale:
            self.changed.emit("working_pixel_size_nm", parse_pixel_size(self.scale.text().strip()))
