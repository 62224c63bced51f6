"""Tiles that differ: from each other, from what is labelled, by micrograph, by place.

`embeddings` (N, E) say where tiles lie among each other; distances are Euclidean, so they should be of length 1.
`covered` and `candidates` are indices or masks of N.
"""

from __future__ import annotations

import warnings
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Embeddings = NDArray[np.floating[Any]]
Indices = NDArray[np.intp]
Chosen = NDArray[np.intp] | NDArray[np.bool_]

N_NEIGHBOURS: Final = 20
MAX_CLUSTERS: Final = 500  # as Hacohen et al.
# Tiles that k-means sees, and those of a cluster of which the most typical is taken: drawn at random from more.
_MAX_FITTED: Final = 10_000
_MAX_COMPARED: Final = 2000
# Smaller clusters are outliers (Hacohen et al.), taken last.
_MIN_CLUSTER: Final = 5
_BLOCK: Final = 2**22  # distances that are held at a time


def k_center(embeddings: Embeddings, covered: Chosen, n: int, candidates: Chosen) -> Indices:
    """Up to n candidates, each the farthest from all that are covered or chosen before it, in this order.

    Where nothing is covered, the first is the candidate nearest to the mean of all.

    Source: Sener & Savarese, Active learning for convolutional neural networks: a core-set approach, ICLR 2018
    (greedy k-center; at most twice the smallest possible radius).
    """
    numbers = _indices(candidates)
    points, centres = _rows(embeddings, numbers), _rows(embeddings, _indices(covered))
    lengths = np.einsum("ij,ij->i", points, points)
    chosen: list[int] = []
    if len(centres):
        nearest = _distance_to_any(points, lengths, centres)
    elif len(points) and n > 0:
        chosen.append(int(_squared(points, lengths, points.mean(0)).argmin()))
        nearest = _squared(points, lengths, points[chosen[0]])
    while len(chosen) < min(n, len(points)):
        nearest[chosen] = -1  # below any distance: copies of one tile are 0 from each other
        best = int(nearest.argmax())
        nearest = np.minimum(nearest, _squared(points, lengths, points[best]))
        chosen.append(best)
    return numbers[chosen]


