"""A recipe: all that the pixels of a synthetic micrograph depend on; small, JSON, and enough to make it again."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, TypedDict, Unpack, get_args

import numpy as np
from numpy.random import Generator
from pydantic import BaseModel, ConfigDict, Field

from napari_emtransfer import __version__
from napari_emtransfer.core.errors import SynthesisError
from napari_emtransfer.core.synth import atomic, hrtem_presets
from napari_emtransfer.core.synth.detector import DetectorSettings, Instrument
from napari_emtransfer.core.synth.flat_field import FlatField
from napari_emtransfer.core.synth.voronoi import GENERATORS

Kind = Literal["voronoi", "hrtem"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
DEFAULT_PIXEL_SIZE_NM: Final = 25.0
DEFAULT_SHAPE: Final = (512, 512)
MIN_EDGE_PX: Final = 64
MAX_EDGE_PX: Final = 4096

# Streams of random numbers, one per purpose: another detector leaves the structure as it is.
MATERIAL, STRUCTURE, SCAN, SETTINGS, DETECTOR, BAR, SESSION = range(7)


class Drawn(TypedDict, total=False):
    """What may be given and is drawn from the seed otherwise.

    `shape` (H, W) in pixels, 512 × 512 where not given; `instrument` is what a drawn detector belongs to; with a
    `flat_field` the noise is that instrument's and the rest of the detector is drawn.
    """

    shape: tuple[int, int]
    pixel_size_nm: float | None
    detector: DetectorSettings | None
    instrument: Instrument | None
    flat_field: FlatField | None


class Recipe(BaseModel):
    """How one micrograph is made.

    Parameters
    ----------
    kind, preset
        The generator.
    shape
        (H, W) in pixels.
    seed
        Of all random numbers.
    material
        Settings of the generator.
    detector
        Settings of microscope and detector; None where the generator has a camera of its own.
    boundary_width_px
        Pixels within half of it of a boundary are marked as one.
    program
        Version that made it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Kind
    preset: str
    shape: tuple[int, int]
    seed: int = Field(ge=0)
    pixel_size_nm: float = Field(gt=0)
    material: dict[str, Any]
    detector: DetectorSettings | None
    boundary_width_px: float = Field(default=2.0, gt=0)
    program: str = __version__

    def stream(self, purpose: int) -> Generator:
        """Random numbers of one purpose."""
        return random_stream(self.seed, purpose)


def random_stream(seed: int, purpose: int) -> Generator:
    """Random numbers of one purpose of one micrograph; never those of another seed or purpose."""
    return np.random.default_rng([seed, purpose])


def child_seed(seed: int, number: int) -> int:
    """Seed of micrograph `number` of a series, in 0..2³²."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def presets(kind: Kind) -> Mapping[str, str]:
    """Names of what can be made, and one sentence on each."""
    if kind == "hrtem":
        return MappingProxyType({name: preset.sentence for name, preset in hrtem_presets.PRESETS.items()})
    return MappingProxyType({name: _first_sentence(made.__doc__) for name, made in GENERATORS.items()})


def _first_sentence(text: str | None) -> str:
    return (text or "").strip().split("\n\n")[0].replace("\n", " ").strip()


def check_preset(kind: Kind, preset: str | None) -> None:
    """Raise `SynthesisError` where `kind` has no such preset."""
    if preset is not None and preset not in presets(kind):
        raise SynthesisError(f"There is no preset {preset!r} for {kind}.", f"There are {', '.join(presets(kind))}.")


def check_shape(shape: tuple[int, int]) -> None:
    """Raise `SynthesisError` where an image would be too small to show anything or too large for memory."""
    if not all(MIN_EDGE_PX <= edge <= MAX_EDGE_PX for edge in shape):
        raise SynthesisError(
            f"A micrograph of {shape[0]} × {shape[1]} pixels cannot be made: each edge has {MIN_EDGE_PX} to "
            f"{MAX_EDGE_PX}.",
            "Try 512 × 512.",
        )


def draw_recipe(kind: Kind, preset: str | None = None, *, seed: int = 0, **given: Unpack[Drawn]) -> Recipe:
    """Draw from the seed whatever is not given: preset, material, detector.

    Raises
    ------
    SynthesisError
        When there is no such preset, the shape is out of range, or something is given that the kind does not have.
    """
    check_preset(kind, preset)
    check_shape(given.get("shape", DEFAULT_SHAPE))
    if kind == "hrtem":
        return _draw_atomic(preset or atomic.DEFAULT_PRESET, seed, given)
    rng = random_stream(seed, MATERIAL)
    drawn = str(rng.choice(list(GENERATORS)))  # also where it is given, so that the rest is the same
    return Recipe(
        kind=kind,
        preset=preset or drawn,
        shape=given.get("shape", DEFAULT_SHAPE),
        seed=seed,
        pixel_size_nm=given.get("pixel_size_nm") or DEFAULT_PIXEL_SIZE_NM,
        material=GENERATORS[preset or drawn].draw(rng).model_dump(mode="json"),
        detector=_detector(seed, given),
    )


def _draw_atomic(preset: str, seed: int, given: Drawn) -> Recipe:
    if given.get("detector") is not None:
        raise SynthesisError("HRTEM and HAADF have a camera of their own, so no detector can be given.")
    atomic.check_instrument(given.get("instrument"))
    material = atomic.draw_material(
        preset,
        random_stream(seed, MATERIAL),
        pixel_size_nm=given.get("pixel_size_nm"),
        flat_field=given.get("flat_field"),
    )
    shape = given.get("shape", DEFAULT_SHAPE)
    atomic.check_room(material, shape)
    return Recipe(
        kind="hrtem",
        preset=preset,
        shape=shape,
        seed=seed,
        pixel_size_nm=hrtem_presets.pixel_size_nm(material),
        material=material.model_dump(mode="json"),
        detector=None,
    )


def _detector(seed: int, given: Drawn) -> DetectorSettings:
    detector = given.get("detector") or DetectorSettings.draw(random_stream(seed, SETTINGS), given.get("instrument"))
    flat_field = given.get("flat_field")
    return detector if flat_field is None else flat_field.applied_to(detector)


def same_specimen(recipe: Recipe, seed: int) -> Recipe:
    """Another place of the same material, with the same microscope set a little differently."""
    detector = recipe.detector
    if detector is not None:
        detector = detector.nudged(random_stream(seed, SESSION))
    return recipe.model_copy(update={"seed": seed, "detector": detector})
