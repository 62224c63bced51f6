"""What a committee of heads says of each tile: from features to scores, and from scores to rows of the database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
    """What one model says of the n tiles of a table; nan where it has not been asked.

    `model` is the key of weights and head. entropy, margin, bald, novelty (n,), shares and class_entropy (n, K): as in
    `core.active.pool.TilePool`. Shares are of all pixels of a tile, the others of those that nobody has labelled.
    `scored` (n,) says which tiles the model was asked about.
    """

    model: str
    entropy: NDArray[np.float32]
    margin: NDArray[np.float32]
    bald: NDArray[np.float32]
    novelty: NDArray[np.float32]
    shares: NDArray[np.float32]
    class_entropy: NDArray[np.float32]
    scored: NDArray[np.bool_]

    @classmethod
    def empty(cls, model: str, n: int, n_classes: int) -> Self:
        """No tile has been asked about."""
        entropy, margin, bald, novelty = np.full((len(_NUMBERS), n), np.nan, np.float32)
        shares, class_entropy = np.full((2, n, n_classes), np.nan, np.float32)
        return cls(model, entropy, margin, bald, novelty, shares, class_entropy, np.zeros(n, np.bool_))

    @classmethod
    def remembered(cls, model: str, known: ScoreTable, table: TileTable, n_classes: int) -> Self:
        """Those of `model` that the project has."""
        scores = cls.empty(model, len(table), n_classes)
        known = known.take(known.models == model)
        if not len(known) or known.shares.shape[1] != n_classes:
            return scores
        places = known.locate(table.stems, table.rows, table.columns)
        scores.scored[:] = places >= 0
        for name in (*_NUMBERS, "shares", "class_entropy"):
            getattr(scores, name)[scores.scored] = getattr(known, name)[places[scores.scored]]
        return scores

    def rows(self, table: TileTable, tiles: NDArray[np.bool_], embeddings: NDArray[np.float32]) -> ScoreTable:
        """Those of some `tiles` (n,), as the project keeps them."""
        keys = np.array([grid.key for grid in table.grids], np.str_)
        numbers = {name: getattr(self, name)[tiles] for name in _NUMBERS}
        return ScoreTable(
            stems=table.stems[tiles],
            rows=table.rows[tiles],
            columns=table.columns[tiles],
            grids=keys[table.micrographs[tiles]],
            models=np.full(int(tiles.sum()), self.model),
            shares=self.shares[tiles].astype(np.float16),
            class_entropy=self.class_entropy[tiles].astype(np.float16),
            embeddings=embeddings[tiles].astype(np.float16),
            **numbers,
        )


def score(
    scores: Scores,
    wanted: NDArray[np.bool_],
    features: TileFeatures,
    head: PoolHead,
    members: Sequence[Coefficients],
    labels: Mapping[int, NDArray[np.uint8]],
    should_stop: Callable[[], bool],
    on_progress: Callable[[int, int], None],
) -> NDArray[np.bool_]:
    """Ask a committee about those `wanted` (n,) that have features and no scores yet; returns which these were, (n,).

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
    wanted = wanted & features.sampled & ~scores.scored
    n_done, n_all = 0, int(wanted.sum())
    for tiles, values in features.blocks(wanted, _BLOCK):
        if should_stop():
            break
        shown = features.kept(tiles)
        unlabelled = shown.copy()
        for i, tile in enumerate(tiles):
            if (known := labels.get(int(tile))) is not None:
                unlabelled[i] &= known == IGNORE_INDEX
        _score_block(scores, tiles, head.samples(values, members), shown, unlabelled)
        n_done += len(tiles)
        on_progress(n_done, n_all)
    return wanted & scores.scored


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
    scores.scored[tiles] = True
