"""How a computation is stopped from outside, and how it ends: in exactly one terminal event."""

from __future__ import annotations

import errno
import threading
import traceback
from collections.abc import Callable
from typing import Any

from napari_emtransfer.core.errors import DeviceError, EMTransferError, StorageError
from napari_emtransfer.core.events import Event, RunCancelled, RunFailed, RunFinished

Emit = Callable[[Event], None]
Terminal = RunFinished | RunCancelled | RunFailed

_STORAGE_ERRNO = frozenset(
    getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM") if hasattr(errno, name)
)


class RunControl:
    """The two buttons of a running request; any thread may press them, the computation asks `should_stop`.

    Cancel banks the work and ends in RunCancelled. Stop early keeps the best checkpoint and ends in RunFinished.
    An abandoned run was cancelled by nobody: whoever wanted the result is gone, and it may be resumed later.
    """

    def __init__(self) -> None:
        self._cancel = threading.Event()
        self._stop_early = threading.Event()
        self._abandon = threading.Event()

    def cancel(self) -> None:
        """Bank the work and end."""
        self._cancel.set()

    def stop_early(self) -> None:
        """Keep the best so far and finish."""
        self._stop_early.set()

    def abandon(self) -> None:
        """Bank the work and end, as resumable: the window or the terminal behind this run has gone."""
        self._abandon.set()
        self._cancel.set()

    @property
    def cancelled(self) -> bool:
        """True after `cancel` or `abandon`."""
        return self._cancel.is_set()

    @property
    def stopped_early(self) -> bool:
        """True after `stop_early`."""
        return self._stop_early.is_set()

    @property
    def abandoned(self) -> bool:
        """True after `abandon`."""
        return self._abandon.is_set()

    def should_stop(self) -> bool:
        """True as soon as either button was pressed: the hook that core computations poll."""
        return self.cancelled or self.stopped_early


class Cancelled(Exception):  # noqa: N818 - a way to end, not an error
    """Raised by a handler when it notices the cancel; `result` is what there is to tell."""

    def __init__(self, result: dict[str, Any] | None = None) -> None:
        super().__init__("cancelled")
        self.result = result or {}


def terminal_of(run_id: str, control: RunControl, work: Callable[[], dict[str, Any]]) -> Terminal:
    """Do `work` and say how it ended: its result, the user's cancel, or the fault in words for the user."""
    try:
        if control.cancelled:
            raise Cancelled
        return RunFinished(run_id=run_id, result=work())
    except Cancelled as cancelled:
        return RunCancelled(run_id=run_id, result=cancelled.result)
    except KeyboardInterrupt:
        return RunCancelled(run_id=run_id)
    except Exception as error:
        return failure(run_id, error)


def failure(run_id: str, error: Exception) -> RunFailed:
    """What went wrong, for the user: a sentence and a way out; a traceback only where it is our fault."""
    known = error if isinstance(error, EMTransferError) else _recognised(error)
    if known is not None:
        return RunFailed(run_id=run_id, kind=known.kind, message=known.message, hint=known.hint)
    what = " ".join(str(error).split()) or "no further words"
    return RunFailed(
        run_id=run_id,
        kind="bug",
        message=f"The work stopped on a fault of the program: {type(error).__name__}: {what[:300]}",
        hint="Please report it together with the details; what was saved so far is kept.",
        traceback="".join(traceback.format_exception(error)),
    )


def _recognised(error: Exception) -> EMTransferError | None:
    """Faults of the machine that arrive as exceptions of the language or of torch, which is not imported here."""
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _speaks_of_memory(str(error).lower())):
        return DeviceError(
            "The computer ran out of memory for this work.",
            "Use a smaller batch size, crop or roi, a smaller encoder, or close other programs.",
        )
    if isinstance(error, OSError) and error.errno in _STORAGE_ERRNO:
        where = f" {error.filename}" if error.filename else " to the project"
        return StorageError(
            f"Writing{where} failed: {error.strerror}.", "Free some space or allow writing there, then resume the run."
        )
    return None


def _speaks_of_memory(text: str) -> bool:
    return "out of memory" in text or "can't allocate memory" in text
