"""Carry out one request in this process, with a progress bar and a Ctrl-C that banks the work."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from napari_emtransfer.cli.progress import RunDisplay
from napari_emtransfer.cli.verb import RunFailedError
from napari_emtransfer.core.events import RunCancelled, RunFailed, RunFinished
from napari_emtransfer.worker.handlers import RunControl, handle
from napari_emtransfer.worker.protocol import Request

INTERRUPTED = 130


def perform(request: Request) -> tuple[dict[str, Any], int]:
    """Request → (result, exit code 0 or 130).

    Raises
    ------
    RunFailedError
        When the run failed.
    """
    control = RunControl()
    with RunDisplay(request.kind) as display, _interruptible(control, display):
        handle(request, display.emit, control)
    match display.terminal:
        case RunFinished(result=result):
            return result, 0
        case RunCancelled(result=result):
            return result | {"cancelled": True}, INTERRUPTED
        case RunFailed(message=message, hint=hint, traceback=trace):
            raise RunFailedError(message, hint, trace)
    raise RuntimeError(f"{request.kind} ended without a terminal event")


@contextmanager
def _interruptible(control: RunControl, display: RunDisplay) -> Iterator[None]:
    """First Ctrl-C: cancel and bank; second: leave at once. SIGTERM and a closed terminal leave a resumable run."""

    def on_interrupt(_number: int, _frame: object) -> None:
        if control.cancelled:
            raise KeyboardInterrupt
        control.cancel()
        display.say("Stopping; what is done will be kept. Ctrl-C again leaves at once.")

    def on_end(_number: int, _frame: object) -> None:
        control.abandon()

    handlers = {signal.SIGINT: on_interrupt, signal.SIGTERM: on_end}
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = on_end
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
