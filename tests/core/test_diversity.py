"""Choices by place in the space of embeddings, by group and by window; compared with slow, plain ways."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_emtransfer.core.active import diversity
from napari_emtransfer.core.active.power_noise import draw
from napari_emtransfer.core.active.uncertainty import unit_length

seeds = st.integers(0, 2**32 - 1)


def blobs(sizes, seed=0, spread=0.05):
    """Well separated groups on the unit sphere: embeddings (N, 8) and the group of each."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    return unit_length(np.eye(8)[groups] + spread * rng.standard_normal((len(groups), 8))), groups


def marked(n, *indices):
    mask = np.zeros(n, bool)
    mask[list(indices)] = True
    return mask


@settings(deadline=None)
@given(seeds, st.integers(0, 5), st.integers(1, 8))
def test_each_centre_is_the_farthest_one(seed, n_covered, n):
    rng = np.random.default_rng(seed)
    embeddings = unit_length(rng.standard_normal((30, 3)))
    covered = rng.choice(30, n_covered, replace=False)
    candidates = np.setdiff1d(rng.choice(30, 20, replace=False), covered)
    chosen = diversity.k_center(embeddings, covered, n, candidates)
    assert len(set(chosen)) == len(chosen) == min(n, len(candidates))
    assert set(chosen) <= set(candidates)
    exact, near = embeddings.astype(np.float64), list(covered)
    for index in chosen:
        if near:
            distances = np.linalg.norm(exact[candidates, None] - exact[near], axis=2).min(1)
            assert np.linalg.norm(exact[index] - exact[near], axis=1).min() >= distances.max() - 1e-3
        near.append(index)


@pytest.mark.parametrize("seed", range(5))
def test_greedy_centres_are_at_most_twice_as_far_as_the_best(seed):
    points = np.random.default_rng(seed).random((10, 2)).astype(np.float32)
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    radius = lambda centres: distances[:, list(centres)].min(1).max()  # noqa: E731
    best = min(radius(centres) for centres in itertools.combinations(range(10), 3))
    chosen = diversity.k_center(points, np.array([], np.intp), 3, np.arange(10))
    assert best <= radius(chosen) <= 2 * best + 1e-6


def test_centres_of_copies_and_of_nothing():
    copies = np.ones((6, 4), np.float32)
    assert sorted(diversity.k_center(copies, marked(6), 4, marked(6, 0, 1, 2, 3))) == [0, 1, 2, 3]
    assert sorted(diversity.k_center(copies, marked(6, 5), 9, ~marked(6, 5))) == [0, 1, 2, 3, 4]
    assert len(diversity.k_center(copies, marked(6, 5), 3, marked(6))) == 0
    assert len(diversity.k_center(copies, marked(6), 3, marked(6))) == 0
    assert len(diversity.k_center(copies, marked(6), 0, ~marked(6))) == 0


@settings(deadline=None)
@given(seeds, st.integers(2, 25), st.integers(1, 30))
def test_typicality_by_the_definition(seed, n, k):
    points = np.random.default_rng(seed).standard_normal((n, 3))
    distances = np.sort(np.linalg.norm(points[:, None] - points, axis=2), axis=1)[:, 1 : k + 1]
    np.testing.assert_allclose(diversity.typicality(points, k), 1 / distances.mean(1), rtol=1e-2)


def test_typicality_in_parts_of_copies_and_of_one(monkeypatch):
    points = np.random.default_rng(0).standard_normal((40, 5))
    whole = diversity.typicality(points, 4)
    monkeypatch.setattr(diversity, "_BLOCK", 120)
    np.testing.assert_allclose(diversity.typicality(points, 4), whole, rtol=1e-3)
    assert np.isfinite(diversity.typicality(np.ones((3, 2)), 1)).all()
    assert diversity.typicality(np.ones((1, 2))) == pytest.approx(0)


@pytest.mark.parametrize("seed", range(4))
def test_typical_tiles_come_from_the_largest_groups_without_labels(seed):
    embeddings, groups = blobs([40, 35, 30, 25, 20], seed)
    labelled = marked(150, 3, 117)  # of groups 0 and 3
    chosen = diversity.typiclust(embeddings, labelled, ~labelled, 3, np.random.default_rng(seed))
    assert list(groups[chosen]) == [1, 2, 4]
    for index in chosen:
        inside = groups == groups[index]
        centre = embeddings[inside].mean(0)
        distances = np.linalg.norm(embeddings - centre, axis=1)
        assert distances[index] < np.median(distances[inside])


def test_outliers_are_not_typical():
    embeddings, groups = blobs([60, 40, 2])
    nothing = marked(102)
    chosen = diversity.typiclust(embeddings, nothing, ~nothing, 2, np.random.default_rng(0))
    assert 2 not in groups[chosen]


@settings(deadline=None)
@given(seeds, st.integers(1, 25), st.integers(0, 12), st.integers(1, 30))
def test_typical_tiles_of_any_pool(seed, n_tiles, n_labelled, n):
    rng = np.random.default_rng(seed)
    embeddings = unit_length(rng.integers(-1, 2, (n_tiles, 3)))  # many copies
    labelled = marked(n_tiles, *rng.choice(n_tiles, min(n_labelled, n_tiles), replace=False))
    free = ~labelled & (rng.random(n_tiles) < 0.8)
    chosen = diversity.typiclust(embeddings, labelled, free, n, rng)
    assert len(set(chosen)) == len(chosen) == min(n, free.sum())
    assert free[chosen].all()


