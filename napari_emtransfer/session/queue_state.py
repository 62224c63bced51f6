"""The labelling queue as the window shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from napari_emtransfer.core.config import Acquisition

if TYPE_CHECKING:
    from napari_emtransfer.core.active.rounds import RoundFacts
    from napari_emtransfer.core.active.stopping import StopAdvice
    from napari_emtransfer.core.data.queue_records import QueryRound, QueueEntry

QueuePhase = Literal["off", "ready", "ranking", "failed"]


@dataclass(frozen=True)
class QueueState:
    """Which tiles come next, how far the ranking is, and what was measured after each.

    Parameters
    ----------
    phase
        "off" without a project; "failed": the last ranking came to nothing, and `error` says why in a sentence, `hint`
        what would help; the queue is the one before.
    entries
        Those that wait, in the order in which they come; after them those that were put aside (state "deferred").
    current
        The entry of the tile that is shown; None where it was not proposed.
    acquisition
        By which tiles are chosen; "default" is `resolved` as in the last ranking, "" before the first.
    n_tiles, n_scored
        Tiles of the project, and those of them that the last ranking knew.
    ranked
        False while nobody has asked for a ranking since the project was opened.
    rounds, facts
        What was known after each ranking, oldest first, and of the newest; None before the first.
    advice
        Whether to stop labelling; None before the first ranking.
    target_half_width
        Wanted half width of the interval of a phase fraction, 0..1.
    finetune_every, n_until_finetune
        A training starts by itself after so many done tiles, and now after so many more; None: never.
    """

    phase: QueuePhase = "off"
    entries: tuple[QueueEntry, ...] = ()
    current: QueueEntry | None = None
    acquisition: Acquisition = "default"
    resolved: str = ""
    n_tiles: int = 0
    n_scored: int = 0
    ranked: bool = False
    rounds: tuple[QueryRound, ...] = ()
    facts: RoundFacts | None = None
    advice: StopAdvice | None = None
    target_half_width: float | None = None
    finetune_every: int | None = None
    n_until_finetune: int | None = None
    error: str = ""
    hint: str = ""

    @property
    def progress(self) -> float:
        """Scored part of all tiles, 0..1."""
        return min(1.0, self.n_scored / self.n_tiles) if self.n_tiles else 0.0

    @property
    def waiting(self) -> tuple[QueueEntry, ...]:
        """The entries that were not put aside."""
        return tuple(entry for entry in self.entries if entry.state == "waiting")
