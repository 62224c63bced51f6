"""Where somebody who knows the truth would scribble: short strokes well inside the regions of one class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

Point = tuple[float, float]
Stroke = tuple[Point, Point]

_DIRECTIONS: Final = np.linspace(0, np.pi, 8, endpoint=False)
# A stroke is worth drawing where so much of what it covers is not painted yet.
_WORTH: Final = 0.4


class BrushStroke(NamedTuple):
    """A stroke with the label value and the diameter of the brush that it is painted with."""

    value: int
    brush_px: int
    stroke: Stroke


def plan_strokes(
    truth: NDArray[np.uint8], value: int, *, n: int, brush_px: float, max_length_px: float = 60
) -> list[Stroke]:
    """Straight strokes that stay inside regions of one class, the roomiest region first.

    Parameters
    ----------
    truth
        Label values (H, W).
    value
        The class to paint.
    n
        Wanted number of strokes; fewer come back where the class is small.
    brush_px
        Diameter of the brush: a stroke keeps that far from the boundary.

    Returns
    -------
    Strokes as ((y, x), (y, x)) in pixels.
    """
    inside = np.pad(truth == value, 1)  # the edge of the tile counts as a boundary
    room = distance_transform_edt(inside)[1:-1, 1:-1]
    radius = brush_px / 2 + 1
    strokes: list[Stroke] = []
    while len(strokes) < n and room.max() > radius:
        start = np.unravel_index(int(room.argmax()), room.shape)
        stroke = _longest(room > radius, (float(start[0]), float(start[1])), max_length_px)
        strokes.append(stroke)
        _forget_around(room, stroke, max_length_px / 2)
    return strokes


def plan_hatching(
    truth: NDArray[np.uint8], value: int, *, share: float, brushes_px: Sequence[int]
) -> list[BrushStroke]:
    """Horizontal strokes side by side until `share` of a class is painted, coarse brushes first, nothing beyond it.

    Parameters
    ----------
    truth
        Label values (H, W).
    value
        The class to paint.
    share
        0..1. Where the finest brush does not fit into the rest of the class, less is painted.
    brushes_px
        Diameters of the brushes, coarse to fine.
    """
    inside = truth == value
    room = distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    left, found = inside.copy(), list[BrushStroke]()
    for brush_px in brushes_px:
        for y, x0, x1 in _runs(room > brush_px / 2 + 0.5, brush_px):
            if left.sum() <= (1 - share) * inside.sum():
                return found
            reach = brush_px // 2
            covered = left[max(y - reach, 0) : y + reach + 1, max(x0 - reach, 0) : x1 + reach + 1]
            if covered.mean() >= _WORTH:
                covered[:] = False
                found.append(BrushStroke(value, brush_px, ((y, x0), (y, x1))))
    return found


def _runs(free: NDArray[np.bool_], spacing_px: int) -> list[tuple[int, int, int]]:
    """(y, first x, last x) of unbroken lines over free pixels on every `spacing_px`-th row, the longest first."""
    rows = range(spacing_px // 2, len(free), spacing_px)
    runs = []
    for y in rows:
        edges = np.flatnonzero(np.diff(np.pad(free[y], 1).astype(np.int8)))
        runs += [(y, int(start), int(stop) - 1) for start, stop in edges.reshape(-1, 2)]
    return sorted(runs, key=lambda run: run[1] - run[2])


def _longest(free: NDArray[np.bool_], middle: Point, max_length_px: float) -> Stroke:
    """The longest straight line through `middle` over free pixels."""
    lines = [_line(free, middle, angle, max_length_px / 2) for angle in _DIRECTIONS]
    return max(lines, key=lambda line: np.hypot(line[1][0] - line[0][0], line[1][1] - line[0][1]))


def _line(free: NDArray[np.bool_], middle: Point, angle: float, reach_px: float) -> Stroke:
    dy, dx = np.sin(angle), np.cos(angle)
    back, forth = (_reach(free, middle, (sign * dy, sign * dx), reach_px) for sign in (-1, 1))
    return (middle[0] - back * dy, middle[1] - back * dx), (middle[0] + forth * dy, middle[1] + forth * dx)


def _reach(free: NDArray[np.bool_], start: Point, step: Point, reach_px: float) -> float:
    length = 0.0
    while length < reach_px:
        y, x = (round(s + (length + 1) * d) for s, d in zip(start, step, strict=True))
        if not (0 <= y < free.shape[0] and 0 <= x < free.shape[1] and free[y, x]):
            break
        length += 1
    return length


def _forget_around(room: NDArray[np.float64], stroke: Stroke, distance_px: float) -> None:
    """The next stroke goes elsewhere."""
    rows, columns = np.indices(room.shape)
    for fraction in (0.0, 0.5, 1.0):
        y, x = (a + fraction * (b - a) for a, b in zip(*stroke, strict=True))
        room[np.hypot(rows - y, columns - x) < distance_px] = 0
