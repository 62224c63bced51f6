"""Pixels → tile: the same as a plain loop over tiles, and nan where no pixel counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_emtransfer.core.active import tile_scores

N_CLASSES = 3


def drawn(seed, n_pixels, share_kept):
    rng = np.random.default_rng(seed)
    values = rng.random((6, n_pixels)).astype(np.float32)
    keep = rng.random((6, n_pixels)) < share_kept
    keep[0] = False
    return values, keep, rng.integers(N_CLASSES, size=(6, n_pixels)).astype(np.uint8)


tiles = st.builds(drawn, st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from([0.0, 0.1, 0.5, 1.0]))


def by_loop(function, values, keep):
    return np.array([function(v[k]) if k.any() else np.nan for v, k in zip(values, keep, strict=True)])


@settings(deadline=None)
@given(tiles)
def test_mean_and_maximum(drawn_tiles):
    values, keep, _ = drawn_tiles
    spoilt = np.where(keep, values, np.nan)  # what does not count may be anything
    for given_values in (values, spoilt):
        np.testing.assert_allclose(tile_scores.mean(given_values, keep), by_loop(np.mean, values, keep), rtol=1e-5)
        np.testing.assert_array_equal(tile_scores.maximum(given_values, keep), by_loop(np.max, values, keep))


@settings(deadline=None)
@given(tiles, st.floats(0.01, 1.0))
def test_top_share(drawn_tiles, share):
    values, keep, _ = drawn_tiles
    highest = lambda v: np.sort(v)[::-1][: max(1, int(np.ceil(share * len(v) - 1e-9)))].mean()  # noqa: E731
    found = tile_scores.top_share(values, keep, share)
    np.testing.assert_allclose(found, by_loop(highest, values, keep), rtol=1e-5)
    between = found[keep.any(1)]
    assert (between <= tile_scores.maximum(values, keep)[keep.any(1)] + 1e-6).all()
    assert (between >= tile_scores.mean(values, keep)[keep.any(1)] - 1e-6).all()


def test_seven_hundredths_of_a_hundred_pixels_are_seven():
    """As a product of floats they are a little more."""
    values = np.arange(100, dtype=np.float32)[None]
    assert tile_scores.top_share(values, np.ones((1, 100), bool), 0.07) == pytest.approx(96)


@settings(deadline=None)
@given(tiles)
def test_classes_one_by_one(drawn_tiles):
    values, keep, predicted = drawn_tiles
    means = tile_scores.by_class(values, predicted, N_CLASSES, keep)
    for index in range(N_CLASSES):
        np.testing.assert_allclose(means[:, index], by_loop(np.mean, values, keep & (predicted == index)), rtol=1e-5)
    balanced = tile_scores.class_balanced(values, predicted, N_CLASSES, keep)
    expected = [np.nanmean(row) if np.isfinite(row).any() else np.nan for row in means]
    np.testing.assert_allclose(balanced, expected, rtol=1e-5)


@settings(deadline=None)
@given(tiles)
def test_shares_sum_to_one_and_put_the_means_together(drawn_tiles):
    values, keep, predicted = drawn_tiles
    shares = tile_scores.shares(predicted, N_CLASSES, keep)
    some = keep.any(1)
    assert np.isnan(shares[~some]).all()
    np.testing.assert_allclose(shares[some].sum(1), 1, rtol=1e-5)
    means = np.nan_to_num(tile_scores.by_class(values, predicted, N_CLASSES, keep))
    np.testing.assert_allclose((shares * means).sum(1)[some], tile_scores.mean(values, keep)[some], rtol=1e-4)


def test_a_rare_class_counts_as_much_as_a_common_one():
    """One unsure pixel of a rare class in a hundred: the mean overlooks it, the balanced score does not."""
    values, predicted = np.zeros((1, 100), np.float32), np.zeros((1, 100), np.uint8)
    values[0, 0], predicted[0, 0] = 1, 1
    assert tile_scores.mean(values, np.ones((1, 100), bool)) == pytest.approx(0.01)
    assert tile_scores.class_balanced(values, predicted, 2) == pytest.approx(0.5)
    # Without `keep` all pixels count, and a third class that is nowhere changes nothing.
    assert tile_scores.class_balanced(values, predicted, 3) == pytest.approx(0.5)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 3), st.integers(2, 4))
def test_boundary_bands(seed, band_px, cell_px):
    coarse = np.random.default_rng(seed).integers(N_CLASSES, size=(4, 5)).astype(np.uint8)
    mask = coarse.repeat(cell_px, 0).repeat(cell_px, 1)
    inside = tile_scores.without_boundaries(mask, band_px)
    for y, x in np.ndindex(mask.shape):
        around = mask[max(0, y - band_px) : y + band_px + 1, max(0, x - band_px) : x + band_px + 1]
        assert inside[y, x] == (around == mask[y, x]).all()


def test_bands_of_many_tiles_at_once_do_not_run_into_each_other():
    masks = np.stack([np.zeros((4, 4)), np.ones((4, 4)), np.arange(16).reshape(4, 4) // 8]).astype(np.uint8)
    together = tile_scores.without_boundaries(masks, 1)
    assert together[:2].all()
    np.testing.assert_array_equal(together, [tile_scores.without_boundaries(mask, 1) for mask in masks])
