"""From the uncertainty of pixels to that of a tile.

`values` (n, P) are those of P pixels of n tiles, `keep` (n, P) says which of them count: not what is labelled already,
not padding. A tile without any is nan.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
Mask = NDArray[np.bool_]
Classes = NDArray[np.integer]


def mean(values: Values, keep: Mask) -> Values:
    """Mean of the kept pixels, (n,). Tiles with many boundaries come first, where pixels are unsure on boundaries."""
    total = np.where(keep, values, np.float32(0)).sum(1)
    return _divided(total, keep.sum(1))


def maximum(values: Values, keep: Mask) -> Values:
    """The most uncertain kept pixel, (n,): finds a defect of one pixel, and the noise of one."""
    highest = np.where(keep, values, np.float32(-np.inf)).max(1, initial=-np.inf)
    return np.where(np.isfinite(highest), highest, np.float32(np.nan))


def top_share(values: Values, keep: Mask, share: float = 0.1) -> Values:
    """Mean of the most uncertain `share` (0 … 1] of the kept pixels, at least one, (n,): finds small things.

    Between `maximum` (share → 0) and `mean` (1).
    """
    n_pixels = values.shape[1]
    counts = np.minimum(np.maximum(_rounded_up(share * keep.sum(1)), 1), keep.sum(1))
    n_most = max(1, int(counts.max(initial=0)))
    held = np.where(keep, values, np.float32(-np.inf))
    highest = np.sort(np.partition(held, n_pixels - n_most, axis=1)[:, n_pixels - n_most :], axis=1)[:, ::-1]
    return mean(highest, np.arange(n_most) < counts[:, None])


def by_class(values: Values, predicted: Classes, n_classes: int, keep: Mask | None = None) -> Values:
    """Mean over the kept pixels where each class is predicted, (n, K); nan for a class that is not in the tile.

    Parameters
    ----------
    predicted
        (n, P) Class indices 0 … K − 1.
    """
    return np.stack([mean(values, _of(predicted, index, keep)) for index in range(n_classes)], axis=1)


def class_balanced(values: Values, predicted: Classes, n_classes: int, keep: Mask | None = None) -> Values:
    """Each class that is predicted in the tile counts alike, however small its area: mean of `by_class`, (n,).

    A class that is not there is left out, not counted as certain: else a tile of many classes would be uncertain by
    that alone.
    """
    means = by_class(values, predicted, n_classes, keep)
    there = np.isfinite(means)
    return _divided(np.where(there, means, np.float32(0)).sum(1), there.sum(1))


def shares(predicted: Classes, n_classes: int, keep: Mask | None = None) -> Values:
    """Part of the kept pixels that each class takes, (n, K); sums to 1."""
    counts = np.stack([_of(predicted, index, keep).sum(1) for index in range(n_classes)], axis=1)
    return _divided(counts.astype(np.float32), counts.sum(1, keepdims=True))


def without_boundaries(mask: Classes, band_px: int) -> Mask:
    """Pixels with no other class within a square of ±`band_px`: (…, H, W) class indices → (…, H, W).

    Along a boundary a network stays unsure however much is labelled; a score that counts these pixels asks for
    boundaries only. The edge of `mask` is no boundary.
    """
    from scipy.ndimage import maximum_filter, minimum_filter

    size = (1,) * (mask.ndim - 2) + (2 * band_px + 1,) * 2
    inside: Mask = maximum_filter(mask, size) == minimum_filter(mask, size)
    return inside


def _of(predicted: Classes, index: int, keep: Mask | None) -> Mask:
    there: Mask = predicted == index
    return there if keep is None else there & keep


def _rounded_up(counts: NDArray[np.float64]) -> NDArray[np.intp]:
    # 0.07 · 100 is a little more than 7, and is not meant to be.
    return np.ceil(counts - 1e-9).astype(np.intp)


def _divided(total: NDArray[np.float32], counts: NDArray[np.integer]) -> Values:
    with np.errstate(invalid="ignore", divide="ignore"):
        return (total / counts).astype(np.float32)
