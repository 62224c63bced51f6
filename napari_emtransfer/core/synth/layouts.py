"""Where the phases of an abstract material lie: cells, bands, lamellae, lines, particles, and one within another.

These are fast and deliberately unspecific (about 1 to 10 ms for 128²): they are what a network learns from before it
sees a real micrograph, not what a person looks at. For micrographs of a kind see `voronoi` and `hrtem`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_emtransfer.core.synth.fields import Field, banded, smooth
from napari_emtransfer.core.synth.generator import log_uniform
from napari_emtransfer.core.synth.layout import Layout, Morphology
from napari_emtransfer.core.synth.particle_layout import Particles


@dataclass(frozen=True)
class Cells:
    """Voronoi cells, each of one phase; with `boundary_px` > 0 the boundaries are a phase of their own, the last."""

    fractions: tuple[float, ...]
    spacing_px: float
    stretch: float
    angle: float
    boundary_px: float
    bend_px: float

    @classmethod
    def draw(cls, rng: Generator) -> Cells:
        """Random settings."""
        bounded = rng.random() < 0.5
        n = int(rng.integers(1 if bounded else 2, 4))
        return cls(
            fractions=_fractions(rng, n),
            spacing_px=log_uniform(rng, 8, 70),
            stretch=log_uniform(rng, 1, 4) if rng.random() < 0.4 else 1.0,
            angle=float(rng.uniform(0, np.pi)),
            boundary_px=log_uniform(rng, 1.5, 7) if bounded else 0.0,
            bend_px=float(rng.uniform(0, 3)) if rng.random() < 0.5 else 0.0,
        )

    @property
    def n_phases(self) -> int:
        """How many phases there are."""
        return len(self.fractions) + (self.boundary_px > 0)

    def __call__(self, shape: tuple[int, int], rng: Generator) -> Layout:
        """Lay out one place of the material."""
        cell, boundary, n = _voronoi(shape, rng, self.spacing_px, self.stretch, self.angle, self.bend_px)
        phases = rng.choice(len(self.fractions), n, p=self.fractions)[cell]
        if self.boundary_px > 0:
            phases = np.where(boundary < self.boundary_px / 2, len(self.fractions), phases)
        return Layout(phases, cell + 1)


@dataclass(frozen=True)
class Bands:
    """Ranges of a random field: a mixture that interlocks, as of spinodal decomposition or of a polymer blend."""

    fractions: tuple[float, ...]
    wavelength_px: float
    width: float
    stretch: float
    angle: float

    @classmethod
    def draw(cls, rng: Generator) -> Bands:
        """Random settings."""
        return cls(
            fractions=_fractions(rng, int(rng.integers(2, 4))),
            wavelength_px=log_uniform(rng, 8, 90),
            width=float(rng.uniform(0.15, 0.7)),
            stretch=log_uniform(rng, 1, 5) if rng.random() < 0.3 else 1.0,
            angle=float(rng.uniform(0, np.pi)),
        )

    @property
    def n_phases(self) -> int:
        """How many phases there are."""
        return len(self.fractions)

    def __call__(self, shape: tuple[int, int], rng: Generator) -> Layout:
        """Lay out one place of the material."""
        field = banded(shape, rng, self.wavelength_px, self.width, self.stretch, self.angle)
        edges = np.quantile(field, np.cumsum(self.fractions)[:-1])
        return Layout(np.digitize(field, edges), np.zeros(shape, np.intp))


@dataclass(frozen=True)
class Lamellae:
    """Parallel layers, in one direction or in packets of their own directions."""

    fractions: tuple[float, ...]
    period_px: float
    angle: float
    packet_px: float
    bend_px: float

    @classmethod
    def draw(cls, rng: Generator) -> Lamellae:
        """Random settings."""
        return cls(
            fractions=_fractions(rng, int(rng.integers(2, 4))),
            period_px=log_uniform(rng, 5, 50),
            angle=float(rng.uniform(0, np.pi)),
            packet_px=log_uniform(rng, 30, 100) if rng.random() < 0.5 else 0.0,
            bend_px=float(rng.uniform(0, 6)),
        )

    @property
    def n_phases(self) -> int:
        """How many phases there are."""
        return len(self.fractions)

    def __call__(self, shape: tuple[int, int], rng: Generator) -> Layout:
        """Lay out one place of the material."""
        y, x = _bent(shape, rng, self.bend_px)
        packet = np.zeros(shape, np.intp)
        angle = np.array([self.angle + rng.normal(0, 0.1)])
        if self.packet_px:
            packet, _, n = _voronoi(shape, rng, self.packet_px, 1.0, 0.0, 2.0)
            angle = rng.uniform(0, np.pi, n)
        turned = angle[packet]
        phase = (np.cos(turned) * x + np.sin(turned) * y) / self.period_px + rng.random(len(angle))[packet]
        return Layout(np.digitize(phase % 1, np.cumsum(self.fractions)[:-1]), packet + 1)


@dataclass(frozen=True)
class Lines:
    """Curved lines of one width: membranes between two phases (`sided`), or cracks, fibres and dislocations in one."""

    wavelength_px: float
    width: float
    stretch: float
    angle: float
    line_px: float
    level: float
    sided: bool

    @classmethod
    def draw(cls, rng: Generator) -> Lines:
        """Random settings."""
        return cls(
            wavelength_px=log_uniform(rng, 16, 120),
            width=float(rng.uniform(0.15, 0.5)),
            stretch=log_uniform(rng, 1, 4) if rng.random() < 0.3 else 1.0,
            angle=float(rng.uniform(0, np.pi)),
            line_px=log_uniform(rng, 1.5, 12),
            level=float(rng.uniform(-1.2, 1.2)),
            sided=bool(rng.random() < 0.5),
        )

    @property
    def n_phases(self) -> int:
        """How many phases there are."""
        return 3 if self.sided else 2

    def __call__(self, shape: tuple[int, int], rng: Generator) -> Layout:
        """Lay out one place of the material."""
        field = banded(shape, rng, self.wavelength_px, self.width, self.stretch, self.angle) - self.level
        slope = np.hypot(*np.gradient(field))
        # Where the field is flat, |f| / |∇f| is no distance: a floor keeps lines from swelling there.
        line = np.abs(field) < self.line_px / 2 * np.maximum(slope, 0.3 * slope.mean())
        other = np.where(field > 0, 2, 0) if self.sided else 0
        return Layout(np.where(line, 1, other), np.zeros(shape, np.intp))


@dataclass(frozen=True)
class Nested:
    """A finer morphology inside one phase of a coarser one."""

    outer: Morphology
    inner: Morphology
    phase: int

    @classmethod
    def draw(cls, rng: Generator) -> Nested:
        """Random settings."""
        outer, inner = draw_plain(rng), draw_plain(rng)
        return cls(outer, inner, int(rng.integers(outer.n_phases)))

    @property
    def n_phases(self) -> int:
        """How many phases there are."""
        return self.outer.n_phases + self.inner.n_phases - 1

    def __call__(self, shape: tuple[int, int], rng: Generator) -> Layout:
        """Lay out one place of the material."""
        outer, inner = self.outer(shape, rng), self.inner(shape, rng)
        within = outer.phases == self.phase
        # The inner phase 0 takes the place of the phase that it fills; the others come after the outer ones.
        finer = np.where(inner.phases == 0, self.phase, self.outer.n_phases - 1 + inner.phases)
        instances = np.where(within, inner.instances + outer.instances.max() + 1, outer.instances)
        return Layout(np.where(within, finer, outer.phases), instances)


_PLAIN: Final[Mapping[str, tuple[float, Callable[[Generator], Morphology]]]] = {
    "cells": (0.22, Cells.draw),
    "bands": (0.16, Bands.draw),
    "lamellae": (0.14, Lamellae.draw),
    "lines": (0.18, Lines.draw),
    "particles": (0.30, Particles.draw),
}
_NESTED_SHARE: Final = 0.25


def draw(rng: Generator) -> Morphology:
    """A random morphology; one in four has another inside one of its phases."""
    return Nested.draw(rng) if rng.random() < _NESTED_SHARE else draw_plain(rng)


def draw_plain(rng: Generator) -> Morphology:
    """A random morphology without another inside."""
    weights = np.array([weight for weight, _ in _PLAIN.values()])
    chosen = rng.choice(len(weights), p=weights / weights.sum())
    return list(_PLAIN.values())[chosen][1](rng)


def _fractions(rng: Generator, n: int) -> tuple[float, ...]:
    """Area fractions, none below a twentieth of its even share."""
    return tuple(float(f) for f in 0.95 * rng.dirichlet(np.full(n, 1.5)) + 0.05 / n)


def _bent(shape: tuple[int, int], rng: Generator, bend_px: float) -> tuple[Field, Field]:
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    if bend_px:
        y, x = (axis + bend_px * smooth(shape, rng, 10.0) for axis in (y, x))
    return y, x


def _voronoi(
    shape: tuple[int, int], rng: Generator, spacing_px: float, stretch: float, angle: float, bend_px: float
) -> tuple[NDArray[np.intp], Field, int]:
    """Number of the cell and distance to its boundary (H, W) each, and how many cells there are."""
    y, x = _bent(shape, rng, bend_px)
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    pixels = np.stack([along.ravel() / stretch, across.ravel()], axis=1)
    low, high = pixels.min(axis=0) - spacing_px, pixels.max(axis=0) + spacing_px
    n = max(3, rng.poisson(np.prod(high - low) / spacing_px**2))
    points = rng.uniform(low, high, (n, 2))
    distance, nearest = cKDTree(points).query(pixels, k=2)
    apart = np.linalg.norm(points[nearest[:, 1]] - points[nearest[:, 0]], axis=1) + 1e-9
    boundary = (distance[:, 1] ** 2 - distance[:, 0] ** 2) / (2 * apart)
    return nearest[:, 0].reshape(shape), boundary.reshape(shape), n
