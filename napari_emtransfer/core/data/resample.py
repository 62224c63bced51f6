"""One micrograph seen at another pixel size, piece by piece, without a seam.

Pixels are squares, and images share their outer edges: working pixel i of n covers native pixels i·N/n … (i+1)·N/n.
Centres therefore map as (i + ½)·N/n − ½ (half-pixel centres), for images, masks and probabilities alike.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from napari_emtransfer.core.data.intensity import IntensityScale
from napari_emtransfer.core.data.labels import UNLABELLED
from napari_emtransfer.core.data.micrograph import Micrograph
from napari_emtransfer.core.data.tiles import Window

Shape = tuple[int, int]
_BAND_ROWS: Final = 512  # what is shrunk at once: memory does not grow with the mask


class WorkingView:
    """A micrograph at the project's working pixel size and with standardised intensity.

    Parameters
    ----------
    scale
        Pixel size in nm over the working pixel size in nm: below 1 the view is smaller than the micrograph.
        1.0 where either size is unknown.
    intensity
        The micrograph's own intensity scale.
    """

    def __init__(self, micrograph: Micrograph, *, scale: float, intensity: IntensityScale) -> None:
        self.micrograph = micrograph
        self.scale = scale
        self.intensity = intensity
        self.shape: Shape = working_shape(micrograph.shape, scale)

    def read(self, window: Window | None = None) -> NDArray[np.float32]:
        """Working-pixel window (everything when None) → standardised float32 (h, w).

        The pixels are the same whatever window they are read through; averaged where the view is smaller than
        the micrograph, so that fine texture does not alias.
        """
        window = window or Window(y0=0, x0=0, y1=self.shape[0], x1=self.shape[1])
        if self.shape == self.micrograph.shape:
            return self.intensity.apply(self.micrograph.read(window))
        height, width = self.micrograph.shape
        rows, y0, y1 = _kernel(height, self.shape[0], window.y0, window.y1)
        columns, x0, x1 = _kernel(width, self.shape[1], window.x0, window.x1)
        native = self.intensity.apply(self.micrograph.read(Window(y0=y0, x0=x0, y1=y1, x1=x1)))
        return _apply(rows, columns, native)

    def to_native(self, window: Window) -> Window:
        """The smallest native window that covers a working window."""
        return _cover(window, self.shape, self.micrograph.shape)

    def to_working(self, window: Window) -> Window:
        """The smallest working window that covers a native window."""
        return _cover(window, self.micrograph.shape, self.shape)

    def native_cell(self, window: Window) -> Window:
        """Native pixels whose centres lie in a working window.

        Windows that tile the view give cells that tile the micrograph; a cell is empty where no centre lies inside.
        """
        y0, y1 = (_first_centre_at(e, self.shape[0], self.micrograph.shape[0]) for e in (window.y0, window.y1))
        x0, x1 = (_first_centre_at(e, self.shape[1], self.micrograph.shape[1]) for e in (window.x0, window.x1))
        return Window(y0=y0, x0=x0, y1=y1, x1=x1)

    def mask_to_working(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Native mask (H, W) of the whole micrograph → mask of the view's shape."""
        return resample_mask(mask, self.shape)

    def probabilities_to_native(
        self, probabilities: NDArray[np.float32], window: Window
    ) -> tuple[Window, NDArray[np.float32]]:
        """Probabilities (C, h, w) of a working window → (its native cell, probabilities (C, H, W) of that cell).

        Read through one window after another the cells cover the micrograph once. At a window's rim the nearest
        pixel stands in for the unknown neighbour.
        """
        cell = self.native_cell(window)
        if self.shape == self.micrograph.shape:
            return cell, probabilities
        if 0 in cell.shape:
            return cell, np.empty((len(probabilities), *cell.shape), np.float32)
        (height, width), (native_height, native_width) = self.shape, self.micrograph.shape
        rows, r0, r1 = _kernel(height, native_height, cell.y0, cell.y1)
        columns, c0, c1 = _kernel(width, native_width, cell.x0, cell.x1)
        y = np.clip(np.arange(r0, r1) - window.y0, 0, probabilities.shape[1] - 1)
        x = np.clip(np.arange(c0, c1) - window.x0, 0, probabilities.shape[2] - 1)
        padded = probabilities[:, y[:, None], x[None, :]]
        return cell, np.stack([_apply(rows, columns, plane) for plane in padded])


def working_shape(native: Shape, scale: float) -> Shape:
    """Shape of a micrograph (H, W) at `scale`: rounded, at least one pixel."""
    return max(1, round(native[0] * scale)), max(1, round(native[1] * scale))


