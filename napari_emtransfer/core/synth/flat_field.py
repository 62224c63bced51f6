"""Gain and read noise of an instrument from its own images: Var = gain · (Mean − black level) + read noise².

The photon transfer line (Janesick, Photon Transfer, SPIE 2007): the variance of the noise is measured at many grey
levels and a line is fitted. Where two frames of one field exist, half the variance of their difference is free of
whatever the field shows. In a single frame the noise is what a plane does not explain in a small block: texture of
the specimen counts as noise there, so the result is an upper bound. A detector that spreads its quanta lowers the
variance and correlates neighbours; that is measured from the covariances and taken out of the gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from napari_emtransfer.core.errors import FlatFieldError
from napari_emtransfer.core.synth import noise_spread
from napari_emtransfer.core.synth.detector import DetectorSettings

Frame = NDArray[Any]
Grey = NDArray[np.float64]

MIN_LEVELS: Final = 10
MIN_SPAN: Final = 0.05  # of full scale
MIN_R2: Final = 0.5
_BLOCK: Final = 16  # pixels: wide beside any point spread, narrow beside shading
_BINS: Final = 24
_BLOCKS_PER_LEVEL: Final = 6
_MAX_CLIPPED: Final = 0.25
_MAX_CHANGE: Final = 0.3
_OUTLIER: Final = 3.5  # standard deviations
_FITTED_IN_PAIR: Final = 1
_FITTED_IN_ONE: Final = 3
_HINT: Final = "Take an image of an even area with a strong change of brightness across it, or two frames of one field."


class FlatField(BaseModel):
    """Noise of an instrument. Grey values are shares of full scale.

    Parameters
    ----------
    gain
        Grey value of one quantum.
    black_level, read_noise
        A line has one intercept only: where it is negative there is a black level, else a read noise.
    noise_psf_px, line_lag_px
        Spread of a quantum by the detector: Gaussian standard deviation, and 1/e length along the rows.
    r2
        Share of the variation of the noise's variance that the grey level explains.
    n_levels, n_frames
        Grey levels that were fitted, frames that were looked at.
    white_level
        Value in the file that counts as 1.
    note
        How it was measured and what that leaves open.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    gain: float
    read_noise: float
    black_level: float
    noise_psf_px: float
    line_lag_px: float
    r2: float
    n_levels: int
    n_frames: int
    white_level: float
    note: str

    def applied_to(self, settings: DetectorSettings) -> DetectorSettings:
        """The same settings with this instrument's noise."""
        return DetectorSettings.model_validate(
            settings.model_dump()
            | {
                "dose_e_per_px": min((1 - self.black_level) / self.gain, 1e7),
                "black_level": self.black_level,
                "read_noise": min(self.read_noise, 1.0),
                "noise_psf_px": self.noise_psf_px,
                "line_lag_px": self.line_lag_px,
                "sharpening": 0.0,
            }
        )


@dataclass(frozen=True)
class _Levels:
    """What each grey level shows (n,): mean, variance and covariances with the next pixel, weight in blocks."""

    mean: Grey
    variance: Grey
    right: Grey
    below: Grey
    n_blocks: Grey


def measure(frames: Frame | Sequence[Frame]) -> FlatField:
    """Frames (H, W), one or pairs of one field each, → noise of the instrument.

    Frames come in pairs, first with second and so on; one that is left over is not looked at. A single frame is
    measured by itself.

    Raises
    ------
    FlatFieldError
        When frames of a pair differ in size or content, too much is saturated, there are fewer than ten grey levels
        or a narrow span of them, or the noise does not grow with the grey level.
    """
    images = [frames] if isinstance(frames, np.ndarray) and frames.ndim == 2 else list(frames)
    if not images:
        raise FlatFieldError("There is no frame to measure.", _HINT)
    if not all(image.size and np.isfinite(image).all() for image in images):
        raise FlatFieldError("The frame is empty, or holds values that are no numbers.", _HINT)
    white = white_level(images)
    scaled = [np.asarray(image, dtype=np.float64) / white for image in images]
    pairs = [(scaled[i], scaled[i + 1]) for i in range(0, len(scaled) - 1, 2)]
    blocks = [_pair_blocks(a, b) for a, b in pairs] if pairs else [_single_blocks(scaled[0])]
    return _fit(_levels(np.concatenate(blocks, axis=1)), scaled, paired=bool(pairs), white=white)


