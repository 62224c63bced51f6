"""Annealing twins: parallel bands inside the grains of a polycrystal."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field

from napari_emtransfer.core.synth.generator import Amplitude, Length, Share, StructureGenerator, log_uniform
from napari_emtransfer.core.synth.grains import GrainContrast, polycrystal_seeds
from napari_emtransfer.core.synth.micrograph import Field as Plane2D
from napari_emtransfer.core.synth.micrograph import Structure
from napari_emtransfer.core.synth.plane import Field32, Plane
from napari_emtransfer.core.synth.surface import Finish, groove
from napari_emtransfer.core.synth.tessellation import Cells, bent_cells

_BANDS = 4


class Twins(StructureGenerator):
    """Equiaxed grains with annealing twins: straight parallel bands with the grey of their own orientation.

    All bands of a grain share one orientation, so one grey; parent parts on both sides of a band are one instance, each
    band is its own.

    Parameters
    ----------
    grain_px
        Mean equivalent diameter.
    twinned
        Share of grains that have twins.
    band_share
        Mean width of a band, relative to `grain_px`.
    twin_contrast
        Standard deviation of the grey step between parent and twin.
    line
        Darkness of the coherent boundaries.
    """

    classes: ClassVar[tuple[str, ...]] = ("parent grain", "twin")
    omits: ClassVar[tuple[str, ...]] = (
        "one twin system per grain, no twins within twins",
        "no steps on coherent boundaries; few bands end inside a grain",
        "twins do not turn the boundary where they meet it",
    )
    grain_px: Length = 80.0
    size_spread: float = Field(default=0.4, ge=0, le=1)
    lloyd: int = Field(default=2, ge=0, le=50)
    twinned: Share = 0.6
    band_share: float = Field(default=0.18, ge=0.02, le=0.5)
    twin_contrast: Amplitude = 0.14
    line: Amplitude = 0.04
    contrast: GrainContrast = GrainContrast(channelling=0.12, groove=0.06)
    finish: Finish = Finish()

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """Grains from 30 px to a third of the image."""
        return cls(
            grain_px=log_uniform(rng, 32, 170),
            size_spread=float(rng.uniform(0.2, 0.7)),
            lloyd=int(rng.integers(1, 5)),
            twinned=float(rng.uniform(0.35, 0.9)),
            band_share=log_uniform(rng, 0.06, 0.35),
            twin_contrast=float(rng.uniform(0.06, 0.22)),
            line=float(rng.uniform(-0.05, 0.15)),
            contrast=GrainContrast.draw(rng),
            finish=Finish.draw(rng),
        )

    def __call__(self, y: Plane2D, x: Plane2D, rng: Generator) -> Structure:
        """Structure at the coordinates (H, W)."""
        plane = Plane(y, x)
        points, weights = polycrystal_seeds(plane, self.grain_px, self.size_spread, self.lloyd, rng)
        cells = bent_cells(plane.bend(0.03 * self.grain_px, 0.5 * self.grain_px, rng), points, weights)
        band, to_band = self._bands(plane, cells, points, rng)
        grey = self.contrast.grey(plane, cells, points, self.grain_px, rng)
        step = rng.normal(0, self.twin_contrast, cells.n)
        step = np.sign(step) * np.maximum(np.abs(step), 0.6 * self.twin_contrast)
        grey = grey + step[cells.ids] * (band > 0) - self.line * groove(to_band, 1.3)
        instances = cells.ids * (_BANDS + 1) + band + 1
        boundary = np.minimum(cells.boundary, to_band)
        return self._structure(grey + self.finish.layer(plane, rng), np.where(band > 0, 2, 1), boundary, instances)

    def _bands(self, plane: Plane, cells: Cells, points: Plane2D, rng: Generator) -> tuple[NDArray[np.intp], Field32]:
        """Number of the band (0: parent) and distance to the nearest edge of a band, (H, W) each.

        Twin boundaries are planes of the lattice: straight, whatever the grain boundaries do. A band that stops inside
        its grain ends there at a right angle.
        """
        n, ids = cells.n, cells.ids
        angle = rng.uniform(0, np.pi, n)
        away_y, away_x = plane.y - points[ids, 0], plane.x - points[ids, 1]
        across = away_x * np.cos(angle)[ids] + away_y * np.sin(angle)[ids]
        along = away_y * np.cos(angle)[ids] - away_x * np.sin(angle)[ids]
        count = np.where(rng.uniform(size=n) < self.twinned, rng.integers(1, _BANDS + 1, n), 0)
        edges, ends = self._edges(n, rng), self._ends(n, rng)
        band, nearest = np.zeros(ids.shape, np.intp), np.full(ids.shape, np.inf, np.float32)
        for number in range(_BANDS):
            low, high = (np.where(count > number, e, 1e4)[ids] for e in (edges[2 * number], edges[2 * number + 1]))
            depth = np.minimum(np.minimum(across - low, high - across), ends[number][ids] - along)
            out_across = np.maximum(np.maximum(low - across, across - high), 0)
            out_along = np.maximum(along - ends[number][ids], 0)
            distance = np.where(depth > 0, depth, np.hypot(out_across, out_along))
            band[depth > 0] = number + 1
            nearest = np.minimum(nearest, distance.astype(np.float32))
        return band, nearest

    def _edges(self, n: int, rng: Generator) -> Plane2D:
        """Edges (2 · bands, n) of the bands across their grain, in turn the low and the high one, none overlapping."""
        widths = self.band_share * self.grain_px * rng.lognormal(-0.2, 0.6, (_BANDS, n))
        gaps = 0.3 * self.grain_px * rng.lognormal(-0.4, 0.8, (_BANDS, n)) + 2
        steps = np.empty((2 * _BANDS, n))
        steps[0::2], steps[1::2] = gaps, np.maximum(widths, 3.0)
        steps[0] = -self.grain_px * rng.uniform(-0.1, 0.6, n)
        return np.cumsum(steps, axis=0)

    def _ends(self, n: int, rng: Generator) -> Plane2D:
        stops = rng.uniform(size=(_BANDS, n)) < 0.15
        return np.where(stops, self.grain_px * rng.uniform(-0.2, 0.4, (_BANDS, n)), 1e4)
