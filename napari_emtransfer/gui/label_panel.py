"""The Label tab: which micrograph, which class, which tool; tile done or unsure; what is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Labels
from qtpy.QtWidgets import QComboBox, QGridLayout, QGroupBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget
from superqt.utils import signals_blocked

from napari_emtransfer.gui.class_palette import ClassPalette
from napari_emtransfer.gui.tool_box import ToolBox
from napari_emtransfer.gui.view_box import ViewBox
from napari_emtransfer.gui.widgets import button, wrapped_label

if TYPE_CHECKING:
    from napari_emtransfer.gui.viewer_session import ViewerSession
    from napari_emtransfer.session.state import SaveState


class LabelPanel(QWidget):
    """Painting with napari's own Labels tools, tile by tile."""

    def __init__(self, owner: ViewerSession) -> None:
        super().__init__()
        self._session, self._bridge, self._canvas = owner.session, owner.bridge, owner.canvas
        self._layer: Labels | None = None
        self.micrograph_box = QComboBox()
        self.micrograph_box.setToolTip("The micrograph on the canvas. Choosing another one saves the strokes.")
        self.micrograph_box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.micrograph_box.setMinimumContentsLength(10)
        self.palette_box = ClassPalette()
        self.tools = ToolBox()
        self.view = ViewBox()
        self.tile_label = wrapped_label()
        self.save_label = wrapped_label()
        self.unsure_button = button(
            "Unsure U", "Put this tile aside; it comes again after all others.", self.mark_unsure, name="unsure"
        )
        self.done_button = button(
            "Done D", "Mark this tile as finished, and go to the next one.", self.mark_done, name="done"
        )
        self.next_button = button(
            "Next N", "Go to the next tile to label; strokes are saved.", self.next_tile, name="next"
        )
        self.center_button = button(
            "Centre C", "Bring the current tile back to the middle of the canvas.", self._canvas.focus_tile
        )
        self._lay_out()
        self._connect()
        self._on_project()

    # ---- what buttons and keys do

    def choose_class(self, value: int) -> None:
        """Paint this label value from now on."""
        if self._layer is not None and 1 <= value <= len(self._session.schema):
            self._layer.selected_label = value
            if str(self._layer.mode) in ("pan_zoom", "erase", "transform", "pick"):
                self._layer.mode = "paint"
            self._canvas.layers.activate_annotation()

    def next_tile(self) -> None:
        """Go to the next tile; say so when there is none."""
        if self._session.project is not None and self._bridge.attempt(self._go_on):
            self._canvas.layers.activate_annotation()

    def previous_tile(self) -> None:
        """Go back to the tile before."""
        if self._session.project is not None:
            self._bridge.attempt(self._session.labelling.previous_tile)

    def mark_done(self) -> None:
        """Call this tile finished and go on."""
        if self._bridge.attempt(self._session.labelling.mark_done):
            self.next_tile()

    def mark_unsure(self) -> None:
        """Put this tile aside and go on."""
        if self._bridge.attempt(self._session.labelling.mark_unsure):
            self.next_tile()

    def mark_skipped(self) -> None:
        """Leave this tile out for good and go on."""
        if self._bridge.attempt(self._session.labelling.mark_skipped):
            self.next_tile()

    # ---- building

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 6, 4, 4)
        row = QHBoxLayout()
        row.addWidget(QLabel("Micrograph"))
        row.addWidget(self.micrograph_box, 1)
        layout.addLayout(row)
        layout.addWidget(_boxed("Class to paint", self.palette_box))
        layout.addWidget(_boxed("Tool", self.tools))
        tile_box = QGroupBox("Tile")
        grid = QGridLayout(tile_box)
        grid.addWidget(self.tile_label, 0, 0, 1, 2)
        for column, widget in enumerate((self.unsure_button, self.done_button, self.next_button, self.center_button)):
            grid.addWidget(widget, 1 + column // 2, column % 2)
        layout.addWidget(tile_box)
        layout.addWidget(self.view)
        layout.addWidget(self.save_label)
        layout.addStretch(1)

    def _connect(self) -> None:
        signals, connect = self._session.signals, self._bridge.connect
        connect(signals.project_changed, self._on_project)
        connect(signals.schema_changed, self._on_schema)
        connect(signals.micrographs_changed, self._on_micrographs)
        connect(signals.current_changed, self._on_current)
        connect(signals.tile_changed, lambda _tile: self._on_tile())
        connect(signals.tile_states_changed, lambda _stem: self._on_tile())
        connect(signals.save_state_changed, self._on_save_state)
        self._canvas.annotation_layer_changed.connect(self._set_layer)
        self.palette_box.class_chosen.connect(self.choose_class)
        self.micrograph_box.activated.connect(lambda _i: self._bridge.attempt(self._show_chosen))
        self.view.style_changed.connect(self._canvas.set_prediction_style)
        self.view.entropy_toggled.connect(self._canvas.set_entropy_visible)
        self.view.grid_toggled.connect(self._canvas.tiles.set_grid_visible)

    # ---- the session says

    def _on_project(self) -> None:
        self.setEnabled(self._session.project is not None)
        self._on_schema()
        self._on_micrographs()
        self._on_tile()

    def _on_schema(self) -> None:
        self.palette_box.set_schema(self._session.schema)
        self._follow_layer()

    def _on_micrographs(self) -> None:
        with signals_blocked(self.micrograph_box):
            self.micrograph_box.clear()
            self.micrograph_box.addItems([record.stem for record in self._session.records])
        self._on_current(self._session.current)

    def _on_current(self, stem: str | None) -> None:
        with signals_blocked(self.micrograph_box):
            self.micrograph_box.setCurrentIndex(self.micrograph_box.findText(stem) if stem else -1)

    def _on_tile(self) -> None:
        tile = self._session.tile
        for widget in (self.unsure_button, self.done_button, self.center_button):
            widget.setEnabled(tile is not None)
        if tile is None:
            self.tile_label.setText("No tile is chosen; Next goes to one.")
            return
        state = self._session.labelling.tile_state(tile)
        self.tile_label.setText(f"Row {tile.row + 1}, column {tile.column + 1} of {tile.micrograph}: {state}")

    def _on_save_state(self, state: SaveState) -> None:
        if state.failing:
            self.save_label.setText(f"{state.message} {state.hint}")
        else:
            self.save_label.setText("Saving …" if state.unsaved else "All strokes are saved.")

    # ---- inside

    def _show_chosen(self) -> None:
        stem = self.micrograph_box.currentText()
        if stem and stem != self._session.current:
            self._session.show(stem)

    def _go_on(self) -> None:
        labelling = self._session.labelling
        if labelling.next_tile() is None:
            if labelling.tile is None and labelling.current is not None:
                labelling.go_to(labelling.grid(labelling.current).tile(0, 0))  # to be looked at and measured
            self._session.signals.notice_posted.emit(
                "All tiles are done or skipped.", "Fine-tune on them, or add micrographs."
            )

    def _set_layer(self, layer: Labels | None) -> None:
        if self._layer is not None:
            self._layer.events.selected_label.disconnect(self._follow_layer)
        self._layer = layer
        self.tools.set_layer(layer)
        if layer is not None:
            layer.events.selected_label.connect(self._follow_layer)
            self._follow_layer()

    def _follow_layer(self, _event: object = None) -> None:
        if self._layer is not None:
            self.palette_box.set_chosen(self._layer.selected_label)


def _boxed(title: str, widget: QWidget) -> QGroupBox:
    box = QGroupBox(title)
    QVBoxLayout(box).addWidget(widget)
    return box
