"""The overlay: what the newest model says about the micrograph that is shown."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.core.events import (
    TERMINAL,
    Event,
    RegionPredicted,
    RunFailed,
    RunFinished,
)
from napari_emtransfer.session.context import Context
from napari_emtransfer.session.engine import DIED, EngineController
from napari_emtransfer.session.messages import FromEngine, Message, RegionLoaded, StoredPrediction
from napari_emtransfer.session.state import EngineState
from napari_emtransfer.worker.protocol import PredictRequest

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project import Project

KEPT_OVERLAYS = 2
KEY = "predict"


@dataclass
class Overlay:
    """Prediction of one micrograph in native pixels: mask (H, W) uint8, 0 where none yet; entropy (H, W) float16.

    All pixels come from the model of `run`; `complete_for` is that run once it has predicted all of them.
    """

    mask: NDArray[np.uint8]
    entropy: NDArray[np.float16]
    run: str | None = None
    complete_for: str | None = None

    def begin(self, run: str) -> None:
        """Blank everything for another model: two side by side would look, and be measured, like one."""
        self.run = run
        self.mask.fill(0)
        self.entropy.fill(0)


@dataclass(frozen=True)
class _Wish:
    """What the user looks at: predicted window first, then the rest. `generation` tells late answers apart."""

    generation: int
    stem: str
    visible: Window | None
    model_run: str


class PredictionController:
    """Owns the overlay arrays. `load` belongs to the bridge's thread, all else to that of the views."""

    def __init__(self, context: Context, engine: EngineController) -> None:
        self._context, self._engine = context, engine
        self._generation = 0
        self._wish: _Wish | None = None
        self._overlays: OrderedDict[str, Overlay] = OrderedDict()
        self.model_run: str | None = None

    @property
    def engine(self) -> EngineState:
        """How the engine fares."""
        return self._engine.state

    # ---- requests

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
        """Have a micrograph predicted by the newest model, the window in view first, and return the generation.

        Answers None where there is no model yet, or nothing to do: predicted already, or being predicted. A request
        for another micrograph that is still going on is given up.
        """
        if self.model_run is None or self._overlay(stem).complete_for == self.model_run or self._asks_for(stem):
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
        return self._overlay(stem).mask

    def entropy(self, stem: str) -> NDArray[np.float16]:
        """Entropy of the prediction (H, W) in nats; the array is updated in place."""
        return self._overlay(stem).entropy

    def load(self, message: Message) -> Message:
        """On the bridge's thread: a prediction on disk → the same with its pixels. Other messages pass through."""
        project, wish = self._context.project, self._wish
        if project is None or wish is None:
            return message
        match message:
            case FromEngine(event=RegionPredicted() as event) if event.generation == wish.generation:
                window = Window(y0=event.y0, x0=event.x0, y1=event.y1, x1=event.x1)
                return _read(project, wish, window) or message
            case StoredPrediction() if message.generation == wish.generation:
                height, width = project.record(wish.stem).shape
                stored = _read(project, wish, Window(y0=0, x0=0, y1=height, x1=width))
                return stored if stored is not None and stored.mask.all() else message
        return message

    # ---- events

    def apply_stored(self, message: StoredPrediction) -> None:
        """What was on disk is partial or gone: ask the engine."""
        if self._wish is not None and message.generation == self._wish.generation:
            self._send_first()

    def apply_region(self, loaded: RegionLoaded) -> bool:
        """Paste a loaded region into the overlay; True when it was still wanted."""
        wish = self._wish
        if wish is None or loaded.generation != wish.generation:
            return False
        overlay, changed = self._overlay(wish.stem), loaded.window
        height, width = overlay.mask.shape
        whole = Window(y0=0, x0=0, y1=height, x1=width)
        if overlay.run not in (None, wish.model_run):
            overlay.begin(wish.model_run)
            changed = whole
        overlay.run = wish.model_run
        overlay.mask[loaded.window.slices] = loaded.mask
        overlay.entropy[loaded.window.slices] = loaded.entropy
        if loaded.window == whole:
            overlay.complete_for = wish.model_run
        self._context.signals.prediction_changed.emit(wish.stem, changed)
        return True

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
            self._overlay(wish.stem).complete_for = wish.model_run
        self._wish = None
        if isinstance(event, RunFailed) and event.kind != DIED:
            self._context.signals.failed.emit(event.message, event.hint)

    def _overlay(self, stem: str) -> Overlay:
        if stem not in self._overlays:
            shape = self._context.require_project().record(stem).shape
            self._overlays[stem] = Overlay(np.zeros(shape, np.uint8), np.zeros(shape, np.float16))
            while len(self._overlays) > KEPT_OVERLAYS:
                self._overlays.popitem(last=False)
        self._overlays.move_to_end(stem)
        return self._overlays[stem]


def _read(project: Project, wish: _Wish, window: Window) -> RegionLoaded | None:
    """Pixels of a window from the project's store; None where they are gone."""
    store, run, stem = project.predictions, wish.model_run, wish.stem
    try:
        mask = np.asarray(store.read(run, stem, "mask", window), np.uint8)
        entropy = np.asarray(store.read(run, stem, "entropy", window), np.float16)
    except (EMTransferError, OSError, LookupError, ValueError):  # a cache that is deleted while it is read
        return None
    return RegionLoaded(wish.generation, stem, window, mask, entropy)
