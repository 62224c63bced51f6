"""The live head: after every stroke a new overlay of the tile in view, learnt from all strokes so far."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from napari_emtransfer.core.config import LiveConfig
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.events import Event, ProgressMade, RegionPredicted, RunCancelled, RunFailed, RunFinished
from napari_emtransfer.session.engine import EngineController
from napari_emtransfer.session.live_place import Place, place_in_view
from napari_emtransfer.session.live_question import Question
from napari_emtransfer.session.live_words import (
    GAVE_WAY,
    UNPAINTED,
    failed_state,
    ready_state,
    updating_state,
    weights_notice,
)
from napari_emtransfer.session.messages import FromEngine, Message, RegionLoaded, StrokesSaved
from napari_emtransfer.session.overlays import Overlays, read_region
from napari_emtransfer.session.state import LiveState
from napari_emtransfer.worker.protocol import LIVE_RUN, LiveRequest

if TYPE_CHECKING:
    from napari_emtransfer.session.context import Context
    from napari_emtransfer.session.labelling import LabellingController

KEY: Final = "live"
PREDICTED: Final = "megapixels"
"""What the last step counts; it is over in no time, and its pixels speak for themselves."""
STILL_SECONDS: Final = 0.25
"""A view that has moved is asked for when it has stood still for so long."""


class LiveController:
    """Asks for an update at every end of a stroke, and when another place comes into view.

    One update is under way at a time, so that fast strokes cannot starve the overlay: strokes that end meanwhile are
    answered together by the next one. Only another place overtakes. `load` belongs to the bridge's thread, all other
    methods to that of the views, which never waits here.

    Parameters
    ----------
    config
        What the head is to stand on; asked when it is switched on, and when `weights_changed`.
    on_switch
        Told that it was switched on or off by `set_enabled`.
    clock
        Seconds; monotonic.
    """

    def __init__(
        self,
        context: Context,
        engine: EngineController,
        overlays: Overlays,
        labelling: LabellingController,
        config: Callable[[], LiveConfig],
        on_switch: Callable[[bool], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context, self._engine, self._overlays, self._labelling = context, engine, overlays, labelling
        self._choose, self._on_switch, self._clock = config, on_switch, clock
        self._config = LiveConfig()
        self._generation = 0
        self._question: Question | None = None
        self._visible: Window | None = None
        self._due: float | None = None
        self._write: int | None = None
        self._painting = False
        self._seen: tuple[Place | None, float] = (None, 0.0)
        self._asked: Place | None = None
        self._pasted: Place | None = None
        self._warm_for: LiveConfig | None = None
        self._automatic = False
        self.state = LiveState()

    # ---- commands

    @property
    def enabled(self) -> bool:
        """Whether the overlay is the live head's."""
        return self.state.phase != "off"

    def toggle(self) -> None:
        """On if it is off, and off if it is on."""
        self.set_enabled(not self.enabled)

    def set_enabled(self, enabled: bool, *, automatic: bool = False) -> None:
        """Begin to update, with a first overlay of the tile in view; or stop, which leaves the overlay as it is.

        What was switched on automatically gives way to the first trained network.
        """
        if enabled == self.enabled:
            return
        self._automatic = automatic
        if enabled:
            self._context.require_project()
            self._config = self._choose()
            self._set(LiveState("waiting", message="choose a micrograph"))
            self._on_switch(True)
            self.labels_changed()
        else:
            self._stop()
            self._on_switch(False)

    def reset(self) -> None:
        """The project was closed."""
        self._stop()
        self._warm_for, self._painting, self._visible = None, False, None

    # ---- what the user does

    def stroke_begun(self) -> None:
        """The mouse is painting: what is saved meanwhile is half a stroke."""
        self._painting = True

    def stroke_ended(self) -> None:
        """A stroke, fill, erasure, undo or redo is complete."""
        self._painting = False
        self.labels_changed()

    def weights_changed(self) -> None:
        """Another model is in use, or none: stand on its features from now on, and say whose overlay is shown."""
        config = self._choose() if self.enabled else self._config
        if config == self._config:
            return
        if self._automatic:
            self.set_enabled(False)
            self._context.signals.notice_posted.emit(*GAVE_WAY)
            return
        self._config = config
        self._context.signals.notice_posted.emit(*weights_notice(config.weights))
        self.labels_changed()

    def labels_changed(self) -> None:
        """Labels, or what the head stands on, are new: have them saved at once, and learn from them then."""
        if not self.enabled:
            return
        self._note_due()
        self._write = self._labelling.save_soon()
        if self._write is None:
            self._go_on()

    def saved(self, message: StrokesSaved) -> None:
        """Strokes are on disk, where the engine reads them; the next one may be half painted by now."""
        if not self.enabled or (self._write is not None and message.write < self._write):
            return
        if self._write is None and (not message.stems or self._painting or self._labelling.unsaved):
            return  # nobody has said that a stroke ended
        self._write = None
        self._note_due()
        self._go_on()

    def look(self, visible: Window | None) -> None:
        """The view shows this window (native pixels) of the current micrograph now."""
        self._visible = visible

    def moved(self) -> None:
        """Another tile or micrograph is shown; what the view saw before says nothing about it."""
        self._visible, self._painting = None, False
        if self.enabled:
            self._follow()

    def tick(self) -> None:
        """Call about ten times a second: follows a view that is dragged about once it stands still."""
        if not self.enabled:
            return
        place, now = self._place(), self._clock()
        if place != self._seen[0]:
            self._seen = place, now
        elif now - self._seen[1] >= STILL_SECONDS:
            self._follow()
        self._show_progress()

    # ---- events

    def load(self, message: Message) -> Message:
        """On the bridge's thread: the head's prediction on disk → the same with its pixels. Others pass through."""
        question, project = self._question, self._context.project
        if project is None or question is None or not isinstance(message, FromEngine):
            return message
        event = message.event
        if not isinstance(event, RegionPredicted) or not question.is_answered_by(event):
            return message
        window = Window(y0=event.y0, x0=event.x0, y1=event.y1, x1=event.x1)
        return read_region(project, LIVE_RUN, event.micrograph, window, event.generation) or message

    def apply_region(self, loaded: RegionLoaded) -> None:
        """Paste what the newest head says; what older ones said of other places goes."""
        question = self._question
        if question is None or loaded.generation != question.generation:
            return
        stem, before = loaded.stem, self._pasted
        self._overlays.withdraw(LIVE_RUN, but=stem)
        if before is not None and before != question.place and before.stem == stem:
            self._overlays.of(stem).blank(before.window)
            self._overlays.tell(stem, before.window)
        self._overlays.paste(loaded)
        self._pasted = question.place
        question.shown_after = self._clock() - question.since

    def _hear(self, event: Event) -> None:
        question = self._question
        if question is None:
            return
        match event:
            case ProgressMade() if event.what != PREDICTED:
                question.progress = f"{event.done:.0f} of {event.total:.0f} {event.what}"
                self._show_progress()
                return
            case RunFinished():
                self._warm_for = question.config
                seconds = question.shown_after or self._clock() - question.since
                self._set(ready_state(seconds, int(event.result.get("n_pixels", 0))))
            case RunFailed():
                self._failed(event)
            case RunCancelled():
                pass
            case _:
                return
        self._question = None
        if self._due is not None and self._write is None:
            self._go_on()

    def _failed(self, event: RunFailed) -> None:
        state = failed_state(event)
        if state.phase == "waiting":  # without two classes there is no head, and so nothing that it says
            self._overlays.withdraw(LIVE_RUN)
            self._pasted = None
        self._set(state if self._labelling.has_labels else UNPAINTED)

    # ---- inside

    def _stop(self) -> None:
        self._question = self._due = self._write = self._asked = self._pasted = None
        self._engine.forget(KEY)
        self._set(LiveState())

    def _place(self) -> Place | None:
        project = self._context.project
        return None if project is None else place_in_view(project, self._labelling, self._visible)

    def _note_due(self) -> None:
        if self._due is None:
            self._due = self._clock()

    def _follow(self) -> None:
        """Ask for the place in view unless that was the last thing asked for."""
        place = self._place()
        if place is not None and place != self._asked:
            self._send(place)

    def _go_on(self) -> None:
        """Learn from what is on disk, unless an update is on its way: its end calls this again."""
        place = self._place()
        if place is not None and (self._question is None or self._question.place != place):
            self._send(place)

    def _send(self, place: Place) -> None:
        self._generation += 1
        self._note_due()
        since, self._due = self._due or 0.0, None
        self._asked = place
        self._question = Question(self._generation, place, self._config, since)
        request = LiveRequest(
            run_id=f"live-{self._generation}",
            project=self._context.require_project().root,
            micrograph=place.stem,
            window=place.window,
            generation=self._generation,
            config=self._question.config,
        )
        self._engine.ask(request, self._hear, key=KEY)
        self._show_progress()

    def _show_progress(self) -> None:
        question = self._question
        if question is not None and not self._labelling.has_labels:
            self._set(UNPAINTED)
        elif question is not None:
            cold = question.config != self._warm_for
            seconds = self._clock() - question.since
            engine = self._engine.state
            self._set(updating_state(self.state, engine, seconds, cold=cold, progress=question.progress))

    def _set(self, state: LiveState) -> None:
        if state != self.state:
            self.state = state
            self._context.signals.live_changed.emit(state)
