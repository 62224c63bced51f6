"""Finding the data bar that SEM software burns into the bottom (rarely the top) of an image.

A bar is a band over the whole width with a noise-free background and text that contrasts with it, divided from
the image by a straight edge. Each of these alone occurs in honest images (vacuum, pores, charging); all of them
together do not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_closing

from napari_emtransfer.core.data.tiles import Window

_MAX_FRACTION: Final = 0.25  # of the image's height
_MIN_FRACTION: Final = 0.015
_MIN_ROWS: Final = 8
_TOLERANCE: Final = 3  # of 256 grey levels: JPEG noise around letters
_GAP_ROWS: Final = 3
_TEXT_CONTRAST: Final = 80  # of 256 grey levels

Levels = NDArray[np.int16]


def find_info_bar(shape: tuple[int, int], read_rows: Callable[[slice], NDArray[np.float32]]) -> Window | None:
    """The window of the info bar, or None.

    Parameters
    ----------
    shape
        (H, W) of the image in pixels.
    read_rows
        Gives the pixels of a slice of rows, float32 (h, W).
    """
    height, width = shape
    if height < 64 or width < 64:
        return None
    n_strip = int(height * (_MAX_FRACTION + 0.05))
    n = _bar_height(read_rows(slice(height - n_strip, height)), height)
    if n:
        return Window(y0=height - n, x0=0, y1=height, x1=width)
    n = _bar_height(read_rows(slice(0, n_strip))[::-1], height)
    return Window(y0=0, x0=0, y1=n, x1=width) if n else None


def _bar_height(strip: NDArray[np.float32], image_height: int) -> int:
    """Number of rows of a bar at the end of `strip` (h, W); 0 without one."""
    levels = _to_levels(strip)
    if levels is None:
        return 0
    lowest = max(_MIN_ROWS, round(_MIN_FRACTION * image_height))
    background = int(np.bincount(levels[-lowest:].ravel()).argmax())
    is_background = np.abs(levels - background) <= _TOLERANCE
    rows = is_background.mean(axis=1)
    for top in _candidate_tops(levels, rows, background):
        n = len(levels) - top
        if lowest <= n <= _MAX_FRACTION * image_height and _is_bar(levels[top:], is_background[top:], background):
            return n
    return 0


def _to_levels(strip: NDArray[np.float32]) -> Levels | None:
    finite = np.where(np.isfinite(strip), strip, 0)
    low, high = np.percentile(finite, (0.1, 99.9))
    if low == high:
        return None
    return np.clip((finite - low) / (high - low) * 255, 0, 255).round().astype(np.int16)


def _candidate_tops(levels: Levels, rows: NDArray[np.float64], background: int) -> list[int]:
    """Rows where a bar may begin: where rows of background end sharply, or at a ruled line over the whole width."""
    ruled = (np.ptp(levels, axis=1) <= _TOLERANCE) & (np.abs(levels[:, 0] - background) >= _TEXT_CONTRAST)
    even = (np.abs(levels - np.median(levels, axis=1, keepdims=True)) <= _TOLERANCE).mean(axis=1) >= 0.95
    in_bar = (rows >= 0.35) | even
    # A rule over the whole width, or a last row of something else, breaks a bar for a few rows only.
    closed = binary_closing(np.pad(in_bar, _GAP_ROWS, constant_values=True), np.ones(_GAP_ROWS + 1))
    outside = np.flatnonzero(~closed[_GAP_ROWS:-_GAP_ROWS])
    tops = [int(outside[-1]) + 1] if outside.size else []
    above = rows[max(0, tops[0] - 4) : tops[0]] if tops else np.empty(0)
    # A straight edge: the row above holds hardly any background, where a grain or a pore would taper off.
    sharp = [top for top in tops if above.size and above.max() < 0.3]
    return sharp + [int(row) for row in np.flatnonzero(ruled)]


def _is_bar(levels: Levels, is_background: NDArray[np.bool_], background: int) -> bool:
    text = np.abs(levels - background) >= _TEXT_CONTRAST
    inner = slice(2, -2)  # without the ruled lines above and below
    noise_free = (np.abs(levels - background) <= 1)[is_background].mean() >= 0.9
    full = np.median(is_background[inner].mean(axis=1)) >= 0.5
    written = 0.005 <= text[inner].mean() <= 0.45
    # Letters change between background and text many times along a row, a single bright object does not.
    changes = np.count_nonzero(np.diff(text[inner], axis=1), axis=1)
    return bool(noise_free and full and written and np.count_nonzero(changes >= 8) >= 5)
