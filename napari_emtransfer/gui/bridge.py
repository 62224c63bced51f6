"""Between the session's threads and the GUI thread: events in, signals across, slow work off."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable
from typing import Any, Protocol

from psygnal import SignalInstance
from qtpy.QtCore import QObject, QThread, QThreadPool, QTimer, Signal
from superqt.utils import GeneratorWorker

from napari_emtransfer.core.errors import EMTransferError

logger = logging.getLogger(__name__)

BATCH_SECONDS = 0.05
"""Events reach the GUI thread in batches, at most 20 times a second."""
IDLE_SECONDS = 0.25
TICK_MS = 100

Done = Callable[[Any], object]
Failed = Callable[[str, str], object]


class _Pumped(Protocol):
    def wait_events(self, timeout: float) -> list[Any]: ...
    def apply(self, event: Any) -> None: ...


def _pump(wait_events: Callable[[float], list[Any]]) -> Generator[list[Any], None, None]:
    """Wait on a background thread; yield batches. Yields an empty one now and then, so that it notices when to end."""
    while True:
        started = time.monotonic()
        events = wait_events(IDLE_SECONDS)
        yield events
        if events:
            time.sleep(max(0.0, BATCH_SECONDS - (time.monotonic() - started)))


class Bridge(QObject):
    """Feeds a session with its events, and runs slow functions off the GUI thread.

    napari's own workers are superqt's plus an entry in napari's list of tasks; an endless pump in that list would make
    napari ask at every closing of its window, so superqt's are used, and only a fine-tune is entered in the list.

    Parameters
    ----------
    on_failure
        Called on the GUI thread with (message, hint) of whatever goes wrong in slow work.
    """

    _handed_over = Signal(object)

    def __init__(self, on_failure: Failed, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._on_failure = on_failure
        self._connections: list[tuple[SignalInstance, Callable[..., None]]] = []
        self._workers: set[Any] = set()
        self._pump_worker: Any = None
        self._timer = QTimer(self)
        self._timer.setInterval(TICK_MS)
        self._handed_over.connect(lambda call: call())
        self._closed = False

    def start(self, session: _Pumped, tick: Callable[[], object]) -> None:
        """Pump the session's events from now on, and call `tick` ten times a second."""
        # The pump sleeps almost always: give its thread back to the pool, which on two cores has only two.
        QThreadPool.globalInstance().releaseThread()
        worker = GeneratorWorker(_pump, session.wait_events)
        worker.yielded.connect(lambda events: self._apply(session, events))
        self._pump_worker = worker
        worker.start()
        self._timer.timeout.connect(lambda: self.attempt(tick))
        self._timer.start()

    def connect(self, signal: SignalInstance, slot: Callable[..., object]) -> None:
        """Call `slot` on the GUI thread at every emission of `signal`, from whatever thread, until `close`."""

        def forward(*values: Any) -> None:
            if self._closed:
                return
            if QThread.currentThread() == self.thread():
                self.attempt(lambda: slot(*values))
            else:
                self._handed_over.emit(lambda: self.attempt(lambda: slot(*values)))

        signal.connect(forward, check_nargs=False)
        self._connections.append((signal, forward))

    def run(self, function: Callable[[], Any], done: Done | None = None, failed: Failed | None = None) -> None:
        """Run `function` off the GUI thread; on it, `done` gets the value, `failed` the sentence of a fault."""

        def guarded() -> Generator[None, None, tuple[bool, Any]]:
            yield
            return _guarded(function)

        self._start(guarded, None, done, failed)

    def run_steps(
        self,
        steps: Iterable[Any],
        progress: Callable[[Any], object],
        done: Done | None = None,
        failed: Failed | None = None,
    ) -> Any:
        """Run an iterable off the GUI thread, `progress` for each item; returns the worker; its `quit()` ends it."""

        def guarded() -> Generator[Any, None, tuple[bool, Any]]:
            iterator = iter(steps)
            while True:
                ok, value = _guarded(lambda: next(iterator, _END))
                if not ok or value is _END:
                    return ok, None if ok else value
                yield value

        return self._start(guarded, progress, done, failed)

    def hand_over(self, function: Callable[[], object]) -> None:
        """Call `function` on the GUI thread soon; for progress of slow work. Callable from any thread."""
        self._handed_over.emit(lambda: None if self._closed else self.attempt(function))

    def attempt(self, function: Callable[[], Any]) -> bool:
        """Run a quick command here and now; a fault is reported, and False returned."""
        ok, value = _guarded(function)
        if not ok:
            self._on_failure(*value)
        return ok

    def close(self) -> None:
        """Disconnect everything, end the pump; waits for no slow work."""
        if self._closed:
            return
        self._closed = True
        self._timer.stop()
        for signal, forward in self._connections:
            signal.disconnect(forward, missing_ok=True)
        self._connections.clear()
        for worker in (*self._workers, self._pump_worker):
            if worker is not None:
                worker.quit()
        if self._pump_worker is not None:
            QThreadPool.globalInstance().reserveThread()
            self._pump_worker = None

    def _start(
        self,
        function: Callable[[], Generator[Any, None, tuple[bool, Any]]],
        progress: Callable[[Any], object] | None,
        done: Done | None,
        failed: Failed | None,
    ) -> Any:
        worker = GeneratorWorker(function)
        self._workers.add(worker)
        if progress is not None:
            worker.yielded.connect(lambda value: None if self._closed else progress(value))
        worker.returned.connect(lambda outcome: self._finish(outcome, done, failed))
        worker.aborted.connect(lambda *_: self._finish((True, None), done, failed))
        worker.finished.connect(lambda *_: self._workers.discard(worker))
        worker.start()
        return worker

    def _finish(self, outcome: tuple[bool, Any], done: Done | None, failed: Failed | None) -> None:
        ok, value = outcome
        if self._closed:
            return
        if not ok:
            (failed or self._on_failure)(*value)
        elif done is not None:
            done(value)

    def _apply(self, session: _Pumped, events: list[Any]) -> None:
        for event in events:
            if not self._closed:
                self.attempt(lambda event=event: session.apply(event))


_END = object()


def _guarded(function: Callable[[], Any]) -> tuple[bool, Any]:
    """(True, value), or (False, (message, hint)): a fault becomes a sentence, its traceback goes to the log."""
    try:
        return True, function()
    except EMTransferError as error:
        return False, (error.message, error.hint)
    except Exception as error:
        logger.exception("unexpected fault in background work")
        return False, (
            f"{type(error).__name__}: {error}".rstrip(": "),
            "This is a fault of the program; the log has its details.",
        )
