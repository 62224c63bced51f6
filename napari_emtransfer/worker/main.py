"""The worker process: requests and control words in on stdin, events out on stdout, one JSON object per line.

`python -m napari_emtransfer.worker.main` does one request and leaves; with `--engine` it does one after another.
It leaves within two seconds of the end of stdin, whatever it is doing: nobody waits for the answer any more.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Final, TextIO

from napari_emtransfer.core.events import Event, to_line
from napari_emtransfer.worker.control import Emit, RunControl
from napari_emtransfer.worker.inbox import Inbox
from napari_emtransfer.worker.protocol import Request

Handle = Callable[[Request, Emit, RunControl], None]

SECONDS_TO_BANK: Final = 1.5
EXIT_ABANDONED: Final = 3


class EventChannel:
    """Writes events as lines; any thread may. A reader that has gone away is no fault of the computation."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def emit(self, event: Event) -> None:
        """Write and flush one line."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._out.write(to_line(event) + "\n")
            self._out.flush()


def take_channels() -> tuple[TextIO, TextIO]:
    """The real stdin and stdout for us alone, (incoming, outgoing).

    From now on a stray print of any library, in Python or in C, goes to stderr, and a stray `input()` meets the end.
    """
    incoming = os.fdopen(os.dup(0), "r", encoding="utf-8", errors="replace")
    outgoing = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return incoming, outgoing


def serve(handle: Handle, *, engine: bool) -> None:
    """Do one request, or with `engine` all that come; return when there is nothing left to do."""
    incoming, outgoing = take_channels()
    channel = EventChannel(outgoing)
    inbox = Inbox(incoming, channel.emit, single=not engine, on_closed=_leave_soon)
    _bank_on_signals(inbox)
    inbox.start()
    while (job := inbox.next_job()) is not None:
        handle(job.request, channel.emit, job.control)
        if not engine:
            return


def _leave_soon() -> None:
    """Give the computation a moment to bank its work, then leave over its head."""
    timer = threading.Timer(SECONDS_TO_BANK, os._exit, (EXIT_ABANDONED,))
    timer.daemon = True
    timer.start()


def _bank_on_signals(inbox: Inbox) -> None:
    def close(*_: object) -> None:
        # On a thread of its own: the signal may have interrupted the main thread inside the inbox's lock.
        threading.Thread(target=inbox.close, daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, close)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the worker process."""
    parser = argparse.ArgumentParser(prog="napari_emtransfer.worker.main", description=__doc__)
    parser.add_argument("--engine", action="store_true", help="stay, and do one request after another")
    parser.add_argument("--nice", type=int, default=0, help="give way to other programs by so much (POSIX)")
    options = parser.parse_args(arguments)
    if options.nice and hasattr(os, "nice"):
        os.nice(options.nice)
    from napari_emtransfer.worker.handlers import handle

    serve(handle, engine=options.engine)
    sys.stderr.flush()
    # Without the interpreter's farewell: torch takes long over it, and the reading thread sits in a blocking read.
    os._exit(0)


if __name__ == "__main__":
    main()
