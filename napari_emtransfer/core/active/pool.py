"""The pool: all tiles that could be labelled, as an acquisition sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class TilePool:
    """n tiles and what is known of each. Where nothing has been scored, scores are nan.

    Parameters
    ----------
    micrographs, specimens
        (n,) Numbers of the micrograph and the specimen that a tile belongs to.
    open
        (n,) Tiles that may be chosen: neither done, skipped nor waiting already.
    labelled
        (n,) Tiles with labels that the model has learnt from.
    embeddings
        (n, E) Where a tile lies among the others; of length 1.
    scores
        Name ("entropy", "margin", "bald": mean over the tile in nats, margin as 1 − margin; "novelty": distance to what
        is labelled) → (n,), larger is more uncertain.
    shares
        (n, K) Predicted area of each class.
    class_entropy
        (n, K) Mean entropy where the class is predicted, in nats; nan where it is not.
    """

    micrographs: NDArray[np.intp]
    specimens: NDArray[np.intp]
    open: NDArray[np.bool_]
    labelled: NDArray[np.bool_]
    embeddings: NDArray[np.float32]
    scores: Mapping[str, NDArray[np.float32]]
    shares: NDArray[np.float32]
    class_entropy: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.open)

    @property
    def has_model(self) -> bool:
        """Whether any tile has been scored by a model that knows two classes."""
        return bool(np.isfinite(self.scores["entropy"]).any()) if "entropy" in self.scores else False


@dataclass(frozen=True)
class Choice:
    """A tile of the pool that is worth labelling, and why.

    `score` is what it was chosen by, None where it was by none: drawn uniformly, or for being typical.
    `reason` is one of "random", "control", "foreground", "typical", "uncertain", "uncertain-class", "unlike"; `klass`
    the index of the class it speaks of. `probability` is that of being drawn at the moment of the draw, None where
    nothing was drawn.
    """

    index: int
    score: float | None
    reason: str
    klass: int | None = None
    probability: float | None = None
