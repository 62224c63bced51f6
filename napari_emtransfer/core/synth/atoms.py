"""Atoms of nanoparticles: a lattice cut to a shape, with or without a planar fault, turned under the beam."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations, product
from typing import Final, Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from napari_emtransfer.core.synth.atoms_lattices import Fault, Lattice

Real = NDArray[np.float64]
Shape = Literal["sphere", "ellipsoid", "faceted"]
FaultKind = Literal["none", "stacking fault", "twin"]
# The equator of a sphere may be drawn out by so much, and squeezed across.
_ELONGATION: Final = 1.5
# How far from its centre a particle may have atoms, in radii: corners of facets, bumps.
_REACH: Final = 1.8
_N_WAVES: Final = 6


@dataclass(frozen=True)
class Crystal:
    """Atoms of one particle about its centre: element → positions (n, 3) in Å, xyz, beam along z."""

    atoms: Mapping[str, Real]

    @property
    def n(self) -> int:
        """Atoms in all."""
        return sum(len(positions) for positions in self.atoms.values())

    def turned(self, rotation: Real) -> Crystal:
        """The same atoms after a rotation (3, 3)."""
        return Crystal({element: positions @ rotation.T for element, positions in self.atoms.items()})


def crystal(
    lattice: Lattice,
    radius: float,
    rng: Generator,
    *,
    shape: Shape = "sphere",
    fault: FaultKind = "none",
    roughness: float = 0.0,
) -> Crystal:
    """Cut a particle out of a lattice; in the lattice's own frame.

    Parameters
    ----------
    radius
        Of a sphere, in Å; mean of an ellipsoid's half-axes; distance of a faceted particle's nearest facets.
    shape
        "faceted" is a sphere where the lattice names no facets.
    fault
        Through the particle somewhere near its middle; none where the lattice has no plane for it.
    roughness
        Standard deviation of a round particle's radius over its surface, relative.
    """
    plane = lattice.fault if fault != "none" else None
    centre = _centre(lattice, plane, radius, rng)
    half_axes = _half_axes(radius, rng) if shape == "ellipsoid" else np.full(3, radius)
    positions, site = _sites(lattice, centre, _REACH * radius)
    if plane is not None:
        positions = _faulted(positions, plane, fault)
    positions = positions - centre
    if shape == "faceted" and lattice.facets:
        kept = _within_facets(positions, lattice, radius)
    else:
        kept = _within_ellipsoid(positions, half_axes, roughness, rng)
    positions, names = positions[kept], np.array([element for element, _ in lattice.basis])[site[kept]]
    return Crystal({element: positions[names == element] for element in lattice.elements})


def random_rotation(rng: Generator) -> Real:
    """A rotation (3, 3), all orientations equally likely (a normal quaternion)."""
    w, x, y, z = (q := rng.normal(size=4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def zone_axis_rotation(lattice: Lattice, rng: Generator, *, tilt_deg: float = 0.0) -> Real:
    """A rotation (3, 3) that puts one of the lattice's zone axes along the beam, off by a tilt, turned at random.

    Parameters
    ----------
    tilt_deg
        Scale of the tilt: both its components are normal with this standard deviation.
    """
    axis = np.asarray(lattice.zone_axes[rng.integers(len(lattice.zone_axes))]) @ lattice.vectors
    tilt = np.deg2rad(tilt_deg) * rng.normal(size=2)
    angle = float(np.hypot(*tilt))
    direction = np.array([tilt[0], tilt[1], 0.0]) / angle if angle > 0 else np.array([1.0, 0.0, 0.0])
    about_beam = rotation_about(np.array([0.0, 0.0, 1.0]), rng.uniform(0, 2 * np.pi))
    return rotation_about(direction, angle) @ about_beam @ _onto_beam(axis)


def rotation_about(axis: Real, angle: float) -> Real:
    """Rodrigues' rotation (3, 3) about a unit vector by an angle in rad."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _onto_beam(axis: Real) -> Real:
    """The rotation that turns a direction into +z by the shortest way."""
    x, y, z = axis / np.linalg.norm(axis)
    sine = float(np.hypot(x, y))
    if sine < 1e-12:
        return np.eye(3)
    return rotation_about(np.array([y, -x, 0.0]) / sine, float(np.arctan2(sine, z)))


