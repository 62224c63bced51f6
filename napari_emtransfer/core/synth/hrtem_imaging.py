"""How a high-resolution micrograph is taken: the lens, the dose, the camera; exit wave → intensity → grey values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field
from scipy.fft import fft2, ifft2, irfft2, rfft2

from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.core.synth import ctf
from napari_emtransfer.core.synth.atoms_carbon import number_density
from napari_emtransfer.core.synth.generator import Settings, Share
from napari_emtransfer.core.synth.hrtem_specimen import Slab, Specimen
from napari_emtransfer.core.synth.scattering import BAND_LIMIT, ELEMENTS, VOLT_SQUARE_ANGSTROM, Grid

Real = NDArray[np.float64]
Map = NDArray[np.float32]
_CARBON_B: Final = 1.0


class Imaging(Settings):
    """A setting of microscope and camera.

    Parameters
    ----------
    defocus_nm
        Underfocus is positive.
    cs_um, c50_mm
        Spherical aberration of third and fifth order.
    astigmatism_nm, coma_nm, threefold_nm
        C12, C21, C23, each with the azimuth `…_rad`.
    focal_spread_nm
        1/e half-width: √2 times the standard deviation.
    convergence_mrad
        1/e semi-angle of the illumination.
    vibration_pm
        Standard deviation of the image's position.
    aperture_mrad
        Radius of the objective aperture; None: none.
    dose_e_per_a2
        Electrons per Å².
    mtf_at_nyquist
        What the camera passes of a contrast at Nyquist's frequency, beside the area of its pixels: 1 for a counting
        detector, 0.05 to 0.4 for a scintillator.
    read_noise_e
        Standard deviation in primary electrons per pixel.
    illumination
        Relative loss of the beam from one side of the picture to the other.
    """

    voltage_kv: float = Field(default=300.0, ge=10, le=3000)
    defocus_nm: float = 10.0
    cs_um: float = 0.0
    c50_mm: float = 0.0
    astigmatism_nm: float = 0.0
    astigmatism_rad: float = 0.0
    coma_nm: float = 0.0
    coma_rad: float = 0.0
    threefold_nm: float = 0.0
    threefold_rad: float = 0.0
    focal_spread_nm: float = Field(default=1.0, ge=0)
    convergence_mrad: float = Field(default=0.1, ge=0)
    vibration_pm: float = Field(default=30.0, ge=0)
    aperture_mrad: float | None = Field(default=None, gt=0)
    pixel_size_angstrom: float = Field(default=0.2, ge=0.02, le=2)
    dose_e_per_a2: float = Field(default=400.0, gt=0)
    mtf_at_nyquist: float = Field(default=1.0, gt=0, le=1)
    read_noise_e: float = Field(default=0.0, ge=0)
    illumination: Share = 0.0

    @property
    def aberrations(self) -> ctf.Aberrations:
        """In Å, as `ctf` wants them."""
        return ctf.Aberrations(
            c10=-10 * self.defocus_nm,
            c12=10 * self.astigmatism_nm,
            phi12=self.astigmatism_rad,
            c21=10 * self.coma_nm,
            phi21=self.coma_rad,
            c23=10 * self.threefold_nm,
            phi23=self.threefold_rad,
            c30=1e4 * self.cs_um,
            c50=1e7 * self.c50_mm,
        )

    @property
    def coherence(self) -> ctf.Coherence:
        """In Å and rad."""
        return ctf.Coherence(10 * self.focal_spread_nm, 1e-3 * self.convergence_mrad, 1e-2 * self.vibration_pm)


@dataclass(frozen=True)
class ExitWave:
    """What leaves the specimen, computed once for all defoci and doses.

    Parameters
    ----------
    spectrum
        FFT of ψ on the grid, complex64, referred to the plane of the particles' middle.
    view
        The picture in the grid.
    """

    spectrum: NDArray[np.complex64]
    grid: Grid
    view: tuple[slice, slice]
    voltage_kv: float

    def intensity(self, imaging: Imaging) -> Map:
        """Mean intensity (H, W) in the image plane; 1 is the beam.

        Raises
        ------
        EMTransferError
            When `imaging` has another voltage or pixel size than the wave.
        """
        for name, mine in (("voltage_kv", self.voltage_kv), ("pixel_size_angstrom", self.grid.pixel_size)):
            if getattr(imaging, name) != mine:
                raise EMTransferError(f"The exit wave was made with {name} {mine}, not {getattr(imaging, name)}.")
        q = ctf.frequencies(self.grid.shape, self.grid.pixel_size)
        limit = BAND_LIMIT / (2 * self.grid.pixel_size)
        if imaging.aperture_mrad is not None:
            limit = min(limit, 1e-3 * imaging.aperture_mrad / ctf.wavelength(self.voltage_kv))
        passed = q.real**2 + q.imag**2 < limit**2
        imaged = np.zeros(self.grid.shape, np.complex64)
        transfer = ctf.wave_transfer(q[passed], self.voltage_kv, imaging.aberrations, imaging.coherence)
        imaged[passed] = self.spectrum[passed] * transfer
        wave = ifft2(imaged)[self.view]
        return np.asarray(wave.real**2 + wave.imag**2, np.float32)


def exit_wave(specimen: Specimen, voltage_kv: float, *, absorption: float = 0.0) -> ExitWave:
    """ψ of a strong phase object, exp(iσV − κσV), slab by slab, referred to the plane of the particles' middle.

    Between the slabs the wave is propagated over their distance (J. M. Cowley & A. F. Moodie, Acta Cryst. 10, 609
    (1957)); with one slab this is the projected phase object.

    Parameters
    ----------
    absorption
        κ: imaginary part of the potential relative to the real one, for what is scattered to high angles; some 0.02
        (light atoms) to 0.1 (gold). Of the particles; the support keeps all.
    """
    sigma, grid = ctf.interaction_constant(voltage_kv), specimen.grid
    wave, depth = None, 0.0
    for slab in specimen.slabs:
        grating = _transmission(slab, specimen, sigma, absorption)
        if wave is None:
            wave = grating
        elif slab.counts or slab.carbon is not None:
            wave = ifft2(fft2(wave) * propagator(grid, voltage_kv, slab.depth - depth)) * grating
        else:
            continue
        depth = slab.depth
    spectrum = fft2(wave)
    if depth != specimen.focus and len(specimen.slabs) > 1:
        spectrum *= propagator(grid, voltage_kv, specimen.focus - depth)
    return ExitWave(spectrum, grid, specimen.view, voltage_kv)


def _transmission(slab: Slab, specimen: Specimen, sigma: float, absorption: float) -> NDArray[np.complex64]:
    phase = sigma * particle_potential(slab.counts, specimen)
    grating = _phase_grating(phase + sigma * support_potential(slab.carbon, specimen.grid))
    if absorption:
        grating *= np.exp(-np.float32(absorption) * phase)
    return grating


def particle_potential(counts: Mapping[str, Map], specimen: Specimen) -> Map:
    """Projected potential in V Å, on the grid, of so many atoms of the particles per pixel."""
    if not counts:
        return np.zeros(specimen.grid.shape, np.float32)
    q_squared = specimen.grid.q_squared()
    total = np.zeros(q_squared.shape, np.complex64)
    for element, map_ in counts.items():
        total += rfft2(map_) * ELEMENTS[element].factor(q_squared, specimen.b_factors[element])
    return _to_volts(total * specimen.grid.undo_deposit(), specimen.grid, q_squared)


def support_potential(carbon: Map | None, grid: Grid) -> Map:
    """Projected potential in V Å, on the grid, of so many carbon atoms per pixel."""
    if carbon is None:
        return np.zeros(grid.shape, np.float32)
    q_squared = grid.q_squared()
    return _to_volts(rfft2(carbon) * ELEMENTS["C"].factor(q_squared, _CARBON_B), grid, q_squared)


def mean_carbon_phase(thickness_nm: float, density_g_cm3: float, voltage_kv: float) -> float:
    """Phase in rad of a carbon film: σ · 47.878 · f_e(0) · ρ t."""
    per_area = number_density(density_g_cm3) * 10 * thickness_nm
    volts = VOLT_SQUARE_ANGSTROM * float(ELEMENTS["C"].factor(np.zeros(1))[0]) * per_area
    return ctf.interaction_constant(voltage_kv) * volts


def _to_volts(spectrum: NDArray[Any], grid: Grid, q_squared: NDArray[Any]) -> Map:
    per_area = VOLT_SQUARE_ANGSTROM / grid.pixel_size**2
    return np.asarray(irfft2(spectrum * (per_area * grid.band(q_squared)), s=grid.shape), np.float32)


def _phase_grating(phase: Map) -> NDArray[np.complex64]:
    grating = np.empty(phase.shape, np.complex64)
    grating.real, grating.imag = np.cos(phase), np.sin(phase)
    return grating


def propagator(grid: Grid, voltage_kv: float, distance: float) -> NDArray[np.complex64]:
    """exp(−iπλzq²) below two thirds of Nyquist's frequency, z in Å."""
    y, x = (np.fft.fftfreq(n, grid.pixel_size) for n in grid.shape)
    square = (y[:, None] ** 2 + x[None, :] ** 2).astype(np.float32)
    inside = square < (BAND_LIMIT / (2 * grid.pixel_size)) ** 2
    return _phase_grating(-np.float32(np.pi * ctf.wavelength(voltage_kv) * distance) * square) * inside


