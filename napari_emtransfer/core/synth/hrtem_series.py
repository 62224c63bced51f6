"""The imaging and structure domains of the HRTEM transfer-learning study, and series of one specimen through them.

Source: L. Rangel DaCosta, K. Oill, M. C. Scott, Elemental Microscopy EM000010 (2025). CdSe spheres of 3 to 5 nm, 1 to 5
in 12.8 nm × 12.8 nm, up to two stacking faults, at least 1 nm apart, atop 2 to 8 nm of amorphous carbon; 300 kV, focal
spread 10 Å, 0.2 Å per pixel, 400 e/Å² (300 for the structures); zero defocus at the least contrast of the particles
alone, which is their middle; defocus within a domain spread by 1.5 nm. The study computes multislice waves with frozen
phonons and labels by phase; here slabs are thick, atoms rest, faults are at most one, masks are geometric.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.random import Generator

from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.core.synth.hrtem import HrtemSettings, Imaging, Particles, Support, micrograph, prepare
from napari_emtransfer.core.synth.micrograph import SyntheticMicrograph

DEFOCUS_SPREAD_NM: Final = 1.5
_STUDY_PARTICLES: Final = Particles(
    lattices=("CdSe",),
    radius_nm=(1.5, 2.5),
    per_100_nm2=(0.61, 3.05),
    gap_nm=1.0,
    shape="sphere",
    zone_axis_share=0.0,
    fault_share=0.5,
)
_SIZES: Final = {"small": (1.0, 2.0), "large": (2.5, 3.5)}
_STRUCTURES: Final = ("ZnS", "CdSe", "Cu", "Ag", "C", "Si", "Fe3O4", "Co3O4", "Fe")


@dataclass(frozen=True)
class Domain:
    """One imaging condition and one kind of particle."""

    name: str
    defocus_nm: float = -10.0
    dose_e_per_a2: float = 400.0
    particles: Particles = _STUDY_PARTICLES

    def settings(self, rng: Generator, *, pixel_size_angstrom: float = 0.2) -> HrtemSettings:
        """Draw what varies within the domain: the carbon's thickness and the defocus."""
        thickness = float(rng.uniform(2, 8))
        imaging = self.imaging(rng, pixel_size_angstrom)
        return HrtemSettings(
            particles=self.particles,
            support=Support(thickness_nm=thickness),
            imaging=imaging,
            slab_nm=2.5,
        )

    def imaging(self, rng: Generator, pixel_size_angstrom: float = 0.2) -> Imaging:
        """The microscope alone, with the defocus drawn."""
        return Imaging(
            voltage_kv=300.0,
            defocus_nm=float(rng.normal(self.defocus_nm, DEFOCUS_SPREAD_NM)),
            focal_spread_nm=1.0,
            convergence_mrad=0.0,
            vibration_pm=0.0,
            pixel_size_angstrom=pixel_size_angstrom,
            dose_e_per_a2=self.dose_e_per_a2,
        )


def _structure_domains() -> tuple[Domain, ...]:
    return tuple(
        Domain(
            f"structure:{name}-{size}",
            dose_e_per_a2=300.0,
            particles=_STUDY_PARTICLES.model_copy(update={"lattices": (name,), "radius_nm": radii}),
        )
        for size, radii in _SIZES.items()
        for name in _STRUCTURES
    )


SERIES: Final[Mapping[str, tuple[Domain, ...]]] = {
    "defocus": tuple(Domain(f"defocus:{d:+d}" if d else "defocus:0", defocus_nm=d) for d in range(-25, 26, 5)),
    "dose": tuple(Domain(f"dose:{d}", dose_e_per_a2=d) for d in (30, 75, 150, 300, 600)),
    "structure": _structure_domains(),
}
DOMAINS: Final[Mapping[str, Domain]] = {domain.name: domain for domains in SERIES.values() for domain in domains}


def series(
    name: str, shape: tuple[int, int], *, seed: int, pixel_size_angstrom: float = 0.2
) -> Iterator[tuple[str, SyntheticMicrograph]]:
    """Every domain of a series in turn, of one specimen where only the imaging differs: its exit wave is computed once.

    Parameters
    ----------
    name
        "defocus", "dose" or "structure".

    Raises
    ------
    EMTransferError
        When no series is called so.
    """
    if name not in SERIES:
        raise EMTransferError(f"No series is called {name!r}.", f"Known are {', '.join(SERIES)}.")
    rng = np.random.default_rng([seed, 2])
    prepared = None
    for domain in SERIES[name]:
        if prepared is None or prepared.settings.particles != domain.particles:
            prepared = prepare(shape, seed=seed, settings=domain.settings(rng, pixel_size_angstrom=pixel_size_angstrom))
            yield domain.name, micrograph(prepared)
        else:
            yield domain.name, micrograph(prepared, domain.imaging(rng, pixel_size_angstrom))
