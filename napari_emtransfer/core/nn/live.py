"""The live head: a forest of randomised trees, grown anew from all labelled pixels whenever a stroke has ended.

Extremely randomised trees (Geurts, Ernst & Wehenkel, Mach. Learn. 63, 2006) need a tenth of a second for a few
thousand pixels, no scaling of the features and no settings, and were the most robust between specimens of what was
measured on ten scribbles: networks of two layers, random features, discriminants and random forests did worse. Half of
the trees see the features as they are, half see them relative to their micrograph: where contrast or noise differ
between specimens the one fails, where the shares of the phases differ the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.ensemble import ExtraTreesClassifier

from napari_emtransfer.core.errors import LabelError

N_TREES: Final = 50
# Of features as they are, and relative to their micrograph.
_N_KINDS: Final = 2
MIN_LEAF: Final = 2
# What the trees are grown from: more pixels cost time, and pixels of one stroke are much alike.
MAX_PIXELS: Final = 5000
MAX_TILE_PIXELS: Final = 2500
# Noise of single pixels; wider smoothing eats thin structures.
SMOOTHING_PX: Final = 1.0


@dataclass(frozen=True, eq=False)
class LabelledPixels:
    """Features (N, 2F) and class indices (N,) of labelled pixels of one tile; `in_view`: somebody looks at it.

    The second half of the features are those relative to the micrograph (see `features.with_relative`).
    """

    features: NDArray[np.float16]
    classes: NDArray[np.uint8]
    in_view: bool = False


class LiveHead:
    """Classifies pixels by their features; a function of (labelled pixels, seed).

    Parameters
    ----------
    n_classes
        K of the schema. A class without labels gets the probability 0.
    n_threads
        Trees are grown and asked on so many threads.
    """

    def __init__(self, n_classes: int, *, seed: int = 0, n_threads: int = 1) -> None:
        self.n_classes = n_classes
        self.seed = seed
        self._n_threads = n_threads
        self._forests: list[Any] = []

    def fit(self, parts: Sequence[LabelledPixels]) -> int:
        """Grow the trees; returns how many pixels were used.

        Raises
        ------
        LabelError
            When fewer than two classes are labelled.
        """
        n_labelled = len({int(c) for p in parts for c in np.unique(p.classes)})
        if n_labelled < 2:
            raise LabelError(
                f"Pixels of {n_labelled or 'no'} class are labelled; telling classes apart takes two.",
                "Paint a stroke of another class: the background is a class, too.",
            )
        features, classes = balanced(parts, MAX_PIXELS, seed=self.seed)
        kinds = np.split(features.astype(np.float32), _N_KINDS, axis=1)
        self._forests = [self._grown(kind, classes, self.seed + i) for i, kind in enumerate(kinds)]
        return len(classes)

    def predict(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Features (2F, h, w) → probabilities (C, h, w), which sum to 1 over C."""
        height, width = features.shape[1:]
        probabilities = np.zeros((self.n_classes, height, width), np.float32)
        for forest, kind in zip(self._forests, np.split(features, _N_KINDS), strict=True):
            pixels = np.ascontiguousarray(kind.reshape(len(kind), -1).T, np.float32)
            probabilities[forest.classes_] += forest.predict_proba(pixels).T.reshape(-1, height, width)
        smooth: NDArray[np.float32] = ndimage.gaussian_filter(
            probabilities, (0, SMOOTHING_PX, SMOOTHING_PX), mode="nearest"
        )
        return smooth / smooth.sum(axis=0)

    def _grown(self, features: NDArray[np.float32], classes: NDArray[np.uint8], seed: int) -> Any:
        forest = ExtraTreesClassifier(
            N_TREES // _N_KINDS,
            min_samples_leaf=MIN_LEAF,
            class_weight="balanced",
            n_jobs=self._n_threads,
            random_state=seed,
        )
        return forest.fit(features, classes)


def balanced(
    parts: Sequence[LabelledPixels], n_pixels: int, *, seed: int
) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """At most `n_pixels` of `parts`, each class with its share: features (N, F) and classes (N,).

    What a class leaves over of its share goes to the others. Pixels in view come first, for up to half of a share.
    """
    classes = np.concatenate([p.classes for p in parts])
    in_view = np.concatenate([np.full(len(p.classes), p.in_view) for p in parts])
    rng = np.random.default_rng(seed)
    chosen: list[NDArray[np.intp]] = []
    members = sorted((np.flatnonzero(classes == c) for c in np.unique(classes)), key=len)
    for i, member in enumerate(members):
        share = (n_pixels - sum(len(c) for c in chosen)) // (len(members) - i)
        chosen.append(_drawn(member, in_view, share, rng))
    index = np.sort(np.concatenate(chosen))
    features = np.concatenate([p.features for p in parts])
    return features[index], classes[index]


def _drawn(
    member: NDArray[np.intp], in_view: NDArray[np.bool_], share: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    if len(member) <= share:
        return member
    order = rng.permutation(member)
    first = order[in_view[order]][: share // 2]
    others = order[~np.isin(order, first, assume_unique=True)]
    return np.concatenate([first, others[: share - len(first)]])
