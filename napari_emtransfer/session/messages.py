"""What reaches `Session.apply`: worker events, and the answers of the session's own background threads."""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.events import Event

if TYPE_CHECKING:
    from napari_emtransfer.core.active.rounds import RoundFacts
    from napari_emtransfer.core.active.stopping import StopAdvice
    from napari_emtransfer.core.config import TrainConfig
    from napari_emtransfer.core.data.queue_records import QueryRound, QueueEntry


@dataclass(frozen=True)
class FromEngine:
    """An event of the resident engine; `serial` counts its restarts: a dead engine's last words can be told apart."""

    serial: int
    event: Event


@dataclass(frozen=True)
class FromSynthesis:
    """An event of a process that makes synthetic micrographs; `helper` counts those that make previews, from 1."""

    event: Event
    helper: int = 0


@dataclass(frozen=True)
class RegionLoaded:
    """A window predicted by `run`, its pixels in memory already: mask (h, w) uint8 and entropy (h, w) float16."""

    generation: int
    run: str
    stem: str
    window: Window
    mask: NDArray[np.uint8]
    entropy: NDArray[np.float16]


@dataclass(frozen=True)
class StoredPrediction:
    """Look whether the project's store holds this prediction already; comes back as `RegionLoaded` if it does."""

    generation: int
    stem: str
    model_run: str


@dataclass(frozen=True)
class AnnotationWanted:
    """Read the annotation of this micrograph; comes back as `AnnotationRead` if there is one."""

    stem: str


@dataclass(frozen=True)
class AnnotationRead:
    """An annotation (H, W) as it is on disk."""

    stem: str
    labels: NDArray[np.uint8]


@dataclass(frozen=True)
class StrokesSaved:
    """The writer has put strokes of these micrographs on disk; `write` counts what it has written."""

    stems: tuple[str, ...]
    write: int = 0


@dataclass(frozen=True)
class SaveFailed:
    """The writer could not write; the strokes are still in memory and marked as unsaved."""

    message: str
    hint: str


@dataclass(frozen=True)
class MicrographsChanged:
    """Another thread has added micrographs to the project or, with `labels`, classes and the labels of `stems`."""

    stems: tuple[str, ...] = ()
    labels: bool = False


@dataclass(frozen=True)
class QueueWanted:
    """Read the labelling queue of the project; comes back as `QueueRead`. `serial` counts the readings.

    Advice on stopping is for an interval of a phase fraction of this half width, 0..1.
    """

    serial: int
    target_half_width: float | None = None


@dataclass(frozen=True)
class QueueRead:
    """The open entries of the queue in their order, what was known after each ranking, and the advice on stopping.

    `message` and `hint` say why they could not be read.
    """

    serial: int
    entries: tuple[QueueEntry, ...] = ()
    rounds: tuple[QueryRound, ...] = ()
    facts: RoundFacts | None = None
    advice: StopAdvice | None = None
    message: str = ""
    hint: str = ""


@dataclass(frozen=True)
class ProposalMade:
    """Settings for the training that starts by itself; without any, `message` and `hint` say why not."""

    serial: int
    config: TrainConfig | None = None
    message: str = ""
    hint: str = ""


Message = (
    Event
    | FromEngine
    | FromSynthesis
    | RegionLoaded
    | StoredPrediction
    | AnnotationWanted
    | AnnotationRead
    | StrokesSaved
    | SaveFailed
    | MicrographsChanged
    | QueueWanted
    | QueueRead
    | ProposalMade
)


class Inbox:
    """One queue into which every background thread and worker process puts its messages."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def put(self, message: Message) -> None:
        """Post a message; callable from any thread."""
        self._queue.put(message)

    def get(self, timeout: float) -> list[Message]:
        """Everything posted so far; waits up to `timeout` seconds for the first message."""
        try:
            messages = [self._queue.get(timeout=timeout) if timeout > 0 else self._queue.get_nowait()]
        except queue.Empty:
            return []
        deadline = time.monotonic() + 0.05  # a steady stream must not keep the batch open
        while time.monotonic() < deadline:
            try:
                messages.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return messages
