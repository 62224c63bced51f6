"""Keeps napari's canvas true to the session, and tells the session what is painted and looked at."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QObject, QTimer, Signal

from napari_emtransfer.core.data.tiles import Tile, TileGrid, Window
from napari_emtransfer.gui.bridge import Bridge
from napari_emtransfer.gui.canvas_image import CanvasImage
from napari_emtransfer.gui.canvas_text import CanvasText
from napari_emtransfer.gui.image_cache import ImageCache
from napari_emtransfer.gui.painting import StrokeWatcher
from napari_emtransfer.gui.tile_layers import TileLayers, camera_of, focus_on
from napari_emtransfer.gui.viewer_layers import ViewerLayers, scale_of

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_emtransfer.session.session import Session
    from napari_emtransfer.session.state import LiveState

ENTROPY_SECONDS: Final = 0.5


class Canvas(QObject):
    """One micrograph at a time: its pixels, labels, prediction, uncertainty, tiles, and the line of readouts.

    `images` are the micrographs that are ready to be shown.
    `shown_changed(stem)` follows when pixels are really on the canvas; `loading_changed(bool)` while they are read.
    """

    shown_changed = Signal(object)
    loading_changed = Signal(bool)
    annotation_layer_changed = Signal(object)

    def __init__(self, viewer: ViewerModel, session: Session, bridge: Bridge, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer, self._session, self._bridge = viewer, session, bridge
        self.layers = ViewerLayers(viewer)
        self.tiles = TileLayers(viewer)
        self._text = CanvasText(viewer)
        self.images = ImageCache(session, bridge)
        self._generation = 0
        self._shown: CanvasImage | None = None
        self._watcher: StrokeWatcher | None = None
        self._dirty: Window | None = None
        self._asked: dict[str, str | None] = {}
        self._entropy_due: float | None = None
        self._style, self._entropy_wanted, self._live = "contour", False, False
        self._stroke_ended = QTimer(self)
        self._stroke_ended.setSingleShot(True)
        self._stroke_ended.timeout.connect(lambda: bridge.attempt(self._end_stroke))
        self._connect()

    def _connect(self) -> None:
        signals, connect = self._session.signals, self._bridge.connect
        connect(signals.project_changed, self._on_project)
        connect(signals.micrographs_changed, self._on_micrographs)
        connect(signals.current_changed, self._load)
        connect(signals.tile_changed, self._show_tile)
        connect(signals.tile_states_changed, self._on_tile_states)
        connect(signals.schema_changed, lambda: self.layers.set_schema(self._session.schema))
        connect(signals.prediction_changed, self._on_prediction)
        connect(signals.model_changed, lambda _run: self.set_prediction_style(self._style))
        connect(signals.live_changed, self._on_live)
        connect(signals.readouts_changed, lambda _readouts: self._show_text())

    # ---- what the panels ask

    @property
    def shown(self) -> str | None:
        """Stem of the micrograph whose pixels are on the canvas."""
        return self._shown.stem if self._shown else None

    def set_prediction_style(self, style: str) -> None:
        """Show the prediction as "contour" or "fill", or not at all ("off")."""
        self._style = style
        has_source = self._session.prediction.model_run is not None or self._session.live.enabled
        self.layers.set_prediction_style(style if has_source else "off")

    def set_entropy_visible(self, visible: bool) -> None:
        """Show or hide the uncertainty."""
        self._entropy_wanted = visible
        self.layers.set_entropy_visible(visible)

    def focus_tile(self) -> None:
        """Bring the current tile to the middle of the canvas."""
        tile = self._session.tile
        if tile is not None and self._shown is not None and tile.micrograph == self._shown.stem:
            focus_on(self._viewer, tile.window, self._scale)

    def tick(self) -> None:
        """Ten times a second: hand over strokes, note what is in view, redraw what may be redrawn seldom."""
        self._flush_strokes()
        self._session.look_at(self._visible_window() if self.shown == self._session.current else None)
        self._session.tick()
        self._text.fit()
        if self._entropy_due is not None and time.monotonic() >= self._entropy_due:
            self._entropy_due = None
            self.layers.refresh_entropy()

    def close(self) -> None:
        """Hand over the last strokes and stop watching; the layers stay."""
        self._stroke_ended.stop()
        self._flush_strokes()
        self._watch(None)

    # ---- the session says

    def _on_project(self) -> None:
        self.images.clear()
        self._asked.clear()
        if self._session.project is None:
            self._unload()

    def _on_micrographs(self) -> None:
        """A pixel size may have been corrected, a micrograph removed."""
        self.images.keep_only(self._session.records)
        shown = self.shown
        if shown in {record.stem for record in self._session.records} and self.images.get(str(shown)) is None:
            self._load(shown)

    def _load(self, stem: str | None) -> None:
        self._generation += 1
        generation = self._generation
        if stem is None:
            self._unload()
            return
        image = self.images.get(stem)
        if image is not None:
            self._show(image)
            return
        self.loading_changed.emit(True)
        self.images.load(
            stem,
            done=lambda image: self._loaded(generation, image),
            failed=lambda message, hint: self._not_loaded(generation, message, hint),
        )

    def _loaded(self, generation: int, image: CanvasImage) -> None:
        if generation == self._generation:  # the user may have gone on to another one
            self.loading_changed.emit(False)
            self._show(image)

    def _not_loaded(self, generation: int, message: str, hint: str) -> None:
        if generation == self._generation:
            self.loading_changed.emit(False)
        self._session.signals.failed.emit(message, hint)

    def _show(self, image: CanvasImage) -> None:
        session, stem = self._session, image.stem
        self._flush_strokes()
        before, self._shown = self._shown, image
        # Beside a micrograph of quite another scale, or of none, the same camera would show a speck or a few pixels.
        is_first = before is None or not 0.2 < self._scale / scale_of(before.pixel_size_nm) < 5
        annotation = session.labelling.annotation(stem)
        self._watch(None)
        self.layers.show(
            image, annotation, session.prediction.mask(stem), session.prediction.entropy(stem), session.schema
        )
        self.set_prediction_style(self._style)
        self.layers.set_entropy_visible(self._entropy_wanted)
        self._watch(self.layers.annotation)
        self._on_tile_states(stem)
        if is_first:
            self._viewer.reset_view()
        self._show_tile(session.tile)
        self.layers.activate_annotation()
        self._ask_for_prediction()
        self.images.prefetch()
        self.shown_changed.emit(stem)

    def _unload(self) -> None:
        self._flush_strokes()
        self._watch(None)
        self._shown = None
        self.layers.clear()
        self._show_text()
        self.shown_changed.emit(None)

    def _show_tile(self, tile: Tile | None) -> None:
        if self._shown is None or (tile is not None and tile.micrograph != self._shown.stem):
            return
        self.tiles.show_tile(tile, self._shown.shape, self._scale, self._units)
        self.focus_tile()
        self._show_text()

    def _on_tile_states(self, stem: str) -> None:
        if self._shown is not None and stem == self._shown.stem:
            grid: TileGrid = self._session.labelling.grid(stem)
            self.tiles.show_grid(grid, self._session.labelling.tile_states(stem), self._scale, self._units)

    def _on_live(self, live: LiveState) -> None:
        if (live.phase != "off") != self._live:
            self._live = live.phase != "off"
            self.set_prediction_style(self._style)

    def _on_prediction(self, stem: str, window: Window) -> None:
        if stem == self.shown:
            self.layers.refresh_prediction(window, self._session.prediction.entropy(stem))
            self._entropy_due = self._entropy_due or time.monotonic() + ENTROPY_SECONDS

    def _show_text(self) -> None:
        self._text.show(self._session.text_overlay if self._shown is not None else "")

    def _ask_for_prediction(self) -> None:
        """Predict what is shown unless the newest model has done so already."""
        stem, model = self._session.current, self._session.prediction.model_run
        if stem is None or model is None:
            return
        complete = bool(self._session.prediction.mask(stem)[::16, ::16].all())
        if self._asked.get(stem) != model or not complete:
            self._asked[stem] = model
            self._session.predict_current()

    # ---- the user paints and looks

    def _watch(self, layer: Labels | None) -> None:
        if self._watcher is not None:
            self._watcher.close()
        self._watcher = StrokeWatcher(layer, self._on_change, self._on_stroke) if layer is not None else None
        self.annotation_layer_changed.emit(layer)

    def _on_change(self, window: Window) -> None:
        """Collect what has changed until the next tick: a brush step must cost nothing."""
        self._dirty = window if self._dirty is None else _union(self._dirty, window)

    def _on_stroke(self, begun: bool) -> None:
        if begun:
            if self._stroke_ended.isActive():  # a fast hand: this is the next stroke already
                self._stroke_ended.stop()
                self._end_stroke()
            self._session.live.stroke_begun()
        else:
            self._stroke_ended.start()  # napari writes the pixels before the event loop comes round again

    def _end_stroke(self) -> None:
        """A live overlay does not wait for the next tick."""
        self._flush_strokes()
        self._session.live.stroke_ended()

    def _flush_strokes(self) -> None:
        window, self._dirty = self._dirty, None
        if window is not None and self._shown is not None and self._session.project is not None:
            self._session.labelling.mark_dirty(window, stem=self._shown.stem)
            self._session.measuring.touched(self._shown.stem, window)

    def _visible_window(self) -> Window | None:
        """The part of the micrograph that is in view, in native pixels; None while all of it is out of sight."""
        if self._shown is None or self._viewer.dims.ndisplay != 2:
            return None
        canvas = getattr(self._viewer, "canvas", None)
        size = np.array(canvas.size if canvas is not None else self._viewer._canvas_size, dtype=float)
        camera = camera_of(self._viewer)
        half = size / camera.zoom / 2 / self._scale
        center = np.array(camera.center[-2:]) / self._scale
        low = np.clip(np.floor(center - half), 0, self._shown.shape).astype(int)
        high = np.clip(np.ceil(center + half), 0, self._shown.shape).astype(int)
        if (high <= low).any():
            return None
        return Window(y0=int(low[0]), x0=int(low[1]), y1=int(high[0]), x1=int(high[1]))

    # ---- inside

    @property
    def place(self) -> tuple[float, str]:
        """World units per pixel of what is shown, and which unit that is."""
        return self._scale, self._units

    @property
    def _scale(self) -> float:
        return scale_of(self._shown.pixel_size_nm if self._shown else None)

    @property
    def _units(self) -> str:
        return "nm" if self._shown and self._shown.pixel_size_nm else "pixel"


def _union(a: Window, b: Window) -> Window:
    return Window(y0=min(a.y0, b.y0), x0=min(a.x0, b.x0), y1=max(a.y1, b.y1), x1=max(a.x1, b.x1))
