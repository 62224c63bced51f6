"""Many bodies of one kind painted at once: level functions on a plane's grid, the number of the body at each node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from napari_emtransfer.core.synth.micrograph import Field
from napari_emtransfer.core.synth.plane import Field32, Plane

# Level beyond the reach of any body.
OUTSIDE: Final = -1e3
_BEYOND_PX: Final = 2.0
_CHUNK: Final = 400_000
_HARMONICS: Final = (2, 3, 4, 5)

Numbers = NDArray[np.intp]
Level = Callable[[Numbers, Field32, Field32], Field32]


@dataclass(frozen=True)
class Bodies:
    """Bodies at places, each inside its reach.

    Parameters
    ----------
    centres
        (n, 2), yx in px.
    reach
        (n,) radius of a circle around each.
    level
        (numbers (m,), dy (m, k, k), dx (m, k, k)) → level (m, k, k): positive inside, near the edge the distance in px.
    """

    centres: Field
    reach: NDArray[np.floating]
    level: Level

    def only(self, keep: NDArray[np.bool_]) -> Bodies:
        """Some of them."""
        numbers = np.flatnonzero(keep)
        return Bodies(self.centres[keep], self.reach[keep], lambda i, y, x: self.level(numbers[i], y, x))


def painted(plane: Plane, bodies: Bodies) -> tuple[Field32, NDArray[np.int32]]:
    """Largest level at each node of the grid, and the number (from 1) of the body that it belongs to."""
    height, width = plane.shape
    level = np.full(height * width, OUTSIDE, np.float32)
    ids = np.zeros(height * width, np.int32)
    size = np.ceil(bodies.reach + _BEYOND_PX).astype(int)
    order = np.argsort(size)
    while len(order):
        k = 2 * int(size[order[0]] * 1.3 + 1) + 1
        fit = max(1, min(_CHUNK // k**2, int(np.searchsorted(size[order], k // 2, side="right"))))
        numbers, order = order[:fit], order[fit:]
        origin = np.floor(bodies.centres[numbers]).astype(int) - k // 2
        rows = origin[:, :1] + np.arange(k) - plane.top
        columns = origin[:, 1:] + np.arange(k) - plane.left
        dy = (rows + plane.top - bodies.centres[numbers, :1]).astype(np.float32)
        dx = (columns + plane.left - bodies.centres[numbers, 1:]).astype(np.float32)
        values = bodies.level(numbers, dy[:, :, None], dx[:, None, :])
        seen = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
        at = (rows[:, :, None] * width + columns[:, None, :])[seen]
        values = np.broadcast_to(values, seen.shape)[seen]
        np.maximum.at(level, at, values)
        owner = np.broadcast_to(numbers[:, None, None], seen.shape)[seen]
        won = values >= level[at]
        ids[at[won]] = owner[won] + 1
    return level.reshape(plane.shape), ids.reshape(plane.shape)


def blobs(
    centres: Field,
    radii: NDArray[np.floating],
    roughness: float,
    elongation: NDArray[np.floating],
    rng: Generator,
    *,
    angles: NDArray[np.floating] | None = None,
) -> Bodies:
    """Ellipses with wavy outlines: r(θ) = R (1 + Σ a_k cos(kθ + φ_k)), stretched at constant area.

    Parameters
    ----------
    elongation
        (n,) length over width.
    """
    n = len(radii)
    turn = rng.uniform(0, np.pi, n) if angles is None else angles
    waves = rng.normal(0, roughness, (len(_HARMONICS), n)) * 2 / np.asarray(_HARMONICS, float)[:, None]
    phases = rng.uniform(0, 2 * np.pi, waves.shape)
    long = np.sqrt(elongation)

    def level(i: Numbers, dy: Field32, dx: Field32) -> Field32:
        cosine, sine, stretch, radius = (_column(v[i]) for v in (np.cos(turn), np.sin(turn), long, radii))
        along, across = (dx * cosine + dy * sine) / stretch, (dy * cosine - dx * sine) * stretch
        square = along**2 + across**2 + np.float32(1e-6)
        # The gradient of the stretched radius turns a difference of radii into a distance.
        slope = np.sqrt(((along / stretch) ** 2 + (across * stretch) ** 2) / square)
        outline = radius
        if roughness:
            theta = np.arctan2(across, along)
            for k, wave, phase in zip(_HARMONICS, waves, phases, strict=True):
                outline = outline + radius * _column(wave[i]) * np.cos(k * theta + _column(phase[i]))
        return np.asarray((outline - np.sqrt(square)) / slope, np.float32)

    return Bodies(centres, radii * long * (1 + 2.5 * roughness), level)


def capsules(
    centres: Field,
    half_length: NDArray[np.floating],
    half_width: NDArray[np.floating],
    angles: NDArray[np.floating],
    rng: Generator,
    *,
    taper: float = 0.6,
    bow: float = 0.03,
) -> Bodies:
    """Needles, rods and plates seen edge on, thinner by `taper` towards their ends and bowed a little."""
    bows = rng.normal(0, bow, len(half_length)) * half_length

    def level(i: Numbers, dy: Field32, dx: Field32) -> Field32:
        cosine, sine, half, thick, bent = (
            _column(v[i]) for v in (np.cos(angles), np.sin(angles), half_length, half_width, bows)
        )
        along = dx * cosine + dy * sine
        share = np.minimum(np.abs(along) / half, 1.2)
        across = dy * cosine - dx * sine + bent * share**2
        local = thick * (1 - np.float32(taper) * share**4)
        beyond = np.maximum(np.abs(along) - (half - thick), 0)
        return np.asarray(local - np.sqrt(across**2 + beyond**2), np.float32)

    return Bodies(centres, half_length + half_width + 2 * np.abs(bows), level)


def _column(values: NDArray[np.floating]) -> Field32:
    return values.astype(np.float32)[:, None, None]
