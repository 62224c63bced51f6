"""What random control tiles say: IoU, phase fractions, and whether choosing was worth it. Never from chosen tiles.

Control tiles are a simple random sample of the project (`core.active.queue.control_sample`), each predicted by a model
that has not learnt from it. Chosen tiles are the difficult ones: what is measured on them is the difficulty of the
choice, not the quality of the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from napari_emtransfer.core.active.rounds import ControlFacts, DifferenceFacts, PhaseFacts
from napari_emtransfer.core.evaluate.bootstrap import MIN_SPECIMENS_FOR_BOOTSTRAP, resampled_mean_iou
from napari_emtransfer.core.evaluate.confusion import ConfusionMatrix
from napari_emtransfer.core.evaluate.report import by_class

LEVEL: Final = 0.95
MIN_TILES: Final = 3
"""Fewer say nothing about how much tiles differ."""
N_RESAMPLES: Final = 2000
_NOT_LEARNT: Final = "not learnt from; other tiles of the same specimens are."


@dataclass(frozen=True, eq=False)
class _Units:
    """What was sampled, for an interval: each tile's unit (m,), their number, and what to call them."""

    of_tile: NDArray[np.intp]
    n: int
    name: str

    @classmethod
    def among(cls, specimens: Sequence[str], micrographs: Sequence[str] | None = None) -> _Units:
        """Specimens where there are five, else micrographs (where they are told apart), else tiles."""
        for name, labels in (("specimens", specimens), ("micrographs", micrographs)):
            names, place = np.unique(np.asarray(labels if labels is not None else [], np.str_), return_inverse=True)
            if len(names) >= MIN_SPECIMENS_FOR_BOOTSTRAP:
                return cls(place, len(names), name)
        return cls(np.arange(len(specimens)), len(specimens), "tiles")

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values (m, …) → sums over the units (n, …)."""
        totals = np.zeros((self.n, *values.shape[1:]))
        np.add.at(totals, self.of_tile, values)
        return totals


def control_iou(
    confusions: NDArray[np.int64],
    specimens: Sequence[str],
    class_names: Sequence[str],
    *,
    n_missing: int = 0,
    seed: int = 0,
) -> ControlFacts | None:
    """IoU of the accumulated confusion matrix of the control tiles; None where nothing was compared.

    Parameters
    ----------
    confusions
        (m, K, K) One matrix per tile, each of a model that has not learnt from that tile.
    specimens
        (m,) Specimen of each tile.
    n_missing
        Control tiles that were skipped or put off.
    """
    compared = np.flatnonzero(confusions.sum(axis=(1, 2)) > 0).tolist()
    confusions, specimens = confusions[compared], [specimens[i] for i in compared]
    if not len(confusions):
        return None
    total = ConfusionMatrix(confusions.sum(axis=0))
    low, high, how = _iou_interval(confusions, specimens, seed)
    return ControlFacts(
        mean_iou=total.mean_iou(),
        low=low,
        high=high,
        iou=by_class(class_names, total.iou()),
        n_tiles=len(confusions),
        n_specimens=len(set(specimens)),
        ground=f"{_tiles(len(confusions))}, {_NOT_LEARNT}{_missed(n_missing)} {how}",
    )


def chosen_against_random(
    chosen: NDArray[np.int64], random: NDArray[np.int64], specimens: Sequence[str], *, seed: int = 0
) -> DifferenceFacts | None:
    """What choosing was worth: mean IoU after learning from chosen tiles − from as many random ones.

    Parameters
    ----------
    chosen, random
        (m, K, K) Confusions on the same m control tiles, none learnt from by the model that is tested on it.
    specimens
        (m,) Specimen of each tile.

    The interval is paired: in each resample both models are measured on the same tiles.
    """
    compared = np.flatnonzero(chosen.sum(axis=(1, 2)) > 0).tolist()
    chosen, random, specimens = chosen[compared], random[compared], [specimens[i] for i in compared]
    if not len(chosen):
        return None
    difference = _mean_iou(chosen) - _mean_iou(random)
    low, high, how = _difference_interval(chosen, random, specimens, difference, seed)
    ground = f"Both measured on the same {_tiles(len(chosen))}. {how}"
    return DifferenceFacts(difference=difference, low=low, high=high, n_tiles=len(chosen), ground=ground)


@dataclass(frozen=True)
class PhaseEstimate:
    """Area fraction of each class with its interval, and how it was estimated, in words."""

    phases: dict[str, PhaseFacts]
    ground: str


def phase_fractions(
    predicted: NDArray[np.floating],
    truth: NDArray[np.floating],
    without: NDArray[np.floating],
    controls: NDArray[np.intp],
    specimens: Sequence[str],
    micrographs: Sequence[str],
    class_names: Sequence[str],
    *,
    areas: NDArray[np.floating] | None = None,
) -> PhaseEstimate | None:
    """Prediction-powered phase fractions: predicted everywhere, put right by the error on control tiles.

    φ = mean over all tiles (ŷ) + mean over control tiles (y − ŷ), which is unbiased however wrong the model is.
    Interval: Student's t, variance of both means over specimens, micrographs or tiles (the coarsest of which five have
    control tiles), degrees of freedom after Welch and Satterthwaite. Source: Angelopoulos et al., Science 382, 669
    (2023), proposition 1; for small samples with t instead of the normal quantile.

    Parameters
    ----------
    predicted
        (N, K) Predicted area shares of all tiles. Where some are nan (not predicted yet, and not at random which), the
        estimate is from control tiles alone.
    truth, without
        (m, K) Labelled shares of the control tiles, and those predicted by a model that has not learnt from the tile.
    controls
        (m,) Which of the N tiles they are.
    specimens, micrographs
        (N,) To which each tile belongs.
    areas
        (N,) Area of each tile in any unit; equal by default.
    """
    if not len(controls):
        return None
    weights = np.ones(len(predicted)) if areas is None else np.asarray(areas, np.float64)
    complete = not np.isnan(predicted).any()
    errors = (np.asarray(truth, np.float64) - without) if complete else np.asarray(truth, np.float64)
    units = _Units.among([specimens[i] for i in controls], [micrographs[i] for i in controls])
    fraction, variance = _mean_and_variance(errors, weights[controls], units)
    freedom = np.full(len(fraction), float(units.n - 1))
    if complete:
        everywhere = _units_like(units.name, specimens, micrographs)
        mean, spread = _mean_and_variance(np.asarray(predicted, np.float64), weights, everywhere)
        freedom = _welch((variance, units.n - 1), (spread, everywhere.n - 1))
        fraction, variance = fraction + mean, variance + spread
    half = _half_width(variance, freedom) if len(controls) >= MIN_TILES else None
    return PhaseEstimate(_phases(class_names, fraction, half), _phase_ground(len(controls), complete, half, units))


def _phases(
    class_names: Sequence[str], fraction: NDArray[np.float64], half: NDArray[np.float64] | None
) -> dict[str, PhaseFacts]:
    centre = np.clip(fraction, 0, 1)
    if half is None:
        return {name: PhaseFacts(fraction=value) for name, value in zip(class_names, centre.tolist(), strict=True)}
    low, high = np.clip(fraction - half, 0, 1), np.clip(fraction + half, 0, 1)
    bounds = zip(class_names, centre.tolist(), low.tolist(), high.tolist(), strict=True)
    return {name: PhaseFacts(fraction=value, low=lo, high=hi) for name, value, lo, hi in bounds}


def _phase_ground(n: int, complete: bool, half: NDArray[np.float64] | None, units: _Units) -> str:
    what = (
        f"Predicted on all tiles, put right by the error on {_tiles(n)}."
        if complete
        else f"Labels of {_tiles(n)} alone: not all tiles are predicted yet."
    )
    return f"{what} " + (_too_few(n) if half is None else f"95 % t-interval over {units.n} {units.name}.")


def _units_like(name: str, specimens: Sequence[str], micrographs: Sequence[str]) -> _Units:
    labels = {"specimens": specimens, "micrographs": micrographs}.get(name)
    if labels is None:
        return _Units(np.arange(len(specimens)), len(specimens), name)
    names, place = np.unique(np.asarray(labels, np.str_), return_inverse=True)
    return _Units(place, len(names), name)


def _mean_and_variance(
    values: NDArray[np.float64], weights: NDArray[np.float64], units: _Units
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted mean of (m, K) and its variance over units, both (K,): a ratio of sums, linearised (Cochran 1977)."""
    mean = weights @ values / weights.sum()
    shares = units.sums(weights[:, None] * (values - mean) / weights.sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        return mean, units.n / np.float64(units.n - 1) * (shares**2).sum(axis=0)


def _welch(*parts: tuple[NDArray[np.float64], int]) -> NDArray[np.float64]:
    """Degrees of freedom of a sum of variances (K,), each with its own."""
    total = sum(variance for variance, _ in parts)
    squares = sum(variance**2 / max(freedom, 1) for variance, freedom in parts)
    least = min(freedom for _, freedom in parts)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.asarray(squares) > 0, np.asarray(total) ** 2 / squares, least)


