"""Random places without overlap, for discs of many sizes."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_emtransfer.core.synth.micrograph import Field
from napari_emtransfer.core.synth.plane import Plane

_ROUNDS: Final = 14
_NEIGHBOURS: Final = 8
# A round in which fewer than this find room is the last.
_NO_ROOM: Final = 0.02


def place(
    plane: Plane,
    radii: NDArray[np.floating],
    gap_px: float,
    margin_px: float,
    rng: Generator,
    *,
    where: NDArray[np.floating] | None = None,
) -> tuple[Field, NDArray[np.intp]]:
    """Centres (m, 2) of discs that keep `gap_px` from each other, and which (m,) of the n discs they are.

    Random sequential addition, large ones first and many at a time: discs that collide are thrown again, some times;
    what then finds no room is left out, so m ≤ n.

    Parameters
    ----------
    radii
        (n,) in px.
    margin_px
        How far beyond the plane's edge centres may lie.
    where
        Field on the plane's grid: the chance 0..1 that a disc stays where it fell (beyond the edge: that of the edge).
    """
    order = np.argsort(-radii)
    octave = np.floor(np.log2(radii.max(initial=1e-9) / radii)).astype(int)
    places, placed = np.zeros((len(radii), 2)), np.zeros(len(radii), bool)
    larger: list[_Placed] = []
    for number in np.unique(octave):
        waiting = order[octave[order] == number]
        for _ in range(_ROUNDS):
            centres = plane.scatter(len(waiting), margin_px, rng)
            free = _wanted(plane, centres, where, rng)
            alike = np.flatnonzero(placed & (octave == number))
            for others in [*larger, _Placed(places[alike], radii[alike])]:
                free[free] = ~others.touch(centres[free], radii[waiting[free]], gap_px)
            free[free] = _first_come(centres[free], radii[waiting[free]], gap_px)
            places[waiting[free]], placed[waiting[free]] = centres[free], True
            if free.mean() < _NO_ROOM:
                break
            waiting = waiting[~free]
            if not len(waiting):
                break
        alike = np.flatnonzero(placed & (octave == number))
        larger.append(_Placed(places[alike], radii[alike]))
    kept = np.flatnonzero(placed)
    return places[kept], kept


class _Placed:
    """Discs of like size that have their place; they do not overlap, so only a few can be near a point."""

    def __init__(self, centres: Field, radii: NDArray[np.floating]) -> None:
        self._radii, self._tree = radii, cKDTree(centres) if len(radii) else None

    def touch(self, centres: Field, radii: NDArray[np.floating], gap_px: float) -> NDArray[np.bool_]:
        """Which of some discs come closer than the gap."""
        if self._tree is None or not len(centres):
            return np.zeros(len(centres), bool)
        k = min(_NEIGHBOURS, len(self._radii))
        distance, near = self._tree.query(centres, k=k)
        distance, near = distance.reshape(-1, k), near.reshape(-1, k)
        touching: NDArray[np.bool_] = (distance < radii[:, None] + self._radii[near] + gap_px).any(axis=1)
        return touching


def _wanted(plane: Plane, centres: Field, where: NDArray[np.floating] | None, rng: Generator) -> NDArray[np.bool_]:
    if where is None:
        return np.ones(len(centres), bool)
    row, column = (
        np.clip((centres[:, i] - low).astype(int), 0, size - 1)
        for i, (low, size) in enumerate(zip((plane.top, plane.left), plane.shape, strict=True))
    )
    wanted: NDArray[np.bool_] = rng.uniform(size=len(centres)) < where[row, column]
    return wanted


def _first_come(centres: Field, radii: NDArray[np.floating], gap_px: float) -> NDArray[np.bool_]:
    """Which discs stay when of each colliding pair the later one goes."""
    stays = np.ones(len(centres), bool)
    if len(centres) > 1:
        pairs = cKDTree(centres).query_pairs(2 * radii.max() + gap_px, output_type="ndarray")
        distance = np.sqrt(((centres[pairs[:, 0]] - centres[pairs[:, 1]]) ** 2).sum(axis=1))
        touching = pairs[distance < radii[pairs].sum(axis=1) + gap_px]
        stays[touching.max(axis=1)] = False
    return stays
