"""Bainite and martensite: packets of laths, with carbides or retained films between or inside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import ndtri

from napari_emtransfer.core.synth.generator import Amplitude, Grey, Length, Share, StructureGenerator, log_uniform
from napari_emtransfer.core.synth.grains import polycrystal_seeds
from napari_emtransfer.core.synth.micrograph import Field as Plane2D
from napari_emtransfer.core.synth.micrograph import Structure
from napari_emtransfer.core.synth.plane import Field32, Plane
from napari_emtransfer.core.synth.surface import Finish, groove
from napari_emtransfer.core.synth.tessellation import Cells, bent_cells

_TABLE = 4099
# A table of keys may be as large as so many images.
_KEYS_PER_PIXEL = 16
_NEIGHBOURS = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]


@dataclass(frozen=True)
class _Laths:
    """Laths seen by every pixel (H, W): key of its lath, true distance to its edge, coordinates in its packet."""

    key: NDArray[np.int64]
    boundary: Field32
    along: Field32
    across: Field32


class Bainite(StructureGenerator):
    """Packets of ferrite laths; carbides as films between them (upper) or as rods inside them (lower bainite).

    Instances are laths.

    Parameters
    ----------
    packet_px
        Mean diameter of a packet of parallel laths.
    lath_px, aspect
        Mean width of a lath and its length over width.
    carbides
        "between" the laths or "inside" them, at 60° to their length.
    carbide_share
        How much of the places for carbides they take.
    carbide_px
        Width of a film or rod.
    """

    classes: ClassVar[tuple[str, ...]] = ("ferrite lath", "carbide")
    omits: ClassVar[tuple[str, ...]] = (
        "directions of packets are independent: no crystallographic variants of one parent grain",
        "laths do not taper to a midrib, and do not nucleate on boundaries",
        "no retained austenite or martensite islands",
    )
    packet_px: Length = 110.0
    lath_px: float = Field(default=9.0, ge=3, le=60)
    aspect: float = Field(default=7.0, ge=2, le=25)
    carbides: Literal["between", "inside"] = "between"
    carbide_share: Share = 0.4
    carbide_px: float = Field(default=2.6, ge=1, le=12)
    lath: Grey = 0.42
    carbide: Grey = 0.75
    channelling: Amplitude = 0.06
    groove: Amplitude = 0.12
    finish: Finish = Finish()

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """Laths from 4 px to 22 px wide, in packets of about ten."""
        lath = log_uniform(rng, 4.5, 22)
        return cls(
            packet_px=float(np.clip(lath * rng.uniform(6, 16), 50, 200)),
            lath_px=lath,
            aspect=float(rng.uniform(4, 14)),
            carbides="between" if rng.uniform() < 0.6 else "inside",
            carbide_share=float(rng.uniform(0.15, 0.65)),
            carbide_px=float(np.clip(lath * rng.uniform(0.18, 0.42), 2.2, 8)),
            lath=float(rng.uniform(0.3, 0.5)),
            carbide=float(rng.uniform(0.62, 0.88)),
            channelling=float(rng.uniform(0.02, 0.12)),
            groove=float(rng.uniform(0.0, 0.28)),
            finish=Finish.draw(rng),
        )

    def __call__(self, y: Plane2D, x: Plane2D, rng: Generator) -> Structure:
        """Structure at the coordinates (H, W)."""
        plane = Plane(y, x)
        points, weights = polycrystal_seeds(plane, self.packet_px, 0.5, 1, rng)
        bend = plane.bend(0.05 * self.packet_px, 0.4 * self.packet_px, rng)
        packets = bent_cells(bend, points, weights)
        laths = self._laths(plane, packets, rng)
        depth = self._carbides(plane, laths, rng)
        boundary = np.minimum(laths.boundary, packets.boundary)
        tones = rng.normal(0, self.channelling, _TABLE)
        packet_tone = rng.normal(0, 0.7 * self.channelling, packets.n)
        grey = self.lath + tones[laths.key % _TABLE] + packet_tone[packets.ids] + 0.02 * plane.texture(2.0, rng)
        grey = grey - self.groove * groove(boundary, 1.4) * (1 + 0.3 * plane.texture(8.0, rng))
        grey = grey + (self.carbide - grey) * np.clip(depth / 1.4 + 0.5, 0, 1) * (1 + 0.1 * plane.texture(2.5, rng))
        return self._structure(
            grey + self.finish.layer(plane, rng), np.where(depth > 0, 2, 1), boundary, _counted(laths.key)
        )

    def _laths(self, plane: Plane, packets: Cells, rng: Generator) -> _Laths:
        """Voronoi cells of a jittered lattice in each packet's own coordinates, long along its direction."""
        angle = rng.uniform(0, np.pi, packets.n)
        cosine, sine = np.cos(angle)[packets.ids], np.sin(angle)[packets.ids]
        sway = plane.bend(0.25 * self.lath_px, 2.5 * self.lath_px, rng)
        along, across = sway.x * cosine + sway.y * sine, sway.y * cosine - sway.x * sine
        length = self.lath_px * self.aspect
        key, boundary = jittered_cells(along / length, across / self.lath_px, packets.ids, (length, self.lath_px), rng)
        stretch = sway.straightened(cosine, -sine)[0]
        return _Laths(key, np.asarray(boundary / stretch, np.float32), _single(along), _single(across))

    def _carbides(self, plane: Plane, laths: _Laths, rng: Generator) -> Field32:
        """Signed depth (H, W) inside carbides in px."""
        places = plane.texture(2.2 * self.carbide_px, rng)
        # Either a carbide of about its full width or none: a thinner one would be seen, but not labelled.
        level = ndtri(1 - np.clip(self.carbide_share, 1e-3, 0.999))
        half_width = self.carbide_px / 2 * np.clip(5 * (places - level), -3, 1)
        if self.carbides == "between":
            return _single(half_width - laths.boundary)
        pitch = 4.0 * self.carbide_px
        rows = (laths.along * np.sin(np.pi / 3) + laths.across * np.cos(np.pi / 3)) / pitch + 0.1 * places
        return _single(np.minimum(half_width - np.abs(rows - np.rint(rows)) * pitch, laths.boundary - 1.0))