def _half_width(variance: NDArray[np.float64], freedom: NDArray[np.float64]) -> NDArray[np.float64]:
    width: NDArray[np.float64] = stdtrit(freedom, 0.5 + LEVEL / 2) * np.sqrt(variance)
    return width


# --- intervals of IoU


def _iou_interval(
    confusions: NDArray[np.int64], specimens: Sequence[str], seed: int
) -> tuple[float | None, float | None, str]:
    n = len(confusions)
    if n < MIN_TILES:
        return None, None, _too_few(n)
    units = _Units.among(specimens)
    draws = _draws(units, confusions, seed)
    low, high = np.nanpercentile(draws, _percentiles(units.n))
    return float(low), float(high), _bootstrap_words(units)


def _difference_interval(
    chosen: NDArray[np.int64], random: NDArray[np.int64], specimens: Sequence[str], difference: float, seed: int
) -> tuple[float | None, float | None, str]:
    n = len(chosen)
    if n < MIN_TILES or math.isnan(difference):
        return None, None, _too_few(n)
    units = _Units.among(specimens)
    # The same seed draws the same units for both: the comparison is paired.
    gains = _draws(units, chosen, seed) - _draws(units, random, seed)
    low, high = np.nanpercentile(gains, _percentiles(units.n))
    return float(low), float(high), _bootstrap_words(units)


