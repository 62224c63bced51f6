"""Nanoparticles on a support, as projected atoms on a grid, with masks that follow from the atoms' places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator
from scipy.fft import irfft2, next_fast_len, rfft2

from napari_emtransfer.core.synth import atoms
from napari_emtransfer.core.synth.atoms_carbon import number_density, structure_factor
from napari_emtransfer.core.synth.atoms_lattices import LATTICES
from napari_emtransfer.core.synth.generator import Settings, Share
from napari_emtransfer.core.synth.hrtem_masks import particle_region
from napari_emtransfer.core.synth.scattering import Grid, deposit

Real = NDArray[np.float64]
Map = NDArray[np.float32]
# Around the picture: what a lens brings in from outside, and where the FFT's edges meet.
MARGIN_PX: Final = 32
_GRAPHENE_BOND: Final = 1.42
_TRIES: Final = 200


def _known(name: str) -> str:
    if name not in LATTICES:
        raise ValueError(f"no lattice is called {name!r}; known are {', '.join(LATTICES)}")
    return name


LatticeName = Annotated[str, AfterValidator(_known)]
Radius = Annotated[float, Field(gt=0.2, le=30)]


class Particles(Settings):
    """Which particles lie on the support.

    Parameters
    ----------
    lattices
        Names of `atoms_lattices.LATTICES`; each particle takes one.
    radius_nm
        Least and greatest; uniform between.
    per_100_nm2
        Least and greatest number in 10 nm × 10 nm; at least one particle is placed where there is room.
    gap_nm
        Least distance between two surfaces, were they spheres; negative lets them overlap in projection.
    zone_axis_share
        Part of the particles that are near a zone axis; the others lie anyhow.
    tilt_deg
        Standard deviation of each component of the tilt off that axis.
    fault_share
        Part of the particles with a stacking fault or a twin, where the lattice has a plane for it.
    """

    lattices: tuple[LatticeName, ...] = Field(default=("Au",), min_length=1)
    radius_nm: tuple[Radius, Radius] = (1.5, 2.5)
    per_100_nm2: tuple[float, float] = (0.6, 3.0)
    gap_nm: float = 1.0
    shape: atoms.Shape = "sphere"
    zone_axis_share: Share = 0.5
    tilt_deg: float = Field(default=2.0, ge=0, le=90)
    fault_share: Share = 0.3

    @model_validator(mode="after")
    def _ranges_rise(self) -> Self:
        for low, high in (self.radius_nm, self.per_100_nm2):
            if low > high:
                raise ValueError(f"a range from {low} to {high} is none; the lesser comes first")
        return self


class Support(Settings):
    """What carries the particles: amorphous carbon, one sheet of graphene, or nothing.

    `unevenness` is the relative standard deviation of a carbon film's thickness over some nanometres; `hole` the part
    of the picture, along a bent edge, where the film has ended.
    """

    kind: Literal["carbon", "graphene", "vacuum"] = "carbon"
    thickness_nm: float = Field(default=4.0, gt=0, le=100)
    density_g_cm3: float = Field(default=2.0, gt=0.5, le=3.5)
    unevenness: Share = 0.1
    hole: Share = 0.0


@dataclass(frozen=True)
class Placed:
    """One particle where it lies: its atoms in Å from the picture's upper left corner, xyz, beam along z."""

    lattice: str
    radius_nm: float
    centre: tuple[float, float]
    atoms: Mapping[str, Real]

    @property
    def positions(self) -> Real:
        """All atoms (n, 3)."""
        return np.concatenate(list(self.atoms.values()))


@dataclass(frozen=True)
class Specimen:
    """Atoms per pixel on a grid that is larger than the picture by a margin.

    Parameters
    ----------
    shape
        (H, W) of the picture.
    counts
        Element → atoms of the particles per pixel, bilinearly shared, on the grid.
    b_factors
        Element → Debye–Waller B in Å².
    support
        Carbon atoms per pixel on the grid.
    instances
        Number of the particle, from 1, on the grid; 0 elsewhere: union of discs about the atoms, closed and filled.
    """

    shape: tuple[int, int]
    grid: Grid
    counts: Mapping[str, Map]
    b_factors: Mapping[str, float]
    support: Map
    instances: NDArray[np.int32]
    particles: tuple[Placed, ...]

    @property
    def view(self) -> tuple[slice, slice]:
        """The picture in the grid."""
        return tuple(slice(MARGIN_PX, MARGIN_PX + n) for n in self.shape)  # type: ignore[return-value]


def build(
    shape: tuple[int, int], pixel_size_angstrom: float, particles: Particles, support: Support, rng: Generator
) -> Specimen:
    """Place particles on a support.

    Parameters
    ----------
    shape
        (H, W) of the picture in pixels.
    """
    height, width = (next_fast_len(n + 2 * MARGIN_PX, real=True) for n in shape)
    grid = Grid((height, width), pixel_size_angstrom)
    film = _film(grid, support, rng)
    placed = _place(shape, pixel_size_angstrom, particles, rng)
    counts: dict[str, Map] = {}
    b_factors: dict[str, float] = {}
    instances = np.zeros(grid.shape, np.int32)
    for number, particle in enumerate(placed, start=1):
        for element, positions in particle.atoms.items():
            map_ = deposit(_to_grid(positions, grid), grid.shape)
            counts[element] = counts[element] + map_ if element in counts else map_
            b_factors[element] = LATTICES[particle.lattice].b_factor
        where, region = particle_region(_to_grid(particle.positions, grid), grid)
        instances[where][region] = number
    return Specimen(shape, grid, counts, b_factors, film, instances, tuple(placed))


