"""Where the phases of an abstract material lie, in one place of it; the word that all morphologies share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Phases = NDArray[np.intp]


@dataclass(frozen=True)
class Layout:
    """Phase 0..n−1 of each pixel (H, W), and the number of the cell or particle that it lies in, 0 for none."""

    phases: Phases
    instances: NDArray[np.intp]


class Morphology(Protocol):
    """What is the same in all places of one material; called for one place."""

    @property
    def n_phases(self) -> int:
        """How many phases there are."""
        ...

    def __call__(self, shape: tuple[int, int], rng: Generator) -> Layout:
        """Lay out one place of the material."""
        ...
