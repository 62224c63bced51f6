"""The resident engine and the overlay: what the newest model says about the micrograph that is shown."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.events import (
    EngineReady,
    Event,
    NoticePosted,
    RegionPredicted,
    RunCancelled,
    RunFailed,
    RunFinished,
)
from napari_emtransfer.session.context import Context
from napari_emtransfer.session.messages import FromEngine, Message, RegionLoaded
from napari_emtransfer.session.runs import newest_model
from napari_emtransfer.session.state import EngineState
from napari_emtransfer.worker.protocol import PredictRequest
from napari_emtransfer.worker.runners import Engine, Runner

KEPT_OVERLAYS = 2
DIED = "died"


@dataclass
class Overlay:
    """Prediction of one micrograph in native pixels: mask (H, W) uint8, 0 where none yet; entropy (H, W) float16."""

    mask: NDArray[np.uint8]
    entropy: NDArray[np.float16]


@dataclass(frozen=True)
class _Wish:
    """What the user looks at: predicted window first, then the rest. `generation` tells late answers apart."""

    generation: int
    stem: str
    visible: Window | None
    model_run: str


class PredictionController:
    """Owns the engine process and the overlay arrays. `load` belongs to the bridge's thread, all else to the views'."""

    def __init__(self, context: Context, runner: Runner) -> None:
        self._context, self._runner = context, runner
        self._engine: Engine | None = None
        self._serial = 0
        self._restarted = False
        self._generation = 0
        self._wish: _Wish | None = None
        self._overlays: OrderedDict[str, Overlay] = OrderedDict()
        self.engine = EngineState()
        self.model_run: str | None = None

    # ---- the engine

    def start_engine(self) -> None:
        """Start the resident process, so that torch is imported before the first request."""
        if self._engine is not None:
            return
        self._serial += 1
        serial, inbox = self._serial, self._context.inbox
        self._set_engine(EngineState("starting"))
        try:
            self._engine = self._runner.start_engine(lambda event: inbox.put(FromEngine(serial, event)))
        except OSError as error:
            self._engine = None
            self._report_dead(f"The prediction process could not be started: {error}.")

    def end_engine(self, timeout: float = 1.0) -> None:
        """End the resident process."""
        if self._engine is not None:
            engine, self._engine = self._engine, None
            self._serial += 1
            engine.close()
            if not engine.wait(timeout):
                engine.kill()
        self._set_engine(EngineState())

    # ---- requests

    def open(self) -> None:
        """A project was opened: its newest model is the one to predict with."""
        newest = newest_model(self._context.require_project())
        self.use_model(newest.id if newest else None)

    def reset(self) -> None:
        """The project was closed."""
        self._generation += 1
        self._wish = None
        self._overlays.clear()
        self.use_model(None)

    def use_model(self, run_id: str | None) -> None:
        """Predict with this run from now on."""
        if run_id != self.model_run:
            self.model_run = run_id
            self._context.signals.model_changed.emit(run_id)

    def request(self, stem: str, visible: Window | None = None) -> int | None:
        """Predict a micrograph, the window in view first, and return the generation; None when there is no model yet.

        An earlier request that is still going on is given up.
        """
        if self.model_run is None:
            return None
        self._generation += 1
        self._wish = _Wish(self._generation, stem, visible, self.model_run)
        self.start_engine()
        self._send("visible" if visible is not None else "all")
        return self._generation

    # ---- the overlay

    def mask(self, stem: str) -> NDArray[np.uint8]:
        """Predicted label values (H, W), 0 where nothing is predicted yet; the array is updated in place."""
        return self._overlay(stem).mask

    def entropy(self, stem: str) -> NDArray[np.float16]:
        """Entropy of the prediction (H, W) in nats; the array is updated in place."""
        return self._overlay(stem).entropy

    def load(self, message: FromEngine) -> Message:
        """On the bridge's thread: a predicted region → the same with its pixels. Other messages pass through."""
        event, project = message.event, self._context.project
        wish = self._wish
        if not isinstance(event, RegionPredicted) or project is None or wish is None:
            return message
        if event.generation != wish.generation or message.serial != self._serial:
            return message
        window = Window(y0=event.y0, x0=event.x0, y1=event.y1, x1=event.x1)
        store = project.predictions
        mask = np.asarray(store.read(event.model_run, event.micrograph, "mask", window), np.uint8)
        entropy = store.read(event.model_run, event.micrograph, "entropy", window)
        return RegionLoaded(event, window, mask, None if entropy is None else np.asarray(entropy, np.float16))

    # ---- events

    def apply(self, message: FromEngine) -> None:
        """Take an event of the engine. What an earlier engine or an earlier request says is dropped."""
        if message.serial != self._serial:
            return
        event = message.event
        match event:
            case EngineReady():
                self._set_engine(EngineState("ready", event.device, event.memory_free_gb))
            case RunFailed() if event.kind == DIED:
                self._died(event)
            case NoticePosted():
                self._context.signals.notice_posted.emit(event.message, event.hint)
            case RunFinished() | RunCancelled() | RunFailed():
                self._ended(event)

    def apply_region(self, loaded: RegionLoaded) -> bool:
        """Paste a loaded region into the overlay; True when it was still wanted."""
        wish = self._wish
        if wish is None or loaded.event.generation != wish.generation or loaded.event.micrograph != wish.stem:
            return False
        overlay = self._overlay(wish.stem)
        overlay.mask[loaded.window.slices] = loaded.mask
        if loaded.entropy is not None:
            overlay.entropy[loaded.window.slices] = loaded.entropy
        self._context.signals.prediction_changed.emit(wish.stem, loaded.window)
        return True

    # ---- inside

    def _send(self, part: str) -> None:
        wish, project = self._wish, self._context.project
        if wish is None or project is None or self._engine is None:
            return
        self._engine.request(
            PredictRequest(
                run_id=f"predict-{wish.generation}-{part}",
                project=project.root,
                model_run=wish.model_run,
                micrographs=(wish.stem,),
                window=wish.visible if part == "visible" else None,
                generation=wish.generation,
            )
        )
        if self.engine.phase == "ready":
            self._set_engine(replace(self.engine, phase="busy"))

    def _ended(self, event: Event) -> None:
        wish = self._wish
        if wish is None or not event.run_id.startswith(f"predict-{wish.generation}-"):
            return
        if isinstance(event, RunFailed):
            self._context.signals.failed.emit(event.message, event.hint)
        if isinstance(event, RunFinished):
            self._restarted = False
            if event.run_id.endswith("-visible"):
                self._send("all")
                return
        self._set_engine(replace(self.engine, phase="ready"))

    def _died(self, event: RunFailed) -> None:
        """Start the engine once more, with the wish that it died over; report when it dies again."""
        self._engine = None
        if self._restarted:
            self._report_dead(event.message, event.hint)
            return
        self._restarted = True
        self.start_engine()
        wish = self._wish
        if wish is not None:
            self._send("visible" if wish.visible is not None else "all")

    def _report_dead(self, message: str, hint: str = "") -> None:
        hint = hint or "Predict again to restart it; painting and training go on without it."
        self._restarted = False
        self._set_engine(EngineState("dead", message=message, hint=hint))
        self._context.signals.failed.emit(message, hint)

    def _overlay(self, stem: str) -> Overlay:
        if stem not in self._overlays:
            record = self._context.require_project().record(stem)
            shape = (record.height, record.width)
            self._overlays[stem] = Overlay(np.zeros(shape, np.uint8), np.zeros(shape, np.float16))
            while len(self._overlays) > KEPT_OVERLAYS:
                self._overlays.popitem(last=False)
        self._overlays.move_to_end(stem)
        return self._overlays[stem]

    def _set_engine(self, state: EngineState) -> None:
        if state != self.engine:
            self.engine = state
            self._context.signals.engine_changed.emit(state)
