"""What is known after a ranking: measured on control tiles, each by a head that has not learnt from it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.active import control, stopping
from napari_emtransfer.core.active.rounds import ControlFacts, DifferenceFacts
from napari_emtransfer.core.data.labels import IGNORE_INDEX
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.queue_records import QueryRound
from napari_emtransfer.core.nn.pool_features import N_POINTS
from napari_emtransfer.core.nn.pool_head import Coefficients, PoolHead
from napari_emtransfer.worker.rank_features import TileFeatures
from napari_emtransfer.worker.rank_queue import Progress
from napari_emtransfer.worker.rank_scores import Scores
from napari_emtransfer.worker.rank_state import TileLabels

# Tiles that the stability of predictions is judged by: the first of the random permutation.
_STOP_TILES: Final = 200
# Of more labelled tiles, one hardly changes the head: what it says of those it has learnt from is what it said before.
_MOST_LEFT_OUT: Final = 64
_LEARNT: Final = "the model has learnt from most of them"
# Below it, heads learnt from chosen and from random tiles are not worth comparing.
_FEWEST_LEARNT: Final = 2


@dataclass(frozen=True, eq=False)
class Measurement:
    """Everything that control tiles are measured with.

    Parameters
    ----------
    learnt
        Tile → its place among those that `head` was fitted on.
    labels
        Tile → its labels.
    trained_on
        Control tiles that the network which gives the features was trained on: no head on it has not seen them.
    """

    features: TileFeatures
    head: PoolHead
    learnt: Mapping[int, int]
    labels: Mapping[int, TileLabels]
    progress: Progress
    names: tuple[str, ...]
    trained_on: frozenset[int] = frozenset()

    @cached_property
    def all_tiles(self) -> list[int]:
        """Control tiles with labels whose features are there, in the order of the permutation."""
        there = self.features.sampled
        return [tile for tile in self.progress.sample.tiles.tolist() if there[tile]]

    @cached_property
    def tiles(self) -> list[int]:
        """Those of them that can be measured on: nothing has learnt from them but the head, which can do without."""
        alone = set(self.learnt) if len(self.learnt) == 1 else set()  # without it, there is no head
        return [tile for tile in self.all_tiles if tile not in self.trained_on | alone]

    @cached_property
    def _without(self) -> list[NDArray[np.intp]]:
        """Classes (P,) of each tile that can be measured on by the head that has not learnt from it."""
        return [self._predicted(tile, self._all_but(tile)) for tile in self.tiles]

    def control_iou(self) -> ControlFacts | None:
        """IoU on the control tiles."""
        return control.control_iou(
            self._confusions(self._without),
            self._specimens(self.tiles),
            self.names,
            n_missing=self.progress.sample.n_missing,
            n_trained_on=len(self.trained_on.intersection(self.all_tiles)),
        )

    def phases(self, scores: Scores) -> control.PhaseEstimate | None:
        """Area fractions, from predictions everywhere and labels of the control tiles."""
        table = self.progress.table
        all_tiles = np.flatnonzero(table.shows_specimen & ~self.progress.unreadable)
        y0, x0, y1, x1 = table.windows[all_tiles].T
        # Labels are true whatever a network was trained on: where it leaves too few to correct it, they speak alone.
        alone = 2 * len(self.tiles) < len(self.all_tiles)
        tiles = self.all_tiles if alone else self.tiles
        truth = np.array([self._shares(tile, self._truth(tile)) for tile in tiles])
        places = np.searchsorted(all_tiles, tiles)
        if alone:
            predicted, without = np.full((len(all_tiles), len(self.names)), np.nan), truth
        else:
            predicted = self._predicted_shares(scores)[all_tiles]
            without = np.array([self._shares(tile, found) for tile, found in zip(tiles, self._without, strict=True)])
        stems = table.stems[all_tiles].tolist()
        specimens = self._specimens(all_tiles.tolist())
        area = (y1 - y0) * (x1 - x0) * table.share_shown[all_tiles]
        return control.phase_fractions(
            predicted,
            truth,
            without,
            places,
            specimens,
            stems,
            self.names,
            areas=area,
            **({"why_alone": _LEARNT} if alone else {}),
        )

    def chosen_against_random(self) -> DifferenceFacts | None:
        """Heads learnt from equally many chosen and random tiles, on control tiles that neither has learnt from."""
        random = [tile for tile in self.all_tiles if tile in self.learnt]
        chosen = [tile for tile in self.progress.chosen if tile in self.learnt]
        n = min(len(chosen), len(random) - 1)
        if n < _FEWEST_LEARNT:
            return None
        by_choice = self._learnt_from(chosen[:n])
        found = [self._predicted(tile, by_choice) for tile in self.tiles]
        others = [[other for other in random if other != tile][:n] for tile in self.tiles]
        by_chance = [self._predicted(t, self._learnt_from(o)) for t, o in zip(self.tiles, others, strict=True)]
        return control.chosen_against_random(
            self._confusions(found), self._confusions(by_chance), self._specimens(self.tiles)
        )

    @cached_property
    def stop_tiles(self) -> str:
        """Name of the tiles that stability is judged by: with another micrograph or tile size they are others."""
        table, tiles = self.progress.table, self.progress.order[:_STOP_TILES]
        cells = zip(table.stems[tiles].tolist(), table.windows[tiles].tolist(), strict=True)
        return hashlib.sha256(repr(list(cells)).encode()).hexdigest()[:16]

    def stop_set(self) -> NDArray[np.uint8]:
        """Classes (200 · P,) on the first tiles of the random permutation; 255 where there are no features yet."""
        there = self.features.sampled
        tiles = self.progress.order[:_STOP_TILES]
        known = there[tiles]
        classes = np.full((len(tiles), N_POINTS), IGNORE_INDEX, np.uint8)
        if known.any():
            values = self.features.features(tiles[known])
            classes[known] = self.head.samples(values).mean(axis=0).argmax(axis=0)
        return classes.ravel()

    # ---- inside

    def _predicted_shares(self, scores: Scores) -> NDArray[np.float32]:
        """(n, K) Of labelled tiles, too, by a head that has not learnt from them: its error on controls is of such."""
        shares, there = scores.shares.copy(), self.features.sampled
        learnt = [tile for tile in self.learnt if there[tile]] if len(self.learnt) <= _MOST_LEFT_OUT else []
        known = dict(zip(self.tiles, self._without, strict=True))
        for tile in {*learnt, *self.tiles}:
            found = known[tile] if tile in known else self._predicted(tile, self._all_but(tile))
            shown = self.features.kept(np.array([tile]))[0]
            if shown.any():
                shares[tile] = np.bincount(found[shown], minlength=len(self.names)) / shown.sum()
        return shares

    def _all_but(self, tile: int) -> Coefficients:
        place = self.learnt.get(tile)
        return self.head.solve() if place is None else self.head.without(place)

    def _learnt_from(self, tiles: Sequence[int]) -> Coefficients:
        counts = np.zeros(len(self.learnt), np.float32)
        counts[[self.learnt[tile] for tile in tiles]] = 1
        return self.head.solve(counts)

    def _predicted(self, tile: int, head: Coefficients) -> NDArray[np.intp]:
        samples = self.head.samples(self.features.features([tile])[0], [head])
        return samples.mean(axis=0).argmax(axis=0)

    def _truth(self, tile: int) -> NDArray[np.intp]:
        """Labels (P,), 255 where there is none or a data bar."""
        shown = self.features.kept(np.array([tile]))[0]
        return np.where(shown, self.labels[tile].lattice, IGNORE_INDEX).astype(np.intp)

    def _confusions(self, predicted: Sequence[NDArray[np.intp]]) -> NDArray[np.int64]:
        """(m, K, K) Labelled pixels of the control tiles: true classes in rows, predicted ones in columns."""
        n = len(self.names)
        counts = np.zeros((len(self.tiles), n, n), np.int64)
        for matrix, tile, classes in zip(counts, self.tiles, predicted, strict=True):
            truth = self._truth(tile)
            known = truth != IGNORE_INDEX
            np.add.at(matrix, (truth[known], classes[known]), 1)
        return counts

    def _shares(self, tile: int, classes: NDArray[np.intp]) -> NDArray[np.float64]:
        """(K,) Area shares on the labelled pixels of a tile."""
        known = self._truth(tile) != IGNORE_INDEX
        counts = np.bincount(classes[known], minlength=len(self.names))
        return counts / counts.sum()

    def _specimens(self, tiles: Sequence[int]) -> list[str]:
        table = self.progress.table
        names = [record.specimen for record in table.records]
        return [names[number] for number in table.micrographs[tiles].tolist()]


def agreement(
    project: Project, before: Sequence[QueryRound], n_labelled: int, stop_set: NDArray[np.uint8], stop_tiles: str
) -> tuple[float | None, int | None]:
    """Kappa with the round before that had learnt from enough tiles fewer, and how many that had."""
    rounds = [one for one in before if one.facts.get("stop_tiles") == stop_tiles]
    numbers = [int(one.facts.get("n_labelled_tiles", 0)) for one in rounds]
    place = stopping.reference_round(numbers, n_labelled)
    other = None if place is None else project.active.stop_set(rounds[place].number)
    if place is None or other is None or other.shape != stop_set.shape:
        return None, None
    both = (other != IGNORE_INDEX) & (stop_set != IGNORE_INDEX)
    if not both.any():
        return None, None
    return stopping.kappa(other[both], stop_set[both]), numbers[place]
