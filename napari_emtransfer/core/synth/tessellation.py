"""Tessellations of the plane: seeds, Lloyd's relaxation, power diagrams, the true distance to a boundary.

Seeds p_i with weights w_i: cell i is where D_i(p) = |p − p_i|² − w_i is least (Laguerre, or power, diagram; all weights
equal: Voronoi). The distance to the boundary between cells i and j is b = (D_j − D_i) / (2 |p_j − p_i|), not the
difference of distances, which would make boundaries of varying width. In an anisotropic metric A the boundary is still
straight and the distance that is seen is b = (D_j − D_i) / (2 |AᵀA (p_j − p_i)|).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_emtransfer.core.synth.micrograph import Field
from napari_emtransfer.core.synth.plane import Bend

_Value = TypeVar("_Value", np.intp, np.float64)

_CANDIDATES: Final = 9
# Seeds whose weight is below the heaviest's by more than this form a group of their own.
_GROUP_RATIO: Final = 12.0
_MAX_GROUPS: Final = 3
# So many pixels are searched at once that what is computed of them stays in a processor's cache.
_PIXELS_AT_ONCE: Final = 16384
# Block edge in px for cells of this mean distance and more; smaller cells take smaller blocks.
_BLOCKS: Final = ((24.0, 16), (9.0, 8), (0.0, 4))


@dataclass(frozen=True)
class Cells:
    """A tessellation seen by every pixel (H, W).

    Parameters
    ----------
    ids
        Number of the seed whose cell the pixel lies in, from 0.
    other
        Number of the seed beyond the nearest boundary.
    boundary
        True distance to that boundary in px.
    normal_y, normal_x
        Unit vector across the nearest boundary, from `ids` to `other`.
    n
        How many seeds there are, seen or not.
    """

    ids: NDArray[np.intp]
    other: NDArray[np.intp]
    boundary: Field
    normal_y: NDArray[np.floating]
    normal_x: NDArray[np.floating]
    n: int


def tessellate(
    y: Field, x: Field, points: Field, weights: Field | None = None, *, metric: Field | None = None
) -> Cells:
    """Power diagram at coordinates (H, W), exact.

    Each block of pixels considers the seeds nearest to it. How far the seed beyond the nearest boundary can lie follows
    from the triangle inequality: where a block's seeds do not reach so far, more of them are considered.

    Parameters
    ----------
    points
        Seeds (n, 2), yx in px, two at least.
    weights
        Power weights (n,) in px²: a heavier seed has a larger cell. None: all equal.
    metric
        (2, 2) matrix A; distances are |A (p − q)|. None: ordinary ones.
    """
    inside = np.column_stack([y.ravel(), x.ravel()])
    if metric is not None:
        inside, points_in = inside @ metric.T, points @ metric.T
    else:
        points_in = points
    weights = np.zeros(len(points)) if weights is None else weights
    blocks = _blocks(inside.reshape(*y.shape, 2), _mean_distance(points))
    across = (points_in @ metric if metric is not None else points_in).astype(float)
    longest = 1.0 if metric is None else float(np.linalg.norm(metric, 2))
    ids, other, boundary = _search(blocks.pixels, points_in, weights, across, longest)
    ids, other, boundary = blocks.unpack(ids), blocks.unpack(other), blocks.unpack(boundary)
    step_y, step_x = across[other, 0] - across[ids, 0], across[other, 1] - across[ids, 1]
    length = np.sqrt(step_y**2 + step_x**2)
    return Cells(ids, other, boundary, step_y / length, step_x / length, len(points))


def bent_cells(bend: Bend, points: Field, weights: Field | None = None, *, metric: Field | None = None) -> Cells:
    """Tessellation of a bent plane: boundaries are curved, distances corrected for the bending to first order."""
    cells = tessellate(bend.y, bend.x, points, weights, metric=metric)
    stretch, normal_y, normal_x = bend.straightened(cells.normal_y, cells.normal_x)
    return Cells(cells.ids, cells.other, cells.boundary / stretch, normal_y, normal_x, cells.n)


def relax(
    points: Field,
    steps: int,
    rng: Generator,
    *,
    weights: Field | None = None,
    metric: Field | None = None,
    samples_per_cell: int = 24,
) -> Field:
    """Lloyd's relaxation: each seed moves to the centroid of its cell, `steps` times; cells become equiaxed.

    Centroids are those of stratified random samples of the seeds' bounding box (Lloyd, IEEE Trans. Inf. Theory 28
    (1982) 129; with weights, towards a centroidal power diagram).
    """
    low, size = points.min(axis=0), np.ptp(points, axis=0)
    pitch = np.sqrt(size.prod() / (samples_per_cell * len(points)))
    n = np.maximum(1, np.ceil(size / pitch)).astype(int)
    nodes = np.stack(np.meshgrid(np.arange(n[0]), np.arange(n[1]), indexing="ij"), axis=-1).reshape(-1, 2)
    height = np.zeros(len(points)) if weights is None else np.sqrt(weights.max() - weights)
    for _ in range(steps):
        samples = low + (nodes + rng.uniform(size=nodes.shape)) * (size / n)
        seeds, asked = (points, samples) if metric is None else (points @ metric.T, samples @ metric.T)
        lifted = np.column_stack([asked, np.zeros(len(asked))])
        own = cKDTree(np.column_stack([seeds, height])).query(lifted)[1]
        count = np.bincount(own, minlength=len(points))
        sums = np.column_stack([np.bincount(own, samples[:, i], len(points)) for i in (0, 1)])
        points = np.where(count[:, None] > 0, sums / np.maximum(count, 1)[:, None], points)
    return points


def seeds_for(area_px2: float, diameter_px: float) -> int:
    """How many seeds make cells of a mean equivalent diameter, eight at least."""
    return max(8, round(area_px2 / (np.pi / 4 * diameter_px**2)))


@dataclass(frozen=True)
class _Blocks:
    """Pixels in square blocks: `pixels` (n_blocks, pixels per block, 2); `unpack` puts values back in place."""

    pixels: Field
    shape: tuple[int, int]
    edge: int

    def unpack(self, values: NDArray[_Value]) -> NDArray[_Value]:
        rows, columns = (-(-n // self.edge) for n in self.shape)
        tiled = values.reshape(rows, columns, self.edge, self.edge).swapaxes(1, 2)
        return np.ascontiguousarray(tiled.reshape(rows * self.edge, -1)[: self.shape[0], : self.shape[1]])


def _blocks(pixels: Field, spacing_px: float) -> _Blocks:
    height, width = pixels.shape[:2]
    edge = next(edge for least, edge in _BLOCKS if spacing_px >= least)
    padded = np.pad(pixels, ((0, -height % edge), (0, -width % edge), (0, 0)), mode="edge")
    rows, columns = padded.shape[0] // edge, padded.shape[1] // edge
    tiled = padded.reshape(rows, edge, columns, edge, 2).swapaxes(1, 2)
    return _Blocks(tiled.reshape(rows * columns, edge * edge, 2), (height, width), edge)


def _mean_distance(points: Field) -> float:
    return float(np.sqrt(np.ptp(points, axis=0).prod() / len(points)))


def _search(
    pixels: Field, seeds: Field, weights: Field, across: Field, longest: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], Field]:
    """Own seed, seed beyond the nearest boundary and distance to it, (n_blocks, pixels per block) each.

    `longest` is the length that the metric gives at most to a true length of 1.
    """
    ids, other = (np.empty(pixels.shape[:2], np.intp) for _ in range(2))
    boundary = np.empty(pixels.shape[:2])
    groups = _groups(seeds, weights)
    low, high = pixels.min(axis=1), pixels.max(axis=1)
    centres, reach = (low + high) / 2, np.sqrt(((high - low) ** 2).sum(axis=1)) / 2
    at_once = max(1, _PIXELS_AT_ONCE // pixels.shape[1])
    queue = [(np.arange(i, min(i + at_once, len(pixels))), _CANDIDATES) for i in range(0, len(pixels), at_once)]
    while queue:
        todo, k = queue.pop()
        asked = [group.nearest(centres[todo], k) for group in groups]
        candidates = np.concatenate([numbers for numbers, _ in asked], axis=1)
        found = _nearest(pixels[todo], centres[todo], candidates, seeds, weights, across)
        ids[todo], other[todo], boundary[todo] = found[:3]
        # A boundary's point q is b away; its power is own power there, at most (|p − p_i| + b)² − w_i.
        far, power = longest * found[2], (found[3] + longest * found[2]) ** 2 - weights[found[0]]
        short = np.zeros(len(todo), bool)
        for group, (_, distance) in zip(groups, asked, strict=True):
            needed = (np.sqrt(np.maximum(power + group.heaviest, 0)) + far).max(axis=1) + reach[todo]
            short |= distance < needed
        if short.any():
            queue.append((todo[short], 2 * k))
    return ids, other, boundary


class _Group:
    """Seeds of like weight, in a tree one dimension higher, where their power distance is an ordinary one."""

    def __init__(self, numbers: NDArray[np.intp], seeds: Field, weights: Field) -> None:
        self.numbers, self.heaviest = numbers, float(weights[numbers].max())
        height = np.sqrt(self.heaviest - weights[numbers])
        self._tree = cKDTree(np.column_stack([seeds[numbers], height]))

    def nearest(self, centres: Field, k: int) -> tuple[NDArray[np.intp], Field]:
        """Numbers (n, k) of the nearest seeds, and how far (n,) they reach; infinitely when these are all."""
        k = min(k, len(self.numbers))
        distance, index = self._tree.query(np.column_stack([centres, np.zeros(len(centres))]), k=k)
        distance, index = distance.reshape(len(centres), k), index.reshape(len(centres), k)
        reach = np.full(len(centres), np.inf) if k == len(self.numbers) else distance[:, -1]
        return self.numbers[index], reach


def _groups(seeds: Field, weights: Field) -> list[_Group]:
    """Few groups by weight: among seeds of unlike weight a tree would offer far ones first."""
    left = np.arange(len(seeds))
    groups: list[_Group] = []
    while len(left):
        heavy = weights[left] >= weights[left].max() / _GROUP_RATIO
        if len(groups) == _MAX_GROUPS - 1 or heavy.mean() > 0.5:
            heavy[:] = True
        groups.append(_Group(left[heavy], seeds, weights))
        left = left[~heavy]
    return groups


def _nearest(
    pixels: Field, centres: Field, candidates: NDArray[np.intp], seeds: Field, weights: Field, across: Field
) -> tuple[NDArray[np.intp], NDArray[np.intp], Field, Field]:
    """Own seed, seed beyond the nearest boundary, distances to boundary and own seed; of candidates (n_blocks, k).

    D_j − |p|² is linear in p, so boundaries are differences of planes.
    """
    local, at = pixels - centres[:, None], seeds[candidates] - centres[:, None]
    offset = (at**2).sum(axis=-1) - weights[candidates]
    planes = np.moveaxis(offset[:, None] - 2 * (local @ at.swapaxes(1, 2)), -1, 0)
    least, own = planes[0].copy(), np.zeros(planes.shape[1:], np.intp)
    for j in range(1, len(planes)):
        np.copyto(own, j, where=planes[j] < least)
        np.minimum(least, planes[j], out=least)
    ids = np.take_along_axis(candidates, own, axis=1)
    own_y, own_x = across[ids, 0], across[ids, 1]
    boundary, beyond = np.full(ids.shape, np.inf), np.zeros(ids.shape, np.intp)
    for j in range(len(planes)):
        neighbour = across[candidates[:, j]]
        apart = (neighbour[:, :1] - own_y) ** 2 + (neighbour[:, 1:] - own_x) ** 2
        with np.errstate(invalid="ignore", divide="ignore"):  # a seed and itself: 0 / 0, which is no distance
            distance = (planes[j] - least) / (2 * np.sqrt(apart))
        closer = distance < boundary
        np.copyto(boundary, distance, where=closer)
        np.copyto(beyond, j, where=closer)
    to_own = np.sqrt((pixels[..., 0] - seeds[ids, 0]) ** 2 + (pixels[..., 1] - seeds[ids, 1]) ** 2)
    return ids, np.take_along_axis(candidates, beyond, axis=1), boundary, to_own
