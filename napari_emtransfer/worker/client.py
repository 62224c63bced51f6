"""The near side of a worker process: start it, speak to it, hear its events, end it. No Qt, no torch."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from pydantic import ValidationError

from napari_emtransfer.core.events import TERMINAL, Event, RunFailed, from_line
from napari_emtransfer.worker.protocol import Control, Request, to_line

EventSink = Callable[[Event], None]
WORKER_COMMAND: Final = (sys.executable, "-m", "napari_emtransfer.worker.main")
ENGINE_RUN: Final = "engine"

_LOG_TAIL_BYTES: Final = 4000
_logger = logging.getLogger(__name__)


class WorkerProcess:
    """A worker process and its events.

    Parameters
    ----------
    sink
        Receives every event, on a reader thread; without one they lie in `events`.
    log
        File that takes what the process and its libraries print; a temporary file without one.
    engine
        Whether the process stays for more requests, sent with `request`.
    beside_window
        Whether to leave a core to the window and to give way to other programs.
    command
        What to run; the worker of this Python by default.
    """

    def __init__(
        self,
        sink: EventSink | None = None,
        *,
        log: Path | None = None,
        engine: bool = False,
        beside_window: bool = True,
        command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._sink = sink or self.events.put
        self._log = _open_log(log)
        self._engine = engine
        self._beside_window = beside_window
        self._command = tuple(command)
        self._unanswered: dict[str, None] = {}
        self._last_run = ENGINE_RUN
        self._lock = threading.Lock()
        self._leaving = False
        self._killed = False

    def start(self, request: Request) -> None:
        """Start the process on its first request.

        Raises
        ------
        OSError
            When the system refuses to start a process.
        """
        arguments = ["--engine"] if self._engine else []
        if self._beside_window:
            arguments += ["--nice", "5" if self._engine else "10"]
        self._process = subprocess.Popen(
            [*self._command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=worker_environment(os.environ, beside_window=self._beside_window),
            start_new_session=sys.platform != "win32",
            creationflags=_creation_flags(beside_window=self._beside_window),
        )
        self._reader = threading.Thread(target=self._read, name="worker-events", daemon=True)
        self._reader.start()
        self.request(request)

    def request(self, request: Request) -> None:
        """Send a request; to an engine any number of them, one after another."""
        with self._lock:
            self._unanswered[request.run_id] = None
            self._last_run = request.run_id
        self._write(request)

    def cancel(self, run_id: str | None = None) -> None:
        """Ask a request, the last one by default, to bank its work and end."""
        self._write(Control(control="cancel", run_id=run_id or self._last_run))

    def stop_early(self, run_id: str | None = None) -> None:
        """Ask a request, the last one by default, to keep its best and finish."""
        self._write(Control(control="stop_early", run_id=run_id or self._last_run))

    def close(self) -> None:
        """Close its stdin: it banks what it is doing and leaves within two seconds."""
        self._leaving = True
        with self._lock, contextlib.suppress(OSError):
            self._stdin.close()

    def kill(self) -> None:
        """End the process and whatever it has started, at once."""
        if not self.alive:
            return
        self._leaving = self._killed = True
        if sys.platform == "win32":
            tree = ("taskkill", "/T", "/F", "/PID", str(self.pid))
            subprocess.run(tree, check=False, capture_output=True)
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self._process.kill()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the process has gone and its last event is delivered; False after `timeout` seconds."""
        self._reader.join(timeout)
        return not self._reader.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The system's number of the process."""
        return self._process.pid

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None  # noqa: S101 - for the type checker: it was asked for in `start`
        return self._process.stdin

    def _write(self, message: Request | Control) -> None:
        # A process that is gone is reported by the reader thread, once, with the reason.
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._stdin.write(to_line(message).encode() + b"\n")
            self._stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - for the type checker, as above
        for line in self._process.stdout:
            self._hear(line)
        code = self._process.wait()
        self._process.stdout.close()
        self._report_silence(code)
        with self._lock, contextlib.suppress(OSError):
            self._stdin.close()
        self._log.close()

    def _hear(self, line: bytes) -> None:
        try:
            event = from_line(line.decode("utf-8", "replace"))
        except ValidationError:
            _logger.warning("the worker said what is no event: %r", line[:200])
            return
        if isinstance(event, TERMINAL):
            with self._lock:
                self._unanswered.pop(event.run_id, None)
        self._sink(event)

    def _report_silence(self, code: int) -> None:
        """Answer for a process that can no longer do so itself."""
        with self._lock:
            silent = list(self._unanswered)
            self._unanswered.clear()
        if self._engine and not self._leaving:
            silent.append(ENGINE_RUN)
        for run_id in silent:
            self._sink(
                RunFailed(
                    run_id=run_id,
                    kind="died",
                    message="The worker process was ended at once." if self._killed else death_sentence(code),
                    hint="What was saved last is kept; a training run can be resumed from there.",
                    traceback=_tail(self._log),
                )
            )


def death_sentence(code: int) -> str:
    """Exit code of a process that ended without an answer → one sentence for the user."""
    if code in (-9, 137):
        return "The worker process was killed (signal 9), often by the system when memory runs out."
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = "unknown"
        return f"The worker process was ended by signal {-code} ({name})."
    shown = f"{code:#x}" if code > 255 else str(code)  # Windows tells crashes in codes such as 0xc0000005
    return f"The worker process ended without a result (exit code {shown})."


def worker_environment(environment: Mapping[str, str], *, beside_window: bool) -> dict[str, str]:
    """The environment of a worker; what the user has set stays.

    OpenMP threads that spin while they wait make two torch processes on few cores ten times slower, so they sleep.
    Thread counts must be known before torch is imported, which is why they are set here.
    """
    wanted = {"OMP_WAIT_POLICY": "passive", "PYTHONIOENCODING": "utf-8"}
    if beside_window:
        threads = str(max(1, _n_cores() - 1))
        wanted |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    return {**wanted, **environment}


def _n_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _creation_flags(*, beside_window: bool) -> int:
    """What a new session is on POSIX: Ctrl-C in the terminal reaches the parent only, `kill` reaches all children."""
    if sys.platform != "win32":
        return 0
    flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    return flags | (subprocess.BELOW_NORMAL_PRIORITY_CLASS if beside_window else 0)


def _open_log(path: Path | None) -> IO[bytes]:
    if path is not None:
        try:
            return path.open("a+b")
        except OSError as error:
            _logger.warning("no worker log at %s: %s", path, error)
    return tempfile.TemporaryFile()


def _tail(log: IO[bytes]) -> str:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - _LOG_TAIL_BYTES))
    return log.read().decode("utf-8", "replace")
