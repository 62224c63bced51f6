"""How much the mean IoU gains by labelling, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from scipy.special import stdtrit

TEN_MINUTES: Final = 600.0


class Slope(NamedTuple):
    """Gain of mean IoU per ten minutes of labelling, with the ends of its 95 % interval; over how many minutes."""

    gain: float
    low: float
    high: float
    minutes: float


def slope(seconds: Sequence[float], mean_iou: Sequence[float]) -> Slope:
    """Regression of mean IoU over labelling time, n >= 3 rounds, whose errors follow a random walk.

    Rounds share nearly all control tiles and labels, so neighbours err alike, and a straight line through the levels
    would be far too sure. The steps between rounds are independent: the estimate is their total over the time, its
    error from how unequal they are (generalised least squares of a random walk with drift; Harvey 1989, section 2.3).
    Where errors are independent after all, the interval is wider than need be.
    """
    times, steps = np.diff(np.asarray(seconds, np.float64)), np.diff(np.asarray(mean_iou, np.float64))
    duration, n = times.sum(), len(steps)
    rate = steps.sum() / duration
    variance = ((steps - rate * times) ** 2 / times).sum() / (n - 1)
    half = stdtrit(n - 1, 0.975) * math.sqrt(variance / duration)
    gain, width = rate * TEN_MINUTES, half * TEN_MINUTES
    return Slope(float(gain), float(gain - width), float(gain + width), float(duration / 60))
