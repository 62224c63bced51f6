"""Painted labels on disk: one zarr array per micrograph, uint8, native pixels, saved chunk by chunk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_emtransfer.core.data.annotation_counts import ChunkCounts, chunk_files
from napari_emtransfer.core.data.storage import AtomicStore, file_lock, storage_faults, write_atomic
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import ProjectError, StorageError

CHUNK_PX = 256


class AnnotationStore:
    """Labels (H, W) uint8 of every micrograph: 0 = unlabelled, 1..K = classes.

    The folder is an ordinary zarr group. A chunk is replaced atomically and synced before `write` returns, so a kill
    at any moment loses no acknowledged stroke. Several processes may write at once: a lock per micrograph keeps one
    from overwriting the other's strokes.

    Parameters
    ----------
    root
        The zarr group's folder; it is made at the first `create`.
    read_only
        Why writing is refused, or "" where it is allowed.
    """

    def __init__(self, root: Path, *, read_only: str = "") -> None:
        self.root = root
        self._read_only = read_only
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._shapes: dict[str, tuple[int, int]] = {}
        self._counts: dict[str, ChunkCounts] = {}

    def __contains__(self, stem: object) -> bool:
        return (self.root / str(stem) / "zarr.json").is_file()

    def create(self, stem: str, shape: tuple[int, int]) -> None:
        """Make an unlabelled annotation (H, W); nothing happens where there is one already."""
        self._check_writable()
        if stem in self:
            return
        with storage_faults(self.root / stem):
            self._ensure_group()
            zarr.create_array(
                AtomicStore(self.root / stem),
                shape=shape,
                chunks=(CHUNK_PX, CHUNK_PX),
                dtype="uint8",
                fill_value=0,
                chunk_key_encoding={"name": "default", "separator": "."},  # one folder per micrograph: fast to list
                dimension_names=("y", "x"),
            )

    def shape(self, stem: str) -> tuple[int, int]:
        """(H, W) of the annotation of `stem`."""
        if stem not in self._shapes:
            if stem not in self:
                raise ProjectError(f"There are no labels of a micrograph {stem!r} in {str(self.root)!r}.")
            # Many times faster than opening the array; a list of micrographs asks for all of them.
            height, width = json.loads((self.root / stem / "zarr.json").read_text())["shape"]
            self._shapes[stem] = height, width
        return self._shapes[stem]

    def read(self, stem: str, window: Window | None = None) -> NDArray[np.uint8]:
        """Labels (h, w) uint8 in `window`, or the whole (H, W)."""
        array = self._array(stem)
        index = window.slices if window is not None else (slice(None), slice(None))
        return np.asarray(array[index], dtype=np.uint8)

    def write(self, stem: str, window: Window | None, labels: NDArray[np.uint8]) -> None:
        """Store `labels` (h, w) in `window` (None: everywhere). Each chunk that changed is replaced atomically.

        Raises
        ------
        StorageError
            When the disk is full, read-only, or held by another program; chunks written before stay.
        """
        self._check_writable()
        array = self._array(stem)
        window = window or Window(y0=0, x0=0, y1=array.shape[0], x1=array.shape[1])
        if labels.shape != window.shape:
            raise ValueError(f"labels {labels.shape} do not fit the window {window.shape}")
        with file_lock(self.root / stem / ".lock"), storage_faults(self.root / stem):
            for chunk in _chunks(window, array.shape):
                self._write_chunk(array, chunk, window, labels)

    def class_counts(self, stem: str, n_classes: int | None = None) -> NDArray[np.int64]:
        """Pixels per label value: int64 (K + 1,), unlabelled first; K = `n_classes`, or the highest value painted.

        Cheap to call often: only chunks that changed since the last call are read.
        """
        height, width = self.shape(stem)
        total = self._count(stem)
        total[0] += height * width - total.sum()
        top = int(np.flatnonzero(total).max()) if n_classes is None else n_classes
        return total[: top + 1]

    def labelled_fraction(self, stem: str, window: Window | None = None) -> float:
        """Share of labelled pixels, 0..1, of the micrograph or of one window of it."""
        if window is not None:
            return float(np.count_nonzero(self.read(stem, window)) / (window.shape[0] * window.shape[1]))
        counts = self.class_counts(stem)
        return float(counts[1:].sum() / counts.sum())

    def remove(self, stem: str) -> None:
        """Delete the annotation of `stem`."""
        self._check_writable()
        self._arrays.pop(stem, None)
        self._shapes.pop(stem, None)
        self._counts.pop(stem, None)
        with storage_faults(self.root / stem):
            if stem in self:
                shutil.rmtree(self.root / stem)

    def copy_to(self, target: AnnotationStore, stem: str) -> None:
        """Freeze the labels of `stem` as they are now in another store.

        Chunk files are replaced and never changed, so a hard link is a snapshot; a copy where links are impossible.
        """
        source, folder = self.root / stem, target.root / stem
        with storage_faults(folder):
            target._ensure_group()
            folder.mkdir(parents=True, exist_ok=True)
            with nullcontext() if self._read_only else file_lock(source / ".lock"):
                for entry in chunk_files(source):
                    _link_or_copy(source / entry, folder / entry)
                _link_or_copy(source / "zarr.json", folder / "zarr.json")

    def _array(self, stem: str) -> zarr.Array[Any]:
        if stem not in self._arrays:
            self.shape(stem)  # raises where there is none
            self._arrays[stem] = zarr.open_array(AtomicStore(self.root / stem, read_only=bool(self._read_only)))
        return self._arrays[stem]

    def _write_chunk(self, array: zarr.Array[Any], chunk: Window, window: Window, labels: NDArray[np.uint8]) -> None:
        part = chunk.intersection(window)
        assert part is not None  # noqa: S101  (chunks are those that meet the window)
        block = np.array(array[chunk.slices], dtype=np.uint8)
        inside = (slice(part.y0 - chunk.y0, part.y1 - chunk.y0), slice(part.x0 - chunk.x0, part.x1 - chunk.x0))
        new = labels[part.y0 - window.y0 : part.y1 - window.y0, part.x0 - window.x0 : part.x1 - window.x0]
        if not np.array_equal(block[inside], new):
            block[inside] = new
            array[chunk.slices] = block

    def _count(self, stem: str) -> NDArray[np.int64]:
        def read_chunk(name: str) -> NDArray[np.uint8]:
            y, x = (int(index) * CHUNK_PX for index in name.split(".")[1:])
            return np.asarray(self._array(stem)[y : y + CHUNK_PX, x : x + CHUNK_PX], dtype=np.uint8)

        if stem not in self._counts:
            self._counts[stem] = ChunkCounts(self.root / stem, keep=not self._read_only)
        return self._counts[stem].total(read_chunk)

    def _ensure_group(self) -> None:
        metadata = self.root / "zarr.json"
        if not metadata.is_file():
            write_atomic(metadata, json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}).encode())

    def _check_writable(self) -> None:
        if self._read_only:
            raise StorageError(
                f"Cannot write {str(self.root)!r}: {self._read_only}.", "Copy the project and go on there."
            )


def _chunks(window: Window, shape: tuple[int, ...]) -> Iterator[Window]:
    """Chunks of an array (H, W) that meet `window`, in reading order."""
    for y in range(window.y0 // CHUNK_PX * CHUNK_PX, window.y1, CHUNK_PX):
        for x in range(window.x0 // CHUNK_PX * CHUNK_PX, window.x1, CHUNK_PX):
            yield Window(y0=y, x0=x, y1=min(y + CHUNK_PX, shape[0]), x1=min(x + CHUNK_PX, shape[1]))


def _link_or_copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)