def resample_mask(mask: NDArray[np.uint8], shape: Shape) -> NDArray[np.uint8]:
    """Mask (H, W) → mask of `shape`; label values are never mixed.

    Enlarging takes the nearest pixel. Shrinking takes the value with the largest area inside the new pixel: the
    nearest one would move every edge the same way (at half the size the centres tie). Unlabelled area counts half,
    so that thin strokes survive.
    """
    if shape[0] >= mask.shape[0] or shape[1] >= mask.shape[1]:
        rows, columns = (_nearest(n, m) for n, m in zip(mask.shape, shape, strict=True))
        return mask[rows[:, None], columns[None, :]]
    bands = range(0, shape[0], _BAND_ROWS)
    return np.concatenate([_majority(mask, shape, y, min(y + _BAND_ROWS, shape[0])) for y in bands])


def resample_probabilities(probabilities: NDArray[np.float32], shape: Shape) -> NDArray[np.float32]:
    """Probabilities (C, h, w) → (C, H, W), bilinear (averaged when shrinking); they still sum to 1 over C."""
    rows, _, _ = _kernel(probabilities.shape[1], shape[0], 0, shape[0])
    columns, _, _ = _kernel(probabilities.shape[2], shape[1], 0, shape[1])
    return np.stack([_apply(rows, columns, plane) for plane in probabilities])


def _majority(mask: NDArray[np.uint8], shape: Shape, start: int, stop: int) -> NDArray[np.uint8]:
    """Rows start..stop of a shrunk mask: the value that covers most of each pixel."""
    rows, y0, y1 = _area_kernel(mask.shape[0], shape[0], start, stop)
    columns, x0, x1 = _area_kernel(mask.shape[1], shape[1], 0, shape[1])
    native = mask[y0:y1, x0:x1]
    values = np.unique(native)
    best = np.full((stop - start, shape[1]), -1.0, np.float32)
    winner = np.zeros(best.shape, np.uint8)
    for value in (*values[values != UNLABELLED], *values[values == UNLABELLED]):  # labels win ties
        area = _apply(rows, columns, (native == value).astype(np.float32))
        area *= 0.5 if value == UNLABELLED else 1.0
        wins = area > best + 1e-5  # a tie within rounding is a tie
        winner[wins], best[wins] = value, area[wins]
    return winner


def _area_kernel(n_from: int, n_to: int, start: int, stop: int) -> tuple[csr_array, int, int]:
    """Weights of one axis when shrinking: the part of each target pixel that a source pixel covers."""
    ratio = n_from / n_to
    left = np.arange(start, stop) * ratio
    taps = np.floor(left).astype(int)[:, None] + np.arange(int(np.ceil(ratio)) + 1)
    covered = np.minimum(taps + 1, left[:, None] + ratio) - np.maximum(taps, left[:, None])
    covered[taps >= n_from] = 0
    return _to_matrix(taps, np.maximum(covered, 0) / ratio)


def _nearest(n_from: int, n_to: int) -> NDArray[np.intp]:
    # floor((i + ½)·N/n) in whole numbers: no rounding error can push a label over an edge.
    return (2 * np.arange(n_to) + 1) * n_from // (2 * n_to)


def _cover(window: Window, shape_from: Shape, shape_to: Shape) -> Window:
    (h, w), (height, width) = shape_from, shape_to
    return Window(
        y0=window.y0 * height // h,
        x0=window.x0 * width // w,
        y1=-(-window.y1 * height // h),
        x1=-(-window.x1 * width // w),
    )


def _first_centre_at(edge: int, n: int, n_native: int) -> int:
    """Index of the first native pixel whose centre lies at or beyond working edge `edge` (of n)."""
    return -(-(2 * edge * n_native - n) // (2 * n))


def _kernel(n_from: int, n_to: int, start: int, stop: int) -> tuple[csr_array, int, int]:
    """Weights of one axis: target pixels start..stop of `n_to` from source pixels first..last of `n_from`.

    A triangle as wide as the larger of the two pixels: linear interpolation when enlarging, its antialiased
    counterpart when shrinking. The weights of a pixel depend on its place only, never on the window.
    """
    ratio = n_from / n_to
    radius = max(1.0, ratio)
    centres = (np.arange(start, stop) + 0.5) * ratio - 0.5
    taps = np.floor(centres - radius).astype(int)[:, None] + np.arange(int(np.ceil(2 * radius)) + 2)
    weights = np.maximum(0, 1 - np.abs(taps - centres[:, None]) / radius)
    weights[(taps < 0) | (taps >= n_from)] = 0
    return _to_matrix(taps, weights / weights.sum(axis=1, keepdims=True))


def _to_matrix(taps: NDArray[np.intp], weights: NDArray[np.float64]) -> tuple[csr_array, int, int]:
    """Source pixels and their weights (n, k) → sparse matrix (n, last − first), first and last source pixel."""
    keep = weights > 0
    first, last = int(taps[keep].min()), int(taps[keep].max()) + 1
    row = np.broadcast_to(np.arange(len(taps))[:, None], taps.shape)
    matrix = csr_array((weights[keep], (row[keep], taps[keep] - first)), shape=(len(taps), last - first))
    return matrix.astype(np.float32), first, last


def _apply(rows: csr_array, columns: csr_array, image: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray((columns @ (rows @ image).T).T)
