"""What every generator of structures is: settings with units and defaults, which make a structure at coordinates."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from napari_emtransfer.core.synth.micrograph import Field as Plane2D
from napari_emtransfer.core.synth.micrograph import Structure

# Kinds of settings, with the range in which a generator stands.
Fraction = Annotated[float, Field(ge=0.01, le=0.9)]
Share = Annotated[float, Field(ge=0, le=1)]
Length = Annotated[float, Field(ge=2, le=2000)]
Width = Annotated[float, Field(gt=0, le=50)]
Count = Annotated[int, Field(ge=0)]
Angle = Annotated[float, Field(ge=-np.pi, le=np.pi)]
Grey = Annotated[float, Field(ge=0, le=1)]
Amplitude = Annotated[float, Field(ge=-1, le=1)]


class Settings(BaseModel):
    """Frozen settings, written to a recipe as JSON and read from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StructureGenerator(Settings):
    """Settings of one kind of microstructure; called with coordinates and a random generator it makes one.

    Lengths are in px (`_px`), angles in radians (`_rad`), fractions are of the area, grey values 0..1. The same
    settings, coordinates and state of the generator give the same structure.

    Parameters
    ----------
    classes
        Names of the phases 1..K.
    omits
        What a real micrograph of this kind has and the structure has not.
    """

    classes: ClassVar[tuple[str, ...]]
    omits: ClassVar[tuple[str, ...]]

    @abstractmethod
    def __call__(self, y: Plane2D, x: Plane2D, rng: Generator) -> Structure:
        """Structure at the coordinates (H, W) in px of the ideal plane."""

    @classmethod
    @abstractmethod
    def draw(cls, rng: Generator) -> Self:
        """Random plausible settings: features from about 4 px to a third of an image of 512²."""

    def _structure(
        self,
        grey: NDArray[np.floating],
        phases: NDArray[np.integer],
        boundary_px: NDArray[np.floating],
        instances: NDArray[np.integer],
    ) -> Structure:
        return Structure(
            grey=np.clip(grey, 0, 1).astype(np.float64),
            phases=phases.astype(np.uint8),
            boundary_px=boundary_px.astype(np.float64),
            instances=instances.astype(np.int32),
            classes=self.classes,
            omits=self.omits,
        )


def log_uniform(rng: Generator, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform: as many small ones as large ones."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def either(rng: Generator, *choices: float) -> float:
    """One of some numbers, each as likely."""
    return float(choices[int(rng.integers(len(choices)))])
