"""Strokes to disk, on a thread of their own: the thread that paints never waits for the disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.session.messages import Message, SaveFailed, StrokesSaved

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project import Project
    from napari_emtransfer.core.data.project_records import TileState

CHUNK_PX = 256
QUIET_SECONDS = 0.2  # a pause this long ends a stroke
LONGEST_SECONDS = 0.4  # while painting goes on, save at least this often (plus one tick and the write: below 1 s)
RETRY_SECONDS = 3.0

Chunks = set[tuple[int, int]]
StateKey = tuple[str, int, int]
Record = Callable[[], object]
RecordKey = tuple[str, int]


@dataclass
class _Unsaved:
    """What waits to be written: chunks of annotations, then states, then records."""

    chunks: dict[str, Chunks] = field(default_factory=dict)
    states: dict[StateKey, TileState] = field(default_factory=dict)
    records: dict[RecordKey, Record] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.chunks or self.states or self.records)

    def before(self, newer: _Unsaved) -> _Unsaved:
        """Both together; of the same tile or key the newer one wins, in the place of the older one."""
        chunks = {stem: set(chunks) for stem, chunks in self.chunks.items()}
        for stem, more in newer.chunks.items():
            chunks.setdefault(stem, set()).update(more)
        return _Unsaved(chunks, self.states | newer.states, self.records | newer.records)

    def without(self, stem: str) -> _Unsaved:
        """What is not of this micrograph."""
        return _Unsaved(
            {key: value for key, value in self.chunks.items() if key != stem},
            {key: value for key, value in self.states.items() if key[0] != stem},
            {key: value for key, value in self.records.items() if key[0] != stem},
        )


class AutoSaver:
    """Collects what has changed and writes it on a background thread.

    The array handed to `mark` is the one being painted; the thread reads it when it writes. A stroke that lands
    while its chunk is being read marks the chunk again afterwards, so the last state always reaches the disk.

    Parameters
    ----------
    project
        Where annotations and tile states go.
    post
        Receives `StrokesSaved` and `SaveFailed`, on the writing thread.
    clock
        Seconds; monotonic.
    """

    def __init__(
        self, project: Project, post: Callable[[Message], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._project, self._post, self._clock = project, post, clock
        self._arrays: dict[str, NDArray[np.uint8]] = {}
        self._waiting = _Unsaved()
        self._first = self._last = self._not_before = 0.0
        self._n_writes = 0
        self._wanted = self._flushing = self._busy = self._closing = self._failed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="emtransfer-autosave", daemon=True)
        self._thread.start()

    @property
    def unsaved(self) -> bool:
        """True while anything waits to be written or is being written."""
        with self._changed:
            return self._busy or bool(self._waiting)

    def is_unsaved(self, stem: str) -> bool:
        """True while strokes on this micrograph are not on disk."""
        with self._changed:
            return self._busy or stem in self._waiting.chunks

    def mark(self, stem: str, array: NDArray[np.uint8], window: Window) -> None:
        """`window` of `array` (H, W), the annotation of `stem`, has changed."""
        (y0, x0), (y1, x1) = (window.y0, window.x0), (window.y1 - 1, window.x1 - 1)
        rows = range(y0 // CHUNK_PX, y1 // CHUNK_PX + 1)
        columns = range(x0 // CHUNK_PX, x1 // CHUNK_PX + 1)
        with self._changed:
            self._arrays[stem] = array
            self._note_change()
            self._waiting.chunks.setdefault(stem, set()).update((r, c) for r in rows for c in columns)

    def mark_state(self, stem: str, row: int, column: int, state: TileState) -> None:
        """The state of a tile has changed."""
        with self._changed:
            self._note_change()
            self._waiting.states[stem, row, column] = state

    def record(self, key: RecordKey, write: Record) -> None:
        """Have `write` called once all strokes and states that wait now are on disk: what says that they are, say.

        Records are written in the order of their keys' first mention; of one `key` (a micrograph, or "", and a number)
        only the newest. `write` is called again later when it raises, so it must not fail for good. In a project that
        cannot be written nothing is recorded: it may be looked at, and closed.
        """
        if self._project.read_only:
            return
        with self._changed:
            self._note_change()
            self._waiting.records[key] = write

    def forget(self, stem: str) -> None:
        """Drop what waits for a micrograph that has left the project."""
        with self._changed:
            self._waiting = self._waiting.without(stem)
            self._arrays.pop(stem, None)

    def tick(self) -> None:
        """Start writing when a stroke has ended, or painting has gone on for long enough; returns at once."""
        now = self._clock()
        with self._changed:
            due = now - self._last >= QUIET_SECONDS or now - self._first >= LONGEST_SECONDS
            if self._waiting and not self._busy and due and now >= self._not_before:
                self._wanted = True
                self._changed.notify_all()

    def hasten(self) -> int | None:
        """A stroke has ended: start writing now, however long the pause; returns at once.

        Returns
        -------
        The number of the write (see `StrokesSaved`) after which all that was marked so far is on disk; None when it is
        there already.
        """
        with self._changed:
            if not self._waiting:
                return self._n_writes if self._busy else None
            if self._clock() >= self._not_before:
                self._wanted = True
                self._changed.notify_all()
            return self._n_writes + 1

    def flush(self, timeout: float) -> bool:
        """Write everything now and wait for it; False when it failed or took longer than `timeout` seconds."""
        with self._changed:
            self._failed, self._flushing = False, True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._failed or not (self._busy or self._waiting), timeout)
            self._flushing = False
            return not (self._busy or self._waiting)

    def close(self, timeout: float) -> bool:
        """Flush and end the thread; False when strokes could not be written."""
        saved = self.flush(timeout)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return saved

    def _note_change(self) -> None:
        self._last = self._clock()
        if not self._waiting:
            self._first = self._last

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or (self._waiting and (self._wanted or self._flushing)))
                if self._closing:
                    return
                self._wanted, self._busy = False, True
                self._n_writes += 1
                batch, self._waiting = self._waiting, _Unsaved()
            message = self._write(self._n_writes, batch)
            with self._changed:
                self._settle(batch, message)
            self._post(message)

    def _write(self, number: int, batch: _Unsaved) -> Message:
        """Write, taking out of `batch` what is done; what is left in it has not reached the disk."""
        stems = tuple(batch.chunks)
        try:
            for stem in stems:
                self._write_chunks(stem, batch.chunks[stem])
                del batch.chunks[stem]
            for key in list(batch.states):
                self._project.set_tile_state(*key, batch.states[key])
                del batch.states[key]
            for record in list(batch.records):
                batch.records[record]()
                del batch.records[record]
        except EMTransferError as error:
            return SaveFailed(error.message, error.hint)
        except Exception as error:
            return SaveFailed(
                f"Your last strokes could not be saved: {error}.",
                "They stay in memory and are tried again every few seconds; free some disk space or check the folder.",
            )
        return StrokesSaved(stems, number)

    def _write_chunks(self, stem: str, chunks: Chunks) -> None:
        array = self._arrays[stem]
        for window in _windows(chunks, array.shape):
            self._project.annotations.write(stem, window, array[window.slices].copy())

    def _settle(self, batch: _Unsaved, message: Message) -> None:
        self._busy = False
        self._failed = isinstance(message, SaveFailed)
        if self._failed:
            self._flushing = False
            self._waiting = batch.before(self._waiting)
            self._not_before = self._clock() + RETRY_SECONDS
        self._arrays = {stem: array for stem, array in self._arrays.items() if stem in self._waiting.chunks}
        self._changed.notify_all()


def _windows(chunks: Chunks, shape: tuple[int, ...]) -> Iterator[Window]:
    """Chunks → windows clipped to the array, neighbours in a row joined."""
    for row, in_row in groupby(sorted(chunks), key=lambda chunk: chunk[0]):
        columns = [column for _, column in in_row]
        for _, run in groupby(enumerate(columns), key=lambda pair: pair[1] - pair[0]):
            members = [column for _, column in run]
            y0, x0 = row * CHUNK_PX, members[0] * CHUNK_PX
            y1, x1 = min(shape[0], y0 + CHUNK_PX), min(shape[1], (members[-1] + 1) * CHUNK_PX)
            yield Window(y0=y0, x0=x0, y1=y1, x1=x1)
