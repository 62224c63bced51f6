"""Features of tiles on disk, memory-mapped: a cache that may be deleted at any time, and that outlives the process.

A 256² tile with 100 features is 13 MB in fp16; a session's tiles do not fit the memory, and their features take longer
to compute than to map.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from napari_emtransfer.core.data.storage import storage_error

Features = NDArray[np.float16]

DEFAULT_LIMIT_BYTES: Final = 2 * 2**30
_MAGIC: Final = b"EMTF1\n"
# Magic, shape (3 × u32) and checksum of the values (u32), padded so that the values begin aligned.
_HEADER_BYTES: Final = 64
_SUFFIX: Final = ".f16"
# Evicting down to less than the limit: not at every single file from then on.
_KEPT_SHARE: Final = 0.9


def feature_key(**parts: Any) -> str:
    """Name of the features that `parts` (JSON-able: weights, norm statistics, preprocessing, checksum, …) determine."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:40]


class FeatureCache:
    """`<folder>/<key>.f16`: features (F, h, w) of one tile each; the least recently used files go first.

    Several processes may use one folder: files are written beside and renamed, and never changed. A torn or damaged
    file is computed anew. Where the folder cannot be written or the disk is full, work goes on without.

    Parameters
    ----------
    folder
        Made at the first writing; None: no cache.
    limit_bytes
        Size of all files together.
    on_fault
        Told once, with a sentence, when nothing can be written.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
        on_fault: Callable[[str], None] = lambda _words: None,
    ) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._on_fault = on_fault
        self._usable = folder is not None
        self._n_bytes: int | None = None

    def get(self, key: str, compute: Callable[[], Features]) -> Features:
        """Features (F, h, w) under `key`, read-only; computed, and kept, where there are none."""
        known = self.find(key)
        if known is not None:
            return known
        path = self._path(key)
        values = np.ascontiguousarray(compute(), np.float16)
        if path is not None and self._usable:
            self._keep(path, values)
        values.flags.writeable = False
        return values

    def find(self, key: str) -> Features | None:
        """Features (F, h, w) under `key`, read-only; None where there are none."""
        path = self._path(key)
        known = _load(path) if path is not None else None
        if path is not None and known is not None:
            with contextlib.suppress(OSError):
                os.utime(path)  # used: the last to go
        return known

    def clear(self) -> None:
        """Delete all files."""
        self._remove(self._files())
        self._n_bytes = None

    def _path(self, key: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{key}{_SUFFIX}"

    def _keep(self, path: Path, values: Features) -> None:
        try:
            _save(path, values)
        except OSError as error:
            # A disk that is full now has no room for the next file either.
            self._usable = False
            self._on_fault(storage_error(error, path.parent).message)
            return
        self._make_room(values.nbytes + _HEADER_BYTES)

    def _make_room(self, n_new: int) -> None:
        """Delete the files used longest ago when the limit is passed; others may have written meanwhile."""
        self._n_bytes = None if self._n_bytes is None else self._n_bytes + n_new
        if self._n_bytes is not None and self._n_bytes <= self.limit_bytes:
            return
        files = self._files()
        total = sum(size for _, size, _ in files)
        if total > self.limit_bytes:
            doomed = []
            for file in sorted(files)[:-1]:  # the newest is the one just written
                if total <= self.limit_bytes * _KEPT_SHARE:
                    break
                doomed.append(file)
                total -= file[1]
            self._remove(doomed)
        self._n_bytes = total

    def _files(self) -> list[tuple[int, int, Path]]:
        """(Time of last use in ns, bytes, path) of each file."""
        found: list[tuple[int, int, Path]] = []
        if self.folder is None or not self.folder.is_dir():
            return found
        with contextlib.suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX):
                    with contextlib.suppress(OSError):  # another process has just deleted it
                        stat = entry.stat()
                        found.append((stat.st_mtime_ns, stat.st_size, Path(entry.path)))
        return found

    @staticmethod
    def _remove(files: list[tuple[int, int, Path]]) -> None:
        for _, _, path in files:
            with contextlib.suppress(OSError):  # gone already, or mapped by a process on Windows
                path.unlink()


def _save(path: Path, values: Features) -> None:
    """Write beside and rename. Not synced: after a power cut the checksum tells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = _MAGIC + np.array([*values.shape, zlib.crc32(values.data)], "<u4").tobytes()
    descriptor, name = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(header.ljust(_HEADER_BYTES, b"\0"))
            file.write(values.data)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _load(path: Path) -> Features | None:
    """Mapped features (F, h, w), or None where the file is absent, torn or damaged."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
        if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
            return None
        numbers = np.frombuffer(header, "<u4", 4, len(_MAGIC))
        shape = (int(numbers[0]), int(numbers[1]), int(numbers[2]))
        if path.stat().st_size != _HEADER_BYTES + 2 * int(np.prod(shape)):
            return None
        values = _mapped(path, shape)
    except (OSError, ValueError, RuntimeError):  # the last one from torch: gone, or cut short, a moment ago
        return None
    return values if zlib.crc32(np.ascontiguousarray(values).data) == numbers[3] else None


def _mapped(path: Path, shape: tuple[int, int, int]) -> Features:
    """The values of a file, read where they are looked at.

    By torch: numpy's maps keep their file open, and ten thousand of them are more than a process may have.
    """
    n_skipped = _HEADER_BYTES // 2
    flat = torch.from_file(str(path), shared=False, size=n_skipped + int(np.prod(shape)), dtype=torch.float16)
    values: Features = flat.numpy()[n_skipped:].reshape(shape)
    values.flags.writeable = False
    return values