def jittered_cells(
    u: NDArray[np.floating],
    v: NDArray[np.floating],
    group: NDArray[np.intp],
    scale_px: tuple[float, float],
    rng: Generator,
) -> tuple[NDArray[np.int64], Field32]:
    """Voronoi cells of one seed per unit square of (u, v), jittered; another set for each group.

    Parameters
    ----------
    u, v
        (H, W) coordinates in units of `scale_px`.
    group
        (H, W) number of the set of seeds.

    Returns
    -------
    (H, W) key of the cell, unique over groups, and the true distance to its boundary in px.
    """
    table = rng.uniform(0.08, 0.92, (2, _TABLE)).astype(np.float32)
    row, column = np.floor(v).astype(np.int64), np.floor(u).astype(np.int64)
    inner_u, inner_v = _single(u - column), _single(v - row)
    row, column = row - row.min() + 1, column - column.min() + 1
    span = (int(row.max()) + 2, int(column.max()) + 2)
    key = (group.astype(np.int64) * span[0] + row) * span[1] + column
    seeds = []
    for i, j in _NEIGHBOURS:
        number = key + i * span[1] + j
        at = (number * 2654435761 >> 7) % _TABLE
        seeds.append((number, table[0][at] + np.float32(j), table[1][at] + np.float32(i)))
    return _nearest_seed(seeds, inner_u, inner_v, scale_px)


def _nearest_seed(
    seeds: list[tuple[NDArray[np.int64], Field32, Field32]], u: Field32, v: Field32, scale_px: tuple[float, float]
) -> tuple[NDArray[np.int64], Field32]:
    squares = [(u - seed_u) ** 2 + (v - seed_v) ** 2 for _, seed_u, seed_v in seeds]
    least = np.minimum.reduce(squares)
    key, own_u, own_v = np.zeros(u.shape, np.int64), np.zeros_like(u), np.zeros_like(v)
    for (number, seed_u, seed_v), square in zip(seeds, squares, strict=True):
        own = square == least
        np.copyto(key, number, where=own)
        np.copyto(own_u, seed_u, where=own)
        np.copyto(own_v, seed_v, where=own)
    boundary = np.full(u.shape, np.inf, np.float32)
    for (_, seed_u, seed_v), square in zip(seeds, squares, strict=True):
        slope = np.sqrt(((seed_u - own_u) / scale_px[0]) ** 2 + ((seed_v - own_v) / scale_px[1]) ** 2)
        with np.errstate(divide="ignore", invalid="ignore"):  # the own seed: 0 / 0, which is no distance
            boundary = np.fmin(boundary, (square - least) / (2 * slope))
    return key, boundary


def _counted(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Keys (H, W) renumbered from 1 in their order, without the ones that do not occur."""
    keys = keys - keys.min()
    if keys.max() > _KEYS_PER_PIXEL * keys.size:  # a table of them would fill the memory
        return np.unique(keys, return_inverse=True)[1].reshape(keys.shape) + 1
    occurs = np.zeros(int(keys.max()) + 1, np.int64)
    occurs[keys] = 1
    return np.cumsum(occurs)[keys]


def _single(values: NDArray[np.floating]) -> Field32:
    return np.asarray(values, np.float32)
