"""The readouts of the open project: which numbers, on what ground, recomputed when labels or prediction change."""

from __future__ import annotations

from dataclasses import replace

from napari_emtransfer.core.data.tiles import Tile, Window
from napari_emtransfer.session.context import Context
from napari_emtransfer.session.labelling import LabellingController
from napari_emtransfer.session.overlays import Overlays
from napari_emtransfer.session.prediction import PredictionController
from napari_emtransfer.session.readouts import model_readout, text_overlay, tile_readout
from napari_emtransfer.session.runs import TrainingGround
from napari_emtransfer.session.state import ModelReadout, Readouts, TileGround, TileReadout
from napari_emtransfer.worker.protocol import LIVE_RUN


class MeasuringController:
    """Keeps `readouts` true to the current tile, its labels, and the prediction on it."""

    def __init__(
        self, context: Context, labelling: LabellingController, prediction: PredictionController, overlays: Overlays
    ) -> None:
        self._context, self._labelling, self._prediction, self._overlays = context, labelling, prediction, overlays
        self._grounds: dict[str, TrainingGround] = {}
        self._model: ModelReadout | None = None
        self._stale = False
        self.readouts = Readouts()

    @property
    def text_overlay(self) -> str:
        """The line on the canvas; empty while nothing is predicted on the current tile."""
        return text_overlay(self.readouts)

    def model_changed(self) -> None:
        """Another run predicts now: read what it learnt from and how well it did."""
        project, run_id = self._context.project, self._prediction.model_run
        self._grounds.clear()
        self._model = None
        if project is not None and run_id is not None:
            self._model = model_readout(project.run(run_id), self._synthetic)
        self.refresh()

    def touched(self, stem: str, window: Window) -> None:
        """Labels or prediction changed there; the readout follows at the next tick, not at every brush step."""
        tile = self._labelling.tile
        if tile is not None and tile.micrograph == stem and tile.window.intersection(window) is not None:
            self._stale = True

    def tick(self) -> None:
        """Bring the readouts up to date if they are stale."""
        if self._stale:
            self.refresh()

    def refresh(self) -> None:
        """Compute the readouts anew."""
        self._stale = False
        tile = self._labelling.tile
        readouts = Readouts(self._model, None if tile is None else self.tile_readout(tile))
        if readouts != self.readouts:
            self.readouts = readouts
            self._context.signals.readouts_changed.emit(readouts)

    def tile_readout(self, tile: Tile) -> TileReadout | None:
        """The prediction measured on the labels of any tile of the current micrograph; None where there is none yet."""
        project = self._context.project
        if project is None:
            return None
        overlay = self._overlays.of(tile.micrograph)
        run = overlay.run or self._prediction.model_run
        mask = overlay.mask[tile.window.slices]
        names = project.schema.names
        if run is None or mask.max(initial=0) > len(names):
            return None  # a model of other classes than the project has now
        labels = self._labelling.annotation(tile.micrograph)[tile.window.slices]
        source = "live head" if run == LIVE_RUN else f"run {run}"
        readout = tile_readout(mask, labels, names, self._ground_of(tile, run), source)
        return readout and replace(readout, synthetic=tile.micrograph in self._synthetic)

    @property
    def _synthetic(self) -> set[str]:
        return {record.stem for record in self._context.records if record.synthetic}

    def _ground_of(self, tile: Tile, run: str) -> TileGround:
        if run == LIVE_RUN:
            return self._live_ground(tile)
        if run not in self._grounds:
            self._grounds[run] = TrainingGround(self._context.require_project(), run)
        return self._grounds[run].of(tile)

    def _live_ground(self, tile: Tile) -> TileGround:
        """The live head learns from all labels but synthetic ones, on top of what the run has learnt from."""
        labels = self._labelling.annotation(tile.micrograph)
        if tile.micrograph in self._synthetic:
            labels = labels[:0]
        elif labels[tile.window.slices].any():
            return "training tile"
        if labels.any():
            return "training micrograph"
        run = self._prediction.model_run
        return "held-out" if run is None else self._ground_of(tile, run)
