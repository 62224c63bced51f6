"""Nanoparticles on a support, as projected atoms on a grid, with masks that follow from the atoms' places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator
from scipy.fft import next_fast_len

from napari_emtransfer.core.synth import atoms
from napari_emtransfer.core.synth.atoms_lattices import LATTICES
from napari_emtransfer.core.synth.generator import Settings, Share
from napari_emtransfer.core.synth.hrtem_masks import particle_region
from napari_emtransfer.core.synth.hrtem_support import Support, films, presence
from napari_emtransfer.core.synth.scattering import Grid, deposit

Real = NDArray[np.float64]
Map = NDArray[np.float32]
# Around the picture: what a lens brings in from outside, and where the FFT's edges meet.
MARGIN_PX: Final = 32
_TRIES_PER_PARTICLE: Final = 40


def _known(name: str) -> str:
    if name not in LATTICES:
        raise ValueError(f"no lattice is called {name!r}; known are {', '.join(LATTICES)}")
    return name


LatticeName = Annotated[str, AfterValidator(_known)]
Radius = Annotated[float, Field(ge=0.4, le=30)]


class Particles(Settings):
    """Which particles lie on the support.

    Parameters
    ----------
    lattices
        Names of `atoms_lattices.LATTICES`; each particle takes one.
    radius_nm
        Least and greatest; uniform between.
    per_100_nm2
        Least and greatest number in 10 nm × 10 nm; at least one particle is placed where there is room, none in a hole.
    gap_nm
        Least distance between two surfaces, were they spheres; negative lets them overlap in projection.
    zone_axis_share
        Part of the particles that are near a zone axis; the others lie anyhow.
    tilt_deg
        Standard deviation of each component of the tilt off that axis.
    roughness
        Relative standard deviation of a round particle's radius over its surface.
    fault_share
        Part of the particles with a stacking fault or a twin, where the lattice has a plane for it.
    """

    lattices: tuple[LatticeName, ...] = Field(default=("Au",), min_length=1)
    radius_nm: tuple[Radius, Radius] = (1.5, 2.5)
    per_100_nm2: tuple[float, float] = (0.6, 3.0)
    gap_nm: float = 1.0
    shape: atoms.Shape = "sphere"
    roughness: float = Field(default=0.0, ge=0, le=0.3)
    zone_axis_share: Share = 0.5
    tilt_deg: float = Field(default=2.0, ge=0, le=90)
    fault_share: Share = 0.3

    @model_validator(mode="after")
    def _ranges_rise(self) -> Self:
        for low, high in (self.radius_nm, self.per_100_nm2):
            if low > high:
                raise ValueError(f"a range from {low} to {high} is none; the lesser comes first")
        return self


@dataclass(frozen=True)
class Placed:
    """One particle where it lies: its atoms in Å from the picture's upper left corner, xyz.

    The beam runs along +z; a film takes 0 ≤ z ≤ its thickness.
    """

    lattice: str
    radius_nm: float
    centre: tuple[float, float]
    atoms: Mapping[str, Real]

    @property
    def positions(self) -> Real:
        """All atoms (n, 3)."""
        return np.concatenate(list(self.atoms.values()))


@dataclass(frozen=True)
class Slab:
    """What lies between two planes, as atoms per pixel on the grid: of the particles by element, and carbon.

    `depth` is its middle in Å.
    """

    depth: float
    counts: Mapping[str, Map]
    carbon: Map | None


@dataclass(frozen=True)
class Specimen:
    """Atoms per pixel on a grid that is larger than the picture by a margin.

    Parameters
    ----------
    shape
        (H, W) of the picture.
    slabs
        In the order in which the beam meets them.
    focus
        Depth in Å of the particles' middle, where zero defocus is; without any, the support's.
    b_factors
        Element → Debye–Waller B in Å².
    instances
        Number of the particle, from 1, on the grid; 0 elsewhere: union of discs about the atoms, closed and filled.
    """

    shape: tuple[int, int]
    grid: Grid
    slabs: tuple[Slab, ...]
    focus: float
    b_factors: Mapping[str, float]
    instances: NDArray[np.int32]
    particles: tuple[Placed, ...]

    @property
    def view(self) -> tuple[slice, slice]:
        """The picture in the grid."""
        height, width = self.shape
        return slice(MARGIN_PX, MARGIN_PX + height), slice(MARGIN_PX, MARGIN_PX + width)

    @property
    def counts(self) -> dict[str, Map]:
        """Element → atoms of the particles per pixel, projected."""
        found: dict[str, Map] = {}
        for slab in self.slabs:
            for element, counts in slab.counts.items():
                found[element] = found[element] + counts if element in found else counts
        return found

    @property
    def carbon(self) -> Map | None:
        """Carbon atoms of the support per pixel, projected."""
        films = [slab.carbon for slab in self.slabs if slab.carbon is not None]
        return sum(films[1:], films[0]) if films else None


def build(
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    particles: Particles,
    support: Support,
    rng: Generator,
    *,
    slab_nm: float | None = None,
) -> Specimen:
    """Place particles on a support.

    Parameters
    ----------
    shape
        (H, W) of the picture in pixels.
    slab_nm
        Greatest thickness of a slab; None projects everything into one.
    """
    height, width = (next_fast_len(n + 2 * MARGIN_PX, real=True) for n in shape)
    grid = Grid((height, width), pixel_size_angstrom)
    present = presence(grid, support.hole, rng)
    placed = _place(shape, grid, particles, support, present, rng)
    instances = np.zeros(grid.shape, np.int32)
    for number, particle in enumerate(placed, start=1):
        where, region = particle_region(_to_grid(particle.positions, grid), grid)
        instances[where][region] = number
    slabs = _slabs(grid, placed, support, present, slab_nm, rng)
    depths = [particle.positions[:, 2].mean() for particle in placed]
    focus = float(np.mean(depths)) if depths else support.depth / 2
    b_factors = {element: LATTICES[one.lattice].b_factor for one in placed for element in one.atoms}
    return Specimen(shape, grid, slabs, focus, b_factors, instances, tuple(placed))


def _slabs(
    grid: Grid, placed: list[Placed], support: Support, present: Map, slab_nm: float | None, rng: Generator
) -> tuple[Slab, ...]:
    elements = {element for one in placed for element in one.atoms}
    atoms_of = {e: np.concatenate([one.atoms[e] for one in placed if e in one.atoms]) for e in sorted(elements)}
    depths = np.concatenate([positions[:, 2] for positions in atoms_of.values()] + [np.array([0.0, support.depth])])
    low, high = float(depths.min()), float(depths.max()) + 1e-6
    n = 1 if slab_nm is None else max(1, int(np.ceil((high - low) / (10 * slab_nm))))
    edges = np.linspace(low, high, n + 1)
    carbon = films(grid, support, present, edges, rng)
    slabs = []
    for first, last, film in zip(edges[:-1], edges[1:], carbon, strict=True):
        counts = {}
        for element, positions in atoms_of.items():
            here = positions[(positions[:, 2] >= first) & (positions[:, 2] < last)]
            if len(here):
                counts[element] = deposit(_to_grid(here, grid), grid.shape)
        slabs.append(Slab(float(first + last) / 2, counts, film))
    return tuple(slabs)


def _to_grid(positions: Real, grid: Grid) -> Real:
    """Å, xyz, from the picture's corner → px, yx, on the grid."""
    return positions[:, [1, 0]] / grid.pixel_size + MARGIN_PX


