"""Microstructures out of tessellations and placed bodies, by name; each says what it omits.

A generator is a frozen model of settings with units and defaults. `GENERATORS[name]()` has the defaults,
`GENERATORS[name].draw(rng)` random plausible ones, and calling it with coordinates makes a `Structure`:

    structure = GENERATORS["equiaxed"].draw(rng)(y, x, rng)
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from napari_emtransfer.core.synth.core_shell import CoreShell
from napari_emtransfer.core.synth.generator import StructureGenerator
from napari_emtransfer.core.synth.grains import Bimodal, Columnar, Equiaxed
from napari_emtransfer.core.synth.lamellae import FerritePearlite, Pearlite
from napari_emtransfer.core.synth.laths import Bainite
from napari_emtransfer.core.synth.micrograph import SyntheticMicrograph
from napari_emtransfer.core.synth.mixtures import ThreePhase, TwoPhase
from napari_emtransfer.core.synth.particles import Agglomerates, Fibres
from napari_emtransfer.core.synth.pores import Cracks, Pores
from napari_emtransfer.core.synth.precipitates import Cuboidal, Needles, Spheroidal
from napari_emtransfer.core.synth.sample_material import Imaging, two_phase
from napari_emtransfer.core.synth.sample_material import power_diagram as tessellate
from napari_emtransfer.core.synth.twins import Twins

__all__ = ["GENERATORS", "Imaging", "StructureGenerator", "SyntheticMicrograph", "tessellate", "two_phase"]

GENERATORS: Final[Mapping[str, type[StructureGenerator]]] = MappingProxyType(
    {
        "equiaxed": Equiaxed,
        "columnar": Columnar,
        "bimodal": Bimodal,
        "twins": Twins,
        "two-phase": TwoPhase,
        "three-phase": ThreePhase,
        "pearlite": Pearlite,
        "ferrite-pearlite": FerritePearlite,
        "bainite": Bainite,
        "spheroidal": Spheroidal,
        "cuboidal": Cuboidal,
        "needles": Needles,
        "pores": Pores,
        "cracks": Cracks,
        "fibres": Fibres,
        "agglomerates": Agglomerates,
        "core-shell": CoreShell,
    }
)
