"""The overlay: what the newest model says about the micrograph that is shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.events import TERMINAL, Event, RegionPredicted, RunFailed, RunFinished
from napari_emtransfer.session.context import Context
from napari_emtransfer.session.engine import DIED, EngineController
from napari_emtransfer.session.messages import FromEngine, Message, RegionLoaded, StoredPrediction
from napari_emtransfer.session.overlays import Overlays, read_region
from napari_emtransfer.session.state import EngineState
from napari_emtransfer.worker.protocol import PredictRequest

KEY = "predict"


@dataclass(frozen=True)
class _Wish:
    """What the user looks at: predicted window first, then the rest. `generation` tells late answers apart."""

    generation: int
    stem: str
    visible: Window | None
    model_run: str


class PredictionController:
    """Fills the overlays. `load` belongs to the bridge's thread, all else to that of the views."""

    def __init__(self, context: Context, engine: EngineController, overlays: Overlays) -> None:
        self._context, self._engine, self._overlays = context, engine, overlays
        self._generation = 0
        self._wish: _Wish | None = None
        self.model_run: str | None = None

    @property
    def engine(self) -> EngineState:
        """How the engine fares."""
        return self._engine.state

    # ---- requests

    def reset(self) -> None:
        """The project was closed."""
        self.stop()
        self._overlays.clear()
        self.use_model(None)

    def use_model(self, run_id: str | None) -> None:
        """Predict with this run from now on."""
        if run_id != self.model_run:
            self.model_run = run_id
            self._context.signals.model_changed.emit(run_id)

    def stop(self) -> None:
        """Nobody wants the prediction that is on its way any more."""
        self._generation += 1
        self._wish = None
        self._engine.forget(KEY)

    def request(self, stem: str, visible: Window | None = None) -> int | None:
        """Have a micrograph predicted by the newest model, the window in view first, and return the generation.

        Answers None where there is no model yet, or nothing to do: predicted already, or being predicted. A request
        for another micrograph that is still going on is given up.
        """
        if self.model_run is None or self._overlays.of(stem).complete_for == self.model_run or self._asks_for(stem):
            return None
        self._generation += 1
        self._wish = wish = _Wish(self._generation, stem, visible, self.model_run)
        self._engine.forget(KEY)
        self._engine.start()
        if self._context.require_project().predictions.exists(self.model_run, stem):
            self._context.inbox.put(StoredPrediction(wish.generation, stem, wish.model_run))
        else:
            self._send_first()
        return self._generation

    # ---- the overlay

    def mask(self, stem: str) -> NDArray[np.uint8]:
        """Predicted label values (H, W), 0 where nothing is predicted yet; the array is updated in place."""
        return self._overlays.of(stem).mask

    def entropy(self, stem: str) -> NDArray[np.float16]:
        """Entropy of the prediction (H, W) in nats; the array is updated in place."""
        return self._overlays.of(stem).entropy

    def load(self, message: Message) -> Message:
        """On the bridge's thread: a prediction on disk → the same with its pixels. Other messages pass through."""
        project, wish = self._context.project, self._wish
        if project is None or wish is None:
            return message
        match message:
            case FromEngine(event=RegionPredicted() as event) if _answers(event, wish):
                window = Window(y0=event.y0, x0=event.x0, y1=event.y1, x1=event.x1)
                return read_region(project, wish.model_run, wish.stem, window, wish.generation) or message
            case StoredPrediction() if message.generation == wish.generation:
                height, width = project.record(wish.stem).shape
                whole = Window(y0=0, x0=0, y1=height, x1=width)
                stored = read_region(project, wish.model_run, wish.stem, whole, wish.generation)
                return stored if stored is not None and stored.mask.all() else message
        return message

    # ---- events

    def apply_stored(self, message: StoredPrediction) -> None:
        """What was on disk is partial or gone: ask the engine."""
        if self._wish is not None and message.generation == self._wish.generation:
            self._send_first()

    def apply_region(self, loaded: RegionLoaded) -> None:
        """Paste a loaded region into the overlay if it is still wanted."""
        if self._wish is not None and loaded.generation == self._wish.generation:
            self._overlays.paste(loaded)

    # ---- inside

    def _asks_for(self, stem: str) -> bool:
        """Whether this very prediction is on its way."""
        wish = self._wish
        return wish is not None and (wish.stem, wish.model_run) == (stem, self.model_run)

    def _send_first(self) -> None:
        self._send("visible" if self._wish is not None and self._wish.visible is not None else "all")

    def _send(self, part: str) -> None:
        wish, project = self._wish, self._context.project
        if wish is None or project is None:
            return
        request = PredictRequest(
            run_id=f"predict-{wish.generation}-{part}",
            project=project.root,
            model_run=wish.model_run,
            micrographs=(wish.stem,),
            window=wish.visible if part == "visible" else None,
            generation=wish.generation,
        )
        self._engine.ask(request, self._answered, key=KEY)

    def _answered(self, event: Event) -> None:
        """Of the newest request only; regions come by way of `load`."""
        wish = self._wish
        if wish is None or not isinstance(event, TERMINAL):
            return
        if isinstance(event, RunFinished):
            if event.run_id.endswith("-visible"):
                self._send("all")
                return
            self._overlays.of(wish.stem).complete_for = wish.model_run
        self._wish = None
        if isinstance(event, RunFailed) and event.kind != DIED:
            self._context.signals.failed.emit(event.message, event.hint)


def _answers(event: RegionPredicted, wish: _Wish) -> bool:
    return event.model_run == wish.model_run and event.generation == wish.generation
