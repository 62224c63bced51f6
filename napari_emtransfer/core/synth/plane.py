"""The ideal plane of a specimen: fields that are made on its grid and read where the beam stands.

A structure is asked for at coordinates (y, x), which scan distortion has moved. What has a formula is computed there;
what has none (random fields, painted particles) is made once on the plane's own grid of whole pixels and interpolated.
So image and labels see the same distortion, to the last bit.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import scipy.fft
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from napari_emtransfer.core.synth.micrograph import Field

Field32 = NDArray[np.float32]
# A field smoother than this is made on a coarser grid of as many nodes per correlation length.
_NODES_PER_SCALE: Final = 3.0
# Grid beyond the coordinates, in px: neighbours of an interpolation, room for painted edges.
_MARGIN_PX: Final = 4


class Plane:
    """A grid of whole pixels that covers coordinates, and the way back to them.

    Parameters
    ----------
    y, x
        (H, W) coordinates in px of the ideal plane.
    """

    def __init__(self, y: Field, x: Field) -> None:
        self.y, self.x = y, x
        self.top, self.left = int(np.floor(y.min())) - _MARGIN_PX, int(np.floor(x.min())) - _MARGIN_PX
        self.shape = (
            int(np.ceil(y.max())) + _MARGIN_PX + 1 - self.top,
            int(np.ceil(x.max())) + _MARGIN_PX + 1 - self.left,
        )
        down, right = y - self.top, x - self.left
        row, column = np.floor(down).astype(np.intp), np.floor(right).astype(np.intp)
        self._corner = row * self.shape[1] + column
        self._down, self._right = (down - row).astype(np.float32), (right - column).astype(np.float32)
        self._nearest = np.rint(down).astype(np.intp) * self.shape[1] + np.rint(right).astype(np.intp)

    @property
    def area_px2(self) -> float:
        """Area of the grid."""
        return float(self.shape[0] * self.shape[1])

    def at(self, field: NDArray[np.floating]) -> Field32:
        """Bilinear values (H, W) at the coordinates of a field on the grid."""
        flat, width = field.ravel().astype(np.float32, copy=False), self.shape[1]
        top = _between(flat[self._corner], flat[self._corner + 1], self._right)
        bottom = _between(flat[self._corner + width], flat[self._corner + width + 1], self._right)
        return _between(top, bottom, self._down)

    def nearest(self, labels: NDArray[np.int32]) -> NDArray[np.int32]:
        """Labels (H, W) at the coordinates of labels on the grid: those of the nearest node."""
        return labels.ravel()[self._nearest]

    def grid(self) -> tuple[Field, Field]:
        """Coordinates of the grid's rows (h, 1) and columns (1, w)."""
        height, width = self.shape
        return np.arange(height, dtype=float)[:, None] + self.top, np.arange(width, dtype=float)[None, :] + self.left

    def scatter(self, n: int, margin_px: float, rng: Generator) -> Field:
        """Draw n random points (n, 2), yx, of the plane and `margin_px` around it."""
        size = np.asarray(self.shape) + 2 * margin_px
        return rng.uniform(size=(n, 2)) * size + [self.top - margin_px, self.left - margin_px]

    def noise(self, scale_px: float, rng: Generator) -> Field32:
        """Gaussian random field on the grid with correlation length `scale_px`, mean 0 and variance 1."""
        return gaussian_noise(self.shape, scale_px, rng)

    def texture(self, scale_px: float, rng: Generator) -> Field32:
        """Gaussian random field (H, W) at the coordinates; cheap however coarse it is."""
        return self.textures(scale_px, rng, 1)[0]

    def textures(self, scale_px: float, rng: Generator, n: int) -> list[Field32]:
        """Draw n independent textures of one scale, which share the work of interpolating."""
        step = max(1.0, scale_px / _NODES_PER_SCALE)
        if step < 2:
            return [self.at(self.noise(scale_px, rng)) for _ in range(n)]
        shape = (int(self.shape[0] / step) + 3, int(self.shape[1] / step) + 3)
        coarse = _Coarse(self, step, shape)
        return [coarse.at(gaussian_noise(shape, scale_px / step, rng)) for _ in range(n)]

    def bend(self, amplitude_px: float, scale_px: float, rng: Generator) -> Bend:
        """Smooth random displacement of the plane with its derivatives."""
        step = max(1.0, scale_px / _NODES_PER_SCALE / 1.5)
        shape = (int(self.shape[0] / step) + 4, int(self.shape[1] / step) + 4)
        coarse = _Coarse(self, step, shape)
        moves, slopes = [], []
        for _ in range(2):
            field = amplitude_px * gaussian_noise(shape, scale_px / step, rng)
            moves.append(coarse.at(field))
            slopes.append([coarse.at(slope / np.float32(step)) for slope in np.gradient(field)])
        return Bend(self.y + moves[0], self.x + moves[1], slopes)


