"""Random fields with a chosen spectrum, for textures and for what bends a structure."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Field = NDArray[np.float64]

_SMALL = 1e-12


def power_law(shape: tuple[int, int], rng: Generator, slope: float) -> Field:
    """Random field (H, W), mean 0, variance 1, periodic: amplitudes fall as frequency^−slope (0 is white noise)."""
    frequency = _frequencies(shape, 1.0, 0.0)
    return _shaped(shape, rng, np.where(frequency > 0, frequency, 1.0) ** -slope)


def banded(
    shape: tuple[int, int], rng: Generator, wavelength_px: float, width: float, stretch: float = 1.0, angle: float = 0.0
) -> Field:
    """Random field (H, W), mean 0, variance 1, periodic, of features about half of `wavelength_px` across.

    Parameters
    ----------
    width
        Standard deviation of the band of frequencies, relative to its middle: .1 gives stripes and dots of one size.
    stretch, angle
        Features are so many times as long along `angle` (rad, from the x axis towards y) as across.
    """
    middle = 1 / wavelength_px
    frequency = _frequencies(shape, round(stretch, 2), round(angle, 2))
    return _shaped(shape, rng, np.exp(-0.5 * ((frequency - middle) / (width * middle)) ** 2))


def smooth(shape: tuple[int, int], rng: Generator, length_px: float) -> Field:
    """Random field (H, W), mean 0, variance 1, periodic: white noise behind a Gaussian of σ = `length_px`."""
    frequency = _frequencies(shape, 1.0, 0.0)
    return _shaped(shape, rng, np.exp(-2 * (np.pi * frequency * length_px) ** 2))


def _shaped(shape: tuple[int, int], rng: Generator, amplitude: Field) -> Field:
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) * amplitude
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=shape)
    return np.asarray(field / (field.std() + _SMALL))


@lru_cache(maxsize=64)
def _frequencies(shape: tuple[int, int], stretch: float, angle: float) -> Field:
    """Magnitude of the frequency of each coefficient of rfft2, in 1/px, larger along `angle` by `stretch`."""
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    along, across = np.cos(angle) * fx + np.sin(angle) * fy, np.cos(angle) * fy - np.sin(angle) * fx
    return np.hypot(stretch * along, across)
