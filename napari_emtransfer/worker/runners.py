"""Where a request runs. Today: a process on this computer; whoever starts requests knows the protocols only."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from napari_emtransfer.worker.client import EventSink, WorkerProcess
from napari_emtransfer.worker.protocol import Request, TrainRequest, WarmRequest


class Job(Protocol):
    """One request at work."""

    def cancel(self) -> None:
        """Ask it to bank its work and end; RunCancelled follows."""

    def stop_early(self) -> None:
        """Ask it to keep its best and finish; RunFinished follows."""

    def kill(self) -> None:
        """End it at once; RunFailed("died") follows."""

    def wait(self, timeout: float) -> bool:
        """Wait until it has ended and its last event is delivered; False after `timeout` seconds."""


class Engine(Protocol):
    """A resident worker: one request at a time, the newest prediction wins."""

    def request(self, request: Request) -> None:
        """Send it a request."""

    def cancel(self, run_id: str) -> None:
        """Nobody waits for the answer to this request any more."""

    def close(self) -> None:
        """Let it go: it leaves within two seconds."""

    def kill(self) -> None:
        """End it at once."""

    def wait(self, timeout: float) -> bool:
        """Wait until it has gone; False after `timeout` seconds."""


class Runner(Protocol):
    """Starts work; events go to `sink`, from any thread."""

    def start(self, request: Request, sink: EventSink) -> Job:
        """Work on one request in a place of its own."""

    def start_engine(self, sink: EventSink) -> Engine:
        """A resident worker; EngineReady tells that it is warm, RunFailed("died") that it is gone."""

    def start_helper(self, request: Request, sink: EventSink) -> Engine:
        """A resident worker for small things that the engine has no time for; it begins with `request`, not warm."""


class LocalProcessRunner:
    """Work in processes of this computer.

    Parameters
    ----------
    beside_window
        Whether somebody uses this computer meanwhile: leave a core free, give way.
    """

    def __init__(self, *, beside_window: bool = True) -> None:
        self._beside_window = beside_window

    def start(self, request: Request, sink: EventSink) -> WorkerProcess:
        """A fresh process for one request."""
        process = WorkerProcess(sink, log=_log_path(request), beside_window=self._beside_window)
        process.start(request)
        return process

    def start_engine(self, sink: EventSink) -> WorkerProcess:
        """The resident engine, warming up."""
        process = WorkerProcess(sink, engine=True, beside_window=self._beside_window)
        process.start(WarmRequest())
        return process

    def start_helper(self, request: Request, sink: EventSink) -> WorkerProcess:
        """A second process that stays; of the libraries it loads what its requests need."""
        process = WorkerProcess(sink, engine=True, beside_window=self._beside_window)
        process.start(request)
        return process


def _log_path(request: Request) -> Path | None:
    """Beside the events of a training run, where there is such a place already."""
    if not isinstance(request, TrainRequest):
        return None
    folder = request.project / "runs" / request.run_id
    return folder / "worker.log" if folder.is_dir() else None
