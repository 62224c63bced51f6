"""Pixels per label value, counted chunk by chunk and again only where a chunk changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
# What identifies the content of a chunk file, which is replaced and never changed in place: time, size, inode.
Stamp = tuple[int, int, int]

_SIDECAR = ".counts.npz"


class ChunkCounts:
    """Counts of one annotation, kept in memory and, for the next start, in a file that may be deleted.

    Parameters
    ----------
    folder
        The annotation's zarr array.
    keep
        Whether the file may be written.
    """

    def __init__(self, folder: Path, *, keep: bool) -> None:
        self._folder = folder
        self._keep = keep
        self._known = _load(folder / _SIDECAR)

    def total(self, read_chunk: Callable[[str], NDArray[np.uint8]]) -> Counts:
        """Counts (256,) over all chunks on disk; `read_chunk` gives the labels of a chunk file by its name."""
        fresh: dict[str, tuple[Stamp, Counts]] = {}
        changed = False
        for name, stamp in chunk_files(self._folder).items():
            known = self._known.get(name)
            if known is None or known[0] != stamp:
                known = stamp, np.bincount(read_chunk(name).ravel(), minlength=256)
                changed = True
            fresh[name] = known
        self._known = fresh
        if self._keep and changed:
            self._save()
        return np.sum([counts for _, counts in fresh.values()], axis=0, dtype=np.int64) if fresh else np.zeros(256, int)

    def _save(self) -> None:
        stamps, counts = zip(*self._known.values(), strict=True)
        table = np.array(counts, np.int32)
        table = table[:, : int(np.flatnonzero(table.any(axis=0)).max()) + 1]  # few of 256 values occur
        temporary = self._folder / f".tmp-counts-{os.getpid()}.npz"
        # A cache: without it, the next start counts again.
        with suppress(OSError):
            np.savez(temporary, names=list(self._known), stamps=stamps, counts=table)
            temporary.replace(self._folder / _SIDECAR)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def chunk_files(folder: Path) -> dict[str, Stamp]:
    """Chunk files of an annotation: name → stamp."""
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.stat()) for entry in entries if entry.name.startswith("c.")]
    return {name: (stat.st_mtime_ns, stat.st_size, stat.st_ino) for name, stat in found}


def _load(path: Path) -> dict[str, tuple[Stamp, Counts]]:
    try:
        with np.load(path, allow_pickle=False) as saved:
            names, stamps, table = saved["names"].tolist(), saved["stamps"].tolist(), saved["counts"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # absent, or damaged: it is only a cache
        return {}
    counts = np.pad(table, ((0, 0), (0, 256 - table.shape[1]))).astype(np.int64)
    return {name: (tuple(stamp), row) for name, stamp, row in zip(names, stamps, counts, strict=True)}
