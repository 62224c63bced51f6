"""Mixtures of two and three phases: grains of several phases, and interpenetrating regions."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field, model_validator

from napari_emtransfer.core.synth.generator import Amplitude, Fraction, Length, Share, StructureGenerator, log_uniform
from napari_emtransfer.core.synth.grains import polycrystal_seeds
from napari_emtransfer.core.synth.levelset import Region, region
from napari_emtransfer.core.synth.looks import EdgeLook, PhaseLook, soft_step
from napari_emtransfer.core.synth.micrograph import Field as Plane2D
from napari_emtransfer.core.synth.micrograph import Structure
from napari_emtransfer.core.synth.plane import Field32, Plane, smoothed
from napari_emtransfer.core.synth.precipitates import draw_looks
from napari_emtransfer.core.synth.surface import Finish, groove, of_pairs, relief
from napari_emtransfer.core.synth.tessellation import Cells, bent_cells

Morphology = Literal["grains", "regions"]


class _Mixture(StructureGenerator):
    """What mixtures share.

    Parameters
    ----------
    morphology
        "grains": each grain of a polycrystal has one phase. "regions": rounded, interpenetrating regions, as after
        spinodal decomposition or in a sintered composite.
    grain_px
        Mean diameter of a grain, or width of a region.
    clustering
        How much grains of one phase keep together.
    groove
        Darkness of the boundaries between grains of one phase.
    relief
        Shade at the steps between phases, which polish unequally.
    """

    morphology: Morphology = "grains"
    grain_px: Length = 34.0
    size_spread: float = Field(default=0.5, ge=0, le=1)
    clustering: Share = 0.4
    groove: Amplitude = 0.08
    relief: Amplitude = 0.05
    edge: EdgeLook = EdgeLook(rim=0.06)
    finish: Finish = Finish()

    def _looks(self) -> tuple[PhaseLook, ...]:
        raise NotImplementedError

    def _fractions(self) -> tuple[float, ...]:
        """Wanted area fractions of the phases from the second on."""
        raise NotImplementedError

    def __call__(self, y: Plane2D, x: Plane2D, rng: Generator) -> Structure:
        """Structure at the coordinates (H, W)."""
        plane = Plane(y, x)
        return (self._grains if self.morphology == "grains" else self._regions)(plane, rng)

    def _grains(self, plane: Plane, rng: Generator) -> Structure:
        points, weights = polycrystal_seeds(plane, self.grain_px, self.size_spread, 2, rng)
        bend = plane.bend(0.05 * self.grain_px, 0.45 * self.grain_px, rng)
        cells = bent_cells(bend, points, weights)
        of_cell = self._phases_of(plane, cells, points, rng)
        phases = of_cell[cells.ids]
        grey = np.zeros(phases.shape, np.float32)
        for number, look in enumerate(self._looks(), start=1):
            grey = np.where(phases == number, look.paint(plane, cells.ids, cells.n, rng), grey)
        unlike = phases != of_cell[cells.other]
        light = rng.uniform(-np.pi, np.pi)
        heights = self.relief * (rng.normal(0, 1, len(self._looks()) + 1)[of_cell] + rng.normal(0, 0.2, cells.n))
        depth = np.where(unlike, 0.4, 1.0) * self.groove * of_pairs(cells, 0.35, rng)
        grey = grey + relief(cells, heights, 3.0, light) - depth * groove(cells.boundary, 1.6)
        return self._structure(grey + self.finish.layer(plane, rng), phases, cells.boundary, cells.ids + 1)

    def _phases_of(self, plane: Plane, cells: Cells, points: Plane2D, rng: Generator) -> NDArray[np.intp]:
        """Phase of each cell: those with the highest score first, until each phase covers its fraction."""
        row, column = (
            np.clip(points[:, i] - low, 0, size - 1).astype(int)
            for i, (low, size) in enumerate(zip((plane.top, plane.left), plane.shape, strict=True))
        )
        smooth = plane.noise(1.5 * self.grain_px, rng)[row, column]
        score = self.clustering * smooth + (1 - self.clustering) * rng.normal(size=cells.n)
        area = np.bincount(cells.ids.ravel(), minlength=cells.n) / cells.ids.size
        order = np.argsort(-score)
        reached = np.cumsum(area[order]) - 0.5 * area[order]
        limits = np.cumsum(self._fractions()[::-1])
        phases = np.ones(cells.n, np.intp)
        phases[order] = len(limits) + 1 - np.searchsorted(limits, reached)
        return phases

    def _regions(self, plane: Plane, rng: Generator) -> Structure:
        """Regions of the second phase and, before them, of the third: quantiles of random fields of one width."""
        looks, bodies = self._looks(), self._bodies(plane, rng)
        phases = np.ones(plane.y.shape, np.intp)
        instances, boundary = np.zeros(phases.shape, np.int32), np.full(phases.shape, np.inf, np.float32)
        grey = looks[0].paint(plane, np.zeros_like(phases), 0, rng)
        first = 0
        for number, (body, look) in enumerate(zip(bodies, looks[1:], strict=True), start=2):
            n = int(body.ids.max(initial=0))
            grey = grey + (look.paint(plane, body.ids, n, rng) - grey) * soft_step(body.depth)
            grey = grey + self.edge.paint(plane, body, rng)
            phases = np.where(body.inside, number, phases)
            boundary = np.minimum(boundary, body.boundary)
            instances = np.where(body.inside, body.ids + first, instances)
            first += n
        return self._structure(grey + self.finish.layer(plane, rng), phases, boundary, instances)

    def _bodies(self, plane: Plane, rng: Generator) -> list[Region]:
        fractions = self._fractions()
        levels = [_wavy(plane, self.grain_px, fractions[-1], None, rng)]
        if len(fractions) > 1:
            third = levels[0]
            second = _wavy(plane, self.grain_px, fractions[0], third > 0, rng)
            levels = [np.minimum(second, -third), third]
        return [region(plane, level) for level in levels]


class TwoPhase(_Mixture):
    """Two phases: dual-phase and duplex steels, cermets, composites, spinodal mixtures.

    Parameters
    ----------
    fraction
        Wanted area fraction of the second phase.
    """

    classes: ClassVar[tuple[str, ...]] = ("first phase", "second phase")
    omits: ClassVar[tuple[str, ...]] = (
        "no preference of the minor phase for triple points, no wetting of boundaries",
        "regions have no grains in them; connected regions are one instance",
        "no orientation relation between the phases",
    )
    fraction: Fraction = 0.35
    first: PhaseLook = PhaseLook(level=0.36)
    second: PhaseLook = PhaseLook(level=0.64, texture="mottled", spread=0.04)

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """Grains from 8 px, regions from 14 px, to a third of the image."""
        first, second, edge = draw_looks(rng)
        return cls(**_drawn(rng) | {"edge": edge}, fraction=float(rng.uniform(0.08, 0.6)), first=first, second=second)

    def _looks(self) -> tuple[PhaseLook, ...]:
        return self.first, self.second

    def _fractions(self) -> tuple[float, ...]:
        return (self.fraction,)


class ThreePhase(_Mixture):
    """Three phases: multiphase steels, ceramics with a glassy phase, battery electrodes, rocks.

    Parameters
    ----------
    second_fraction, third_fraction
        Wanted area fractions; less than 1 together.
    """

    classes: ClassVar[tuple[str, ...]] = ("first phase", "second phase", "third phase")
    omits: ClassVar[tuple[str, ...]] = (
        "no preference of one phase for the boundaries of another, no reaction layers",
        "regions have no grains in them; connected regions are one instance",
        "no orientation relation between the phases",
    )
    second_fraction: Share = 0.35
    third_fraction: Share = 0.12
    first: PhaseLook = PhaseLook(level=0.3)
    second: PhaseLook = PhaseLook(level=0.55, texture="mottled", spread=0.04)
    third: PhaseLook = PhaseLook(level=0.8)

    @model_validator(mode="after")
    def _leave_room(self) -> Self:
        if self.second_fraction + self.third_fraction >= 1:
            raise ValueError("second_fraction and third_fraction leave nothing for the first phase; give less than 1")
        return self

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """The third phase is now and then rare."""
        levels = rng.permutation([rng.uniform(0.15, 0.32), rng.uniform(0.38, 0.6), rng.uniform(0.66, 0.88)])
        first, second, third = (PhaseLook.draw(rng, level) for level in levels)
        return cls(
            **_drawn(rng),
            second_fraction=float(rng.uniform(0.15, 0.5)),
            third_fraction=log_uniform(rng, 0.02, 0.35),
            first=first,
            second=second,
            third=third,
        )

    def _looks(self) -> tuple[PhaseLook, ...]:
        return self.first, self.second, self.third

    def _fractions(self) -> tuple[float, ...]:
        return self.second_fraction, self.third_fraction


def _drawn(rng: Generator) -> dict[str, Any]:
    """What all mixtures draw alike."""
    in_grains = rng.uniform() < 0.55
    return {
        "morphology": "grains" if in_grains else "regions",
        "grain_px": log_uniform(rng, 9 if in_grains else 14, 170 if in_grains else 120),
        "size_spread": float(rng.uniform(0.2, 0.8)),
        "clustering": float(rng.uniform(0, 0.8)),
        "groove": float(rng.uniform(-0.08, 0.25)),
        "relief": float(rng.uniform(0, 0.12)),
        "edge": EdgeLook.draw(rng),
        "finish": Finish.draw(rng),
    }


def _wavy(plane: Plane, width_px: float, fraction: float, taken: NDArray[np.bool_] | None, rng: Generator) -> Field32:
    """Level function of a Gaussian field of one scale above its quantile (Cahn, J. Chem. Phys. 42 (1965) 93).

    `fraction` of the grid lies above 0; where it is `taken` does not count.
    """
    scale = width_px / 4
    field = plane.noise(scale, rng)
    field = field - smoothed(field, 2 * scale) + 0.12 * plane.noise(max(scale / 3, 1.5), rng)
    free = field if taken is None else field[~taken]
    share = fraction * field.size / max(free.size, 1)
    return np.subtract(field, np.quantile(free.ravel()[::7], max(1 - share, 0)), dtype=np.float32)
