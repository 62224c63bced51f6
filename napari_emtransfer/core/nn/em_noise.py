"""What a microscope does to an image of the specimen: defocus, counting noise, drift during the scan, unsteady rows.

Own code, because augmentation libraries know none of it, or only for grey values between 0 and 1.
"""

from __future__ import annotations

from typing import Final, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

_BLUR_PX: Final = (0.3, 1.2)
# Electrons per pixel at the mean grey value: from a survey scan to a slow one.
_DOSE: Final = (40.0, 1000.0)
_READOUT: Final = 0.05
# Pixels of shift per row: 3 % is 8 px across a crop of 256.
_SHEAR: Final = 0.03
_WANDER_PX: Final = 2.0
_JITTER_PX: Final = 1.5
# The specimen wanders smoothly: a new direction every so many rows.
_WANDER_ROWS: Final = 64

_Scalar = TypeVar("_Scalar", bound=np.generic)


def defocus(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Blur an image (H, W) with a Gaussian of 0.3 … 1.2 px, mirrored beyond its border."""
    return np.asarray(cv2.GaussianBlur(np.ascontiguousarray(image), (0, 0), rng.uniform(*_BLUR_PX)), np.float32)


def count_electrons(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Poisson–Gaussian noise on a standardised image (H, W): variance rises with brightness, the mean stays.

    The darkest pixel stands for no electrons, the mean for 40 … 1000 of them per pixel; a readout noise of up to 0.05
    standard deviations is added. Model: A. Foi et al., IEEE Trans. Image Process. 17 (2008) 1737.
    """
    low, mean = float(image.min()), float(image.mean())
    dose = np.exp(rng.uniform(*np.log(_DOSE)))
    electrons = np.float32(dose / max(mean - low, 1e-3))  # per unit of grey
    counted = rng.poisson((image - np.float32(low)) * electrons).astype(np.float32)
    readout = np.float32(rng.uniform(0, _READOUT))
    return counted / electrons + np.float32(low) + readout * rng.standard_normal(image.shape, dtype=np.float32)


def drift(n_rows: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Shift of every row, (n_rows,) in pixels, when the specimen moves during the scan: a shear and a slow wandering.

    See L. Jones, P. D. Nellist, Microsc. Microanal. 19 (2013) 1050.
    """
    rows = np.arange(n_rows)
    knots = np.arange(0, n_rows + _WANDER_ROWS, _WANDER_ROWS)
    wander = np.interp(rows, knots, rng.uniform(-_WANDER_PX, _WANDER_PX, knots.size))
    return rng.uniform(-_SHEAR, _SHEAR) * (rows - n_rows / 2) + wander


def jitter(n_rows: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Shift of every row, (n_rows,) in pixels, when the beam is unsteady: each row on its own, most of them still."""
    return rng.uniform(0, _JITTER_PX) * rng.standard_normal(n_rows) * (rng.random(n_rows) < 0.3)


def shift_rows(
    array: NDArray[_Scalar], shifts: NDArray[np.integer], *, beyond: float | None = None
) -> NDArray[_Scalar]:
    """Move row y of `array` (H, W) by `shifts[y]` whole pixels to the right, which interpolates nothing.

    What comes in from beyond the border is mirrored, or `beyond`.
    """
    height, width = array.shape
    margin = int(np.abs(shifts).max(initial=0))
    sides = ((0, 0), (margin, margin))
    wide = np.pad(array, sides, "reflect") if beyond is None else np.pad(array, sides, constant_values=beyond)
    # Row y is the part of the widened row y that begins `shifts[y]` before the original: no copy but the last.
    windows = np.lib.stride_tricks.sliding_window_view(wide, width, axis=1)
    return windows[np.arange(height), margin - shifts]
