"""Classical filters at several scales: what tells phases apart at a pixel when only a few strokes have been painted.

Smoothed intensity, edges and curvature (as ilastik, Labkit and Weka offer), intensities relative to their
surroundings, and local extremes with their openings and closings. Small neighbourhoods only: filters that see further
learn where the strokes were, and fail on the next micrograph (measured: smoothing over 16 px and more, Gabor energies
and band energies each lost on specimens that had not been labelled).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.nn.ground import View

# (smoothed image (1, C, H, W), σ in its pixels) → maps (1, N, H, W)
_Operation = Callable[[Tensor, float], Tensor]

VERSION: Final = 1
SCALES_PX: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
SURROUNDINGS_PX: Final = (2.0, 4.0, 8.0)
RADII_PX: Final = (2, 4, 8)
N_FILTERS: Final = 4 * len(SCALES_PX) + 3 * len(SURROUNDINGS_PX) + 6 * len(RADII_PX)

# Everything a filter sees lies within this margin; pooled pixels fall on the same pixels through any window.
MARGIN_PX: Final = 64
ALIGNMENT_PX: Final = 8
# What filters at full resolution see: two passes of the largest window, and the smoothing before.
_FINE_MARGIN_PX: Final = 24
_TRUNCATION: Final = 3.0
_COARSE_FROM_PX: Final = 4.0
# Contrast below this share of the image's own standard deviation is noise, not structure.
_FLAT: Final = 0.1
_LOG_FLOOR: Final = 1e-2


def filter_window(view: View, window: Window) -> NDArray[np.float32]:
    """Filters (N_FILTERS, h, w) of one window of a view; the same at a pixel whatever window it is seen through."""
    y0, x0 = (start // ALIGNMENT_PX * ALIGNMENT_PX for start in (window.y0, window.x0))
    y1, x1 = (-(-stop // ALIGNMENT_PX) * ALIGNMENT_PX for stop in (window.y1, window.x1))
    pixels = read_mirrored(view, (y0 - MARGIN_PX, y1 + MARGIN_PX), (x0 - MARGIN_PX, x1 + MARGIN_PX))
    height, width = window.shape
    filters = filter_bank(torch.from_numpy(pixels))
    return filters[:, window.y0 - y0 :, window.x0 - x0 :][:, :height, :width].contiguous().numpy()


def read_mirrored(view: View, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[np.float32]:
    """Pixels of rows and columns a..b, which may lie outside of the view: it is mirrored at its edges for ever."""
    ys, xs = (_mirrored(*span, length) for span, length in zip((rows, columns), view.shape, strict=True))
    inside = Window(y0=int(ys.min()), x0=int(xs.min()), y1=int(ys.max()) + 1, x1=int(xs.max()) + 1)
    pixels = view.read(inside)
    return np.ascontiguousarray(pixels[np.ix_(ys - inside.y0, xs - inside.x0)], np.float32)


@torch.inference_mode()
def filter_bank(pixels: Tensor) -> Tensor:
    """Standardised pixels (H + 2·MARGIN_PX, W + 2·MARGIN_PX), H and W multiples of 8 → filters (N_FILTERS, H, W)."""
    wide = pixels[None, None]
    trim = MARGIN_PX - _FINE_MARGIN_PX
    fine = wide[..., trim:-trim, trim:-trim]
    maps: list[Tensor] = []
    for scale in SCALES_PX:
        maps += _at_scale(wide if scale >= _COARSE_FROM_PX else fine, scale, _derivatives)
    maps += _relative(wide, fine)
    maps += _extremes(_smoothed(fine, 0.7))
    height, width = (n - 2 * MARGIN_PX for n in pixels.shape)
    return torch.stack([_centre(m, height, width) for m in maps])


def _derivatives(smooth: Tensor, sigma: float) -> Tensor:
    """Intensity, gradient and both eigenvalues of the Hessian (1, 4, H, W), in units of the scale."""
    p = functional.pad(smooth, (1, 1, 1, 1), mode="replicate")
    centre = p[..., 1:-1, 1:-1]
    dx, dy = (p[..., 1:-1, 2:] - p[..., 1:-1, :-2]) / 2, (p[..., 2:, 1:-1] - p[..., :-2, 1:-1]) / 2
    dxx = p[..., 1:-1, 2:] - 2 * centre + p[..., 1:-1, :-2]
    dyy = p[..., 2:, 1:-1] - 2 * centre + p[..., :-2, 1:-1]
    dxy = (p[..., 2:, 2:] + p[..., :-2, :-2] - p[..., 2:, :-2] - p[..., :-2, 2:]) / 4
    mean, spread = (dxx + dyy) / 2, torch.sqrt(((dxx - dyy) / 2) ** 2 + dxy**2)
    return torch.cat(
        [smooth, torch.hypot(dx, dy) * sigma, (mean + spread) * sigma**2, (mean - spread) * sigma**2], dim=1
    )


def _relative(wide: Tensor, fine: Tensor) -> list[Tensor]:
    """Intensity relative to its surroundings, their contrast, and theirs relative to wider ones."""
    maps = []
    pixel = _smoothed(fine, 0.7)
    moments = {s: _moments(wide, s) for s in (*SURROUNDINGS_PX, 2 * SURROUNDINGS_PX[-1])}
    for scale in SURROUNDINGS_PX:
        (mean, contrast), (wider_mean, wider_contrast) = moments[scale], moments[2 * scale]
        height, width = pixel.shape[-2:]
        own_mean, own_contrast = _centre(mean, height, width), _centre(contrast, height, width)
        maps += [
            ((pixel - own_mean) / (own_contrast + _FLAT))[0, 0],
            torch.log(contrast + _LOG_FLOOR),
            (mean - wider_mean) / (wider_contrast + _FLAT),
        ]
    return maps


def _moments(wide: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (H, W) under a Gaussian window."""
    both = torch.cat([wide, wide * wide], dim=1)
    mean, square = _at_scale(both, sigma, lambda smooth, _sigma: smooth)
    return mean, torch.sqrt(torch.clamp(square - mean * mean, min=0))


