"""What a worker has been asked to do: a thread reads the lines, and the newest prediction or live update wins."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pydantic import ValidationError

from napari_emtransfer.core.events import NoticePosted, RunCancelled, RunFailed
from napari_emtransfer.worker.control import Emit, RunControl
from napari_emtransfer.worker.protocol import (
    Control,
    LiveRequest,
    PredictRequest,
    RankRequest,
    Request,
    WarmRequest,
    from_line,
)

UNKNOWN_RUN = "unknown"
# Only the newest of its kind is wanted: the window has moved on, or there is another stroke.
Overtaking = PredictRequest | LiveRequest | RankRequest


@dataclass(frozen=True)
class Job:
    """A request and the buttons that stop it."""

    request: Request
    control: RunControl = field(default_factory=RunControl)


class Inbox:
    """Requests in the order of their arrival, live updates first; control words act at once on queued and running ones.

    Parameters
    ----------
    lines
        The incoming channel; its end means that nobody waits for answers any more.
    emit
        Where answers go that need no computing: cancelled requests, lines that make no sense.
    single
        Accept one request only, as a training process does.
    on_closed
        Called once when the channel has ended, after everything that ran or waited was abandoned.
    """

    def __init__(self, lines: Iterable[str], emit: Emit, *, single: bool, on_closed: Callable[[], None]) -> None:
        self._lines = lines
        self._emit = emit
        self._single = single
        self._on_closed = on_closed
        self._queue: deque[Job] = deque()
        self._running: Job | None = None
        self._received = False
        self._closed = False
        self._changed = threading.Condition()

    def start(self) -> None:
        """Begin to read, on a daemon thread."""
        threading.Thread(target=self._read, name="inbox", daemon=True).start()

    def next_job(self) -> Job | None:
        """Wait for the next job, which counts as running from now on; None when there will be no other."""
        with self._changed:
            self._running = None
            self._changed.wait_for(lambda: self._queue or self._closed)
            if self._closed:
                return None
            self._running = self._queue.popleft()
            return self._running

    def close(self) -> None:
        """Abandon everything; `next_job` answers None from now on."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            for job in self._jobs():
                job.control.abandon()
            self._changed.notify_all()
        self._on_closed()

    def _read(self) -> None:
        for line in self._lines:
            if line.strip():
                self._receive(line)
        self.close()

    def _receive(self, line: str) -> None:
        try:
            message = from_line(line)
        except ValidationError as error:
            self._refuse(line, error)
            return
        with self._changed:
            if isinstance(message, Control):
                self._obey(message)
            elif self._single and self._received:
                self._post_notice(f"This process works on one request only; {message.kind!r} was not started.")
            else:
                self._accept(message)

    def _obey(self, message: Control) -> None:
        for job in self._jobs():
            if job.request.run_id == message.run_id:
                job.control.cancel() if message.control == "cancel" else job.control.stop_early()

    def _accept(self, request: Request) -> None:
        self._received = True
        if isinstance(request, Overtaking) and not self._wins(request):
            self._emit(RunCancelled(run_id=request.run_id))
            return
        self._queue.insert(self._place_of(request), Job(request))
        self._changed.notify_all()

    def _place_of(self, request: Request) -> int:
        """Where `request` waits: a live update, whose stroke has just ended, only behind the warm-up."""
        if not isinstance(request, LiveRequest):
            return len(self._queue)
        return sum(isinstance(job.request, WarmRequest) for job in self._queue)

    def _wins(self, newcomer: Overtaking) -> bool:
        """Make room for `newcomer`; False when a newer generation of its kind is already here."""
        rivals = [job for job in self._jobs() if type(job.request) is type(newcomer)]
        if any(_generation(job) > newcomer.generation for job in rivals):
            return False
        for job in rivals:
            if job is self._running:
                job.control.cancel()
            else:
                self._queue.remove(job)
                self._emit(RunCancelled(run_id=job.request.run_id))
        return True

    def _refuse(self, line: str, error: ValidationError) -> None:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = f"A line to the worker is no request: {where + ': ' if where else ''}{first['msg']}."
        with self._changed:
            if self._single and self._received:
                self._post_notice(message)
                return
            self._received = True
            self._emit(RunFailed(run_id=_run_id_in(line), kind="protocol", message=message))
        if self._single:
            self.close()

    def _post_notice(self, message: str) -> None:
        jobs = self._jobs()
        self._emit(NoticePosted(run_id=jobs[0].request.run_id if jobs else UNKNOWN_RUN, message=message))

    def _jobs(self) -> list[Job]:
        return [*([self._running] if self._running else []), *self._queue]


def _generation(job: Job) -> int:
    return job.request.generation if isinstance(job.request, Overtaking) else 0


def _run_id_in(line: str) -> str:
    """The run that a line speaks of, so that whoever waits for it is answered; `UNKNOWN_RUN` where it names none."""
    try:
        content = json.loads(line)
    except ValueError:
        return UNKNOWN_RUN
    run_id = content.get("run_id") if isinstance(content, dict) else None
    return run_id if isinstance(run_id, str) else UNKNOWN_RUN
