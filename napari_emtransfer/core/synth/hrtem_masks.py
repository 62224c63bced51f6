"""Where a particle is: a union of discs about its atoms, closed and filled; or where its phase is strong."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, label

from napari_emtransfer.core.synth.scattering import Grid

Mask = NDArray[np.bool_]
# About half a bond: the discs of neighbours touch, and the mask ends where the outermost atoms' potential does.
DISC_ANGSTROM: Final = 1.7
_CLOSING_ANGSTROM: Final = 1.2
# EM000010: the phase of the particle alone, in vacuum, above π/16; smoothed over 1 to 1.6 Å.
PHASE_THRESHOLD: Final = np.pi / 16
_PHASE_BLUR_ANGSTROM: Final = 1.6


def particle_region(yx: NDArray[np.float64], grid: Grid) -> tuple[tuple[slice, slice], Mask]:
    """Window of the grid around atoms at (n, 2) in px, and the particle's region in it.

    Discs of 1.7 Å about the atoms, their gaps closed and their holes filled. Atoms count at the nearest pixel's centre.
    """
    disc, closing = DISC_ANGSTROM / grid.pixel_size, _CLOSING_ANGSTROM / grid.pixel_size
    reach = int(np.ceil(disc + closing)) + 2
    low = np.clip(np.floor(yx.min(axis=0)).astype(int) - reach, 0, grid.shape)
    high = np.clip(np.ceil(yx.max(axis=0)).astype(int) + reach + 1, 0, grid.shape)
    where = slice(low[0], high[0]), slice(low[1], high[1])
    empty = np.ones(tuple(np.maximum(high - low, 0)), bool)
    nearest = np.rint(yx).astype(int) - low
    nearest = nearest[((nearest >= 0) & (nearest < empty.shape)).all(axis=1)]
    if len(nearest) == 0:
        return where, ~empty
    empty[nearest[:, 0], nearest[:, 1]] = False
    grown = distance_transform_edt(empty) <= disc + closing
    if grown.all():
        return where, grown
    return where, _filled(distance_transform_edt(grown) > closing)


def strong_phase(phase: NDArray[Any], grid: Grid) -> Mask:
    """Where the phase of the particles alone, smoothed over 1.6 Å, is above π/16: the HRTEM literature's mask.

    It loses the thin rim of a round particle: of a CdSe sphere of 18 Å radius some 14 Å are left.
    """
    return np.asarray(gaussian_filter(phase, _PHASE_BLUR_ANGSTROM / grid.pixel_size, mode="wrap") > PHASE_THRESHOLD)


def outlines(instances: NDArray[np.int32]) -> Mask:
    """Pixels (H, W) on either side of a change of instance."""
    edge = np.zeros(instances.shape, bool)
    rows, columns = instances[1:] != instances[:-1], instances[:, 1:] != instances[:, :-1]
    edge[1:] |= rows
    edge[:-1] |= rows
    edge[:, 1:] |= columns
    edge[:, :-1] |= columns
    return edge


def _filled(region: Mask) -> Mask:
    """Holes, which do not reach the window's edge, belong to the region."""
    parts, n = label(~region)
    outside = np.zeros(n + 1, bool)
    for edge in (parts[0], parts[-1], parts[:, 0], parts[:, -1]):
        outside[edge] = True
    outside[0] = False
    return np.asarray(region | ~(outside[parts] | region))
