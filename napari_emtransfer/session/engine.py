"""The resident engine: started before it is needed, started once more when it dies, and asked by every controller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from napari_emtransfer.core.events import (
    TERMINAL,
    EngineReady,
    Event,
    NoticePosted,
    RunFailed,
    RunFinished,
)
from napari_emtransfer.session.context import Context
from napari_emtransfer.session.messages import FromEngine
from napari_emtransfer.session.state import EngineState
from napari_emtransfer.worker.protocol import Request
from napari_emtransfer.worker.runners import Engine, Runner

DIED: Final = "died"

Answer = Callable[[Event], None]


@dataclass
class _Asked:
    """A request without its terminal event yet; `resent` once it has outlived an engine."""

    request: Request
    answer: Answer
    key: str | None
    resent: bool = False


class EngineController:
    """Owns the engine process, its light, and who waits for what. All methods belong to the thread of the views."""

    def __init__(self, context: Context, runner: Runner) -> None:
        self._context, self._runner = context, runner
        self._engine: Engine | None = None
        self._serial = 0
        self._restarted = False
        self._asked: dict[str, _Asked] = {}
        self.state = EngineState()

    # ---- the process

    def start(self) -> None:
        """Start the process unless it runs, so that torch is imported before the first request."""
        if self._engine is not None:
            return
        self._serial += 1
        serial, inbox = self._serial, self._context.inbox
        self._set(EngineState("starting"))
        try:
            self._engine = self._runner.start_engine(lambda event: inbox.put(FromEngine(serial, event)))
        except OSError as error:
            self._give_up(f"The prediction process could not be started: {error}.")

    def end(self, timeout: float = 1.0) -> None:
        """End the process; nobody is answered any more."""
        self._asked.clear()
        if self._engine is not None:
            engine, self._engine = self._engine, None
            self._serial += 1
            engine.close()
            if not engine.wait(timeout):
                engine.kill()
        self._set(EngineState())

    # ---- questions

    def ask(self, request: Request, answer: Answer, *, key: str | None = None) -> None:
        """Have the engine work on `request`; every event with its run_id reaches `answer`, the terminal one last.

        A dead engine is started again and gets the request once more; when it dies again, the answer is `RunFailed`
        of kind "died", which has been told to the user already (signal `failed`), while other faults are for `answer`
        to tell. Where no process can be started at all, that answer comes before `ask` returns.

        Parameters
        ----------
        answer
            Called on the thread of the views, from `Session.apply`.
        key
            What is asked, in a word: a newer question with the same key takes the place of an older one, which is
            cancelled and never answered.
        """
        if key is not None:
            self.forget(key)
        self._asked[request.run_id] = _Asked(request, answer, key)
        self.start()
        if self._engine is not None:
            self._engine.request(request)
            self._set_light()

    def forget(self, key: str | None = None) -> None:
        """Nobody waits for the answer to this question (None: to any) any more; it is cancelled."""
        for run_id, asked in list(self._asked.items()):
            if key is None or asked.key == key:
                del self._asked[run_id]
                if self._engine is not None:
                    self._engine.cancel(run_id)
        self._set_light()

    # ---- events

    def apply(self, message: FromEngine) -> None:
        """Take an event of the engine; what an earlier engine says, or nobody waits for, is dropped."""
        if message.serial != self._serial:
            return
        event = message.event
        match event:
            case EngineReady():
                self._set(EngineState("ready", event.device, event.memory_free_gb))
            case RunFailed(kind=kind) if kind == DIED:
                self._died(event)
                return
            case NoticePosted():
                self._context.signals.notice_posted.emit(event.message, event.hint)
        self._pass_on(event)
        self._set_light()

    def _pass_on(self, event: Event) -> None:
        asked = self._asked.get(event.run_id)
        if asked is None:
            return
        if isinstance(event, TERMINAL):
            del self._asked[event.run_id]
        if isinstance(event, RunFinished):
            self._restarted = False
        asked.answer(event)

    # ---- inside

    def _died(self, event: RunFailed) -> None:
        """Start it once more, with what it died over; report when it dies again."""
        self._engine = None
        if self._restarted:
            self._give_up(event.message, event.hint)
            return
        self._restarted = True
        lost = [run_id for run_id, asked in self._asked.items() if asked.resent]
        again = [asked for asked in self._asked.values() if not asked.resent]
        self.start()
        for asked in again:
            asked.resent = True
            if self._engine is not None:
                self._engine.request(asked.request)
        if lost:
            self._context.signals.failed.emit(event.message, event.hint)
        self._fail(lost, event.message, event.hint)

    def _give_up(self, message: str, hint: str = "") -> None:
        hint = hint or "Predict again to restart it; painting and training go on without it."
        self._engine, self._restarted = None, False
        self._set(EngineState("dead", message=message, hint=hint))
        self._context.signals.failed.emit(message, hint)
        self._fail(list(self._asked), message, hint)

    def _fail(self, run_ids: list[str], message: str, hint: str) -> None:
        for run_id in run_ids:
            asked = self._asked.pop(run_id, None)
            if asked is not None:
                asked.answer(RunFailed(run_id=run_id, kind=DIED, message=message, hint=hint))

    def _set_light(self) -> None:
        """Busy while anybody waits; before the engine is warm, and when it is dead, its light says that."""
        if self.state.phase in ("ready", "busy"):
            self._set(replace(self.state, phase="busy" if self._asked else "ready"))

    def _set(self, state: EngineState) -> None:
        if state != self.state:
            self.state = state
            self._context.signals.engine_changed.emit(state)