def _extremes(smooth: Tensor) -> list[Tensor]:
    """Local maximum and minimum, the distance to them, and what closing and opening change, for several radii."""
    maps = []
    for radius in RADII_PX:
        high, low = _maximum(smooth, radius), -_maximum(-smooth, radius)
        closed, opened = -_maximum(-high, radius), _maximum(low, radius)
        maps += [m[0, 0] for m in (high, low, high - smooth, smooth - low, closed - smooth, smooth - opened)]
    return maps


def _maximum(image: Tensor, radius: int) -> Tensor:
    size = 2 * radius + 1
    rows = functional.max_pool2d(image, (size, 1), stride=1, padding=(radius, 0))
    return functional.max_pool2d(rows, (1, size), stride=1, padding=(0, radius))


def _at_scale(image: Tensor, sigma: float, operation: _Operation) -> list[Tensor]:
    """`operation` on `image` smoothed with `sigma` px; wide smoothing on pooled pixels, and interpolated back."""
    factor = 2 ** max(0, int(np.log2(sigma / _COARSE_FROM_PX)) + 1) if sigma >= _COARSE_FROM_PX else 1
    pooled = functional.avg_pool2d(image, factor) if factor > 1 else image
    maps = operation(_smoothed(pooled, sigma / factor), sigma / factor)
    if factor > 1:
        maps = functional.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)
    return list(maps[0])


def _smoothed(image: Tensor, sigma: float) -> Tensor:
    """Gaussian of each channel (1, C, H, W)."""
    radius = int(np.ceil(_TRUNCATION * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    planes = functional.pad(image.transpose(0, 1), (radius,) * 4, mode="replicate")
    rows = functional.conv2d(planes, kernel.view(1, 1, 1, -1))
    return functional.conv2d(rows, kernel.view(1, 1, -1, 1)).transpose(0, 1)


def _centre(image: Tensor, height: int, width: int) -> Tensor:
    y, x = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
    return image[..., y : y + height, x : x + width]


def _mirrored(start: int, stop: int, length: int) -> NDArray[np.intp]:
    index = np.arange(start, stop) % (2 * length)
    return np.where(index >= length, 2 * length - 1 - index, index)
