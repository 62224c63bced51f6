"""Polycrystals of one phase: equiaxed, columnar and bimodal grains."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field
from scipy.spatial import cKDTree

from napari_emtransfer.core.synth.generator import (
    Amplitude,
    Angle,
    Fraction,
    Length,
    Settings,
    StructureGenerator,
    Width,
    log_uniform,
)
from napari_emtransfer.core.synth.micrograph import Field as Plane2D
from napari_emtransfer.core.synth.micrograph import Structure
from napari_emtransfer.core.synth.placing import place
from napari_emtransfer.core.synth.plane import Field32, Plane, straight
from napari_emtransfer.core.synth.surface import Finish, groove, of_pairs, relief, stripes
from napari_emtransfer.core.synth.tessellation import Cells, bent_cells, relax, seeds_for


class GrainContrast(Settings):
    """How grains and their boundaries show; amplitudes in grey values.

    Parameters
    ----------
    level
        Mean grey value.
    channelling
        Standard deviation from grain to grain (orientation contrast).
    bending
        Change across a grain (lattice curvature).
    groove
        Darkness of the boundary, `groove_px` wide; negative: a bright one.
    relief
        Shade at the steps between grains that polishing or etching took down unequally.
    striae
        Fine parallel lines in some grains: etch steps, slip.
    """

    level: float = Field(default=0.5, ge=0.1, le=0.9)
    channelling: Amplitude = 0.1
    bending: Amplitude = 0.03
    groove: Amplitude = 0.15
    groove_px: Width = 1.8
    relief: Amplitude = 0.06
    striae: Amplitude = 0.02

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """Etched, orientation contrast, thermally grooved, or bright boundaries."""
        kind = rng.choice(["etched", "channelling", "thermal", "bright"], p=[0.3, 0.35, 0.2, 0.15])
        channelling = {"etched": (0.015, 0.07), "channelling": (0.08, 0.2), "thermal": (0.02, 0.08)}
        depth = {"etched": (0.2, 0.5), "channelling": (0.0, 0.1), "thermal": (0.12, 0.35), "bright": (-0.4, -0.12)}
        return cls(
            level=float(rng.uniform(0.35, 0.62)),
            channelling=float(rng.uniform(*channelling.get(kind, (0.02, 0.1)))),
            bending=float(rng.uniform(0, 0.06)),
            groove=float(rng.uniform(*depth[kind])),
            groove_px=float(rng.uniform(0.9, 3.0)),
            relief=float(rng.uniform(0.05, 0.2) if kind == "thermal" else rng.uniform(0, 0.1)),
            striae=float(rng.uniform(0.01, 0.06)) if rng.uniform() < 0.4 else 0.0,
        )

    def grey(
        self, plane: Plane, cells: Cells, points: Plane2D, grain_px: float | NDArray[np.floating], rng: Generator
    ) -> Field32:
        """Grey values (H, W) of grains of a size (one, or (n,)) whose seeds lie at `points`."""
        n = cells.n
        tone = np.clip(rng.normal(0, self.channelling, n), -0.35, 0.35)
        slope = rng.normal(0, self.bending / grain_px, (2, n))
        ids = cells.ids
        away_y, away_x = plane.y - points[ids, 0], plane.x - points[ids, 1]
        grey = self.level + tone[ids] + slope[0][ids] * away_y + slope[1][ids] * away_x
        heights = self.relief * rng.normal(0, 1, n)
        light = rng.uniform(-np.pi, np.pi)
        grey += relief(cells, heights, self.groove_px * 1.6, light)
        if self.striae:
            amount = self.striae * np.maximum(rng.normal(0.2, 0.8, n), 0)
            grey += amount[ids] * stripes(plane, ids, n, (3.5, 9.0), rng)
        width = self.groove_px * (1 + 0.25 * np.clip(plane.texture(float(np.min(grain_px)) / 3, rng), -2, 2))
        depth = self.groove * of_pairs(cells, 0.35, rng)
        return (grey - depth * groove(cells.boundary, width)).astype(np.float32)


class _Grains(StructureGenerator):
    """What polycrystals of one phase share: classes interior and boundary."""

    classes: ClassVar[tuple[str, ...]] = ("grain interior", "grain boundary")

    def _finished(
        self, plane: Plane, cells: Cells, grey: Field32, finish: Finish, label_px: float, rng: Generator
    ) -> Structure:
        phases = np.where(cells.boundary < label_px / 2, 2, 1)
        return self._structure(grey + finish.layer(plane, rng), phases, cells.boundary, cells.ids + 1)


class Equiaxed(_Grains):
    """Grains of all directions alike, as after annealing: relaxed seeds, a distribution of sizes, curved boundaries.

    Parameters
    ----------
    grain_px
        Mean equivalent diameter.
    size_spread
        Standard deviation of the power weights' radii, relative to the mean radius: 0 is all alike.
    lloyd
        Steps of Lloyd's relaxation; angles at triple junctions approach 120° with them.
    curvature
        Standard deviation of the boundaries' bending, relative to `grain_px`.
    boundary_label_px
        Width of the class "grain boundary".
    """

    omits: ClassVar[tuple[str, ...]] = (
        "no dihedral angle of 120° is enforced: curvature is random, not driven by boundary energy",
        "no inclusions, pores or precipitates at boundaries",
        "a section through a tessellation of the plane, not of space: no small cuts through large grains",
    )
    grain_px: Length = 46.0
    size_spread: float = Field(default=0.3, ge=0, le=1)
    lloyd: int = Field(default=3, ge=0, le=50)
    curvature: float = Field(default=0.04, ge=0, le=0.12)
    boundary_label_px: Width = 3.0
    contrast: GrainContrast = GrainContrast()
    finish: Finish = Finish()

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """Any grain size from 10 px to a third of the image."""
        return cls(
            grain_px=log_uniform(rng, 10, 170),
            size_spread=float(rng.uniform(0.1, 0.7)),
            lloyd=int(rng.integers(1, 6)),
            curvature=float(rng.uniform(0.01, 0.07)),
            contrast=GrainContrast.draw(rng),
            finish=Finish.draw(rng),
        )

    def __call__(self, y: Plane2D, x: Plane2D, rng: Generator) -> Structure:
        """Structure at the coordinates (H, W)."""
        plane = Plane(y, x)
        points, weights = polycrystal_seeds(plane, self.grain_px, self.size_spread, self.lloyd, rng)
        bend = plane.bend(self.curvature * self.grain_px, 0.5 * self.grain_px, rng)
        cells = bent_cells(bend, points, weights)
        grey = self.contrast.grey(plane, cells, points, self.grain_px, rng)
        return self._finished(plane, cells, grey, self.finish, self.boundary_label_px, rng)


class Columnar(_Grains):
    """Long grains side by side, as after directional solidification or in a film seen in section.

    Parameters
    ----------
    width_px
        Mean width of a grain.
    aspect
        Length over width.
    direction_rad
        Direction of the columns, from the x axis.
    coarsening
        How much wider the grains become along the growth direction: 0 not at all.
    """

    omits: ClassVar[tuple[str, ...]] = (
        "no substrate and no free surface",
        "columns end in straight facets of a tessellation, not by competitive growth",
    )
    width_px: Length = 24.0
    aspect: float = Field(default=4.0, ge=1, le=20)
    direction_rad: Angle = 1.5
    coarsening: float = Field(default=0.5, ge=0, le=2)
    boundary_label_px: Width = 3.0
    contrast: GrainContrast = GrainContrast()
    finish: Finish = Finish()

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """Any width from 6 px to 80 px."""
        return cls(
            width_px=log_uniform(rng, 7, 80),
            aspect=float(rng.uniform(2.2, 8)),
            direction_rad=float(rng.normal(np.pi / 2, 0.15) if rng.uniform() < 0.6 else rng.uniform(0, np.pi)),
            coarsening=float(rng.uniform(0, 1.2)),
            contrast=GrainContrast.draw(rng),
            finish=Finish.draw(rng),
        )

    def __call__(self, y: Plane2D, x: Plane2D, rng: Generator) -> Structure:
        """Structure at the coordinates (H, W)."""
        plane = Plane(y, x)
        metric = stretched(self.direction_rad, self.aspect)
        size_px = self.width_px * np.sqrt(self.aspect)
        margin = min(self.width_px * self.aspect, 250)
        n = seeds_for((plane.shape[0] + 2 * margin) * (plane.shape[1] + 2 * margin), size_px)
        points = self._thinned(plane.scatter(n, margin, rng), rng)
        points = relax(points, 1, rng, metric=metric, samples_per_cell=16)
        bend = plane.bend(0.05 * self.width_px, self.width_px, rng)
        weights = (0.35 * self.width_px * rng.normal(0.5, 0.3, len(points))) ** 2
        cells = bent_cells(bend, points, weights, metric=metric)
        grey = self.contrast.grey(plane, cells, points, size_px, rng)
        return self._finished(plane, cells, grey, self.finish, self.boundary_label_px, rng)

    def _thinned(self, points: Plane2D, rng: Generator) -> Plane2D:
        along, _ = straight(points[:, 0], points[:, 1], self.direction_rad)
        share = (along - along.min()) / np.ptp(along)
        return points[rng.uniform(size=len(points)) < np.exp(-self.coarsening * share)]


class Bimodal(StructureGenerator):
    """Coarse grains amid fine ones, as after abnormal growth or partial recrystallisation: a power diagram.

    Parameters
    ----------
    coarse_px, fine_px
        Mean diameters of the two populations.
    coarse_fraction
        Wanted area fraction of the coarse grains.
    """

    classes: ClassVar[tuple[str, ...]] = ("fine grains", "coarse grains")
    omits: ClassVar[tuple[str, ...]] = (
        "no annealing twins and no deformation structure in the coarse grains",
        "no islands of fine grains left inside coarse ones",
    )
    coarse_px: Length = 110.0
    fine_px: Length = 18.0
    coarse_fraction: Fraction = 0.4
    contrast: GrainContrast = GrainContrast()
    finish: Finish = Finish()

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """Fine grains from 6 px, coarse ones 3 to 8 times as large."""
        fine = log_uniform(rng, 7, 30)
        return cls(
            fine_px=fine,
            coarse_px=min(fine * rng.uniform(3, 8), 170),
            coarse_fraction=float(rng.uniform(0.15, 0.6)),
            contrast=GrainContrast.draw(rng),
            finish=Finish.draw(rng),
        )

    def __call__(self, y: Plane2D, x: Plane2D, rng: Generator) -> Structure:
        """Structure at the coordinates (H, W)."""
        plane = Plane(y, x)
        points, weights, n_coarse = self._seeds(plane, rng)
        # Bent at the scale of the coarse grains, which a power diagram alone would make round.
        cells = bent_cells(plane.bend(0.06 * self.coarse_px, 0.3 * self.coarse_px, rng), points, weights)
        size = np.where(np.arange(cells.n) < n_coarse, self.coarse_px, self.fine_px)
        grey = self.contrast.grey(plane, cells, points, size, rng)
        coarse = cells.ids < n_coarse
        return self._structure(
            grey + self.finish.layer(plane, rng), np.where(coarse, 2, 1), cells.boundary, cells.ids + 1
        )

    def _seeds(self, plane: Plane, rng: Generator) -> tuple[Plane2D, NDArray[np.float64], int]:
        margin = self.coarse_px
        area = (plane.shape[0] + 2 * margin) * (plane.shape[1] + 2 * margin)
        n = max(1, round(self.coarse_fraction * area / (np.pi / 4 * self.coarse_px**2)))
        radii = np.sort(self.coarse_px / 2 * rng.lognormal(-0.03, 0.25, n))[::-1]
        coarse, kept = place(plane, 0.8 * radii, 0.0, margin, rng)
        radii = radii[kept]
        fine = relax(plane.scatter(seeds_for(area, self.fine_px), margin, rng), 1, rng, samples_per_cell=8)
        taken = np.zeros(len(fine), bool)
        for within in cKDTree(fine).query_ball_point(coarse, radii):
            taken[within] = True
        fine = fine[~taken]
        small = (0.5 * self.fine_px * rng.uniform(0.2, 1, len(fine))) ** 2
        return np.concatenate([coarse, fine]), np.concatenate([radii**2, small]), len(coarse)


def polycrystal_seeds(
    plane: Plane, grain_px: float, size_spread: float, lloyd: int, rng: Generator
) -> tuple[Plane2D, NDArray[np.float64]]:
    """Relaxed seeds (n, 2) and power weights (n,) for grains of a mean diameter on a plane and around it."""
    margin = 1.5 * grain_px
    n = seeds_for((plane.shape[0] + 2 * margin) * (plane.shape[1] + 2 * margin), grain_px)
    radii = 0.5 * grain_px * np.clip(rng.normal(1, size_spread, n), 0.1, 2.2)
    weights = radii**2
    points = relax(plane.scatter(n, margin, rng), lloyd, rng, weights=weights)
    return points, weights


def stretched(direction_rad: float, aspect: float) -> Plane2D:
    """Metric (2, 2) for yx coordinates in which cells are `aspect` times longer along a direction."""
    along = np.array([np.sin(direction_rad), np.cos(direction_rad)])
    across = np.array([along[1], -along[0]])
    return np.outer(along, along) / aspect + np.outer(across, across)
