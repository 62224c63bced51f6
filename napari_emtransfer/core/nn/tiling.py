"""How a micrograph is cut into overlapping windows for a network: along one axis at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Segment:
    """One window along one axis: the network sees start..stop, of which keep_start..keep_stop is kept."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int

    @property
    def kept_length(self) -> int:
        """Number of pixels that are kept."""
        return self.keep_stop - self.keep_start

    @property
    def kept_slice(self) -> slice:
        """The kept part, counted from `start`."""
        return slice(self.keep_start - self.start, self.keep_stop - self.start)

    def shifted(self, offset: int) -> Segment:
        """The same window `offset` pixels further on."""
        return Segment(*(edge + offset for edge in (self.start, self.stop, self.keep_start, self.keep_stop)))

    def uncropped(self) -> Segment:
        """The same window, all of it kept."""
        return Segment(self.start, self.stop, self.start, self.stop)

    def halved(self, halo: int, stride: int) -> list[Segment]:
        """Two smaller windows that keep the same together; none when the kept part is a stride or less."""
        middle = aligned_down((self.keep_start + self.keep_stop) // 2, stride)
        if not self.keep_start < middle < self.keep_stop:
            return []
        return [
            Segment(max(self.start, aligned_down(a - halo, stride)), min(self.stop, aligned_up(b + halo, stride)), a, b)
            for a, b in ((self.keep_start, middle), (middle, self.keep_stop))
        ]


def aligned_down(value: int, stride: int) -> int:
    """The largest multiple of `stride` not above `value`."""
    return value // stride * stride


def aligned_up(value: int, stride: int) -> int:
    """The smallest multiple of `stride` not below `value`."""
    return -(-value // stride) * stride


def plan_axis(length: int, *, roi: int, halo: int, stride: int) -> list[Segment]:
    """Windows of equal size that cover 0..length, a multiple of `stride`; kept parts tile it without overlap.

    All windows have one size, at most `roi`, as small as the number of windows allows: one shape for the kernels,
    and no window that is mostly padding. No halo lies outside 0..length: at the border the network sees what it
    saw at the border of the training crops. `roi` and `halo` are multiples of `stride`, roi > 2·halo.
    """
    if length <= roi:
        return [Segment(0, length, 0, length)]
    n = math.ceil((length - 2 * halo) / (roi - 2 * halo))
    size = aligned_up(math.ceil((length + 2 * halo * (n - 1)) / n), stride)
    starts = [min(i * (size - 2 * halo), length - size) for i in range(n)]
    edges = [0, *(start + halo for start in starts[1:]), length]
    return [Segment(s, s + size, a, b) for s, a, b in zip(starts, edges[:-1], edges[1:], strict=True)]


def fade_weights(segments: Sequence[Segment]) -> list[NDArray[np.float32]]:
    """Weights (stop − start,) per window: Hann ramps over the overlaps, summing to one everywhere."""
    weights = [np.ones(s.stop - s.start) for s in segments]
    for left, right, a, b in zip(weights, weights[1:], segments, segments[1:], strict=False):
        overlap = a.stop - b.start
        ramp = np.sin(np.pi / 2 * (np.arange(overlap) + 0.5) / overlap) ** 2
        right[:overlap] *= ramp
        left[len(left) - overlap :] *= ramp[::-1]
    # Short windows may overlap three at a time, where two ramps do not add up to one.
    total = np.zeros(segments[-1].stop - segments[0].start)
    origin = segments[0].start
    for weight, segment in zip(weights, segments, strict=True):
        total[segment.start - origin : segment.stop - origin] += weight
    return [
        (w / total[s.start - origin : s.stop - origin]).astype(np.float32)
        for w, s in zip(weights, segments, strict=True)
    ]
