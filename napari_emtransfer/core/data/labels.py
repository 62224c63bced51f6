"""Label classes and the one mapping from label values to training targets.

0 = unlabelled, on screen, on disk and in napari. Classes are 1..K, the background phase is a class like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

UNLABELLED: Final = 0
IGNORE_INDEX: Final = 255
MAX_CLASSES: Final = 254

# Okabe & Ito's palette: distinguishable with the common colour-vision deficiencies, and on grey micrographs.
PALETTE: Final = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#0072B2", "#D55E00", "#999999", "#FFFFFF")


class LabelClass(BaseModel):
    """One phase or object class: `value` 1..K as painted, a name, and a colour as #RRGGBB."""

    model_config = ConfigDict(frozen=True)
    value: int = Field(ge=1, le=MAX_CLASSES)
    name: str = Field(min_length=1)
    color: str = Field(pattern=r"^#[0-9A-Fa-f]{6}$")


class LabelSchema(BaseModel):
    """The classes of a project, values 1..K without a gap, names unique."""

    model_config = ConfigDict(frozen=True)
    classes: tuple[LabelClass, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> LabelSchema:
        values = [c.value for c in self.classes]
        if values != list(range(1, len(values) + 1)):
            raise ValueError(f"class values must be 1..K in order, got {values}")
        if len({c.name for c in self.classes}) != len(self.classes):
            raise ValueError("two classes share a name; class names must be unique")
        return self

    @classmethod
    def from_names(cls, names: Sequence[str]) -> LabelSchema:
        """Names in order → classes 1..K with the default palette."""
        return cls(
            classes=tuple(
                LabelClass(value=i, name=name, color=PALETTE[(i - 1) % len(PALETTE)])
                for i, name in enumerate(names, start=1)
            )
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of their values."""
        return tuple(c.name for c in self.classes)

    def __len__(self) -> int:
        return len(self.classes)


def to_targets(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Label values (H, W) → training targets (H, W): 0 → 255 (ignored), k → k − 1. The only place that does this."""
    # uint8 wraps around: 0 − 1 = 255 = IGNORE_INDEX.
    return np.subtract(mask, 1, dtype=np.uint8)


def from_targets(targets: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Class indices 0..K−1 (and 255) → label values 1..K (and 0): the inverse of `to_targets`."""
    return np.add(targets, 1, dtype=np.uint8)