class Bend:
    """A bent plane: where its points come to lie, and how a distance there compares to one here.

    Parameters
    ----------
    y, x
        (H, W) bent coordinates.
    slopes
        Derivatives of the displacement: `slopes[i][j]` of component i along axis j.
    """

    def __init__(self, y: Field, x: Field, slopes: list[list[Field32]]) -> None:
        self.y, self.x, self._slopes = y, x, slopes

    def straightened(
        self, normal_y: NDArray[np.floating], normal_x: NDArray[np.floating]
    ) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
        """Bent length per true length across a bent line, by which its distances divide, and its true normal (y, x).

        Exact to first order of the bending: the gradient of a distance n · p′(p) is Jᵀ n.

        Parameters
        ----------
        normal_y, normal_x
            (H, W) unit normal of the line in the bent plane.
        """
        (yy, yx), (xy, xx) = self._slopes
        along_y = normal_y * (1 + yy) + normal_x * xy
        along_x = normal_y * yx + normal_x * (1 + xx)
        stretch: NDArray[np.floating] = np.maximum(np.sqrt(along_y**2 + along_x**2), 0.2)
        return stretch, along_y / stretch, along_x / stretch


class _Coarse:
    """A coarser grid over a plane, read at the plane's coordinates."""

    def __init__(self, plane: Plane, step: float, shape: tuple[int, int]) -> None:
        down = ((plane.y - plane.top) / step).astype(np.float32)
        right = ((plane.x - plane.left) / step).astype(np.float32)
        row, column = down.astype(np.int32), right.astype(np.int32)
        self._corner, self._width = row * shape[1] + column, shape[1]
        self._down, self._right = down - row, right - column

    def at(self, field: NDArray[np.floating]) -> Field32:
        flat, width = field.ravel().astype(np.float32, copy=False), self._width
        top = _between(flat[self._corner], flat[self._corner + 1], self._right)
        bottom = _between(flat[self._corner + width], flat[self._corner + width + 1], self._right)
        return _between(top, bottom, self._down)


def gaussian_noise(shape: tuple[int, int], scale_px: float, rng: Generator) -> Field32:
    """Gaussian random field (h, w), periodic, smoothed with a Gaussian of standard deviation `scale_px`; N(0, 1)."""
    height, width = (scipy.fft.next_fast_len(n + int(3 * scale_px), real=True) for n in shape)
    spectrum = scipy.fft.rfft2(rng.standard_normal((height, width), dtype=np.float32))
    rows = np.exp(-2 * (np.pi * scale_px * scipy.fft.fftfreq(height)) ** 2).astype(np.float32)
    columns = np.exp(-2 * (np.pi * scale_px * scipy.fft.rfftfreq(width)) ** 2).astype(np.float32)
    smooth = scipy.fft.irfft2(spectrum * rows[:, None] * columns[None, :], s=(height, width))
    field: Field32 = smooth[: shape[0], : shape[1]]
    return (field - field.mean()) / (field.std() + np.float32(1e-12))


def smoothed(field: NDArray[np.floating], sigma_px: float) -> Field32:
    """Gaussian average (h, w) of a field."""
    return gaussian_filter(field.astype(np.float32, copy=False), sigma_px, mode="nearest", truncate=3.0)


def straight(y: Field, x: Field, angle: float) -> tuple[Field, Field]:
    """Coordinates along and across a direction `angle` (radians from the x axis)."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return x * cosine + y * sine, y * cosine - x * sine


def _between(a: Field32, b: Field32, share: Field32) -> Field32:
    return a + (b - a) * share
