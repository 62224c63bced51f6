"""The labelling queue: which tiles are random controls, where they stand among chosen ones, and why a tile is there.

The random permutation of all tiles is fixed before anything is labelled. Its prefix is a simple random sample of the
project, whatever was chosen besides; so its tiles, and they alone, may be measured on.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.active.pool import Choice
from napari_emtransfer.core.data.queue_records import QueueEntry

Cell = tuple[str, str, int, int]
"""(stem, grid, row, column)."""

LEAST_LABELLED: Final = 0.5
"""Part of a random control, as far as it shows the specimen, that has to be labelled before it is measured on."""

_WORDS: Final = {
    "random": "random",
    "control": "random control",
    "foreground": "random, among tiles that show more than the commonest class",
    "typical": "typical of many unlabelled tiles",
    "uncertain": "uncertain",
    "uncertain-class": "uncertain",
    "unlike": "unlike anything labelled",
}
_WORDS_OF_CLASS: Final = {
    "foreground": "random, among tiles with {name}",
    "typical": "typical {name}",
    "uncertain": "uncertain {name}",
    "uncertain-class": "uncertain {name}",
}


# --- random controls


def control_order(
    micrographs: Sequence[str],
    places: NDArray[np.intp],
    rows: NDArray[np.integer],
    columns: NDArray[np.integer],
    *,
    seed: int = 0,
) -> NDArray[np.intp]:
    """The random permutation of all tiles, the same in every process and whatever is added or removed besides.

    Parameters
    ----------
    micrographs
        What a micrograph and its grid are known by (`control_name`), whatever the file is called.
    places, rows, columns
        (n,) Which of `micrographs` a tile belongs to, and its place on the grid.

    Returns
    -------
    (n,) Tiles in order of their keys.
    """
    digests = [hashlib.blake2b(f"{seed}|{name}".encode(), digest_size=8).digest() for name in micrographs]
    own = np.array([int.from_bytes(digest, "little") for digest in digests], np.uint64)
    cells = (np.asarray(rows, np.uint64) << np.uint64(32)) | np.asarray(columns, np.uint64)
    return np.argsort(_mixed(_mixed(cells) ^ own[places]), kind="stable")


def control_name(checksum: str, frame: int | None, grid: str) -> str:
    """What tells the tiles of one micrograph on one grid from all others."""
    return f"{checksum}|{frame}|{grid}"


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea & Flood, OOPSLA 2014): every bit depends on every other; wraps on purpose."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed


@dataclass(frozen=True, eq=False)
class ControlSample:
    """The prefix of the permutation that may be measured on: `tiles` (m,) with labels, and how many have none."""

    tiles: NDArray[np.intp]
    n_missing: int


def control_sample(
    order: NDArray[np.intp],
    labelled: NDArray[np.bool_],
    missing: NDArray[np.bool_],
    asked: NDArray[np.bool_],
) -> ControlSample:
    """The simple random sample: the permutation's prefix whose tiles are all dealt with.

    It ends with the last tile that was queued as a control. A chosen tile that happens to come next is not added at
    once: the sample would be longer when that tile was uncertain, and so would hold too many such tiles.

    Parameters
    ----------
    order
        (n,) From `control_order`.
    labelled
        (n,) Wholly labelled tiles, chosen or not.
    missing
        (n,) Tiles that were skipped or put off: they belong to the sample, and nothing is known of them.
    asked
        (n,) Tiles that were ever queued as controls.
    """
    dealt_with = (labelled | missing)[order]
    whole = len(order) if dealt_with.all() else int(np.argmin(dealt_with))
    prefix = order[:whole]
    ends = np.flatnonzero(asked[prefix])
    prefix = prefix[: ends[-1] + 1] if len(ends) else prefix[:0]
    return ControlSample(prefix[labelled[prefix]], int((~labelled[prefix]).sum()))


def next_controls(order: NDArray[np.intp], closed: NDArray[np.bool_], n: int) -> NDArray[np.intp]:
    """The next `n` tiles of the permutation that are not `closed` (n,): done, skipped, put off, or waiting controls."""
    return order[~closed[order]][:n]


# --- order


def since_control(entries: Iterable[QueueEntry]) -> int:
    """How many chosen entries were dealt with since the last control was.

    By time: somebody may have clicked on a later one first. One put aside has no time; there its place says when.
    """
    dealt, latest = list[tuple[str, bool]](), ""
    for entry in sorted(entries, key=lambda e: e.position):
        if entry.state != "waiting":
            when = entry.ended or latest
            latest = max(latest, when)
            dealt.append((when, entry.control))
    n = 0
    for _, is_control in sorted(dealt, key=lambda one: one[0]):
        n = 0 if is_control else n + 1
    return n


def n_controls(n_tiles: int, every: int, since: int) -> int:
    """Of the next `n_tiles`, how many are controls, `since` chosen ones having gone before."""
    return len(range(max(0, every - 1 - since), n_tiles, every))


def merged(
    waiting: Iterable[QueueEntry],
    chosen: Sequence[QueueEntry],
    controls: Sequence[QueueEntry],
    *,
    every: int,
    since: int,
) -> list[QueueEntry]:
    """The new queue: what somebody looks at, then the chosen ones with a control at every `every`th place.

    Of those that wait, controls and entries that were on the screen stay; the others are replaced.
    """
    old = list(waiting)
    kept = [e for e in old if e.shown and not e.control]
    due = [e for e in old if e.control]
    cells = {_cell(e) for e in (*kept, *due)}
    new = [e for e in chosen if _cell(e) not in cells | {_cell(c) for c in controls}]
    return interleaved([*kept, *new], [*due, *(c for c in controls if _cell(c) not in cells)], every=every, since=since)


def interleaved(
    chosen: Sequence[QueueEntry], controls: Sequence[QueueEntry], *, every: int, since: int
) -> list[QueueEntry]:
    """Both in their order, a control after each `every` − 1 chosen ones, `since` of which have gone before."""
    left, random_ones, order = deque(chosen), deque(controls), list[QueueEntry]()
    while left or random_ones:
        if random_ones and (since >= every - 1 or not left):
            order.append(random_ones.popleft())
            since = 0
        else:
            order.append(left.popleft())
            since += 1
    return order


def _cell(entry: QueueEntry) -> tuple[object, ...]:
    return entry.grid, *entry.tile


# --- entries


def new_entries(
    choices: Iterable[Choice],
    cell_of: Callable[[int], Cell],
    class_names: Sequence[str],
    *,
    query_round: int,
    acquisition: str,
    model: str,
) -> list[QueueEntry]:
    """Choices among a pool → entries that are not stored yet; `cell_of` names the tile of an index."""
    entries = []
    for choice in choices:
        stem, grid, row, column = cell_of(choice.index)
        entry = QueueEntry(
            stem=stem,
            grid=grid,
            row=int(row),
            column=int(column),
            query_round=query_round,
            score=choice.score if choice.score is not None and math.isfinite(choice.score) else None,
            reason=words(choice, class_names),
            class_name="" if choice.klass is None else class_names[choice.klass],
            control=choice.reason == "control",
            probability=choice.probability,
            acquisition=acquisition,
            model=model,
        )
        entries.append(entry)
    return entries


def words(choice: Choice, class_names: Sequence[str]) -> str:
    """Why a tile was chosen, for people: "uncertain Widmanstätten", "unlike anything labelled", "random control"."""
    if choice.klass is not None and choice.reason in _WORDS_OF_CLASS:
        return _WORDS_OF_CLASS[choice.reason].format(name=class_names[choice.klass])
    return _WORDS[choice.reason]
