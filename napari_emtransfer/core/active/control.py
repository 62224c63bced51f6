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

from napari_emtransfer.core.active.control_units import (
    LEVEL,
    MIN_TILES,
    NOT_LEARNT,
    Units,
    bootstrap_in_words,
    missed_in_words,
    nothing_in_words,
    tiles_in_words,
    too_few_in_words,
    trained_on_in_words,
)
from napari_emtransfer.core.active.rounds import ControlFacts, DifferenceFacts, PhaseFacts
from napari_emtransfer.core.evaluate.bootstrap import resampled_mean_iou
from napari_emtransfer.core.evaluate.confusion import ConfusionMatrix
from napari_emtransfer.core.evaluate.report import by_class

N_RESAMPLES: Final = 2000


def control_iou(
    confusions: NDArray[np.int64],
    specimens: Sequence[str],
    class_names: Sequence[str],
    *,
    n_missing: int = 0,
    n_trained_on: int = 0,
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
        Control tiles that were skipped, put off or hardly labelled.
    n_trained_on
        Control tiles that are left out because the network that gives the features was trained on them.
    """
    compared = np.flatnonzero(confusions.sum(axis=(1, 2)) > 0).tolist()
    confusions, specimens = confusions[compared], [specimens[i] for i in compared]
    if not len(confusions):
        ground = nothing_in_words(n_trained_on, n_missing)
        return ControlFacts(mean_iou=None, n_tiles=0, n_specimens=0, ground=ground) if ground else None
    total = ConfusionMatrix(confusions.sum(axis=0))
    low, high, how = _iou_interval(confusions, specimens, seed)
    about = trained_on_in_words(n_trained_on) + missed_in_words(n_missing)
    return ControlFacts(
        mean_iou=total.mean_iou(),
        low=low,
        high=high,
        iou=by_class(class_names, total.iou()),
        n_tiles=len(confusions),
        n_specimens=len(set(specimens)),
        ground=f"{tiles_in_words(len(confusions))}, {NOT_LEARNT}{about} {how}",
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
    ground = f"Both measured on the same {tiles_in_words(len(chosen))}. {how}"
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
    why_alone: str = "not all tiles are predicted yet",
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
    why_alone
        Why some of `predicted` are nan, in words.
    """
    if not len(controls):
        return None
    weights = np.ones(len(predicted)) if areas is None else np.asarray(areas, np.float64)
    complete = not np.isnan(predicted).any()
    errors = (np.asarray(truth, np.float64) - without) if complete else np.asarray(truth, np.float64)
    units = Units.among(specimens, micrographs, controls)
    corrected = _Mean.of(errors, weights[controls], units, controls)
    known = [_Mean.of(np.asarray(predicted, np.float64), weights, units), corrected] if complete else [corrected]
    fraction = np.sum([part.value for part in known], axis=0)
    half = from_errors = np.full(len(fraction), np.nan)
    if len(controls) >= MIN_TILES:
        # Errors that a unit has in common are in both means and cancel: influences are added before they are squared.
        variance = (np.sum([part.influence for part in known], axis=0) ** 2).sum(axis=0)
        half = stdtrit(_freedom(known), 0.5 + LEVEL / 2) * np.sqrt(variance)
        rest = known[0].variance if complete else np.zeros_like(variance)
        from_errors = 1 - np.minimum(1, np.divide(rest, variance, out=np.zeros_like(rest), where=variance > 0))
    ground = _phase_ground(len(controls), "" if complete else why_alone, corrected.n, units)
    return PhaseEstimate(_phases(class_names, fraction, half, from_errors), ground)


@dataclass(frozen=True, eq=False)
class _Mean:
    """A weighted mean of tiles (K,), and what each unit adds to its error (units, K): squared and summed, its variance.

    It is a ratio of sums, linearised (Cochran, Sampling Techniques, 1977, section 6); `n` units have tiles in it.
    """

    value: NDArray[np.float64]
    influence: NDArray[np.float64]
    n: int

    @classmethod
    def of(
        cls,
        values: NDArray[np.float64],
        weights: NDArray[np.float64],
        units: Units,
        tiles: NDArray[np.intp] | None = None,
    ) -> _Mean:
        value = weights @ values / weights.sum()
        n = len(np.unique(units.of_tile if tiles is None else units.of_tile[tiles]))
        small = math.sqrt(n / max(n - 1, 1))
        return cls(value, small * units.sums(weights[:, None] * (values - value) / weights.sum(), tiles), n)

    @property
    def variance(self) -> NDArray[np.float64]:
        """(K,) Of the mean."""
        return np.asarray((self.influence**2).sum(axis=0))


def _freedom(parts: Sequence[_Mean]) -> NDArray[np.float64]:
    """Degrees of freedom (K,) of a sum of means, each with its own (Welch 1947, Satterthwaite 1946)."""
    variances = np.array([part.variance for part in parts])
    own = np.array([max(part.n - 1, 1) for part in parts], np.float64)[:, None]
    squares = (variances**2 / own).sum(axis=0)
    return np.divide(variances.sum(axis=0) ** 2, squares, out=np.full(len(squares), own.min()), where=squares > 0)


def _phases(
    class_names: Sequence[str],
    fraction: NDArray[np.float64],
    half: NDArray[np.float64],
    from_errors: NDArray[np.float64],
) -> dict[str, PhaseFacts]:
    phases = {}
    for name, centre, width, share in zip(
        class_names, fraction.tolist(), half.tolist(), from_errors.tolist(), strict=True
    ):
        known = {} if math.isnan(width) else {"half_width": width, "from_errors": share}
        low, middle, high = (min(1.0, max(0.0, value)) for value in (centre - width, centre, centre + width))
        phases[name] = PhaseFacts(fraction=middle, **known, **({"low": low, "high": high} if known else {}))
    return phases


def _phase_ground(n: int, why_alone: str, n_units: int, units: Units) -> str:
    what = (
        f"Labels of {tiles_in_words(n)} alone: {why_alone}."
        if why_alone
        else f"Predicted on all tiles, put right by the error on {tiles_in_words(n)}."
    )
    how = f"95 % t-interval over {n_units} {units.name}." if n >= MIN_TILES else too_few_in_words(n)
    return f"{what} {how}"


# --- intervals of IoU


def _iou_interval(
    confusions: NDArray[np.int64], specimens: Sequence[str], seed: int
) -> tuple[float | None, float | None, str]:
    n = len(confusions)
    if n < MIN_TILES:
        return None, None, too_few_in_words(n)
    units = Units.among(specimens)
    draws = _draws(units, confusions, seed)
    low, high = np.nanpercentile(draws, _percentiles(units.n))
    return float(low), float(high), bootstrap_in_words(units)


def _difference_interval(
    chosen: NDArray[np.int64], random: NDArray[np.int64], specimens: Sequence[str], difference: float, seed: int
) -> tuple[float | None, float | None, str]:
    n = len(chosen)
    if n < MIN_TILES or math.isnan(difference):
        return None, None, too_few_in_words(n)
    units = Units.among(specimens)
    # The same seed draws the same units for both: the comparison is paired.
    gains = _draws(units, chosen, seed) - _draws(units, random, seed)
    low, high = np.nanpercentile(gains, _percentiles(units.n))
    return float(low), float(high), bootstrap_in_words(units)


def _draws(units: Units, confusions: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
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