def test_a_seed_gives_one_choice():
    embeddings, _ = blobs([30, 30, 30])
    nothing = marked(90)
    choices = [diversity.typiclust(embeddings, nothing, ~nothing, 5, np.random.default_rng(9)) for _ in range(2)]
    np.testing.assert_array_equal(*choices)


def test_the_highest_score_of_each_group():
    embeddings, groups = blobs([30, 20, 10])
    scores = np.random.default_rng(1).random(60)
    scores[groups == 0] += 5  # a plain ranking would take all from here
    best = [int(np.flatnonzero(groups == g)[scores[groups == g].argmax()]) for g in range(3)]
    chosen = diversity.cluster_then_top(embeddings, scores, ~marked(60), 3, np.random.default_rng(0))
    assert list(chosen) == sorted(best, key=lambda i: -scores[i])
    scores[best[0]] = np.nan
    chosen = diversity.cluster_then_top(embeddings, scores, ~marked(60, best[1]), 3, np.random.default_rng(0))
    assert not {best[0], best[1]} & set(chosen)
    assert sorted(groups[chosen]) == [0, 1, 2]


def test_groups_of_copies_are_filled_with_the_best_of_the_rest():
    scores = np.array([3, 1, np.nan, 2, 5])
    rng = np.random.default_rng(0)
    assert list(diversity.cluster_then_top(np.ones((5, 2)), scores, ~marked(5), 3, rng)) == [4, 0, 3]
    assert list(diversity.cluster_then_top(np.ones((5, 2)), scores, ~marked(5), 9, rng)) == [4, 0, 3, 1]


def taken_one_by_one(order, n, fits):
    chosen = []
    for index in order:
        if len(chosen) < n and fits(index, chosen):
            chosen.append(index)
    return chosen


@settings(deadline=None)
@given(seeds, st.integers(0, 30), st.integers(1, 12), st.integers(1, 4))
def test_quotas_hold_and_leave_out_nothing_else(seed, n_order, n, quota):
    rng = np.random.default_rng(seed)
    groups, order = rng.integers(5, size=40), rng.permutation(40)[:n_order]
    fits = lambda index, chosen: sum(groups[index] == groups[c] for c in chosen) < quota  # noqa: E731
    assert list(diversity.within_quotas(order, groups, n, quota)) == taken_one_by_one(order, n, fits)


@settings(deadline=None)
@given(seeds, st.integers(1, 12), st.integers(1, 3), st.integers(1, 4))
def test_quotas_of_micrographs_and_of_specimens_one_after_the_other(seed, n, inner, outer):
    rng = np.random.default_rng(seed)
    micrographs, order = rng.integers(9, size=40), rng.permutation(40)
    specimens = micrographs // 3
    by_micrograph = diversity.within_quotas(order, micrographs, len(order), inner)
    both = diversity.within_quotas(by_micrograph, specimens, n, outer)
    same = lambda groups, index, chosen: sum(groups[index] == groups[c] for c in chosen)  # noqa: E731
    fits = lambda i, chosen: same(micrographs, i, chosen) < inner and same(specimens, i, chosen) < outer  # noqa: E731
    assert list(both) == taken_one_by_one(order, n, fits)


@settings(deadline=None)
@given(seeds, st.integers(1, 20), st.integers(1, 25))
def test_the_smallest_quota_that_finds_enough(seed, n_order, n):
    rng = np.random.default_rng(seed)
    groups, order = rng.integers(6, size=30), rng.permutation(30)[:n_order]
    quota = diversity.even_quota(order, groups, n)
    assert len(diversity.within_quotas(order, groups, n, quota)) == min(n, n_order)
    assert quota == 1 or len(diversity.within_quotas(order, groups, n, quota - 1)) < min(n, n_order)
    assert diversity.even_quota(order[:0], groups, n) == 0


@settings(deadline=None)
@given(seeds, st.integers(1, 12), st.booleans())
def test_no_two_windows_share_a_pixel(seed, n, several_images):
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 30, (25, 2))
    windows = np.concatenate([corners, corners + rng.integers(1, 12, (25, 2))], axis=1)
    images = rng.integers(2, size=25) if several_images else np.zeros(25, int)
    canvases = np.zeros((25, 2, 45, 45), bool)
    for canvas, image, (y0, x0, y1, x1) in zip(canvases, images, windows, strict=True):
        canvas[image, y0:y1, x0:x1] = True
    order = rng.permutation(25)
    fits = lambda index, chosen: not any((canvases[index] & canvases[c]).any() for c in chosen)  # noqa: E731
    found = diversity.without_overlap(windows, order, n, images if several_images else None)
    assert list(found) == taken_one_by_one(order, n, fits)


def test_a_hundred_thousand_tiles_are_no_wait():
    """Seconds of one core: 0.4, 0.05 and 0.01 when this was written; a user should not have to wait for any."""
    rng = np.random.default_rng(0)
    embeddings = unit_length(rng.standard_normal((40, 64))[rng.integers(40, size=100_000)] + rng.random((100_000, 64)))
    labelled = marked(100_000, *rng.choice(100_000, 64, replace=False))
    scores = rng.random(100_000)
    limits = {
        3.0: lambda: diversity.typiclust(embeddings, labelled, ~labelled, 8, rng),
        0.3: lambda: diversity.k_center(embeddings, labelled, 8, ~labelled),
        0.1: lambda: draw(scores, 4.0, 8, rng, ~labelled)[0],
    }
    for limit, choose in limits.items():
        start = time.process_time()
        assert len(choose()) == 8
        assert time.process_time() - start < 2 * limit  # a slower machine