def _to_grid(positions: Real, grid: Grid) -> Real:
    """Å, xyz, from the picture's corner → px, yx, on the grid."""
    return positions[:, [1, 0]] / grid.pixel_size + MARGIN_PX


def _place(shape: tuple[int, int], pixel_size: float, particles: Particles, rng: Generator) -> list[Placed]:
    size = np.array(shape) * pixel_size / 10
    n = max(1, round(float(rng.uniform(*particles.per_100_nm2) * np.prod(size) / 100)))
    centres: list[Real] = []
    radii: list[float] = []
    for _ in range(_TRIES):
        if len(radii) == n:
            break
        radius = float(rng.uniform(*particles.radius_nm))
        # Some are cut by the picture's edge, as in any picture; the first is not.
        over = 0.5 * radius if radii else -min(radius, 0.4 * float(size.min()))
        centre = rng.uniform(-over, size + over)
        free = (
            np.linalg.norm(c - centre) >= r + radius + particles.gap_nm for c, r in zip(centres, radii, strict=True)
        )
        if all(free):
            centres.append(centre)
            radii.append(radius)
    return [_particle(c, r, particles, rng) for c, r in zip(centres, radii, strict=True)]


def _particle(centre: Real, radius: float, particles: Particles, rng: Generator) -> Placed:
    """One particle at (y, x) in nm."""
    name = particles.lattices[rng.integers(len(particles.lattices))]
    lattice = LATTICES[name]
    fault: atoms.FaultKind = "none"
    if rng.random() < particles.fault_share:
        fault = "twin" if rng.random() < 0.5 else "stacking fault"
    crystal = atoms.crystal(lattice, 10 * radius, rng, shape=particles.shape, fault=fault)
    if rng.random() < particles.zone_axis_share:
        rotation = atoms.zone_axis_rotation(lattice, rng, tilt_deg=particles.tilt_deg)
    else:
        rotation = atoms.random_rotation(rng)
    shift = np.array([10 * centre[1], 10 * centre[0], 0.0])
    turned = crystal.turned(rotation)
    moved = {element: positions + shift for element, positions in turned.atoms.items()}
    return Placed(name, radius, (float(centre[0]), float(centre[1])), moved)


def _film(grid: Grid, support: Support, rng: Generator) -> Map:
    """Carbon atoms per pixel."""
    if support.kind == "vacuum":
        return np.zeros(grid.shape, np.float32)
    if support.kind == "graphene":
        return _graphene(grid, rng) * _present(grid, support.hole, rng)
    per_pixel = number_density(support.density_g_cm3) * 10 * support.thickness_nm * grid.pixel_size**2
    thickness = 1 + support.unevenness * _smooth(grid, 25.0, rng) if support.unevenness else np.float32(1)
    mean = (per_pixel * np.clip(thickness, 0.2, None) * _present(grid, support.hole, rng)).astype(np.float32)
    # Many atoms share the width of one in projection: their number is as good as normal.
    white = np.sqrt(mean) * rng.standard_normal(grid.shape, np.float32)
    shaped = rfft2(white) * np.sqrt(structure_factor(grid.q_squared()))
    return mean + np.asarray(irfft2(shaped, s=grid.shape), np.float32)


def _smooth(grid: Grid, scale: float, rng: Generator) -> Map:
    """Random field (H, W) of mean 0 and variance 1 that varies over `scale` Å."""
    spectrum = rfft2(rng.standard_normal(grid.shape, np.float32)) * np.exp(-2 * (np.pi * scale) ** 2 * grid.q_squared())
    spectrum[0, 0] = 0
    field = irfft2(spectrum, s=grid.shape)
    return np.asarray(field / (field.std() + 1e-12), np.float32)


def _present(grid: Grid, hole: float, rng: Generator) -> Map:
    """1 where the film is, 0 in a hole that takes so much of the grid, its edge rough and some Å wide."""
    if hole <= 0:
        return np.ones((1, 1), np.float32)
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in grid.shape)
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.sin(angle) * y[:, None] + np.cos(angle) * x[None, :]
    bent = slope + rng.uniform(-0.3, 0.3) * (y[:, None] ** 2 + x[None, :] ** 2) + 0.05 * _smooth(grid, 12.0, rng)
    edge = np.quantile(bent[::4, ::4], hole)
    width = 8.0 / (0.5 * min(grid.shape) * grid.pixel_size)
    return np.asarray(np.clip((bent - edge) / width, 0, 1), np.float32)


def _graphene(grid: Grid, rng: Generator) -> Map:
    """One sheet, turned at random: atoms per pixel."""
    reach = 0.75 * np.hypot(*grid.shape) * grid.pixel_size
    a = _GRAPHENE_BOND * np.sqrt(3)
    vectors = np.array([[a, 0.0], [a / 2, a * np.sqrt(3) / 2]])
    half = int(np.ceil(1.3 * reach / a))
    cells = np.stack(np.meshgrid(*[np.arange(-half, half + 1)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    first = (cells + rng.uniform(size=2)) @ vectors
    both = np.concatenate([first, first + np.array([0.0, _GRAPHENE_BOND])])
    both = both[np.hypot(*both.T) < reach] @ turn.T
    return deposit(both / grid.pixel_size + np.asarray(grid.shape) / 2, grid.shape)