def _draws(units: _Units, confusions: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Mean IoU of resamples of the units, from confusions (m, K, K) of tiles."""
    return resampled_mean_iou(units.sums(confusions.astype(np.float64)).astype(np.int64), N_RESAMPLES, seed)


def _percentiles(n: int) -> tuple[float, float]:
    """Percentiles of a bootstrap of n units that cover 95 % also where n is small.

    A percentile interval is too narrow by √((n − 1)/n) and takes the normal for the t distribution; widening its
    percentiles mends both. Source: Hesterberg, The American Statistician 69, 371 (2015), section 4.2.1.
    """
    tail = 100 * ndtr(-math.sqrt(n / (n - 1)) * stdtrit(n - 1, 0.5 + LEVEL / 2))
    return float(tail), float(100 - tail)


def _mean_iou(confusions: NDArray[np.int64]) -> float:
    return ConfusionMatrix(confusions.sum(axis=0)).mean_iou()


# --- words


def _tiles(n: int) -> str:
    return f"{n} random tile" + ("s" if n != 1 else "")


def _missed(n: int) -> str:
    if not n:
        return ""
    return (
        f" {n} more {'was' if n == 1 else 'were'} skipped or put off: if for being difficult, the figure is too good."
    )


def _too_few(n: int) -> str:
    return f"No interval from {_tiles(n)}: it takes {MIN_TILES}."


def _bootstrap_words(units: _Units) -> str:
    what = f"95 % interval: bootstrap over {units.n} {units.name}"
    return f"{what}." if units.name == "specimens" else f"{what}, so for these specimens, not for new ones."
