"""Amorphous carbon: how its atoms avoid each other, as a structure factor, as a random field, and as positions."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_emtransfer.core.synth.scattering import ELEMENTS

Real = NDArray[np.float64]
_AVOGADRO_PER_CUBIC_ANGSTROM: Final = 0.602214
# Between neighbours in diamond (1.54 Å) and in graphite (1.42 Å), less the disorder.
_CLOSEST: Final = 1.35


def number_density(density_g_cm3: float) -> float:
    """Carbon atoms per Å³: 0.1003 at 2.0 g/cm³."""
    return density_g_cm3 * _AVOGADRO_PER_CUBIC_ANGSTROM / ELEMENTS["C"].mass


def structure_factor(q_squared: NDArray[Any]) -> NDArray[Any]:
    """S(q) of amorphous carbon at q² in 1/Å²: little below 0.3 1/Å, peaks at 0.47 and 0.85 1/Å, 1 far out.

    A smooth likeness of measured ones (F. Li & J. S. Lannin, Phys. Rev. Lett. 65, 1905 (1990), sputtered carbon), not a
    fit: heights are right to some ten percent.
    """
    q = np.sqrt(q_squared)
    plateau = 0.08 + 0.92 / (1 + np.exp(-(q - 0.4) / 0.045))
    first = 0.45 * np.exp(-(((q - 0.47) / 0.06) ** 2))
    dip = -0.35 * np.exp(-(((q - 0.65) / 0.07) ** 2))
    second = 0.5 * np.exp(-(((q - 0.85) / 0.08) ** 2))
    return np.asarray(plateau + first + dip + second)


def carbon_positions(box: tuple[float, float, float], density_g_cm3: float, rng: Generator) -> Real:
    """Positions (n, 3) in Å, xyz, of atoms in a box that is periodic in x and y: random, then pushed apart.

    Atoms that overlap are moved away from each other until hardly any are nearer than in a bond. Costs seconds for ten
    thousand atoms; `structure_factor` gives a picture of the same spectrum for nothing.
    """
    size = np.asarray(box)
    n = max(1, round(number_density(density_g_cm3) * float(np.prod(size))))
    positions = rng.uniform(size=(n, 3)) * size
    periodic = np.array([size[0], size[1], 0.0])
    for _ in range(40):
        pairs = cKDTree(positions, boxsize=periodic).query_pairs(_CLOSEST, output_type="ndarray")
        if len(pairs) == 0:
            break
        positions = _apart(positions, pairs, size)
    return positions


def _apart(positions: Real, pairs: NDArray[np.intp], size: Real) -> Real:
    first, second = pairs.T
    between = positions[first] - positions[second]
    between[:, :2] -= size[:2] * np.round(between[:, :2] / size[:2])
    length = np.linalg.norm(between, axis=1, keepdims=True) + 1e-9
    push = 0.55 * (_CLOSEST - length) * between / length
    moved = positions.copy()
    np.add.at(moved, first, push)
    np.add.at(moved, second, -push)
    # The modulus of a tiny negative number is the size itself, which a periodic tree refuses.
    moved[:, :2] = np.mod(np.mod(moved[:, :2], size[:2]), size[:2])
    moved[:, 2] = np.clip(moved[:, 2], 0, size[2])
    return moved
