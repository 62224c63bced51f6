"""What can be synthesised, and what is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

from napari_emtransfer.worker.protocol import SynthesizeRequest

SynthesisKind = Literal["voronoi", "hrtem"]
Instrument = Literal["sem", "fib-sem", "camera"]
_UNITS: Final = {"defocus": "nm", "dose": "e/Å²"}
USUAL_PIXEL_SIZE_NM: Final[Mapping[str, float]] = {"voronoi": 25.0, "hrtem": 0.02}


@dataclass(frozen=True)
class GeneratorEntry:
    """Something that can be made, and what it is in a sentence."""

    kind: SynthesisKind
    preset: str
    what: str

    @property
    def pixel_size_nm(self) -> float:
        """A usual pixel size."""
        return USUAL_PIXEL_SIZE_NM[self.kind]

    @property
    def title(self) -> str:
        """For a list: "Core shell", "Defocus −25 nm"."""
        series, _, member = self.preset.partition(":")
        if not member:
            return "HAADF" if series == "haadf" else series.replace("-", " ").capitalize()
        if series not in _UNITS:
            return f"{series.capitalize()} {member.replace('-', ' ')}"
        return f"{series.capitalize()} {member.replace('-', '−')} {_UNITS[series]}"


@dataclass(frozen=True)
class SynthesisSpec:
    """What is wanted: `n` square micrographs of `edge_px`, each of a specimen of its own.

    `instrument` is what the detectors are drawn for, any where None; `flat_field` are images of the user's own, whose
    noise is taken over.
    """

    kind: SynthesisKind
    preset: str
    n: int = 8
    edge_px: int = 512
    pixel_size_nm: float | None = None
    seed: int = 0
    instrument: Instrument | None = None
    flat_field: tuple[Path, ...] = ()

    @property
    def domain(self) -> str:
        """The domain of what is added."""
        return f"synthetic {self.preset}"

    def request(self, run_id: str, out: Path) -> SynthesizeRequest:
        """What a worker is asked."""
        return SynthesizeRequest(
            run_id=run_id,
            out=out,
            generator=self.kind,
            presets=(self.preset,),
            n=self.n,
            shape=(self.edge_px, self.edge_px),
            pixel_size_nm=self.pixel_size_nm,
            seed=self.seed,
            per_specimen=1,
            instrument=self.instrument,
            flat_field=self.flat_field,
        )


@cache
def catalogue() -> tuple[GeneratorEntry, ...]:
    """Everything that can be made, in the order of a list."""
    # Late: scipy and the generators are of no use to a window in which nothing is synthesised.
    from napari_emtransfer.core.synth.recipe import KINDS, presets

    return tuple(GeneratorEntry(kind, name, what) for kind in KINDS for name, what in presets(kind).items())
