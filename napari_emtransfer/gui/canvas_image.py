"""A micrograph as napari can show it: pixels or a pyramid, and contrast limits; all made off the GUI thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.data.micrograph import Micrograph

MAX_FLAT_PIXELS: Final = 64_000_000
MAX_FLAT_EDGE: Final = 8192
ROWS_PER_READ: Final = 512
SAMPLE_EDGE: Final = 1024


@dataclass(frozen=True)
class CanvasImage:
    """`data` is an array (H, W), or a list of ever smaller ones for a very large micrograph."""

    stem: str
    data: NDArray[Any] | list[Any]
    multiscale: bool
    contrast_limits: tuple[float, float]
    pixel_size_nm: float | None
    shape: tuple[int, int]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        return np.dtype(self.data[0].dtype if self.multiscale else self.data.dtype)  # type: ignore[union-attr]


def load_canvas_image(stem: str, micrograph: Micrograph, pixel_size_nm: float | None) -> CanvasImage:
    """Read what the canvas shows. Slow: for a background thread."""
    height, width = micrograph.shape
    big = height * width > MAX_FLAT_PIXELS or max(height, width) > MAX_FLAT_EDGE
    data: Any = _pyramid(micrograph.pixels, (height, width)) if big else _plain(micrograph.pixels[:, :])
    coarsest = data[-1] if big else data
    return CanvasImage(stem, data, big, contrast_limits(coarsest), pixel_size_nm, (height, width))


def contrast_limits(pixels: NDArray[Any]) -> tuple[float, float]:
    """Low and high grey value that are shown as black and white: 0.2nd and 99.8th percentile of a regular sample."""
    step = max(1, max(pixels.shape) // SAMPLE_EDGE)
    sample = np.asarray(pixels[::step, ::step], dtype=np.float32)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(sample, (0.2, 99.8)))
    return (low, high) if high > low else (low, low + 1.0)


def _pyramid(pixels: Any, shape: tuple[int, int]) -> list[Any]:
    """Full pixels, lazily, and levels in memory: each takes every second pixel of the one before."""
    first = _strided(pixels, shape, 4)
    levels = [pixels, first]
    while max(levels[-1].shape) > SAMPLE_EDGE:
        levels.append(np.ascontiguousarray(levels[-1][::2, ::2]))
    return levels


def _strided(pixels: Any, shape: tuple[int, int], step: int) -> NDArray[Any]:
    """Every `step`-th pixel, read in bands so that memory does not grow with the micrograph."""
    bands = [
        _plain(pixels[y : min(y + ROWS_PER_READ, shape[0]), :])[::step, ::step]
        for y in range(0, shape[0], ROWS_PER_READ)
    ]
    return np.concatenate(bands)


def _plain(pixels: Any) -> NDArray[Any]:
    """A contiguous array of a type that textures know."""
    array = np.asarray(pixels)
    if array.dtype == np.float64 or array.dtype == np.float16 or array.dtype.kind not in "uif":
        array = array.astype(np.float32)
    return np.ascontiguousarray(array)
