"""Whether a probability of 0.9 means right nine times in ten, and the one number that makes it so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.ndimage import maximum_filter, minimum_filter
from scipy.optimize import minimize_scalar

from napari_emtransfer.core.data.labels import UNLABELLED, to_targets

N_BINS: Final = 15
MAX_PIXELS: Final = 200_000
# Hand-drawn outlines are this uncertain; there a wrong answer says little about the network.
BOUNDARY_PX: Final = 2
# A network that is never wrong, or always, would want a temperature of zero, or infinity.
TEMPERATURE_RANGE: Final = (0.25, 8.0)
_SMALLEST: Final = 1e-7
_MAX_GROUPS: Final = 8


@dataclass(frozen=True, eq=False)
class PixelSample:
    """Labelled pixels: probabilities (n, K) float32, true class indices (n,), and which lie near a phase boundary."""

    probabilities: NDArray[np.float32]
    truth: NDArray[np.uint8]
    near_boundary: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.truth)

    @classmethod
    def joined(cls, samples: Iterable[PixelSample]) -> PixelSample:
        """All of them together; at least one."""
        parts = list(samples)
        return cls(
            np.concatenate([s.probabilities for s in parts]),
            np.concatenate([s.truth for s in parts]),
            np.concatenate([s.near_boundary for s in parts]),
        )

    def at(self, temperature: float) -> PixelSample:
        """The same pixels at another temperature."""
        return PixelSample(tempered(self.probabilities, temperature, axis=1), self.truth, self.near_boundary)

    def inside(self) -> PixelSample:
        """The pixels away from phase boundaries."""
        away = ~self.near_boundary
        return PixelSample(self.probabilities[away], self.truth[away], self.near_boundary[away])


class ReliabilityBin(BaseModel):
    """Pixels of similar confidence in the predicted class: its mean, how often they were right, how many they are."""

    model_config = ConfigDict(frozen=True)
    confidence: float
    accuracy: float
    n: int


class Calibration(BaseModel):
    """How far probabilities can be believed, without the temperature (`…_before`) and with it.

    `ece` is the class-wise expected calibration error, `ece_inside` the same without the pixels near a phase boundary:
    the easy interior of a large phase makes any network look calibrated. `note` says what the temperature was fitted
    on and what the figures are reported on.
    """

    model_config = ConfigDict(frozen=True)
    temperature: float
    ece_before: float
    ece: float
    ece_inside_before: float | None
    ece_inside: float | None
    brier_before: float
    brier: float
    nll_before: float
    nll: float
    n_pixels: int
    reliability_before: list[ReliabilityBin]
    reliability: list[ReliabilityBin]
    note: str


def tempered(probabilities: NDArray[np.float32], temperature: float, *, axis: int = 0) -> NDArray[np.float32]:
    """Probabilities with classes along `axis` → softmax(log p / T), of the same shape; the most probable class stays.

    The logarithm of a probability is its logit up to a constant, so this is temperature scaling of the logits; for the
    mean of an ensemble it is defined all the same.

    Source: Guo et al., On calibration of modern neural networks, ICML 2017.
    """
    if temperature == 1:
        return probabilities
    scaled = np.maximum(probabilities, np.float32(1e-30)) / probabilities.max(axis=axis, keepdims=True)
    below = scaled < 1
    scaled **= np.float32(1 / temperature)
    # Rounding must not make a tie of what was none.
    np.minimum(scaled, np.float32(1 - 2**-21), out=scaled, where=below)
    scaled /= scaled.sum(axis=axis, keepdims=True)
    return scaled


def near_boundaries(truth: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Label values (H, W) → pixels with two classes within a square of ±`BOUNDARY_PX`, (H, W)."""
    size = 2 * BOUNDARY_PX + 1
    lowest = minimum_filter(np.where(truth == UNLABELLED, np.uint8(255), truth), size)
    near: NDArray[np.bool_] = (maximum_filter(truth, size) > lowest) & (truth != UNLABELLED)
    return near


def draw_pixels(
    truth: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    near: NDArray[np.bool_],
    share: float,
    rng: np.random.Generator,
) -> PixelSample:
    """Each labelled pixel with the chance `share`.

    Parameters
    ----------
    truth
        Label values (h, w).
    probabilities
        (K, h, w).
    near
        `near_boundaries` of the truth, (h, w), computed where its surroundings were still known.
    """
    ys, xs = np.nonzero(truth != UNLABELLED)
    if share < 1:
        drawn = rng.random(len(ys)) < share
        ys, xs = ys[drawn], xs[drawn]
    return PixelSample(np.ascontiguousarray(probabilities[:, ys, xs].T), to_targets(truth[ys, xs]), near[ys, xs])


def fit_temperature(sample: PixelSample) -> float:
    """T that minimises the mean negative log-likelihood of softmax(log p / T), within `TEMPERATURE_RANGE`."""
    logits = np.log(np.maximum(sample.probabilities, _SMALLEST)).astype(np.float64)
    truth = sample.truth.astype(np.int64)

    def loss(log_temperature: float) -> float:
        z = logits * np.exp(-log_temperature)
        z -= z.max(axis=1, keepdims=True)
        of_truth = z[np.arange(len(truth)), truth]
        return float(np.mean(np.log(np.exp(z).sum(axis=1)) - of_truth))

    low, high = np.log(TEMPERATURE_RANGE)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4}).x))