def _place(
    shape: tuple[int, int], grid: Grid, particles: Particles, support: Support, present: Map, rng: Generator
) -> list[Placed]:
    size = np.array(shape) * grid.pixel_size / 10
    n = max(1, round(float(rng.uniform(*particles.per_100_nm2) * np.prod(size) / 100)))
    centres, radii = np.empty((n, 2)), np.empty(n)
    found = 0
    for _ in range(_TRIES_PER_PARTICLE * n):
        radius = float(rng.uniform(*particles.radius_nm))
        # Some are cut by the picture's edge, as in any picture; the first is not.
        over = 0.5 * radius if found else -min(radius, 0.25 * float(size.min()))
        centre = rng.uniform(-over, size + over)
        apart = np.hypot(*(centres[:found] - centre).T) - radii[:found] - radius
        if (apart >= particles.gap_nm).all() and _at(centre, grid, present) > 0.5:
            centres[found], radii[found] = centre, radius
            found += 1
        if found == n:
            break
    placed = zip(centres[:found], radii[:found], strict=True)
    return [_particle(centre, float(radius), particles, support, rng) for centre, radius in placed]


def _at(centre: Real, grid: Grid, map_: Map) -> float:
    """Value of a map on the grid at (y, x) in nm of the picture, or at the grid's edge next to it."""
    y, x = np.clip(np.rint(10 * centre / grid.pixel_size + MARGIN_PX), 0, np.array(grid.shape) - 1).astype(int)
    return float(map_[y, x])


def _particle(centre: Real, radius: float, particles: Particles, support: Support, rng: Generator) -> Placed:
    """One particle at (y, x) in nm."""
    name = particles.lattices[rng.integers(len(particles.lattices))]
    lattice = LATTICES[name]
    fault: atoms.FaultKind = "none"
    if rng.random() < particles.fault_share:
        fault = "twin" if rng.random() < 0.5 else "stacking fault"
    crystal = atoms.crystal(
        lattice, 10 * radius, rng, shape=particles.shape, fault=fault, roughness=particles.roughness
    )
    if rng.random() < particles.zone_axis_share:
        rotation = atoms.zone_axis_rotation(lattice, rng, tilt_deg=particles.tilt_deg)
    else:
        rotation = atoms.random_rotation(rng)
    turned = crystal.turned(rotation)
    depths = np.concatenate([positions[:, 2] for positions in turned.atoms.values()])
    lift = support.depth - depths.min() if support.side == "entrance" else -depths.max()
    shift = np.array([10 * centre[1], 10 * centre[0], lift])
    moved = {element: positions + shift for element, positions in turned.atoms.items()}
    return Placed(name, radius, (float(centre[0]), float(centre[1])), moved)
