"""Random abstract materials: a morphology, how each phase looks, and what of the structure is asked for.

A material is drawn once; each of its places is another realisation with the same looks. Phases may share their grey
value and differ by texture alone; classes may unite several phases; grains, relief and rims vary within a class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from napari_emtransfer.core.synth import fields, layouts
from napari_emtransfer.core.synth.fields import Field
from napari_emtransfer.core.synth.layout import Layout, Morphology

TextureKind = Literal["none", "power", "band", "stripes", "speckle", "lattice", "dots"]
_TEXTURES: Final[dict[TextureKind, float]] = {
    "none": 0.25,
    "power": 0.2,
    "band": 0.15,
    "stripes": 0.1,
    "speckle": 0.06,
    "lattice": 0.14,
    "dots": 0.1,
}
MAX_CLASSES: Final = 4


@dataclass(frozen=True)
class Texture:
    """A random field with mean 0 that a phase carries; wavelengths in px, the strength in grey values 0..1."""

    kind: TextureKind
    strength: float
    wavelength_px: float
    slope: float
    stretch: float
    angle: float

    @classmethod
    def draw(cls, rng: Generator) -> Texture:
        """Random settings."""
        kind: TextureKind = rng.choice(np.array(list(_TEXTURES)), p=list(_TEXTURES.values()))
        return cls(
            kind=kind,
            strength=float(np.exp(rng.uniform(np.log(0.015), np.log(0.2)))),
            wavelength_px=float(np.exp(rng.uniform(np.log(2.8), np.log(25)))),
            slope=float(rng.uniform(0.3, 1.8)),
            stretch=float(rng.uniform(2, 8)),
            angle=float(rng.uniform(0, np.pi)),
        )

    def __call__(self, instances: NDArray[np.intp], rng: Generator) -> Field | float:
        """The texture of one place (H, W); only a lattice depends on the grain or particle that it lies in."""
        return 0.0 if self.kind == "none" else self.strength * self._unit(instances, rng)

    def _unit(self, instances: NDArray[np.intp], rng: Generator) -> Field:
        shape = instances.shape
        match self.kind:
            case "power":
                return fields.power_law(shape, rng, self.slope)
            case "band":
                return fields.banded(shape, rng, self.wavelength_px, 0.3)
            case "stripes":
                return fields.banded(shape, rng, self.wavelength_px, 0.4, self.stretch, self.angle)
            case "speckle":
                return np.where(rng.random(shape) < 0.08, 3.0, 0.0)
            case "dots":
                spots = gaussian_filter((rng.random(shape) < 0.01).astype(float), self.wavelength_px / 4)
                return spots / (spots.std() + 1e-9)
            case _:
                return self._lattice(instances, rng)

    def _lattice(self, instances: NDArray[np.intp], rng: Generator) -> Field:
        """Fringes of one to three directions, turned from grain to grain, as of planes in a crystal."""
        y, x = np.mgrid[: instances.shape[0], : instances.shape[1]]
        turn = rng.uniform(0, np.pi, instances.max() + 1)[instances]
        n_waves = 1 + round(2 * (self.slope - 0.3) / 1.5)
        waves = [
            np.cos(2 * np.pi * (np.cos(turn + a) * x + np.sin(turn + a) * y) / self.wavelength_px)
            for a in np.arange(n_waves) * np.pi / max(n_waves, 2)
        ]
        return np.asarray(sum(waves))


@dataclass(frozen=True)
class Look:
    """How a phase looks: grey value, texture, spread of grey from grain to grain, and a rim of another brightness."""

    grey: float
    texture: Texture
    grain_sd: float
    rim: float
    rim_px: float


@dataclass(frozen=True)
class Material:
    """Morphology and looks; `classes` says to which class 0..K−1 each phase belongs."""

    morphology: Morphology
    looks: tuple[Look, ...]
    classes: tuple[int, ...]
    boundary: float
    boundary_px: float
    relief: float
    relief_angle: float

    @property
    def n_classes(self) -> int:
        """K."""
        return max(self.classes) + 1


@dataclass(frozen=True)
class Place:
    """One place of a material: grey values (H, W) before any detector, class 0..K−1 and phase of each pixel."""

    grey: Field
    classes: NDArray[np.intp]
    phases: NDArray[np.intp]


def draw(rng: Generator) -> Material:
    """A random material with two to four classes."""
    morphology = layouts.draw(rng)
    n = morphology.n_phases
    edge = rng.random() < 0.35
    return Material(
        morphology=morphology,
        looks=_looks(n, rng),
        classes=_classes(n, rng),
        boundary=float(rng.uniform(-0.3, 0.35)) if edge else 0.0,
        boundary_px=float(rng.uniform(0.7, 3.0)),
        relief=float(rng.normal(0, 0.25)) if rng.random() < 0.2 else 0.0,
        relief_angle=float(rng.uniform(0, 2 * np.pi)),
    )


def render(material: Material, shape: tuple[int, int], rng: Generator) -> Place:
    """Another place (H, W) of the material."""
    layout = material.morphology(shape, rng)
    grey = np.zeros(shape)
    inward = _distance_to_boundary(layout.phases)
    for phase, look in enumerate(material.looks):
        inside = layout.phases == phase
        if inside.any():
            grey[inside] = _appearance(look, layout, inward, rng)[inside]
    if material.boundary:
        grey += material.boundary * np.exp(-((inward / material.boundary_px) ** 2))
    if material.relief:
        grey += _relief(material, layout)
    return Place(grey, np.array(material.classes)[layout.phases], layout.phases)


def boundary_map(phases: NDArray[np.intp], width_px: float = 2.0) -> Field:
    """1 on the boundaries between phases (H, W), falling by 1/e in `width_px` away from them."""
    return np.exp(-np.maximum(_distance_to_boundary(phases) - 0.5, 0) / width_px)


def _appearance(look: Look, layout: Layout, inward: Field, rng: Generator) -> Field:
    grains = look.grain_sd * rng.standard_normal(layout.instances.max() + 1)
    grey = look.grey + grains[layout.instances] + look.texture(layout.instances, rng)
    return np.asarray(grey + look.rim * np.exp(-inward / look.rim_px))


def _relief(material: Material, layout: Layout) -> Field:
    """Light and shadow of steps between phases of different height, as secondary electrons show them."""
    height = gaussian_filter(np.array([look.grey for look in material.looks])[layout.phases], 1.0)
    dy, dx = np.gradient(height)
    return np.asarray(material.relief * 4 * (np.sin(material.relief_angle) * dy + np.cos(material.relief_angle) * dx))


def _distance_to_boundary(phases: NDArray[np.intp]) -> Field:
    """Pixels from each pixel (H, W) to the nearest one beside another phase, plus a half."""
    differs = np.zeros(phases.shape, bool)
    for axis in (0, 1):
        step = np.diff(phases, axis=axis) != 0
        before, after = ([slice(None)] * 2 for _ in range(2))
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        differs[tuple(before)] |= step
        differs[tuple(after)] |= step
    if not differs.any():
        return np.full(phases.shape, float(max(phases.shape)))
    return np.asarray(distance_transform_edt(~differs)) + 0.5


def _looks(n: int, rng: Generator) -> tuple[Look, ...]:
    greys = rng.uniform(0.15, 0.85, n)
    if rng.random() < 0.3:  # texture alone, or next to it, tells the phases apart
        greys = greys.mean() + rng.normal(0, 0.04, n)
    grain_sd = float(rng.uniform(0.02, 0.15)) if rng.random() < 0.35 else 0.0
    rimmed = rng.random() < 0.3
    return tuple(
        Look(
            grey=float(grey),
            texture=Texture.draw(rng),
            grain_sd=grain_sd,
            rim=float(rng.uniform(-0.25, 0.3)) if rimmed else 0.0,
            rim_px=float(np.exp(rng.uniform(np.log(1.5), np.log(12)))),
        )
        for grey in greys
    )


def _classes(n_phases: int, rng: Generator) -> tuple[int, ...]:
    """A class of each phase: mostly its own, else two or more phases are one class; at least two, at most four."""
    n_classes = min(n_phases, MAX_CLASSES)
    if n_phases > 2 and rng.random() < 0.35:
        n_classes = int(rng.integers(2, n_classes + 1))
    first = rng.permutation(n_phases)
    classes = np.empty(n_phases, int)
    classes[first[:n_classes]] = np.arange(n_classes)
    classes[first[n_classes:]] = rng.integers(n_classes, size=n_phases - n_classes)
    return tuple(int(c) for c in classes)
