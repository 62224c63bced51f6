"""Pearlite: colonies of ferrite and cementite lamellae, alone or among grains of ferrite."""

from __future__ import annotations

from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import ndtri

from napari_emtransfer.core.synth.generator import (
    Amplitude,
    Count,
    Grey,
    Length,
    Share,
    StructureGenerator,
    log_uniform,
)
from napari_emtransfer.core.synth.grains import polycrystal_seeds
from napari_emtransfer.core.synth.micrograph import Field as Plane2D
from napari_emtransfer.core.synth.micrograph import Structure
from napari_emtransfer.core.synth.plane import Field32, Plane
from napari_emtransfer.core.synth.surface import Finish, groove, of_pairs
from napari_emtransfer.core.synth.tessellation import Cells, bent_cells

_FORKS_AT_ONCE: Final = 16


class Pearlite(StructureGenerator):
    """Colonies of lamellae, each of its own direction and apparent spacing; lamellae bend, fork, thin and break.

    Instances are colonies (and grains of ferrite), and `boundary_px` is the distance to their boundaries.

    Parameters
    ----------
    colony_px
        Mean diameter of a colony.
    spacing_px
        Least apparent interlamellar spacing; `tilt` is how much wider it gets in colonies cut at a slant.
    cementite_share
        Width of a cementite lamella relative to the spacing.
    waviness
        How far lamellae bend, relative to `colony_px`.
    faults
        Forks per 512².
    broken
        Share of the cementite that is broken up (spheroidising).
    ferrite_fraction
        Share of grains without lamellae (proeutectoid ferrite).
    """

    classes: ClassVar[tuple[str, ...]] = ("ferrite", "cementite")
    omits: ClassVar[tuple[str, ...]] = (
        "colonies are grains of a tessellation: no nodules, no growth fronts",
        "lamellae of neighbouring colonies do not continue each other",
        "no cementite or ferrite films along prior grain boundaries",
    )
    colony_px: Length = 90.0
    spacing_px: float = Field(default=8.0, ge=3, le=60)
    tilt: float = Field(default=0.8, ge=0, le=4)
    cementite_share: float = Field(default=0.32, ge=0.1, le=0.6)
    waviness: float = Field(default=0.06, ge=0, le=0.2)
    faults: Count = 14
    broken: Share = 0.1
    ferrite_fraction: Share = 0.0
    ferrite: Grey = 0.35
    cementite: Grey = 0.72
    channelling: Amplitude = 0.04
    groove: Amplitude = 0.1
    finish: Finish = Finish()

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """Spacings from 4 px to 25 px, colonies of at least six lamellae."""
        return cls(**cls._drawn(rng))

    @classmethod
    def _drawn(cls, rng: Generator) -> dict[str, Any]:
        spacing = log_uniform(rng, 4, 25)
        ferrite, cementite = rng.uniform(0.25, 0.45), rng.uniform(0.55, 0.85)
        if rng.uniform() < 0.15:  # backscattered electrons: cementite is the darker phase
            ferrite, cementite = cementite, ferrite
        return {
            "spacing_px": spacing,
            "colony_px": float(np.clip(spacing * rng.uniform(6, 16), 45, 200)),
            "tilt": float(rng.uniform(0.2, 2)),
            "cementite_share": float(rng.uniform(0.2, 0.48)),
            "waviness": float(rng.uniform(0.02, 0.1)),
            "faults": int(rng.poisson(16)),
            "broken": float(rng.choice([0.0, 0.1, 0.35]) * rng.uniform(0.5, 1.2)),
            "ferrite_fraction": float(rng.uniform(0.1, 0.5)) if rng.uniform() < 0.4 else 0.0,
            "ferrite": ferrite,
            "cementite": cementite,
            "channelling": float(rng.uniform(0.01, 0.09)),
            "groove": float(rng.uniform(-0.06, 0.14)),
            "finish": Finish.draw(rng),
        }

    def __call__(self, y: Plane2D, x: Plane2D, rng: Generator) -> Structure:
        """Structure at the coordinates (H, W)."""
        plane = Plane(y, x)
        points, weights = polycrystal_seeds(plane, self.colony_px, 0.5, 1, rng)
        cells = bent_cells(plane.bend(0.07 * self.colony_px, 0.3 * self.colony_px, rng), points, weights)
        free = self._free(cells, rng)
        depth = np.where(free[cells.ids], -self.spacing_px, self._lamellae(plane, cells, rng)).astype(np.float32)
        grey = self._grey(plane, cells, free, depth, rng)
        return self._structure(grey, self._phases(free[cells.ids], depth), cells.boundary, cells.ids + 1)

    def _phases(self, free: NDArray[np.bool_], depth: Field32) -> NDArray[np.integer]:
        """Classes (H, W) of pixels in grains without lamellae, and of the depth inside cementite."""
        return np.where((depth > 0) & ~free, 2, 1)

    def _free(self, cells: Cells, rng: Generator) -> NDArray[np.bool_]:
        """Which cells are grains of ferrite, to cover their fraction."""
        area = np.bincount(cells.ids.ravel(), minlength=cells.n) / cells.ids.size
        order = rng.permutation(cells.n)
        free = np.zeros(cells.n, bool)
        free[order] = np.cumsum(area[order]) - 0.5 * area[order] < self.ferrite_fraction
        return free if self.ferrite_fraction else np.zeros(cells.n, bool)

    def _lamellae(self, plane: Plane, cells: Cells, rng: Generator) -> Field32:
        """Signed distance (H, W) in px to the edge of the nearest cementite lamella, positive inside it."""
        ids, n = cells.ids, cells.n
        bend = plane.bend(self.waviness * self.colony_px, 0.35 * self.colony_px, rng)
        angle, spacing = rng.uniform(0, np.pi, n), self.spacing_px * (1 + self.tilt * rng.uniform(0, 1, n) ** 3)
        normal_y, normal_x, period = np.sin(angle)[ids], np.cos(angle)[ids], spacing[ids].astype(np.float32)
        turns = (bend.y * normal_y + bend.x * normal_x) / period + self._forks(plane, rng)
        number = np.rint(turns)
        from_middle = np.abs(turns - number).astype(np.float32)
        widths = np.clip(rng.normal(self.cementite_share, 0.18 * self.cementite_share, 997), 0.05, 0.7)
        width = widths[(number.astype(np.intp) * 7 + ids * 13) % 997].astype(np.float32)
        wobble, gaps = plane.textures(self.spacing_px, rng, 2)
        width = width * (1 + 0.12 * wobble) - 2 * self.cementite_share * np.maximum(gaps - self._gap_level(), 0)
        return np.asarray((width / 2 - from_middle) * period / bend.straightened(normal_y, normal_x)[0], np.float32)

    def _gap_level(self) -> float:
        """Value that a standard Gaussian field exceeds in a share `broken` of the plane, less the ramp of a gap."""
        return float(ndtri(1 - np.clip(self.broken, 1e-4, 0.9))) - 0.15

    def _forks(self, plane: Plane, rng: Generator) -> Field32:
        """Phase (H, W) in periods of edge dislocations of the stack: around each a lamella more."""
        number = round(self.faults * plane.area_px2 / 512**2)
        turned = np.ones(plane.y.shape, np.complex64)
        position = (plane.x + 1j * plane.y).astype(np.complex64)
        for count, (at_y, at_x) in enumerate(plane.scatter(number, 0, rng), start=1):
            factor = (position - np.complex64(complex(at_x, at_y))) / np.float32(150)
            turned *= factor if rng.uniform() < 0.5 else factor.conj()
            if count % _FORKS_AT_ONCE == 0:  # the product of hundreds leaves the range of single precision
                turned /= np.maximum(np.abs(turned), np.float32(1e-30))
        return np.angle(turned).astype(np.float32) / np.float32(2 * np.pi)

    def _grey(
        self, plane: Plane, cells: Cells, free: NDArray[np.bool_], depth: Field32, rng: Generator
    ) -> NDArray[np.floating]:
        tone = rng.normal(0, self.channelling, cells.n)
        strength = np.where(free, 0, rng.uniform(0.55, 1.1, cells.n))
        grain = self.ferrite + tone + np.where(free, rng.normal(0.06, 0.03), 0)
        step = (self.cementite - self.ferrite) * strength
        inside = np.clip(depth / 1.6 + 0.5, 0, 1)
        ridge = 0.85 + 0.25 * np.clip(depth / 2, 0, 1)
        grey = grain[cells.ids] + step[cells.ids] * inside * ridge * (1 + 0.12 * plane.texture(3.0, rng))
        grey += np.where(free[cells.ids], 0, 0.02) * plane.texture(1.5, rng)
        grey -= self.groove * of_pairs(cells, 0.4, rng) * groove(cells.boundary, 1.7)
        return grey + self.finish.layer(plane, rng)


class FerritePearlite(Pearlite):
    """Ferrite grains and pearlite: the constituents are the classes, as in a hypoeutectoid steel at low magnification.

    A task of texture: the grey of ferrite occurs in both. Settings are those of pearlite.
    """

    classes: ClassVar[tuple[str, ...]] = ("ferrite", "pearlite")
    ferrite_fraction: Share = 0.55

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """Spacings from 4 px to 9 px."""
        spacing = log_uniform(rng, 4, 9)
        drawn = cls._drawn(rng) | {
            "spacing_px": spacing,
            "colony_px": float(np.clip(spacing * rng.uniform(5, 14), 25, 120)),
            "ferrite_fraction": float(rng.uniform(0.2, 0.75)),
        }
        return cls(**drawn)

    def _phases(self, free: NDArray[np.bool_], depth: Field32) -> NDArray[np.integer]:
        return np.where(free & (depth <= 0), 1, 2)
