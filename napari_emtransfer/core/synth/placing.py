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


def place(
    plane: Plane,
    radii: NDArray[np.floating],
    gap_px: float,
    margin_px: float,
    rng: Generator,
    *,
    where: NDArray[np.floating] | None = None,
) -> tuple[Field, NDArray[np.intp]]:
    """Centres (m, 2) of discs that keep `gap_px` from each other, and which (m,) discs they are; large ones first.

    Random sequential addition, many at a time: discs that collide are thrown again, some times; what then finds no room
    is left out, so m ≤ n.

    Parameters
    ----------
    radii
        (n,) in px.
    margin_px
        How far beyond the plane's edge centres may lie.
    where
        Field on the plane's grid: the chance 0..1 that a disc stays where it fell (beyond the edge: that of the edge).
    """
    octave = np.floor(np.log2(radii.max(initial=1e-9) / radii)).astype(int)
    placed: list[tuple[Field, NDArray[np.intp]]] = []
    for number in np.unique(octave):
        waiting = np.flatnonzero(octave == number)
        for _ in range(_ROUNDS):
            if not len(waiting):
                break
            centres = plane.scatter(len(waiting), margin_px, rng)
            free = _wanted(plane, centres, where, rng)
            for others, theirs in placed:
                free[free] = ~_collide(centres[free], radii[waiting[free]], others, radii[theirs], gap_px)
            free[free] = _first_come(centres[free], radii[waiting[free]], gap_px)
            placed.append((centres[free], waiting[free]))
            waiting = waiting[~free]
    if not placed:
        return np.zeros((0, 2)), np.zeros(0, np.intp)
    return np.concatenate([c for c, _ in placed]), np.concatenate([i for _, i in placed])


def _wanted(plane: Plane, centres: Field, where: NDArray[np.floating] | None, rng: Generator) -> NDArray[np.bool_]:
    if where is None:
        return np.ones(len(centres), bool)
    row, column = (
        np.clip((centres[:, i] - low).astype(int), 0, size - 1)
        for i, (low, size) in enumerate(zip((plane.top, plane.left), plane.shape, strict=True))
    )
    wanted: NDArray[np.bool_] = rng.uniform(size=len(centres)) < where[row, column]
    return wanted


def _collide(
    centres: Field, radii: NDArray[np.floating], others: Field, their_radii: NDArray[np.floating], gap_px: float
) -> NDArray[np.bool_]:
    """Which discs touch one of some others; those are of like size, so only a few can be near."""
    if not len(others) or not len(centres):
        return np.zeros(len(centres), bool)
    k = min(_NEIGHBOURS, len(others))
    distance, near = cKDTree(others).query(centres, k=k)
    distance, near = distance.reshape(-1, k), near.reshape(-1, k)
    touching: NDArray[np.bool_] = (distance < radii[:, None] + their_radii[near] + gap_px).any(axis=1)
    return touching


def _first_come(centres: Field, radii: NDArray[np.floating], gap_px: float) -> NDArray[np.bool_]:
    """Which discs stay when of each colliding pair the later one goes."""
    stays = np.ones(len(centres), bool)
    if len(centres) > 1:
        pairs = cKDTree(centres).query_pairs(2 * radii.max() + gap_px, output_type="ndarray")
        distance = np.sqrt(((centres[pairs[:, 0]] - centres[pairs[:, 1]]) ** 2).sum(axis=1))
        touching = pairs[distance < radii[pairs].sum(axis=1) + gap_px]
        stays[touching.max(axis=1)] = False
    return stays
