"""STEM-HAADF micrographs of nanoparticles: incoherent, every atom a spot of about Zⁿ under the probe's profile.

I(r) = |P(r)|² ⊗ source ⊗ Σ Z_jⁿ g(r − r_j), with the probe P = F⁻¹[A e^{−iχ}] of the same aberrations as in `ctf` and a
Gaussian g of the atoms' thermal motion. Grey values are counts: Poisson first, then the detector's amplifier.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field
from scipy.fft import ifft2, irfft2, rfft2
from scipy.ndimage import map_coordinates

from napari_emtransfer.core.synth import ctf
from napari_emtransfer.core.synth.atoms_lattices import LATTICES
from napari_emtransfer.core.synth.generator import Settings, Share, log_uniform
from napari_emtransfer.core.synth.hrtem import CLASSES, NANOPARTICLE, SUPPORT, drawn_radius_nm
from napari_emtransfer.core.synth.hrtem_imaging import grey_values
from napari_emtransfer.core.synth.hrtem_masks import outlines
from napari_emtransfer.core.synth.hrtem_specimen import MARGIN_PX, Particles, Specimen, build
from napari_emtransfer.core.synth.hrtem_support import Support
from napari_emtransfer.core.synth.micrograph import SyntheticMicrograph
from napari_emtransfer.core.synth.scan import ScanSettings, coordinates
from napari_emtransfer.core.synth.scattering import ELEMENTS

Real = NDArray[np.float64]
Map = NDArray[np.float32]
OMITS: Final = (
    "channelling: columns along a zone axis are no brighter than their atoms",
    "the detector's inner angle and strain contrast; absorption in thick particles",
    "contamination that grows under the beam",
    "ligands, oxide shells and particles with several twins",
)


class HaadfImaging(Settings):
    """A setting of a scanning microscope.

    Parameters
    ----------
    defocus_nm
        Underfocus is positive. cs_um, astigmatism_nm, astigmatism_rad, coma_nm, coma_rad as in `hrtem.Imaging`.
    semi_angle_mrad
        Of the probe.
    source_pm
        Standard deviation of the probe's position: size of the source, and instabilities.
    exponent
        n of Zⁿ: 1.6 to 1.9 for an annular detector at high angles.
    counts
        Electrons that reach the detector in the brightest pixel.
    background
        Signal without any specimen (dark current, offset) relative to the brightest place.
    read_noise
        Standard deviation of the amplifier's noise relative to the brightest place.
    scan
        Faults of the scan, which move image and mask alike.
    """

    voltage_kv: float = Field(default=300.0, ge=10, le=3000)
    defocus_nm: float = 0.0
    cs_um: float = 0.0
    astigmatism_nm: float = 0.0
    astigmatism_rad: float = 0.0
    coma_nm: float = 0.0
    coma_rad: float = 0.0
    semi_angle_mrad: float = Field(default=25.0, gt=1, le=100)
    source_pm: float = Field(default=35.0, ge=0)
    exponent: float = Field(default=1.7, ge=1, le=2)
    pixel_size_angstrom: float = Field(default=0.2, ge=0.02, le=2)
    counts: float = Field(default=60.0, gt=0)
    background: Share = 0.02
    read_noise: Share = 0.01
    scan: ScanSettings = ScanSettings()

    @property
    def aberrations(self) -> ctf.Aberrations:
        """In Å, as `ctf` wants them."""
        return ctf.Aberrations(
            c10=-10 * self.defocus_nm,
            c12=10 * self.astigmatism_nm,
            phi12=self.astigmatism_rad,
            c21=10 * self.coma_nm,
            phi21=self.coma_rad,
            c30=1e4 * self.cs_um,
        )


class HaadfSettings(Settings):
    """Specimen and microscope."""

    particles: Particles = Particles()
    support: Support = Support()
    imaging: HaadfImaging = HaadfImaging()


def simulate(shape: tuple[int, int], *, seed: int, settings: HaadfSettings | None = None) -> SyntheticMicrograph:
    """One micrograph (H, W); settings are drawn from the seed where None."""
    settings = settings or draw(np.random.default_rng([seed, 12]))
    imaging, rng = settings.imaging, np.random.default_rng([seed, 10])
    specimen = build(shape, imaging.pixel_size_angstrom, settings.particles, settings.support, rng)
    where = [axis + MARGIN_PX for axis in coordinates(shape, imaging.scan, rng)]
    seen = map_coordinates(signal(specimen, imaging), where, order=3, mode="nearest")
    instances = map_coordinates(specimen.instances, where, order=0, mode="nearest")
    return SyntheticMicrograph(
        image=grey_values(expose(seen, imaging, rng)),
        mask=np.where(instances > 0, NANOPARTICLE, SUPPORT).astype(np.uint8),
        pixel_size_nm=imaging.pixel_size_angstrom / 10,
        recipe=_recipe(settings, shape, seed),
        classes=CLASSES,
        boundaries=outlines(instances),
        instances=instances,
        omits=OMITS,
    )


def probe(shape: tuple[int, int], imaging: HaadfImaging) -> Real:
    """Intensity of the probe on a grid (H, W), its middle at [0, 0], with the source's size; its sum is 1."""
    q = ctf.frequencies(shape, imaging.pixel_size_angstrom)
    passed = np.abs(q) * ctf.wavelength(imaging.voltage_kv) < 1e-3 * imaging.semi_angle_mrad
    wave = np.zeros(shape, complex)
    wave[passed] = ctf.wave_transfer(q[passed], imaging.voltage_kv, imaging.aberrations)
    intensity = np.abs(ifft2(wave)) ** 2
    damping = ctf.vibration_envelope(q[:, : shape[1] // 2 + 1], 1e-2 * imaging.source_pm)
    blurred = np.maximum(irfft2(rfft2(intensity) * damping, s=shape), 0)
    return np.asarray(blurred / blurred.sum())


def signal(specimen: Specimen, imaging: HaadfImaging) -> Map:
    """Mean signal on the specimen's grid, in units of Zⁿ per Å²."""
    q_squared = specimen.grid.q_squared()
    sharpened = specimen.grid.undo_deposit()
    total = np.zeros(q_squared.shape, np.complex64)
    if specimen.carbon is not None:
        total += rfft2(specimen.carbon) * np.float32(ELEMENTS["C"].z ** imaging.exponent)
    for element, counts in specimen.counts.items():
        motion = np.exp(-specimen.b_factors[element] * q_squared / 4) * sharpened
        total += rfft2(counts) * motion * np.float32(ELEMENTS[element].z ** imaging.exponent)
    spread = total * rfft2(probe(specimen.grid.shape, imaging)).astype(np.complex64)
    return np.asarray(irfft2(spread, s=specimen.grid.shape), np.float32) / np.float32(specimen.grid.pixel_size**2)


def expose(seen: NDArray[Any], imaging: HaadfImaging, rng: Generator) -> Map:
    """Counts (H, W): Poisson of signal and background, then the amplifier's noise."""
    brightest = max(float(np.percentile(seen, 99.9)), 1e-9)
    expected = imaging.counts * (np.maximum(seen, 0) / brightest + imaging.background)
    counts = rng.poisson(expected).astype(np.float32)
    return counts + np.float32(imaging.read_noise * imaging.counts) * rng.standard_normal(seen.shape, np.float32)


def draw(rng: Generator) -> HaadfSettings:
    """Settings as somebody might have chosen them, corrected microscopes and others."""
    pixel_size = log_uniform(rng, 0.12, 0.8)
    names = tuple(LATTICES)
    mean = drawn_radius_nm(pixel_size, rng)
    covered = np.sort(rng.uniform(5.0, 45.0, 2)) / (np.pi * mean**2)
    particles = Particles(
        lattices=(names[rng.integers(len(names))],),
        radius_nm=(0.7 * mean, 1.3 * mean),
        per_100_nm2=(float(covered[0]), float(covered[1])),
        gap_nm=float(rng.uniform(-0.3, 1.0)),
        shape=("sphere", "ellipsoid", "faceted")[rng.integers(3)],
        roughness=float(rng.uniform(0.0, 0.1)),
        zone_axis_share=float(rng.uniform(0.2, 0.9)),
        tilt_deg=float(rng.uniform(0.5, 6.0)),
        fault_share=float(rng.uniform(0.0, 0.6)),
    )
    support = Support(
        thickness_nm=float(rng.uniform(1.5, 12.0)),
        unevenness=float(rng.uniform(0.02, 0.3)),
        hole=float(rng.uniform(0.1, 0.5)) if rng.random() < 0.1 else 0.0,
    )
    return HaadfSettings(particles=particles, support=support, imaging=_drawn_imaging(pixel_size, rng))


def _drawn_imaging(pixel_size: float, rng: Generator) -> HaadfImaging:
    corrected = rng.random() < 0.7
    angles = rng.uniform(0, 2 * np.pi, 2)
    scan = ScanSettings.draw(rng)
    return HaadfImaging(
        voltage_kv=float(rng.choice((80.0, 200.0, 300.0))),
        defocus_nm=float(rng.normal(0, 3) if corrected else rng.normal(45, 8)),
        cs_um=float(rng.uniform(-3, 3) if corrected else rng.uniform(600, 1200)),
        astigmatism_nm=float(abs(rng.normal(0, 1.5))),
        astigmatism_rad=float(angles[0]),
        coma_nm=float(abs(rng.normal(0, 40))),
        coma_rad=float(angles[1]),
        semi_angle_mrad=float(rng.uniform(18, 32) if corrected else rng.uniform(8, 11)),
        source_pm=float(rng.uniform(25, 70)),
        exponent=float(rng.uniform(1.55, 1.9)),
        pixel_size_angstrom=pixel_size,
        counts=log_uniform(rng, 8, 300),
        background=float(rng.uniform(0, 0.1)),
        read_noise=float(rng.uniform(0, 0.03)),
        scan=scan.model_copy(update={"drift_px": min(scan.drift_px, 4.0)}),
    )


def _recipe(settings: HaadfSettings, shape: tuple[int, int], seed: int) -> dict[str, Any]:
    return {"generator": "haadf", "seed": seed, "shape": list(shape), "settings": settings.model_dump(mode="json")}
