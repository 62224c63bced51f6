"""What generators make: an ideal specimen as each pixel sees it, and the micrograph that a detector makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float64]


@dataclass(frozen=True)
class Structure:
    """An ideal specimen, pixel by pixel (H, W), before any detector.

    Parameters
    ----------
    grey
        Signal of an ideal detector, about 0..1, float64.
    phases
        Class of each pixel, 1..K, uint8; what `classes` names.
    boundary_px
        True distance to the nearest boundary between two instances, in pixels, float64.
    instances
        Number of the grain, particle, pore, … from 1; 0 where there is none, int32.
    classes
        K names.
    omits
        What a real micrograph of this kind has and this one has not: one clause each.
    """

    grey: Field
    phases: NDArray[np.uint8]
    boundary_px: Field
    instances: NDArray[np.int32]
    classes: tuple[str, ...]
    omits: tuple[str, ...] = ()


@dataclass(frozen=True)
class SyntheticMicrograph:
    """An image with its exact labels, and the recipe that makes both again.

    Parameters
    ----------
    image
        (H, W) float32 in 0..1.
    mask
        (H, W) uint8, classes 1..K.
    boundaries
        (H, W) bool: pixels within half a boundary's width of a boundary.
    instances
        (H, W) int32, from 1; 0 where there is none.
    recipe
        Generator, its settings, the detector's, the seed.
    """

    image: NDArray[np.float32]
    mask: NDArray[np.uint8]
    pixel_size_nm: float
    recipe: dict[str, Any]
    classes: tuple[str, ...] = ()
    boundaries: NDArray[np.bool_] | None = None
    instances: NDArray[np.int32] | None = None
    omits: tuple[str, ...] = field(default=())
