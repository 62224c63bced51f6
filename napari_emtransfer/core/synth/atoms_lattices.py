"""Crystal lattices for nanoparticles: cell, basis, zone axes worth looking along, facets, and where a fault may lie.

Cell lengths at room temperature, in Å. Sources: [W] R. W. G. Wyckoff, Crystal Structures, 2nd ed. (1963–65);
[K] C. Kittel, Introduction to Solid State Physics, 8th ed., ch. 1 table 3; [M] O. Madelung, Semiconductors: Data
Handbook, 3rd ed. (2004); [F] M. E. Fleet, Acta Cryst. B37, 917 (1981).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]
Site = tuple[str, tuple[float, float, float]]
Direction = tuple[float, float, float]
Facet = tuple[tuple[int, int, int], float]


@dataclass(frozen=True)
class Fault:
    """A close-packed plane (normal, spacing in Å) on which a crystal may be sheared or twinned.

    `cut` is where between two planes the bonds are cut for a shear, `twin_cut` for a twin, as parts of the spacing;
    `shift` is the shear in Å. A twin is turned by 180° about the normal, which keeps the polarity of a compound.
    """

    normal: Direction
    spacing: float
    shift: Direction
    cut: float
    twin_cut: float | None = None


@dataclass(frozen=True)
class Lattice:
    """A crystal: hexagonal cells have a along x and γ = 120°, all others right angles.

    Parameters
    ----------
    cell
        Lengths a, b, c in Å.
    basis
        Element and fractional coordinates of every atom of the cell.
    zone_axes
        Directions [uvw] of the cell that show columns of atoms.
    facets
        Families {hkl} of a cubic crystal and their relative distances from the centre; empty: always round.
    b_factor
        Debye–Waller B in Å² at room temperature, rounded.
    """

    structure: Literal["fcc", "bcc", "hcp", "diamond", "zinc-blende", "wurtzite", "rock-salt", "spinel"]
    cell: tuple[float, float, float]
    basis: tuple[Site, ...]
    zone_axes: tuple[Direction, ...]
    source: str
    facets: tuple[Facet, ...] = ()
    fault: Fault | None = None
    b_factor: float = 0.6
    hexagonal: bool = False

    @property
    def vectors(self) -> Real:
        """Cell vectors as rows (3, 3), in Å."""
        a, b, c = self.cell
        second = (-b / 2, b * np.sqrt(3) / 2, 0.0) if self.hexagonal else (0.0, b, 0.0)
        return np.array([(a, 0.0, 0.0), second, (0.0, 0.0, c)])

    @property
    def elements(self) -> tuple[str, ...]:
        """Chemical symbols, each once."""
        return tuple(dict.fromkeys(element for element, _ in self.basis))

    @property
    def density(self) -> float:
        """Atoms per Å³."""
        return len(self.basis) / float(np.linalg.det(self.vectors))


_CUBIC_AXES: Final = ((1.0, 1.0, 0.0), (1.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1.0, 1.0, 2.0))
_BCC_AXES: Final = ((1.0, 1.0, 1.0), (1.0, 0.0, 0.0), (1.0, 1.0, 0.0))
# [uvw] of a hexagonal cell: along c, along a, and across a.
_HEXAGONAL_AXES: Final = ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (2.0, 1.0, 0.0))
_FACE_CENTRED: Final = ((0.0, 0.0, 0.0), (0.0, 0.5, 0.5), (0.5, 0.0, 0.5), (0.5, 0.5, 0.0))
# Wulff: {100} of a metal costs about 1.15 times as much as {111}.
_METAL_FACETS: Final[tuple[Facet, ...]] = (((1, 1, 1), 1.0), ((1, 0, 0), 1.15))
_BCC_FACETS: Final[tuple[Facet, ...]] = (((1, 1, 0), 1.0), ((1, 0, 0), 1.2))
_ROCK_SALT_FACETS: Final[tuple[Facet, ...]] = (((1, 0, 0), 1.0), ((1, 1, 1), 1.45))


def _centred(*sites: Site) -> tuple[Site, ...]:
    return tuple(
        (element, ((u + du) % 1.0, (v + dv) % 1.0, (w + dw) % 1.0))
        for element, (u, v, w) in sites
        for du, dv, dw in _FACE_CENTRED
    )


def _close_packed(a: float, cut: float) -> Fault:
    """{111} of a face-centred cube, sheared by a/6 ⟨112⟩."""
    n = 1 / np.sqrt(3)
    return Fault((n, n, n), a * n, (a / 6, a / 6, -a / 3), cut, 0.375)


def _basal(a: float, c: float, cut: float) -> Fault:
    """(0001), sheared by ⅓⟨1-100⟩, which turns the sequence ABAB into ABAB|CACA."""
    shift = a / 3 * np.array([1.0, 0.0]) - a / 3 * np.array([-0.5, np.sqrt(3) / 2])
    return Fault((0.0, 0.0, 1.0), c / 2, (float(shift[0]), float(shift[1]), 0.0), cut)


def _fcc(element: str, a: float, b_factor: float) -> Lattice:
    fault = _close_packed(a, 0.5)
    basis = _centred((element, (0, 0, 0)))
    return Lattice("fcc", (a, a, a), basis, _CUBIC_AXES, "[K]", _METAL_FACETS, fault, b_factor)


def _bcc(element: str, a: float, b_factor: float) -> Lattice:
    basis = ((element, (0.0, 0.0, 0.0)), (element, (0.5, 0.5, 0.5)))
    return Lattice("bcc", (a, a, a), basis, _BCC_AXES, "[K]", _BCC_FACETS, None, b_factor)


def _tetrahedral(first: str, second: str, a: float, source: str, b_factor: float) -> Lattice:
    basis = _centred((first, (0, 0, 0)), (second, (0.25, 0.25, 0.25)))
    kind: Literal["diamond", "zinc-blende"] = "diamond" if first == second else "zinc-blende"
    return Lattice(kind, (a, a, a), basis, _CUBIC_AXES, source, (), _close_packed(a, 0.875), b_factor)


def _wurtzite(first: str, second: str, a: float, c: float, u: float, b_factor: float) -> Lattice:
    third, two = 1 / 3, 2 / 3
    basis = (
        (first, (third, two, 0.0)),
        (first, (two, third, 0.5)),
        (second, (third, two, u)),
        (second, (two, third, 0.5 + u)),
    )
    fault = _basal(a, c, 0.875)
    return Lattice("wurtzite", (a, a, c), basis, _HEXAGONAL_AXES, "[W]", (), fault, b_factor, hexagonal=True)


def _rock_salt(first: str, second: str, a: float, b_factor: float) -> Lattice:
    basis = _centred((first, (0, 0, 0)), (second, (0.5, 0.5, 0.5)))
    return Lattice("rock-salt", (a, a, a), basis, _CUBIC_AXES, "[W]", _ROCK_SALT_FACETS, None, b_factor)


def _spinel(metal: str, a: float, u: float, source: str) -> Lattice:
    """Fd-3m, origin at a tetrahedral site (-43m): A in 8a, B in 16d, O in 32e with the parameter u (ideal ⅜)."""
    d, w = 0.625, 0.25 - u
    tetrahedral = [(metal, (0.0, 0.0, 0.0)), (metal, (0.25, 0.25, 0.25))]
    octahedral = [(metal, p) for p in ((d, d, d), (d, 0.875, 0.875), (0.875, d, 0.875), (0.875, 0.875, d))]
    first = (u, u, u), (u, -u, -u), (-u, u, -u), (-u, -u, u)
    second = (w, w, w), (w, 0.25 + u, 0.25 + u), (0.25 + u, w, 0.25 + u), (0.25 + u, 0.25 + u, w)
    oxygen = [("O", p) for p in first + second]
    basis = _centred(*tetrahedral, *octahedral, *oxygen)
    return Lattice("spinel", (a, a, a), basis, _CUBIC_AXES, source, (), None, 0.5)


def _cobalt() -> Lattice:
    a, c = 2.507, 4.069
    basis = (("Co", (0.0, 0.0, 0.0)), ("Co", (1 / 3, 2 / 3, 0.5)))
    return Lattice("hcp", (a, a, c), basis, _HEXAGONAL_AXES, "[K]", (), _basal(a, c, 0.5), 0.5, hexagonal=True)


LATTICES: Final[Mapping[str, Lattice]] = {
    "Au": _fcc("Au", 4.078, 0.63),
    "Pt": _fcc("Pt", 3.924, 0.38),
    "Pd": _fcc("Pd", 3.890, 0.45),
    "Ag": _fcc("Ag", 4.086, 0.73),
    "Cu": _fcc("Cu", 3.615, 0.55),
    "Ni": _fcc("Ni", 3.524, 0.37),
    "Fe": _bcc("Fe", 2.866, 0.34),
    "W": _bcc("W", 3.165, 0.16),
    "Co": _cobalt(),
    "C": _tetrahedral("C", "C", 3.567, "[K]", 0.15),
    "Si": _tetrahedral("Si", "Si", 5.431, "[K]", 0.47),
    "CdSe cubic": _tetrahedral("Cd", "Se", 6.052, "[M]", 1.0),
    "ZnS cubic": _tetrahedral("Zn", "S", 5.409, "[M]", 0.8),
    "CdSe": _wurtzite("Cd", "Se", 4.299, 7.010, 0.376, 1.0),
    "ZnS": _wurtzite("Zn", "S", 3.811, 6.234, 0.375, 0.8),
    "PbS": _rock_salt("Pb", "S", 5.936, 1.0),
    "MgO": _rock_salt("Mg", "O", 4.211, 0.3),
    "NiO": _rock_salt("Ni", "O", 4.177, 0.4),
    "Fe3O4": _spinel("Fe", 8.394, 0.3798, "[F]"),
    "Co3O4": _spinel("Co", 8.084, 0.388, "[W]"),
}
