"""Nanoparticles at atomic resolution as recipes know them: settings drawn and as JSON, with the user's own camera."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.random import Generator

from napari_emtransfer.core.errors import SynthesisError
from napari_emtransfer.core.synth import hrtem_presets
from napari_emtransfer.core.synth.detector import Instrument
from napari_emtransfer.core.synth.flat_field import FlatField
from napari_emtransfer.core.synth.haadf import HaadfSettings
from napari_emtransfer.core.synth.hrtem_presets import PRESETS, AnySettings, simulate
from napari_emtransfer.core.synth.micrograph import SyntheticMicrograph

DEFAULT_PRESET: Final = "nanoparticles"
MIN_PIXEL_NM: Final = 0.002
MAX_PIXEL_NM: Final = 0.2
# The densest and finest that is ever drawn has 7,000 on the largest picture.
MAX_PARTICLES: Final = 10_000
_LEAST_MTF: Final = 0.02


def draw_material(
    preset: str, rng: Generator, *, pixel_size_nm: float | None, flat_field: FlatField | None
) -> AnySettings:
    """Settings of a preset, with the pixel size and the noise of the instrument where they are given.

    Raises
    ------
    SynthesisError
        When the pixels are too large to show atoms, or too small.
    """
    settings = PRESETS[preset].draw(rng)
    changes: dict[str, Any] = {} if flat_field is None else _noise_of(flat_field, settings)
    if pixel_size_nm is not None:
        if not MIN_PIXEL_NM <= pixel_size_nm <= MAX_PIXEL_NM:
            raise SynthesisError(
                f"Atoms cannot be shown with {pixel_size_nm:g} nm per pixel: {MIN_PIXEL_NM:g} to {MAX_PIXEL_NM:g} nm "
                "are possible.",
                "Try 0.02 nm, or leave it to the preset.",
            )
        changes["pixel_size_angstrom"] = 10 * pixel_size_nm
    return settings.model_copy(update={"imaging": settings.imaging.model_copy(update=changes)})


def check_room(material: AnySettings, shape: tuple[int, int]) -> None:
    """Raise `SynthesisError` where a picture (H, W) would hold more particles than can be placed in minutes."""
    height_nm, width_nm = (n * hrtem_presets.pixel_size_nm(material) for n in shape)
    n_particles = material.particles.per_100_nm2[1] * height_nm * width_nm / 100
    if n_particles > MAX_PARTICLES:
        raise SynthesisError(
            f"A picture of {height_nm:.0f} nm × {width_nm:.0f} nm would hold up to {n_particles:.0f} particles, and "
            f"{MAX_PARTICLES} are the most.",
            "Make it smaller, or its pixels.",
        )


def check_instrument(instrument: Instrument | None) -> None:
    """Raise `SynthesisError` for an instrument that these generators do not have."""
    if instrument is not None:
        raise SynthesisError(
            f"The instrument {instrument!r} is for voronoi: HRTEM and HAADF have a camera and a scan of their own.",
            "Leave it out; a flat field of your camera is taken over.",
        )


def realize(preset: str, material: dict[str, Any], *, shape: tuple[int, int], seed: int) -> SyntheticMicrograph:
    """The micrograph; the same material, shape and seed give the same pixels."""
    return simulate(shape, seed=seed, settings=PRESETS[preset].model.model_validate(material))


def _noise_of(flat_field: FlatField, settings: AnySettings) -> dict[str, float]:
    """What a flat field says of the camera; the dose of a micrograph is a choice, not the camera's."""
    if isinstance(settings, HaadfSettings):
        return {
            "counts": (1 - flat_field.black_level) / flat_field.gain,
            "background": flat_field.black_level,
            "read_noise": flat_field.read_noise,
        }
    # A Gaussian point spread passes exp(−2π²σ²q²), with q = ½ per pixel at Nyquist's frequency.
    passed = float(np.exp(-(np.pi**2) * flat_field.noise_psf_px**2 / 2))
    return {
        "mtf_at_nyquist": max(passed, _LEAST_MTF),
        "read_noise_e": flat_field.read_noise / flat_field.gain,
    }
