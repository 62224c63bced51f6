"""Precipitates in a matrix: spheroidal, cuboidal as γ′ in superalloys, and needles."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field
from scipy.ndimage import label

from napari_emtransfer.core.synth.bodies import Bodies, blobs, capsules, painted
from napari_emtransfer.core.synth.generator import Fraction, Length, Share, StructureGenerator, log_uniform
from napari_emtransfer.core.synth.levelset import Region, region, signed_distance
from napari_emtransfer.core.synth.looks import EdgeLook, PhaseLook, soft_step
from napari_emtransfer.core.synth.micrograph import Field as Plane2D
from napari_emtransfer.core.synth.micrograph import Structure
from napari_emtransfer.core.synth.placing import place
from napari_emtransfer.core.synth.plane import Field32, Plane, smoothed
from napari_emtransfer.core.synth.surface import Finish
from napari_emtransfer.core.synth.tessellation import tessellate


def draw_looks(rng: Generator) -> tuple[PhaseLook, PhaseLook, EdgeLook]:
    """Looks of a matrix, of bodies in it and of their edges; now and then of nearly equal grey, told by the edge."""
    matrix, edge = rng.uniform(0.2, 0.75), EdgeLook.draw(rng)
    apart = rng.uniform(0.12, 0.4)
    if abs(edge.rim) > 0.12 and rng.uniform() < 0.4:
        apart = rng.uniform(0.02, 0.1)
    sign = 1 if matrix + apart < 0.9 and (matrix - apart < 0.1 or rng.uniform() < 0.5) else -1
    return PhaseLook.draw(rng, matrix, ground=True), PhaseLook.draw(rng, matrix + sign * apart), edge


def two_looks(
    plane: Plane, bodies: Region, matrix: PhaseLook, body: PhaseLook, edge: EdgeLook, rng: Generator
) -> Field32:
    """Grey values (H, W) of bodies in a matrix."""
    ground = matrix.paint(plane, np.zeros_like(bodies.ids), 0, rng)
    inner = body.paint(plane, bodies.ids, int(bodies.ids.max()), rng)
    share = soft_step(bodies.depth)
    return np.add(ground + (inner - ground) * share, edge.paint(plane, bodies, rng), dtype=np.float32)


class Spheroidal(StructureGenerator):
    """Rounded precipitates or inclusions of many sizes, none touching: carbides, dispersoids, nodules, overaged γ′.

    Parameters
    ----------
    diameter_px, size_spread
        Median diameter and standard deviation of its logarithm.
    fraction
        Wanted area fraction; 0.5 is about what finds room.
    roughness
        How far outlines depart from circles, relative to the radius.
    elongation
        Largest ratio of length to width.
    clustering
        0: anywhere; 1: only in some places.
    """

    classes: ClassVar[tuple[str, ...]] = ("matrix", "precipitate")
    omits: ClassVar[tuple[str, ...]] = (
        "no grain boundaries in the matrix, and no preference of precipitates for them",
        "no precipitates below the surface shining through",
        "no impinging or coalescing precipitates",
    )
    diameter_px: Length = 22.0
    size_spread: float = Field(default=0.4, ge=0, le=1)
    fraction: Fraction = 0.2
    roughness: float = Field(default=0.06, ge=0, le=0.3)
    elongation: float = Field(default=1.4, ge=1, le=4)
    clustering: Share = 0.3
    matrix: PhaseLook = PhaseLook(level=0.6)
    precipitate: PhaseLook = PhaseLook(level=0.35, spread=0.04)
    edge: EdgeLook = EdgeLook()
    finish: Finish = Finish()

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """Diameters from 4 px to a fifth of the image."""
        matrix, precipitate, edge = draw_looks(rng)
        size = log_uniform(rng, 5, 90)
        return cls(
            diameter_px=size,
            size_spread=float(rng.uniform(0.15, 0.7)),
            fraction=max(float(rng.uniform(0.03, 0.4)), 10 * size**2 / 512**2),
            roughness=float(rng.uniform(0.0, 0.13)),
            elongation=float(rng.uniform(1.05, 2.2)),
            clustering=float(rng.uniform(0, 1)),
            matrix=matrix,
            precipitate=precipitate,
            edge=edge,
            finish=Finish.draw(rng),
        )

    def __call__(self, y: Plane2D, x: Plane2D, rng: Generator) -> Structure:
        """Structure at the coordinates (H, W)."""
        plane = Plane(y, x)
        sizes = drawn_radii(plane, self.diameter_px / 2, self.size_spread, self.fraction, rng)
        long = rng.uniform(1, self.elongation, len(sizes))
        where = thicket(plane, 2.5 * self.diameter_px, self.clustering, rng)
        room = sizes * np.sqrt(long) * (1 + self.roughness)
        centres, kept = place(plane, room, 2.0, self.diameter_px, rng, where=where)
        outlines = blobs(centres, sizes[kept], self.roughness, long[kept], rng)
        bodies = region(plane, *painted(plane, outlines))
        grey = two_looks(plane, bodies, self.matrix, self.precipitate, self.edge, rng) + self.finish.layer(plane, rng)
        return self._structure(grey, np.where(bodies.inside, 2, 1), bodies.boundary, bodies.ids)


class Cuboidal(StructureGenerator):
    """Rounded cuboids of γ′ in channels of γ, some merged, some missing; fine γ′ where there is room.

    Parameters
    ----------
    size_px
        Mean distance of the coarse precipitates.
    channel_px
        Width of the channels between them.
    fraction
        Wanted area fraction of the coarse precipitates; places are left empty to reach it.
    merged
        Share of channels that closed.
    disorder
        Departure from a square lattice, relative to `size_px`.
    rounding
        Radius of the corners, relative to `size_px`.
    fine_px
        Diameter of the fine precipitates that fill wide channels; 0: none.
    """

    classes: ClassVar[tuple[str, ...]] = ("matrix", "coarse precipitate", "fine precipitate")
    omits: ClassVar[tuple[str, ...]] = (
        "one crystal only: the cuboids of a whole image lie along two directions",
        "no rafting under load, no topologically close-packed phases, no carbides",
    )
    size_px: Length = 46.0
    channel_px: Length = 7.0
    fraction: Fraction = 0.45
    merged: Share = 0.25
    disorder: float = Field(default=0.18, ge=0, le=0.6)
    rounding: float = Field(default=0.09, ge=0.02, le=0.3)
    fine_px: float = Field(default=5.0, ge=0, le=30)
    matrix: PhaseLook = PhaseLook(level=0.62, texture="fine")
    precipitate: PhaseLook = PhaseLook(level=0.36, texture="mottled")
    edge: EdgeLook = EdgeLook(rim=0.2, rim_px=3.0, rim_side=-0.8)
    finish: Finish = Finish()

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """Cuboids from 10 px to 130 px."""
        matrix, precipitate, edge = draw_looks(rng)
        size = log_uniform(rng, 12, 130)
        return cls(
            size_px=size,
            channel_px=float(np.clip(size * rng.uniform(0.07, 0.25), 2.5, 25)),
            fraction=float(rng.uniform(0.25, 0.68)),
            merged=float(rng.uniform(0, 0.5)),
            disorder=float(rng.uniform(0.05, 0.4)),
            rounding=float(rng.uniform(0.06, 0.18)),
            fine_px=float(np.clip(size * rng.uniform(0.06, 0.16), 3, 14)) if rng.uniform() < 0.6 and size > 30 else 0.0,
            matrix=matrix,
            precipitate=precipitate,
            edge=edge,
            finish=Finish.draw(rng),
        )

    def __call__(self, y: Plane2D, x: Plane2D, rng: Generator) -> Structure:
        """Structure at the coordinates (H, W)."""
        plane = Plane(y, x)
        coarse = signed_distance(self._level(plane, rng))
        ids = np.asarray(label(coarse > 0)[0], np.int32)
        n_coarse = int(ids.max())
        if self.fine_px:
            level, fine_ids = painted(plane, self._fine(plane, coarse, rng))
            ids, coarse = np.where(level > coarse, fine_ids + n_coarse, ids), np.maximum(level, coarse)
        both = region(plane, coarse, ids)
        grey = two_looks(plane, both, self.matrix, self.precipitate, self.edge, rng) + self.finish.layer(plane, rng)
        phases = np.where(both.inside, np.where(both.ids > n_coarse, 3, 2), 1)
        return self._structure(grey, phases, both.boundary, both.ids)

    def _level(self, plane: Plane, rng: Generator) -> Field32:
        """Level function on the grid: cells shrunk by half a channel, then rounded, at the quantile that is wanted."""
        rows, columns = np.broadcast_arrays(*plane.grid())
        angle = rng.uniform(0, np.pi / 2)
        points = lattice(plane, self.size_px, angle, self.disorder, rng)
        weights = rng.uniform(0, (0.35 * self.size_px) ** 2, len(points))
        sway = 0.05 * self.size_px * np.stack([plane.noise(0.3 * self.size_px, rng) for _ in range(2)])
        cells = tessellate(rows + sway[0], columns + sway[1], points, weights)
        closed = rng.uniform(size=1021)[(cells.ids * cells.other + cells.ids + cells.other) % 1021] < self.merged
        body = (cells.boundary > self.channel_px / 2) | closed
        order = rng.permutation(len(points))[cells.ids] / len(points)
        there = np.quantile(order[body], min(1.0, self.fraction / max(float(body.mean()), 1e-6)))
        filled = (body & (order <= there)).astype(np.float32)
        lobes = 0.06 * plane.noise(0.12 * self.size_px, rng)
        return smoothed(filled, max(self.rounding * self.size_px, 1.0)) + lobes - np.float32(0.5)

    def _fine(self, plane: Plane, coarse: Field32, rng: Generator) -> Bodies:
        """Fine precipitates in places of the matrix, clear of the coarse ones."""
        sizes = drawn_radii(plane, self.fine_px / 2, 0.3, 0.2, rng)
        free = (coarse < -0.9 * self.fine_px - 1.5) * thicket(plane, self.size_px, 0.9, rng)
        centres, kept = place(plane, sizes, 2.5, 0.0, rng, where=free)
        return blobs(centres, sizes[kept], 0.05, rng.uniform(1, 1.3, len(kept)), rng)


class Needles(StructureGenerator):
    """Needles or plates seen edge on, along a few directions: θ′, Widmannstätten plates, δ, intermetallics.

    Parameters
    ----------
    length_px, width_px
        Median length and width; `size_spread` is the standard deviation of the logarithm of the length.
    fraction
        Wanted area fraction.
    variants
        How many directions there are; 0: any.
    """

    classes: ClassVar[tuple[str, ...]] = ("matrix", "needle")
    omits: ClassVar[tuple[str, ...]] = (
        "no plates seen face on or tilted",
        "crossing needles are one instance",
        "no strain contrast around coherent needles",
    )
    length_px: Length = 50.0
    width_px: Length = 4.5
    size_spread: float = Field(default=0.45, ge=0, le=1)
    fraction: float = Field(default=0.1, ge=0.005, le=0.4)
    variants: int = Field(default=3, ge=0, le=12)
    matrix: PhaseLook = PhaseLook(level=0.5)
    precipitate: PhaseLook = PhaseLook(level=0.7, spread=0.05)
    edge: EdgeLook = EdgeLook(rim=0.03)
    finish: Finish = Finish()

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """Needles from 15 px to a third of the image long, 3 px to 14 px wide."""
        matrix, precipitate, edge = draw_looks(rng)
        width = log_uniform(rng, 3, 14)
        return cls(
            width_px=width,
            length_px=float(np.clip(width * log_uniform(rng, 4, 22), 15, 170)),
            size_spread=float(rng.uniform(0.2, 0.7)),
            fraction=float(rng.uniform(0.02, 0.2)),
            variants=int(rng.choice([0, 2, 2, 3, 3, 4])),
            matrix=matrix,
            precipitate=precipitate,
            edge=edge,
            finish=Finish.draw(rng),
        )

    def __call__(self, y: Plane2D, x: Plane2D, rng: Generator) -> Structure:
        """Structure at the coordinates (H, W)."""
        plane = Plane(y, x)
        margin = self.length_px / 2
        area = (plane.shape[0] + 2 * margin) * (plane.shape[1] + 2 * margin)
        mean_area = self.length_px * np.exp(self.size_spread**2 / 2) * self.width_px * 0.95
        n = max(1, round(-np.log(1 - self.fraction) * area / mean_area))
        half = self.length_px / 2 * rng.lognormal(0, self.size_spread, n)
        thick = self.width_px / 2 * rng.lognormal(0, 0.25, n)
        bodies = capsules(plane.scatter(n, margin, rng), half, thick, self._angles(n, rng), rng)
        needles = region(plane, painted(plane, bodies)[0])
        grey = two_looks(plane, needles, self.matrix, self.precipitate, self.edge, rng) + self.finish.layer(plane, rng)
        return self._structure(grey, np.where(needles.inside, 2, 1), needles.boundary, needles.ids)

    def _angles(self, n: int, rng: Generator) -> NDArray[np.float64]:
        if not self.variants:
            return rng.uniform(0, np.pi, n)
        family = rng.integers(self.variants, size=n) * np.pi / self.variants
        return rng.uniform(0, np.pi) + family + rng.normal(0, 0.03, n)


def drawn_radii(plane: Plane, median_px: float, spread: float, fraction: float, rng: Generator) -> NDArray[np.float64]:
    """Log-normal radii of as many discs as cover a fraction of the plane and its margin."""
    mean_square = median_px**2 * np.exp(2 * spread**2)
    area = (plane.shape[0] + 4 * median_px) * (plane.shape[1] + 4 * median_px)
    n = max(1, round(fraction * area / (np.pi * mean_square)))
    largest = max(min(plane.shape) / 5, median_px)
    return np.clip(median_px * rng.lognormal(0, spread, n), max(1.6, median_px / 4), largest)


def thicket(plane: Plane, scale_px: float, clustering: float, rng: Generator) -> NDArray[np.floating]:
    """Chance 0..1 on the plane's grid that a body may lie there: 1 everywhere without clustering."""
    field = plane.noise(scale_px, rng)
    dense = 1 / (1 + np.exp(-4 * (field - 0.3)))
    chance: NDArray[np.floating] = 1 - clustering * (1 - dense)
    return chance


def lattice(plane: Plane, spacing_px: float, angle: float, disorder: float, rng: Generator) -> Plane2D:
    """Points (n, 2) of a turned, disordered square lattice over a plane and around it."""
    half = int(np.hypot(*plane.shape) / spacing_px / 2) + 3
    nodes = np.stack(np.meshgrid(*[np.arange(-half, half + 1)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    points = (nodes + rng.normal(0, disorder, nodes.shape)) * spacing_px
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ turn + np.asarray(plane.shape) / 2 + [plane.top, plane.left]