def white_level(images: Sequence[Frame]) -> float:
    """Full scale of a file: the least 2^k − 1, from 8 bits, that holds all values; 1 where all lie in 0..1."""
    highest = max(float(image.max()) for image in images)
    is_share = highest <= 1 and all(np.issubdtype(image.dtype, np.floating) for image in images)
    return 1.0 if is_share else float(2.0 ** max(8, np.ceil(np.log2(highest + 1))) - 1)


def _pair_blocks(a: Grey, b: Grey) -> Grey:
    if a.shape != b.shape:
        raise FlatFieldError(
            f"The frames of a pair are {a.shape[0]} × {a.shape[1]} and {b.shape[0]} × {b.shape[1]} pixels large, and "
            "should show one field.",
            "Give two frames of the same field and size, or a single one.",
        )
    if np.array_equal(a, b):
        raise FlatFieldError("The two frames are one and the same.", "Give two frames of one field, or a single one.")
    usable = ~(_clipped_blocks(a) | _clipped_blocks(b))
    difference = noise_spread.in_blocks((a - b) / np.sqrt(2), _BLOCK)
    means = difference.mean(axis=(1, 2), keepdims=True)
    statistics = _statistics(noise_spread.in_blocks((a + b) / 2, _BLOCK).mean(axis=(1, 2)), difference - means)[
        :, usable
    ]
    if np.var(means[usable]) > _MAX_CHANGE * statistics[1].mean():
        raise FlatFieldError(
            "The two frames show different fields, or the specimen drifted between them.",
            "Give two frames of one field without drift, or a single one.",
        )
    return statistics


def _single_blocks(image: Grey) -> Grey:
    usable = ~_clipped_blocks(image)
    blocks = noise_spread.in_blocks(image, _BLOCK)
    basis = noise_spread.polynomials(_BLOCK, _FITTED_IN_ONE)
    flat = blocks.reshape(len(blocks), -1)
    residual = (flat - (flat @ basis.T) @ basis).reshape(blocks.shape)
    return _statistics(blocks.mean(axis=(1, 2)), residual)[:, usable]


def _clipped_blocks(image: Grey) -> NDArray[np.bool_]:
    """Which blocks hold clipped values (n,): the lowest or highest of the image, where it piles up.

    Raises
    ------
    FlatFieldError
        When the image is too small, or too much of it is clipped.
    """
    if min(image.shape) < 4 * _BLOCK:
        raise FlatFieldError(
            f"The frame is {image.shape[0]} × {image.shape[1]} pixels; noise is measured from 64 × 64.", _HINT
        )
    clipped = np.zeros(image.shape, bool)
    for extreme in (image.min(), image.max()):
        at = image == extreme
        # By chance the extreme value is held by a few pixels; a clipped one piles up above its neighbour.
        if at.mean() > 2e-3:
            clipped |= at
    if clipped.mean() > _MAX_CLIPPED:
        raise FlatFieldError(
            f"{100 * clipped.mean():.0f} % of the pixels are saturated at black or white; at most "
            f"{100 * _MAX_CLIPPED:.0f} % may be.",
            "Take the image again with less contrast and brightness.",
        )
    return np.asarray(noise_spread.in_blocks(clipped.astype(float), _BLOCK).mean(axis=(1, 2)) > 0)


def _statistics(means: Grey, residual: Grey) -> Grey:
    """Mean, variance, covariance to the right and below of each block: (4, n)."""
    variance = (residual**2).mean(axis=(1, 2))
    right = (residual[:, :, 1:] * residual[:, :, :-1]).mean(axis=(1, 2))
    below = (residual[:, 1:] * residual[:, :-1]).mean(axis=(1, 2))
    return np.stack([means, variance, right, below])


def _levels(blocks: Grey) -> _Levels:
    """Blocks (4, n) gathered into levels of even width."""
    means = blocks[0]
    if means.size < MIN_LEVELS * _BLOCKS_PER_LEVEL:
        raise _too_few(0, 0.0)
    low, high = np.quantile(means, (0.005, 0.995))
    bins = np.clip(((means - low) / max(high - low, 1e-12) * _BINS).astype(int), 0, _BINS - 1)
    full = [b for b in range(_BINS) if np.count_nonzero(bins == b) >= _BLOCKS_PER_LEVEL]
    if len(full) < MIN_LEVELS or high - low < MIN_SPAN:
        raise _too_few(len(full), float(high - low))
    chosen = np.array([_typical(blocks[:, bins == b]) for b in full])
    counts = np.array([np.count_nonzero(bins == b) for b in full], dtype=float)
    return _Levels(chosen[:, 0], chosen[:, 1], chosen[:, 2], chosen[:, 3], counts)


