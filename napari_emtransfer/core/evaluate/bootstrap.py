"""How far the mean IoU may be trusted: specimens, not pixels, are what was sampled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from napari_emtransfer.core.evaluate.confusion import ConfusionMatrix, nanmean_rows

MIN_SPECIMENS_FOR_BOOTSTRAP: Final = 5
IntervalMethod = Literal["cluster bootstrap", "t-interval"]


@dataclass(frozen=True)
class Interval:
    """A confidence interval of the mean IoU.

    `values` are the mean IoUs of the single specimens: with few of them they say more than any interval.
    """

    low: float
    high: float
    method: IntervalMethod
    values: tuple[float, ...]


def mean_iou_interval(
    per_specimen: Mapping[str, ConfusionMatrix], *, n_resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval | None:
    """Confidence interval of the class-mean IoU over specimens; specimens without a labelled pixel do not count.

    Five specimens or more: percentile interval of a cluster bootstrap. Whole specimens are drawn with replacement
    and their confusion matrices added up, so that the interval belongs to the accumulated mean IoU. Below five
    the bootstrap has too few distinct samples: Student's t-interval of the specimens' own mean IoUs, cut to 0..1.
    It is centred on the mean of the specimens, which need not be the accumulated value. One specimen: None.
    """
    matrices = [m for m in per_specimen.values() if m.n_pixels]
    if len(matrices) < 2:
        return None
    values = tuple(m.mean_iou() for m in matrices)
    if len(matrices) < MIN_SPECIMENS_FOR_BOOTSTRAP:
        return Interval(*_t_interval(values, level), "t-interval", values)
    resampled = resampled_mean_iou(np.stack([m.counts for m in matrices]), n_resamples, seed)
    tail = 50 * (1 - level)
    low, high = np.percentile(resampled, (tail, 100 - tail))
    return Interval(float(low), float(high), "cluster bootstrap", values)


def resampled_mean_iou(counts: NDArray[np.int64], n_resamples: int, seed: int) -> NDArray[np.float64]:
    """Counts (S, K, K) → mean IoU of `n_resamples` draws of S specimens with replacement, (n_resamples,).

    The same seed draws the same specimens, so that two models can be compared on each draw.
    """
    n = len(counts)
    times_drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_resamples)
    hits = np.diagonal(counts, axis1=1, axis2=2)
    union = counts.sum(axis=1) + counts.sum(axis=2) - hits
    with np.errstate(invalid="ignore"):
        # IoU needs the sums over specimens of hits and unions only, never the (n_resamples, K, K) matrices.
        return nanmean_rows((times_drawn @ hits) / (times_drawn @ union))


def _t_interval(values: tuple[float, ...], level: float) -> tuple[float, float]:
    n = len(values)
    half_width = stdtrit(n - 1, 0.5 + level / 2) * np.std(values, ddof=1) / np.sqrt(n)
    centre = np.mean(values)
    return float(max(0.0, centre - half_width)), float(min(1.0, centre + half_width))
