"""What a project keeps of its labelling queue: tiles that were proposed, and what was known after each ranking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

QueueState = Literal["waiting", "done", "skipped", "deferred"]
ENDED: Final[tuple[QueueState, ...]] = ("done", "skipped")


@dataclass(frozen=True)
class QueueEntry:
    """One tile that was proposed for labelling.

    Parameters
    ----------
    stem, grid, row, column
        The cell; `grid` is the key "rows x columns" that the micrograph's grid had (`TileGrid.key`).
    query_round
        The ranking that proposed it.
    reason
        Why, in words.
    class_name
        The class that the reason speaks of; "" where it speaks of none.
    control
        Drawn uniformly at random: these alone may be measured on.
    probability
        Of being drawn when it was; None where nothing was drawn.
    number
        Its name in the project; 0 as long as it is not stored.
    position
        Its place in the queue; those of waiting entries begin behind those of ended ones.
    seconds, clicks
        What labelling it took, all visits together; `seconds` is None until it has been on the screen.
    queued, ended
        ISO 8601, UTC.
    """

    stem: str
    grid: str
    row: int
    column: int
    query_round: int
    score: float | None
    reason: str
    acquisition: str
    model: str
    class_name: str = ""
    control: bool = False
    probability: float | None = None
    number: int = 0
    position: int = 0
    state: QueueState = "waiting"
    seconds: float | None = None
    clicks: int | None = None
    queued: str = ""
    ended: str | None = None

    @property
    def tile(self) -> tuple[str, int, int]:
        """(stem, row, column): the cell on its grid."""
        return self.stem, self.row, self.column

    @property
    def shown(self) -> bool:
        """Whether somebody has had it on the screen; no ranking takes it away then."""
        return self.seconds is not None


@dataclass(frozen=True)
class QueryRound:
    """What was known after one ranking; `core.active.rounds` reads the facts."""

    number: int
    created: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class LabellingTime:
    """What labelling the queue has taken: sums over all entries ever acted on; None where nothing was measured.

    `n_timed` of the `n_done` done entries have a time.
    """

    seconds: float | None
    clicks: int | None
    n_done: int
    n_timed: int