def _typical(blocks: Grey) -> Grey:
    """Mean of blocks (4, n) without those whose variance is far from the others': an edge is not noise."""
    variance = blocks[1]
    middle = np.median(variance)
    width = 1.4826 * np.median(np.abs(variance - middle))
    return np.asarray(blocks[:, np.abs(variance - middle) <= _OUTLIER * width].mean(axis=1))


def _too_few(n: int, span: float) -> FlatFieldError:
    return FlatFieldError(
        f"The frames hold {n} grey levels over {100 * span:.0f} % of full scale that are not saturated; a line needs "
        f"{MIN_LEVELS} over {100 * MIN_SPAN:.0f} %.",
        _HINT,
    )


def _fit(levels: _Levels, frames: Sequence[Grey], *, paired: bool, white: float) -> FlatField:
    (slope, intercept), weight = _line(levels)
    r2 = _explained(levels, slope, intercept, weight)
    if r2 < MIN_R2:
        raise FlatFieldError(
            f"The grey level explains {100 * max(r2, 0):.0f} % of the noise's variance, and at least "
            f"{100 * MIN_R2:.0f} % are needed: the image was processed, or its texture outweighs its noise.",
            _HINT,
        )
    if slope <= 0:
        raise FlatFieldError("The noise falls where the grey level rises: the image is a negative.", "Invert it first.")
    n_fitted = _FITTED_IN_PAIR if paired else _FITTED_IN_ONE
    # The read noise is white: only what is above it is correlated.
    counted = levels.variance - max(intercept, 0.0)
    right, below = (_ratio(c, counted, weight) for c in (levels.right, levels.below))
    psf, lag = noise_spread.spread_of(right, below, _BLOCK, n_fitted)
    if psf >= noise_spread.MAX_PSF_PX or lag >= noise_spread.MAX_LAG_PX:
        raise FlatFieldError(
            f"The noise is alike over more than {noise_spread.MAX_PSF_PX:g} pixels: the image was enlarged, smoothed, "
            "or is all texture.",
            _HINT,
        )
    gain = slope / noise_spread.block_moments(psf, lag, _BLOCK, n_fitted)[0]
    # The read noise is white; rounding to digits is noise too, but the generator rounds by itself.
    white_part = intercept / noise_spread.block_moments(0.0, 0.0, _BLOCK, n_fitted)[0] - _step(frames) ** 2 / 12
    return FlatField(
        gain=gain,
        read_noise=float(np.sqrt(max(white_part, 0.0))),
        black_level=min(max(-intercept / slope, 0.0), 0.99),
        noise_psf_px=psf,
        line_lag_px=lag,
        r2=r2,
        n_levels=len(levels.mean),
        n_frames=len(frames) // 2 * 2 if paired else 1,
        white_level=white,
        note=_PAIRED if paired else _SINGLE,
    )


_PAIRED: Final = "From differences of two frames: free of what the specimen shows."
_SINGLE: Final = (
    "From what a plane leaves in blocks of 16 pixels of a single frame: texture of the specimen counts as noise, so "
    "gain and read noise are upper bounds."
)


def _line(levels: _Levels) -> tuple[tuple[float, float], Grey]:
    """Slope and intercept of the variance over the mean, and the weights of the levels."""
    expected = np.full(levels.mean.shape, levels.variance.mean())
    for _ in range(4):
        # A variance is as uncertain as it is large; weights by the measured one would favour what came out low.
        weight = levels.n_blocks / np.maximum(expected, 0.05 * levels.variance.mean()) ** 2
        slope, intercept = np.polyfit(levels.mean, levels.variance, 1, w=np.sqrt(weight))
        expected = slope * levels.mean + intercept
    return (float(slope), float(intercept)), weight


def _ratio(y: Grey, x: Grey, weight: Grey) -> float:
    """Slope of a line through the origin."""
    return float((weight * x * y).sum() / (weight * x * x).sum())


def _explained(levels: _Levels, slope: float, intercept: float, weight: Grey) -> float:
    rest = levels.variance - slope * levels.mean - intercept
    spread = levels.variance - np.average(levels.variance, weights=weight)
    return float(1 - (weight * rest**2).sum() / max((weight * spread**2).sum(), 1e-300))


def _step(frames: Sequence[Grey]) -> float:
    """Smallest difference of two grey values; 0 where there are too many to be digits."""
    values = np.unique(frames[0])
    return float(np.diff(values).min()) if 1 < values.size <= 2**16 else 0.0