def _centre(lattice: Lattice, plane: Fault | None, radius: float, rng: Generator) -> Real:
    """Where in the lattice the particle's centre lies: anywhere in a cell; a fault is near it, seldom through it."""
    centre: Real = rng.uniform(size=3) @ lattice.vectors
    if plane is None:
        return centre
    normal = np.asarray(plane.normal)
    return centre + (rng.uniform(-0.4, 0.4) * radius - centre @ normal) * normal


def _sites(lattice: Lattice, centre: Real, reach: float) -> tuple[Real, NDArray[np.intp]]:
    """Positions (n, 3) of all atoms in a ball, and which site of the basis each takes (n,)."""
    vectors = lattice.vectors
    # Planes (100), (010), (001) lie so far apart: a ball of `reach` spans so many cells.
    spans = reach * np.linalg.norm(np.linalg.inv(vectors), axis=0) + 1
    middle = centre @ np.linalg.inv(vectors)
    ranges = [np.arange(np.floor(m - s), np.ceil(m + s) + 1) for m, s in zip(middle, spans, strict=True)]
    cells = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3)
    corners = cells @ vectors
    # A cell whose corner is farther than its own diagonal has no atom in the ball.
    near = ((corners - centre) ** 2).sum(axis=1) < (reach + np.linalg.norm(vectors.sum(axis=0))) ** 2
    fractions = np.array([fraction for _, fraction in lattice.basis])
    positions: Real = (corners[near][:, None] + fractions @ vectors).reshape(-1, 3)
    site = np.tile(np.arange(len(fractions)), int(near.sum()))
    inside = ((positions - centre) ** 2).sum(axis=1) < reach**2
    return positions[inside], site[inside]


def _faulted(positions: Real, plane: Fault, kind: FaultKind) -> Real:
    """Shear or twin what lies above the plane next to the lattice's origin."""
    normal = np.asarray(plane.normal)
    is_twin = kind == "twin" and plane.twin_cut is not None
    cut = plane.twin_cut if is_twin and plane.twin_cut is not None else plane.cut
    above = (positions @ normal > cut * plane.spacing)[:, None]
    moved = positions @ rotation_about(normal, np.pi).T if is_twin else positions + plane.shift
    return np.where(above, moved, positions)


def _half_axes(radius: float, rng: Generator) -> Real:
    stretch = rng.uniform(1.0, _ELONGATION)
    axes = np.array([stretch, 1.0, rng.uniform(0.8, 1.0)])
    return np.asarray(radius * axes / axes.mean())


def _within_ellipsoid(positions: Real, half_axes: Real, roughness: float, rng: Generator) -> NDArray[np.bool_]:
    scaled = positions / half_axes
    distance = np.linalg.norm(scaled, axis=1)
    if not roughness:
        return np.asarray(distance < 1)
    # A few waves over the sphere of directions.
    waves, phases = rng.normal(0, 2.5, (3, _N_WAVES)), rng.uniform(0, 2 * np.pi, _N_WAVES)
    directions = scaled / np.maximum(distance, 1e-9)[:, None]
    bumps = np.cos(directions @ waves + phases).sum(axis=1) * np.sqrt(2 / _N_WAVES)
    return np.asarray(distance < 1 + roughness * bumps)


def _within_facets(positions: Real, lattice: Lattice, radius: float) -> NDArray[np.bool_]:
    normals, distances = _facets(lattice)
    return np.asarray((positions @ normals.T < radius * distances).all(axis=1))


def _facets(lattice: Lattice) -> tuple[Real, Real]:
    """Unit normals (n, 3) of all facets of a cubic crystal, and their relative distances (n,)."""
    normals, distances = [], []
    for indices, distance in lattice.facets:
        signed = {
            tuple(s * i for s, i in zip(signs, order, strict=True))
            for order in permutations(indices)
            for signs in product((1, -1), repeat=3)
        }
        for normal in sorted(signed):
            normals.append(np.asarray(normal) / np.linalg.norm(normal))
            distances.append(distance)
    return np.array(normals), np.array(distances)
