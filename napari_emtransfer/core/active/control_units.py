"""What an interval rests on: the units that were sampled, how many it takes, and how that is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.evaluate.bootstrap import MIN_SPECIMENS_FOR_BOOTSTRAP

LEVEL: Final = 0.95
MIN_TILES: Final = 3
"""Fewer say nothing about how much tiles differ."""
NOT_LEARNT: Final = "not learnt from; other tiles of the same specimens are."


@dataclass(frozen=True, eq=False)
class Units:
    """Of each tile the unit (n_tiles,), how many units there are, and what to call them."""

    of_tile: NDArray[np.intp]
    n: int
    name: str

    @classmethod
    def among(
        cls,
        specimens: Sequence[str],
        micrographs: Sequence[str] | None = None,
        controls: NDArray[np.intp] | None = None,
    ) -> Self:
        """Specimens where five of them have `controls` (all tiles by default), else micrographs, else tiles."""
        measured = np.arange(len(specimens)) if controls is None else controls
        for name, labels in (("specimens", specimens), ("micrographs", micrographs)):
            if labels is not None:
                names, place = np.unique(np.asarray(labels, np.str_), return_inverse=True)
                if len(np.unique(place[measured])) >= MIN_SPECIMENS_FOR_BOOTSTRAP:
                    return cls(place, len(names), name)
        return cls(np.arange(len(specimens)), len(specimens), "tiles")

    def sums(self, values: NDArray[np.float64], tiles: NDArray[np.intp] | None = None) -> NDArray[np.float64]:
        """Values (m, …) of these tiles (all by default) → sums over the units (n, …)."""
        totals = np.zeros((self.n, *values.shape[1:]))
        np.add.at(totals, self.of_tile if tiles is None else self.of_tile[tiles], values)
        return totals


def tiles_in_words(n: int) -> str:
    """Say how many tiles were measured on."""
    return f"{n} random tile" + ("s" if n != 1 else "")


def missed_in_words(n: int) -> str:
    """Say that control tiles are missing, "" where none is."""
    if not n:
        return ""
    return (
        f" {n} more {'was' if n == 1 else 'were'} skipped, put off or hardly labelled: if for being difficult, the "
        "figure is too good."
    )


def trained_on_in_words(n: int) -> str:
    """Say that control tiles are left out, "" where none is."""
    if not n:
        return ""
    return f" {n} more {'is' if n == 1 else 'are'} left out: the run whose network is used was trained on them."


def nothing_in_words(n_trained_on: int, n_missing: int) -> str:
    """Say why nothing is measured, though random tiles were shown; "" where none was."""
    if n_trained_on:
        return (
            f"the run whose network is used was trained on the {tiles_in_words(n_trained_on)} labelled so far; "
            "the next ones will tell."
        )
    if n_missing:
        return f"of the {tiles_in_words(n_missing)} so far none is labelled on at least half of its area."
    return ""


def too_few_in_words(n: int) -> str:
    """Say why there is no interval."""
    return f"No interval from {tiles_in_words(n)}: it takes {MIN_TILES}."


def bootstrap_in_words(units: Units) -> str:
    """Say what was resampled, and so what the interval speaks of."""
    what = f"95 % interval: bootstrap over {units.n} {units.name}"
    return f"{what}." if units.name == "specimens" else f"{what}, so for these specimens, not for new ones."