def typicality(embeddings: Embeddings, k: int = N_NEIGHBOURS) -> NDArray[np.float32]:
    """One over the mean distance to the k nearest others (to all, where there are fewer), (n,); takes n² distances.

    Source: Hacohen et al., Active learning on a budget: opposite strategies suit high and low budgets, ICML 2022.
    """
    points = np.asarray(embeddings, np.float32)
    k = min(k, len(points) - 1)
    if k < 1:
        return np.zeros(len(points), np.float32)
    result = np.empty(len(points), np.float32)
    lengths = np.einsum("ij,ij->i", points, points)
    step = max(1, _BLOCK // len(points))
    for start in range(0, len(points), step):
        part = slice(start, start + step)
        squared = lengths[part, None] + lengths - 2 * (points[part] @ points.T)
        squared[np.arange(len(squared)), np.arange(start, start + len(squared))] = np.inf  # not itself
        nearest = np.sqrt(np.maximum(np.partition(squared, k - 1, axis=1)[:, :k], 0))
        # Copies of one tile have no distance, and are as typical as can be told.
        result[part] = 1 / np.maximum(nearest.mean(1), 1e-6)
    return result


def typiclust(
    embeddings: Embeddings, labelled: Chosen, candidates: Chosen, n: int, rng: np.random.Generator
) -> Indices:
    """Up to n candidates: the most typical of each of the largest clusters in which least is labelled.

    All tiles are clustered into as many clusters as are labelled and asked for, but at most `MAX_CLUSTERS`. k-means
    sees a random 10 000 tiles, and the most typical is sought among a random 2000 of a cluster: so 10⁵ tiles take
    seconds. Where a cluster is met again, because there are fewer of them than n, its next most typical is taken.

    Source: Hacohen et al., ICML 2022 (TypiClust).
    """
    marked, free = _indices(labelled), _indices(candidates)
    if len(free) == 0 or n < 1:
        return free[:0]
    n_clusters = min(len(marked) + n, MAX_CLUSTERS, len(embeddings))
    clusters = _clusters(embeddings, n_clusters, rng)
    groups = _candidates_of(clusters, free, n_clusters)
    order = [groups[number] for number in _least_labelled_first(clusters, marked, n_clusters) if len(groups[number])]
    ranked = [_by_typicality(embeddings, group, rng) for group in order[:n]]
    chosen = [group[turn] for turn in range(n) for group in ranked if turn < len(group)]
    return np.array(chosen[:n], np.intp)


def cluster_then_top(
    embeddings: Embeddings, scores: NDArray[np.floating[Any]], candidates: Chosen, n: int, rng: np.random.Generator
) -> Indices:
    """Up to n candidates: the highest score of each of n clusters, best first; a nan is never taken.

    Where tiles are so alike that fewer clusters form, the best of the rest follow.
    """
    numbers = _indices(candidates)
    numbers = numbers[np.isfinite(scores[numbers])]
    ranked = numbers[np.argsort(-scores[numbers], kind="stable")]
    if len(ranked) <= n:
        return ranked
    clusters = _clusters(_rows(embeddings, ranked), n, rng)
    leaders = np.sort(np.unique(clusters, return_index=True)[1])
    return np.concatenate([ranked[leaders], np.delete(ranked, leaders)])[:n]


def within_quotas(order: Indices, groups: NDArray[np.integer], n: int, quota: int) -> Indices:
    """The first n of `order` of which at most `quota` are of one group; fewer where the quota leaves fewer.

    For groups inside groups (micrographs of specimens): once for the inner ones with n = len(order), then for the
    outer ones; the order of taking does not matter to nested quotas.

    Parameters
    ----------
    order
        Indices of tiles, best first.
    groups
        (N,) Group of each tile.
    """
    return order[_rank_in_group(groups[order]) < quota][:n]


def even_quota(order: Indices, groups: NDArray[np.integer], n: int) -> int:
    """The smallest quota with which `within_quotas` finds n of `order` (all, where there are fewer)."""
    if len(order) == 0:
        return 0
    counts = np.unique(groups[order], return_counts=True)[1]
    filled = np.minimum(counts, np.arange(1, counts.max() + 1)[:, None]).sum(1)
    return int(np.searchsorted(filled, min(n, len(order)))) + 1


def without_overlap(
    windows: NDArray[np.integer], order: Indices, n: int, images: NDArray[np.integer] | None = None
) -> Indices:
    """The first n of `order` of which no two share a pixel, each taken unless it overlaps one before it.

    Parameters
    ----------
    windows
        (N, 4) Half-open y0, x0, y1, x1 in pixels.
    images
        (N,) Which micrograph a window is of; all of one where None.
    """
    y0, x0, y1, x1 = windows.T
    free = np.ones(len(windows), bool)
    chosen: list[int] = []
    for index in order:
        if len(chosen) >= n:
            break
        if not free[index]:
            continue
        chosen.append(int(index))
        meets = (y0 < y1[index]) & (y1 > y0[index]) & (x0 < x1[index]) & (x1 > x0[index])
        free &= ~(meets if images is None else meets & (images == images[index]))
    return np.array(chosen, np.intp)


def _indices(chosen: Chosen) -> Indices:
    return np.flatnonzero(chosen) if chosen.dtype == bool else np.asarray(chosen, np.intp)


def _rows(embeddings: Embeddings, numbers: Indices) -> NDArray[np.float32]:
    return np.asarray(embeddings[numbers], np.float32)


def _squared(
    points: NDArray[np.float32], lengths: NDArray[np.float32], centre: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Squared distances (n,) of points (n, E), whose squared lengths are known, to one centre (E,)."""
    return np.maximum(lengths + centre @ centre - 2 * (points @ centre), 0)


def _distance_to_any(
    points: NDArray[np.float32], lengths: NDArray[np.float32], centres: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Squared distance (n,) of each point to the nearest of the centres."""
    nearest = np.empty(len(points), np.float32)
    half = np.einsum("ij,ij->i", centres, centres) / 2
    step = max(1, _BLOCK // len(centres))
    for start in range(0, len(points), step):
        part = slice(start, start + step)
        # |p − c|² = |p|² − 2 (p·c − |c|²/2): one pass over the block instead of three.
        closeness = points[part] @ centres.T
        closeness -= half
        nearest[part] = np.maximum(lengths[part] - 2 * closeness.max(1), 0)
    return nearest


def _clusters(embeddings: Embeddings, n_clusters: int, rng: np.random.Generator) -> Indices:
    """Cluster number of each tile, (N,): k-means on at most `_MAX_FITTED` of them, the others to the nearest centre."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    points = np.asarray(embeddings, np.float32)
    some = points if len(points) <= _MAX_FITTED else points[rng.choice(len(points), _MAX_FITTED, replace=False)]
    means = KMeans(n_clusters, n_init=1, max_iter=30, tol=1e-3, random_state=int(rng.integers(2**31)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different tiles than clusters
        means.fit(some)
    return means.predict(points).astype(np.intp)


def _candidates_of(clusters: Indices, free: Indices, n_clusters: int) -> list[Indices]:
    ordered = free[np.argsort(clusters[free], kind="stable")]
    ends = np.cumsum(np.bincount(clusters[free], minlength=n_clusters))
    return np.split(ordered, ends[:-1])


def _least_labelled_first(clusters: Indices, labelled: Indices, n_clusters: int) -> Indices:
    sizes = np.bincount(clusters, minlength=n_clusters)
    taken = np.bincount(clusters[labelled], minlength=n_clusters)
    # In a small pool clusters are small: there only those far below the mean are outliers.
    outliers = sizes < min(_MIN_CLUSTER, len(clusters) / n_clusters / 2)
    return np.lexsort((-sizes, taken, outliers)).astype(np.intp)


def _by_typicality(embeddings: Embeddings, group: Indices, rng: np.random.Generator) -> Indices:
    some = group if len(group) <= _MAX_COMPARED else rng.choice(group, _MAX_COMPARED, replace=False)
    typical = typicality(_rows(embeddings, some), min(N_NEIGHBOURS, max(1, len(some) // 2)))
    return some[np.argsort(-typical, kind="stable")]


def _rank_in_group(groups: NDArray[np.integer]) -> Indices:
    """How many of the same group stand before each, (n,)."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(ordered) else order
    ranks = np.empty(len(groups), np.intp)
    ranks[order] = np.arange(len(groups)) - np.repeat(starts, np.diff([*starts, len(groups)]))
    return ranks
