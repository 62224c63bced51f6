"""How a detector that spreads its quanta changes the noise: less variance, and neighbours that resemble each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import toeplitz
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import brentq
from scipy.signal import lfilter

Grey = NDArray[np.float64]

MAX_PSF_PX = 3.0
MAX_LAG_PX = 10.0
_LITTLE = 0.02  # correlation that chance gives


def in_blocks(image: Grey, edge: int) -> Grey:
    """(H, W) → (n, edge, edge), what is left over at the lower and right edge left out."""
    rows, columns = image.shape[0] // edge, image.shape[1] // edge
    cut = image[: rows * edge, : columns * edge].reshape(rows, edge, columns, edge)
    return cut.swapaxes(1, 2).reshape(-1, edge, edge)


def polynomials(edge: int, n: int) -> Grey:
    """The first `n` of 1, y, x on a block of edge × edge pixels, orthonormal: (n, edge²)."""
    axis = np.arange(edge) - (edge - 1) / 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    basis = np.stack([np.ones_like(y), y, x]).reshape(3, -1)[:n]
    return np.asarray(basis / np.linalg.norm(basis, axis=1, keepdims=True))


def block_moments(psf_px: float, lag_px: float, edge: int, n_fitted: int) -> tuple[float, float, float]:
    """What white noise of variance 1 becomes by a spread and by taking polynomials out of blocks.

    Parameters
    ----------
    psf_px
        Standard deviation of the Gaussian point spread.
    lag_px
        1/e length of the exponential drag along the rows.
    edge, n_fitted
        Edge of the blocks in pixels, and how many of 1, y, x are fitted to each and taken off.

    Returns
    -------
    variance, covariance with the next pixel to the right, and below: means over the block.
    """
    across, down = (_autocovariance(_kernel(psf_px, lag), edge) for lag in (lag_px, 0.0))
    full = np.kron(toeplitz(down), toeplitz(across))
    basis = polynomials(edge, n_fitted)
    rest = np.eye(edge**2) - basis.T @ basis
    left = (rest @ full @ rest).reshape(edge, edge, edge, edge)
    i = np.arange(edge)
    variance = np.einsum("ijij->", left) / edge**2
    right = sum(left[:, k, :, k + 1][i, i].sum() for k in range(edge - 1)) / (edge * (edge - 1))
    below = sum(left[k, :, k + 1, :][i, i].sum() for k in range(edge - 1)) / (edge * (edge - 1))
    return float(variance), float(right), float(below)


def spread_of(right: float, below: float, edge: int, n_fitted: int) -> tuple[float, float]:
    """Covariances with the next pixels, over the variance, as blocks show them → point spread and lag in px."""
    psf = lag = 0.0
    for _ in range(2):  # what is fitted off a block couples the two a little

        def excess_below(guess: float, lag: float = lag) -> float:
            variance, _, along = block_moments(guess, lag, edge, n_fitted)
            return along / variance - below

        psf = _root(excess_below, MAX_PSF_PX)

        def excess_right(guess: float, psf: float = psf) -> float:
            variance, along, _ = block_moments(psf, guess, edge, n_fitted)
            return along / variance - right

        lag = _root(excess_right, MAX_LAG_PX)
    return psf, lag


def _root(excess: Callable[[float], float], highest: float) -> float:
    if excess(0.0) >= -_LITTLE:
        return 0.0
    return highest if excess(highest) <= 0 else float(brentq(excess, 0.0, highest, xtol=1e-3))


def _kernel(psf_px: float, lag_px: float) -> Grey:
    kernel = np.zeros(161)
    kernel[40] = 1.0
    kernel = gaussian_filter1d(kernel, psf_px) if psf_px > 0 else kernel
    keep = np.exp(-1 / lag_px) if lag_px > 0 else 0.0
    return np.asarray(lfilter([1 - keep], [1.0, -keep], kernel))


def _autocovariance(kernel: Grey, n: int) -> Grey:
    return np.asarray(np.correlate(kernel, kernel, mode="full")[len(kernel) - 1 :][:n])