def expose(intensity: Map, imaging: Imaging, rng: Generator) -> Map:
    """What the camera counts (H, W), in electrons: Poisson first, then its point spread, then its read noise."""
    per_pixel = imaging.dose_e_per_a2 * imaging.pixel_size_angstrom**2
    expected = _through(intensity, _pixel_area) * _beam(intensity.shape, imaging.illumination, rng) * per_pixel
    counts = rng.poisson(np.maximum(expected, 0)).astype(np.float32)
    if imaging.mtf_at_nyquist < 1:
        counts = _through(counts, lambda u: _scintillator(u, imaging.mtf_at_nyquist))
    if imaging.read_noise_e:
        counts += imaging.read_noise_e * rng.standard_normal(counts.shape, np.float32)
    return counts


def grey_values(counts: Map) -> Map:
    """Counts → 0..1, stretched between the percentiles 0.1 and 99.9 as a viewer shows them."""
    low, high = np.percentile(counts, (0.1, 99.9))
    return np.clip((counts - low) / max(float(high - low), 1e-6), 0, 1).astype(np.float32)


def _through(image: Map, transfer: Any) -> Map:
    """An image after a round transfer function of u = q / q_Nyquist."""
    y = 2 * np.fft.fftfreq(image.shape[0])
    x = 2 * np.fft.rfftfreq(image.shape[1])
    u = np.hypot(y[:, None], x[None, :]).astype(np.float32)
    return np.asarray(irfft2(rfft2(image) * transfer(u), s=image.shape), np.float32)


def _pixel_area(u: Map) -> Map:
    """A pixel collects what falls on its area: sinc(u/2), here round."""
    return np.asarray(np.sinc(u / 2), np.float32)


def _scintillator(u: Map, at_nyquist: float) -> Map:
    """Light spreads before it is counted: 1 / (1 + (u/u₀)²), which is `at_nyquist` at u = 1."""
    return np.asarray(1 / (1 + u**2 * (1 / at_nyquist - 1)), np.float32)


def _beam(shape: tuple[int, ...], loss: float, rng: Generator) -> Map:
    """Uneven illumination (H, W), 1 at its brightest side."""
    if loss <= 0:
        return np.ones((1, 1), np.float32)
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    cy, cx = rng.uniform(-1, 1, 2)
    squared = (y[:, None] - cy) ** 2 + (x[None, :] - cx) ** 2
    return np.asarray(1 - loss * squared / squared.max(), np.float32)
