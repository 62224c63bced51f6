"""What can be made of nanoparticles, by name: random settings of either mode, and domains of the published study."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from numpy.random import Generator

from napari_emtransfer.core.synth import haadf, hrtem
from napari_emtransfer.core.synth.haadf import HaadfSettings
from napari_emtransfer.core.synth.hrtem import HrtemSettings
from napari_emtransfer.core.synth.hrtem_series import SERIES, Domain
from napari_emtransfer.core.synth.micrograph import SyntheticMicrograph

AnySettings = HrtemSettings | HaadfSettings


@dataclass(frozen=True)
class Preset:
    """A name's settings: one sentence, their kind (for reading them back from JSON), and how they are drawn."""

    sentence: str
    model: type[HrtemSettings] | type[HaadfSettings]
    draw: Callable[[Generator], AnySettings]


def simulate(shape: tuple[int, int], *, seed: int, settings: AnySettings) -> SyntheticMicrograph:
    """One micrograph (H, W) of either mode; the same seed and settings give the same pixels."""
    if isinstance(settings, HaadfSettings):
        return haadf.simulate(shape, seed=seed, settings=settings)
    return hrtem.simulate(shape, seed=seed, settings=settings)


def pixel_size_nm(settings: AnySettings) -> float:
    """Of the micrographs that these settings make."""
    return settings.imaging.pixel_size_angstrom / 10


def _sentence(series: str, domain: Domain) -> str:
    what = {
        "defocus": f"{domain.defocus_nm:g} nm of underfocus",
        "dose": f"{domain.dose_e_per_a2:g} electrons per Å²",
        "structure": "spheres of {} with a radius of {:g} to {:g} nm".format(
            domain.particles.lattices[0], *domain.particles.radius_nm
        ),
    }[series]
    return f"A domain of the HRTEM transfer-learning study: {what}."


def _domains() -> dict[str, Preset]:
    return {
        domain.name: Preset(_sentence(series, domain), HrtemSettings, domain.settings)
        for series, domains in SERIES.items()
        for domain in domains
    }


PRESETS: Final[Mapping[str, Preset]] = {
    "nanoparticles": Preset(
        "Nanoparticles on a support in high-resolution TEM; material, lens, dose and camera at random.",
        HrtemSettings,
        hrtem.draw,
    ),
    "haadf": Preset(
        "Nanoparticles on carbon in STEM-HAADF; material, probe, dose and scan at random.", HaadfSettings, haadf.draw
    ),
    **_domains(),
}