def classwise_ece(sample: PixelSample, n_bins: int = N_BINS) -> float:
    """Expected calibration error, Σ_b (n_b / N) |share of the class − mean probability|, mean over classes that occur.

    Bins are of equal width in the probability of each class. Source: Kull et al., NeurIPS 2019.
    """
    errors = []
    for k in range(sample.probabilities.shape[1]):
        p, is_k = sample.probabilities[:, k].astype(np.float64), sample.truth == k
        if is_k.any():
            bins = _bins(p, n_bins)
            gap = np.bincount(bins, is_k, n_bins) - np.bincount(bins, p, n_bins)
            errors.append(np.abs(gap).sum() / len(p))
    return float(np.mean(errors))


def brier(sample: PixelSample) -> float:
    """Mean squared distance of the probabilities from the truth, Σ_k (p_k − y_k)²: 0 perfect, 2 certainly wrong."""
    p = sample.probabilities.astype(np.float64)
    of_truth = p[np.arange(len(p)), sample.truth]
    return float(np.mean((p**2).sum(axis=1) - 2 * of_truth + 1))


def negative_log_likelihood(sample: PixelSample) -> float:
    """Mean −ln of the true class's probability, in nats."""
    of_truth = sample.probabilities[np.arange(len(sample)), sample.truth]
    return float(-np.log(np.maximum(of_truth, _SMALLEST), dtype=np.float64).mean())


def reliability(sample: PixelSample, n_bins: int = N_BINS) -> list[ReliabilityBin]:
    """Confidence in the predicted class against how often it is right; empty bins are left out."""
    confidence = sample.probabilities.max(axis=1).astype(np.float64)
    right = sample.probabilities.argmax(axis=1) == sample.truth
    bins = _bins(confidence, n_bins)
    n = np.bincount(bins, minlength=n_bins)
    sums = np.bincount(bins, confidence, n_bins), np.bincount(bins, right, n_bins)
    return [
        ReliabilityBin(confidence=float(sums[0][b] / n[b]), accuracy=float(sums[1][b] / n[b]), n=int(n[b]))
        for b in np.flatnonzero(n)
    ]


def fit_calibration(per_specimen: Mapping[str, PixelSample], ground: str) -> Calibration:
    """Fit one temperature to all specimens, and report what it gives on specimens that it was not fitted on.

    With two specimens or more each is reported with the temperature of the others; a single one with its own, and the
    note says so. `ground` names the ground in words, such as "the validation ground".
    """
    samples = {name: sample for name, sample in per_specimen.items() if len(sample)}
    temperature = fit_temperature(PixelSample.joined(samples.values()))
    limits = "" if _inside_range(temperature) else ", at its limit"
    if len(samples) == 1:
        after = next(iter(samples.values())).at(temperature)
        note = (
            f"temperature {temperature:.2f}{limits}, fitted on {ground} and reported on that same specimen, "
            "so expect worse calibration on others"
        )
    else:
        after = _reported_by_the_others(list(samples.values()))
        note = (
            f"temperature {temperature:.2f}{limits}, fitted on {ground}; "
            f"each of its {len(samples)} specimens is reported with the temperature of the others"
        )
    return _report(PixelSample.joined(samples.values()), after, temperature, note)


def _reported_by_the_others(samples: Sequence[PixelSample]) -> PixelSample:
    """Leave one specimen out; of many specimens a few at a time."""
    n_groups = min(len(samples), _MAX_GROUPS)
    groups = [samples[i::n_groups] for i in range(n_groups)]
    reported = []
    for group in groups:
        others = PixelSample.joined(s for other in groups if other is not group for s in other)
        reported.append(PixelSample.joined(group).at(fit_temperature(others)))
    return PixelSample.joined(reported)


def apply_calibration(per_specimen: Mapping[str, PixelSample], temperature: float, note: str) -> Calibration:
    """What a temperature that was fitted elsewhere gives here."""
    before = PixelSample.joined(sample for sample in per_specimen.values() if len(sample))
    return _report(before, before.at(temperature), temperature, note)


def _report(before: PixelSample, after: PixelSample, temperature: float, note: str) -> Calibration:
    inside = before.inside(), after.inside()
    return Calibration(
        temperature=temperature,
        ece_before=classwise_ece(before),
        ece=classwise_ece(after),
        ece_inside_before=classwise_ece(inside[0]) if len(inside[0]) else None,
        ece_inside=classwise_ece(inside[1]) if len(inside[1]) else None,
        brier_before=brier(before),
        brier=brier(after),
        nll_before=negative_log_likelihood(before),
        nll=negative_log_likelihood(after),
        n_pixels=len(before),
        reliability_before=reliability(before),
        reliability=reliability(after),
        note=note,
    )


def _inside_range(temperature: float) -> bool:
    low, high = TEMPERATURE_RANGE
    return 1.01 * low < temperature < 0.99 * high


def _bins(p: NDArray[np.float64], n_bins: int) -> NDArray[np.intp]:
    return np.minimum((p * n_bins).astype(np.intp), n_bins - 1)
