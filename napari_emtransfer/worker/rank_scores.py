"""What a committee of heads says of each tile: from features to scores, and from scores to rows of the database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.active import tile_scores, uncertainty
from napari_emtransfer.core.data.labels import IGNORE_INDEX
from napari_emtransfer.core.data.score_table import ScoreTable
from napari_emtransfer.core.nn.pool_head import Coefficients, PoolHead
from napari_emtransfer.worker.rank_features import TileFeatures
from napari_emtransfer.worker.rank_tiles import TileTable

# Tiles at a time: what a processor's cache holds.
_BLOCK: Final = 64
_NUMBERS: Final = ("entropy", "margin", "bald", "novelty")


@dataclass(frozen=True, eq=False)
class Scores:
    """What one model says of the n tiles of a table; nan where none has been asked.

    `model` is the key of weights and head. entropy, margin, bald, novelty (n,), shares and class_entropy (n, K): as in
    `core.active.pool.TilePool`. Shares are of all pixels of a tile, the others of those that nobody has labelled.
    `fresh` (n,) says which tiles this model was asked about; of the others it holds what a model before it said.
    """

    model: str
    entropy: NDArray[np.float32]
    margin: NDArray[np.float32]
    bald: NDArray[np.float32]
    novelty: NDArray[np.float32]
    shares: NDArray[np.float32]
    class_entropy: NDArray[np.float32]
    fresh: NDArray[np.bool_]

    @classmethod
    def empty(cls, model: str, n: int, n_classes: int) -> Self:
        """No tile has been asked about."""
        entropy, margin, bald, novelty = np.full((len(_NUMBERS), n), np.nan, np.float32)
        shares, class_entropy = np.full((2, n, n_classes), np.nan, np.float32)
        return cls(model, entropy, margin, bald, novelty, shares, class_entropy, np.zeros(n, np.bool_))

    @classmethod
    def remembered(cls, model: str, known: ScoreTable, table: TileTable, n_classes: int) -> Self:
        """Those that the project has."""
        scores = cls.empty(model, len(table), n_classes)
        if not len(known) or known.shares.shape[1] != n_classes:
            return scores
        places = known.locate(table.stems, table.rows, table.columns)
        there = places >= 0
        for name in (*_NUMBERS, "shares", "class_entropy"):
            getattr(scores, name)[there] = getattr(known, name)[places[there]]
        scores.fresh[there] = known.models[places[there]] == model
        return scores

    def before(self, model: str) -> Self:
        """The same, said by a model before `model`."""
        return replace(self, model=model, fresh=np.zeros_like(self.fresh))

    @property
    def known(self) -> NDArray[np.bool_]:
        """(n,) Tiles of which this or another model has said something."""
        return np.asarray(np.isfinite(self.shares).any(axis=1), np.bool_)

    def rows(self, table: TileTable, tiles: NDArray[np.intp], embeddings: NDArray[np.float32]) -> ScoreTable:
        """Those of some `tiles`, as the project keeps them."""
        keys = np.array([grid.key for grid in table.grids], np.str_)
        numbers = {name: getattr(self, name)[tiles] for name in _NUMBERS}
        return ScoreTable(
            stems=table.stems[tiles],
            rows=table.rows[tiles],
            columns=table.columns[tiles],
            grids=keys[table.micrographs[tiles]],
            models=np.full(len(tiles), self.model),
            shares=self.shares[tiles].astype(np.float16),
            class_entropy=self.class_entropy[tiles].astype(np.float16),
            embeddings=embeddings[tiles].astype(np.float16),
            **numbers,
        )


def score(
    scores: Scores,
    tiles: NDArray[np.intp],
    features: TileFeatures,
    head: PoolHead,
    members: Sequence[Coefficients],
    labels: Mapping[int, NDArray[np.uint8]],
    should_stop: Callable[[], bool],
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> NDArray[np.intp]:
    """Ask a committee about `tiles`, which have features, in this order; returns those that it came to.

    Parameters
    ----------
    scores
        Filled in place, all but the novelty.
    members
        Heads of `head`: the first one of all labels, the others of resampled ones.
    labels
        Tile → its labels on the lattice (P,), 255 = unlabelled. What is labelled is not uncertain.
    on_progress
        Told the tiles done and those in all.
    """
    for start in range(0, len(tiles), _BLOCK):
        if should_stop():
            return tiles[:start]
        some = tiles[start : start + _BLOCK]
        shown = features.kept(some)
        unlabelled = shown.copy()
        for i, tile in enumerate(some.tolist()):
            if (known := labels.get(tile)) is not None:
                unlabelled[i] &= known == IGNORE_INDEX
        _score_block(scores, some, head.samples(features.features(some), members), shown, unlabelled)
        on_progress(start + len(some), len(tiles))
    return tiles


def _score_block(
    scores: Scores,
    tiles: NDArray[np.intp],
    samples: NDArray[np.float32],
    shown: NDArray[np.bool_],
    unlabelled: NDArray[np.bool_],
) -> None:
    """Samples (S, C, k, P) of k tiles; of their pixels some are `shown` (k, P), of these some `unlabelled`."""
    n_classes = samples.shape[1]
    entropy = uncertainty.entropy(samples)
    predicted = samples.mean(axis=0).argmax(axis=0)
    knowledge = np.maximum(entropy - uncertainty.expected_entropy(samples), 0)
    scores.entropy[tiles] = tile_scores.mean(entropy, unlabelled)
    scores.margin[tiles] = tile_scores.mean(uncertainty.margin(samples), unlabelled)
    scores.bald[tiles] = tile_scores.mean(knowledge, unlabelled)
    # Rounded as the project keeps them: whoever reads them draws the same tiles.
    scores.shares[tiles] = tile_scores.shares(predicted, n_classes, shown).astype(np.float16)
    scores.class_entropy[tiles] = tile_scores.by_class(entropy, predicted, n_classes, unlabelled).astype(np.float16)
    scores.fresh[tiles] = True
