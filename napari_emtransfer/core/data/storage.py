"""Writing that survives a kill, a power cut and a full disk: complete files or none, and faults in plain words."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from napari_emtransfer.core.errors import StorageError

_LOCK_SECONDS = 10.0

_REASONS = {
    errno.ENOSPC: ("the disk is full", "Free some space; everything saved before is still there."),
    errno.EFBIG: (
        "the file would exceed the size allowed here",
        "Raise the file size limit (ulimit -f) and try again.",
    ),
    errno.EROFS: ("the disk is read-only", "Copy the project folder to a disk that you may write to."),
    errno.EACCES: ("permission is denied", "Ask for write permission, or copy the project folder to your own disk."),
    errno.EPERM: ("permission is denied", "Ask for write permission, or copy the project folder to your own disk."),
    errno.ENOENT: ("the folder is gone", "Was the project moved or a drive removed? Open it at its new place."),
}
if hasattr(errno, "EDQUOT"):
    _REASONS[errno.EDQUOT] = ("your disk quota is used up", "Free some space; everything saved before is still there.")


def storage_error(error: OSError, path: Path) -> StorageError:
    """An `OSError` met while writing `path` → the same in plain words."""
    reason, hint = _REASONS.get(error.errno or 0, (error.strerror or str(error), "Check the disk and try again."))
    return StorageError(f"Cannot write {str(path)!r}: {reason}.", hint)


@contextlib.contextmanager
def storage_faults(path: Path) -> Iterator[None]:
    """Turn every `OSError` inside the block into a `StorageError` about `path`."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` so that a reader, or the next start after a kill, sees the old file or the new one, never half.

    Raises
    ------
    OSError
        When writing fails; the old file is untouched then and no temporary file is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_UMASK)  # noqa: PTH101  (mkstemp makes private files; a project may be shared)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _read_umask() -> int:
    # The mask can only be read by setting it: once, at import, before there are threads.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


_UMASK = _read_umask()


def _sync_folder(folder: Path) -> None:
    # A rename is durable only once its folder is; Windows cannot open folders and needs no such step.
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems refuse to sync a folder
            raise
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; faults become `StorageError`."""
    with storage_faults(path):
        write_atomic(path, text.encode())


class AtomicStore(LocalStore):
    """A zarr store on disk whose keys (one chunk each) are replaced atomically and synced."""

    async def set(self, key: str, value: Buffer) -> None:
        """Replace one key."""
        self._check_writable()
        # Beside zarr's event loop, so that one slow disk does not hold up every reader.
        await asyncio.to_thread(write_atomic, self.root / key, value.to_bytes())


@contextlib.contextmanager
def file_lock(path: Path, seconds: float = _LOCK_SECONDS) -> Iterator[None]:
    """Hold `path` against other threads and processes; the system frees it when the holder dies.

    Raises
    ------
    StorageError
        When another program keeps the lock for longer than `seconds`.
    """
    with storage_faults(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _wait_for_lock(descriptor, path, seconds)
        yield
    finally:
        os.close(descriptor)  # closing releases


def _wait_for_lock(descriptor: int, path: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not _try_lock(descriptor):
        if time.monotonic() > deadline:
            raise StorageError(
                f"Another program has been writing {str(path.parent)!r} for more than {seconds:.0f} s.",
                "Close the other program, or wait until it is done, and try again.",
            )
        time.sleep(0.005)


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # A file system without locks: going on unlocked beats refusing to save.
            return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
        return True
