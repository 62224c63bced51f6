"""The faithful way: multislice with moving atoms by abTEM, for particles that a phase object does not describe.

abTEM (J. Madsen & T. Susi, Open Research Europe 1, 24 (2021)) is GPL-3.0-or-later: it is an extra, and imported only at
the moment of use. Some seconds per configuration of atoms; the exit waves serve all defoci and doses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.fft import fft2

from napari_emtransfer.core.errors import SynthesisError
from napari_emtransfer.core.synth.atoms_carbon import carbon_positions
from napari_emtransfer.core.synth.hrtem import HrtemSettings, Prepared, instances_of
from napari_emtransfer.core.synth.hrtem_imaging import ExitWave, Imaging, Map, propagator
from napari_emtransfer.core.synth.hrtem_specimen import MARGIN_PX, Specimen, build

OMITS: Final = (
    "inelastic scattering: plasmons, and the background they give",
    "ligands, oxide shells, contamination and strain",
    "defects of the camera: dead pixels, X-rays, seams",
)
# Empty space before the first and after the last atom: potentials reach beyond the nuclei.
_VACUUM_ANGSTROM: Final = 3.0


@dataclass(frozen=True)
class Multislice:
    """How finely to compute.

    `sampling_angstrom` is the coarsest grid, `slice_angstrom` the thickness of a slice; `n_phonons` configurations of
    atoms, displaced by a normal distribution with the standard deviation `displacement_angstrom`, are averaged.
    """

    sampling_angstrom: float = 0.1
    slice_angstrom: float = 2.0
    n_phonons: int = 8
    displacement_angstrom: float = 0.08


@dataclass(frozen=True)
class Ensemble:
    """Exit waves of one specimen, its atoms frozen at as many moments."""

    waves: tuple[ExitWave, ...]

    def intensity(self, imaging: Imaging) -> Map:
        """Mean intensity (H, W) over the moments."""
        return np.mean([wave.intensity(imaging) for wave in self.waves], axis=0, dtype=np.float32)


def prepare(
    shape: tuple[int, int], *, seed: int, settings: HrtemSettings, accuracy: Multislice | None = None
) -> Prepared:
    """The same particles as `hrtem.prepare` makes of this seed, ready for `hrtem.micrograph`.

    The film is made of atoms; it is even and has no hole.

    Raises
    ------
    SynthesisError
        When abTEM is not installed.
    """
    _abtem()
    rng = np.random.default_rng([seed, 0])
    specimen = build(shape, settings.imaging.pixel_size_angstrom, settings.particles, settings.support, rng)
    ensemble = exit_waves(specimen, settings, accuracy or Multislice(), rng)
    return Prepared(settings, ensemble, instances_of(specimen, settings), seed, "hrtem.multislice", OMITS)


def exit_waves(specimen: Specimen, settings: HrtemSettings, accuracy: Multislice, rng: Generator) -> Ensemble:
    """Multislice through the particles and the atoms of an amorphous film, for every configuration.

    Raises
    ------
    SynthesisError
        When abTEM is not installed.
    """
    abtem = _abtem()
    grid, imaging = specimen.grid, settings.imaging
    height, width = (n * grid.pixel_size for n in grid.shape)
    names, positions = _all_atoms(specimen, settings, rng)
    low = float(positions[:, 2].min()) - _VACUUM_ANGSTROM
    depth = float(positions[:, 2].max()) + _VACUUM_ANGSTROM - low
    atoms = _ase_atoms(names, positions - np.array([0.0, 0.0, low]), (width, height, depth))
    moving = abtem.FrozenPhonons(
        atoms, accuracy.n_phonons, sigmas=accuracy.displacement_angstrom, seed=int(rng.integers(2**31))
    )
    finer = max(1, int(np.ceil(grid.pixel_size / accuracy.sampling_angstrom - 1e-9)))
    points = (grid.shape[1] * finer, grid.shape[0] * finer)
    potential = abtem.Potential(moving, gpts=points, slice_thickness=accuracy.slice_angstrom)
    waves = abtem.PlaneWave(energy=1e3 * imaging.voltage_kv).multislice(potential, lazy=False).array
    back = propagator(grid, imaging.voltage_kv, specimen.focus - (low + depth))
    return Ensemble(
        tuple(
            ExitWave(_cropped(wave.T, grid.shape) * back, grid, specimen.view, imaging.voltage_kv)
            for wave in np.asarray(waves).reshape(-1, *points)
        )
    )


def _abtem() -> ModuleType:
    try:
        import abtem
    except ImportError as error:
        raise SynthesisError(
            "Multislice needs abTEM, which is not installed.",
            "pip install 'napari-emtransfer[multislice]' (abTEM is GPL-3.0-or-later), or leave multislice out.",
        ) from error
    module: ModuleType = abtem
    return module


def _all_atoms(specimen: Specimen, settings: HrtemSettings, rng: Generator) -> tuple[list[str], NDArray[np.float64]]:
    """Symbols and positions (n, 3) in Å, xyz, from the grid's corner; the particles' that lie on it, and the film's."""
    size = np.array([n * specimen.grid.pixel_size for n in specimen.grid.shape])
    margin = MARGIN_PX * specimen.grid.pixel_size
    names: list[str] = []
    parts: list[NDArray[np.float64]] = []
    for particle in specimen.particles:
        for element, positions in particle.atoms.items():
            moved = positions + np.array([margin, margin, 0.0])
            moved = moved[((moved[:, [1, 0]] >= 0) & (moved[:, [1, 0]] < size)).all(axis=1)]
            names += [element] * len(moved)
            parts.append(moved)
    if settings.support.kind == "carbon":
        box = (float(size[1]), float(size[0]), settings.support.depth)
        film = carbon_positions(box, settings.support.density_g_cm3, rng)
        names += ["C"] * len(film)
        parts.append(film)
    return names, np.concatenate(parts)


def _ase_atoms(names: Sequence[str], positions: NDArray[np.float64], cell: tuple[float, float, float]) -> Any:
    from ase import Atoms

    return Atoms(list(names), positions=positions, cell=cell, pbc=True)


def _cropped(wave: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.complex64]:
    """FFT of a finely sampled wave → that of the same wave on a coarser grid (H, W) of the same extent."""
    spectrum = np.fft.fftshift(fft2(wave))
    top, left = ((fine - n) // 2 + (fine % 2 == 0 and n % 2 == 1) for fine, n in zip(wave.shape, shape, strict=True))
    kept = spectrum[top : top + shape[0], left : left + shape[1]]
    return np.asarray(np.fft.ifftshift(kept) * (np.prod(shape) / wave.size), np.complex64)
