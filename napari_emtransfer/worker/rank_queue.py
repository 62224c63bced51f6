"""From scores to the queue: which tiles may be proposed, which are, and which are random controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.active import acquisition, queue
from napari_emtransfer.core.active.pool import Choice, TilePool
from napari_emtransfer.core.config import RankConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.queue_records import QueueEntry
from napari_emtransfer.worker.rank_scores import Scores
from napari_emtransfer.worker.rank_state import TileLabels
from napari_emtransfer.worker.rank_tiles import TileTable

Tiles = NDArray[np.bool_]
"""(n,) Which of the tiles of a table."""


@dataclass(frozen=True, eq=False)
class Progress:
    """How far the labelling of the tiles of `table` is.

    Parameters
    ----------
    done, set_aside
        (n,) Tiles that are done; tiles that were skipped, or that somebody is unsure of.
    dense
        (n,) Tiles of which at least half is labelled: fewer labels are too few to measure on.
    unreadable
        (n,) Tiles of micrographs that cannot be opened now.
    entries
        The queue, dealt with or not.
    """

    table: TileTable
    done: Tiles
    set_aside: Tiles
    dense: Tiles
    unreadable: Tiles
    entries: tuple[QueueEntry, ...]

    @classmethod
    def of(cls, project: Project, table: TileTable, labels: Mapping[int, TileLabels], unreadable: Tiles) -> Self:
        """As the project says now. A micrograph that came wholly labelled is done, but where it says otherwise."""
        whole, done, set_aside, dense = (np.zeros(len(table), np.bool_) for _ in range(4))
        for tile, known in labels.items():
            whole[tile], dense[tile] = known.whole, known.dense
        for number, record in enumerate(table.records):
            here = slice(*table.starts[number : number + 2])
            done[here] = whole[here].all()
            for (row, column), state in project.tile_states(record.stem).items():
                place = table.index(record.stem, row, column)
                if place is not None:
                    done[place], set_aside[place] = state == "done", state in ("skipped", "unsure")
        return cls(table, done, set_aside, dense, unreadable, project.active.queue())

    def _tiles(self, entries: Sequence[QueueEntry]) -> Tiles:
        chosen = np.zeros(len(self.table), np.bool_)
        chosen[self.table.indices([entry.tile for entry in entries])] = True
        return chosen

    @cached_property
    def ended(self) -> Tiles:
        """Done, skipped or put off, by state or queue: nobody is asked for them (again)."""
        put_off = [entry for entry in self.entries if entry.state in ("skipped", "deferred")]
        return self.done | self.set_aside | self._tiles(put_off)

    @cached_property
    def waiting(self) -> list[QueueEntry]:
        """Entries that wait, and whose tiles have not been dealt with otherwise."""
        found = [entry for entry in self.entries if entry.state == "waiting"]
        places = (self.table.index(*entry.tile) for entry in found)
        return [e for e, place in zip(found, places, strict=True) if place is not None and not self.ended[place]]

    @cached_property
    def open(self) -> Tiles:
        """Tiles that may be chosen: neither ended, nor bare data bar, nor waiting for good."""
        stay = [entry for entry in self.waiting if entry.control or entry.shown]
        return ~self.ended & ~self._tiles(stay) & self.table.shows_specimen & ~self.unreadable

    @cached_property
    def order(self) -> NDArray[np.intp]:
        """The random permutation of all tiles that show the specimen: controls are its beginning."""
        table = self.table
        names = [
            queue.control_name(record.checksum, record.frame, grid.key)
            for record, grid in zip(table.records, table.grids, strict=True)
        ]
        order = queue.control_order(names, table.micrographs, table.rows, table.columns)
        return order[table.shows_specimen[order]]

    @cached_property
    def sample(self) -> queue.ControlSample:
        """The control tiles that may be measured on."""
        labelled = self.done & self.dense
        asked = self._tiles([entry for entry in self.entries if entry.control])
        return queue.control_sample(self.order, labelled, (self.ended | self.unreadable) & ~labelled, asked)

    @cached_property
    def chosen(self) -> list[int]:
        """Tiles that were chosen, not drawn at random, and are done, in the order in which they were."""
        ended = sorted((e for e in self.entries if e.state == "done" and not e.control), key=lambda e: e.ended or "")
        random = set(self.sample.tiles.tolist())
        tiles = self.table.indices([entry.tile for entry in ended]).tolist()
        return [tile for tile in tiles if tile not in random and self.dense[tile]]

    def next_controls(self, n: int) -> NDArray[np.intp]:
        """The next `n` controls that are to be queued."""
        waiting = [entry for entry in self.waiting if entry.control]
        closed = self.ended | self.unreadable | self._tiles(waiting)
        return queue.next_controls(self.order, closed, n)


@dataclass(frozen=True, eq=False)
class Pool:
    """What an acquisition sees, and the tiles of the table that these are."""

    pool: TilePool
    tiles: NDArray[np.intp]


def pool_of(progress: Progress, scores: Scores, sampled: Tiles, embeddings: NDArray[np.float32], learnt: Tiles) -> Pool:
    """Tiles with features; `learnt` (n,) are those that the model has learnt from."""
    tiles, table = np.flatnonzero(sampled & progress.table.shows_specimen), progress.table
    pool = TilePool(
        micrographs=table.micrographs[tiles],
        specimens=table.specimens[tiles],
        open=progress.open[tiles],
        labelled=learnt[tiles] | progress.done[tiles],
        embeddings=embeddings[tiles],
        scores={name: getattr(scores, name)[tiles] for name in ("entropy", "margin", "bald", "novelty")},
        shares=scores.shares[tiles],
        class_entropy=scores.class_entropy[tiles],
    )
    return Pool(pool, tiles)


@dataclass(frozen=True)
class Proposal:
    """The new queue, and the acquisition that made it (never "default")."""

    entries: list[QueueEntry]
    acquisition: str


def propose(
    progress: Progress,
    pool: Pool,
    scores: Scores,
    config: RankConfig,
    class_names: Sequence[str],
    query_round: int,
) -> Proposal:
    """Choose as many tiles as are asked for, controls among them; what somebody has looked at stays.

    `query_round` is the number that entries get. Noise falls with the tiles labelled, not with the rankings: there is
    one after every tile, and the next one is to go on where this one stood.
    """
    name = acquisition.resolve(config.acquisition, pool.pool)
    waiting = progress.waiting
    since = queue.since_control(progress.entries)
    n_controls = queue.n_controls(config.n_tiles, config.control_every, since)
    n_waiting = sum(entry.control for entry in waiting)
    controls = progress.next_controls(max(0, n_controls - n_waiting))
    n_kept = sum(entry.shown and not entry.control for entry in waiting)
    n = max(0, config.n_tiles - max(n_controls, n_waiting) - n_kept)
    n_labelled = int(pool.pool.labelled.sum())
    chosen = _choices(pool, name, n, controls, config, n_labelled // config.n_tiles)
    table = progress.table

    def entries(choices: Sequence[Choice]) -> list[QueueEntry]:
        return queue.new_entries(
            choices,
            lambda tile: _cell(table, tile),
            class_names,
            query_round=query_round,
            acquisition=name,
            model=scores.model,
        )

    random_ones = [Choice(int(tile), None, "control") for tile in controls]
    new = queue.merged(waiting, entries(chosen), entries(random_ones), every=config.control_every, since=since)
    return Proposal(new, name)


def _choices(
    pool: Pool, name: str, n: int, controls: NDArray[np.intp], config: RankConfig, query_round: int
) -> list[Choice]:
    """Choices by their place in the table; a tile that is a control already is not chosen besides."""
    if n == 0 or not len(pool.tiles):
        return []
    known = pool.pool
    seen = replace(known, open=known.open & ~np.isin(pool.tiles, controls))
    found = acquisition.choose(name, seen, n, query_round=query_round, seed=config.compute.seed, spread=config.spread)
    return [
        Choice(int(pool.tiles[c.index]), c.score, c.reason, klass=c.klass, probability=c.probability) for c in found
    ]


def _cell(table: TileTable, tile: int) -> queue.Cell:
    number = int(table.micrographs[tile])
    stem, grid = table.records[number].stem, table.grids[number].key
    return stem, grid, int(table.rows[tile]), int(table.columns[tile])
