"""What each measure of uncertainty must be by its definition, whatever the samples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_emtransfer.core.active import uncertainty as u

MEASURES = (u.least_confidence, u.margin, u.entropy, u.expected_entropy, u.bald, u.variance, u.disagreement)
NEAR = 2e-6


def drawn(n_members, n_classes, seed, concentration, dtype=np.float32):
    """Probabilities (S, C, 5, 6), some of them exactly 0 or 1."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet([concentration] * n_classes, (n_members, 5, 6))
    p[:, 0] = np.eye(n_classes)[rng.integers(n_classes, size=(n_members, 6))]
    return np.moveaxis(p, -1, 1).astype(dtype)


many = st.builds(
    drawn, st.integers(1, 6), st.integers(2, 5), st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.3, 1.0, 30.0])
)


@settings(deadline=None)
@given(many)
def test_values_lie_in_their_ranges(samples):
    n_members, n_classes = samples.shape[:2]
    highest = {
        u.least_confidence: 1 - 1 / n_classes,
        u.margin: 1,
        u.entropy: np.log(n_classes),
        u.expected_entropy: np.log(n_classes),
        u.bald: np.log(min(n_members, n_classes)),
        u.disagreement: np.log(min(n_members, n_classes)),
        u.variance: 1,
    }
    for measure in MEASURES:
        values = measure(samples)
        assert values.shape == (5, 6)
        assert values.dtype == np.float32
        assert values.min() >= 0 if measure not in (u.least_confidence, u.margin) else values.min() >= -NEAR
        assert values.max() <= highest[measure] + NEAR


@settings(deadline=None)
@given(many, st.randoms(use_true_random=False))
def test_the_order_of_classes_and_members_does_not_matter(samples, random):
    classes, members = (random.sample(range(n), n) for n in (samples.shape[1], samples.shape[0]))
    for measure in MEASURES:
        np.testing.assert_allclose(measure(samples[:, classes][members]), measure(samples), atol=NEAR)


@settings(deadline=None)
@given(many)
def test_members_that_agree_leave_only_the_entropy_of_their_answer(samples):
    alike = np.repeat(samples[:1], 4, axis=0)
    for measure in (u.bald, u.disagreement, u.variance):
        assert measure(alike).max() <= NEAR
    np.testing.assert_allclose(u.expected_entropy(alike), u.entropy(samples[:1]), atol=NEAR)


@settings(deadline=None)
@given(many)
def test_the_divergence_from_the_mean_is_the_mutual_information(samples):
    exact = samples.astype(np.float64)
    exact /= exact.sum(1, keepdims=True)
    np.testing.assert_allclose(u.disagreement(exact), u.entropy(exact) - u.expected_entropy(exact), atol=1e-12)


def test_ends_of_the_scale():
    certain = np.eye(3)[[0, 1, 2, 0]].T[None]
    even = np.full((1, 3, 4), 1 / 3)
    for measure in (u.least_confidence, u.margin, u.entropy):
        assert measure(certain) == pytest.approx(0)
    assert u.entropy(even) == pytest.approx(np.log(3))
    assert u.margin(even) == pytest.approx(1)
    assert u.least_confidence(even) == pytest.approx(2 / 3)
    # Two members, each certain of another class: nothing but disagreement.
    opposed = np.array([[[1.0], [0.0]], [[0.0], [1.0]]])
    assert u.bald(opposed) == u.disagreement(opposed) == u.entropy(opposed) == pytest.approx(np.log(2))
    assert u.expected_entropy(opposed) == 0
    assert u.variance(opposed) == pytest.approx(0.5)


@settings(deadline=None)
@given(st.builds(drawn, st.integers(1, 4), st.just(2), st.integers(0, 2**32 - 1), st.sampled_from([0.3, 1.0, 3.0])))
def test_for_two_classes_three_measures_rank_pixels_alike(samples):
    ranked = [measure(samples).ravel() for measure in (u.entropy, u.margin, u.least_confidence)]
    np.testing.assert_allclose(ranked[1], 2 * ranked[2], atol=NEAR)
    apart = np.abs(ranked[2][:, None] - ranked[2]) > 1e-3
    signs = [np.sign(values[:, None] - values)[apart] for values in ranked]
    assert (signs[0] == signs[2]).all()
    assert (signs[1] == signs[2]).all()


def test_for_two_classes_means_over_tiles_may_rank_otherwise():
    """One half-sure pixel and one sure one against two in between: why tiles are no pixels."""
    tiles = np.array([[0.5, 0.99], [0.73, 0.77]])
    samples = np.stack([tiles, 1 - tiles])[None]
    assert u.margin(samples).mean(1).argmax() != u.entropy(samples).mean(1).argmax()


def test_for_three_classes_they_differ():
    p = np.array([[0.5, 0.5, 0.0], [0.5, 0.25, 0.25], [0.6, 0.2, 0.2]]).T[None]
    assert list(np.argsort(u.margin(p)[0:3])) == [2, 1, 0]
    assert u.entropy(p).argmin() == 0
    assert u.least_confidence(p)[0] == u.least_confidence(p)[1]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 6))
def test_the_distance_is_that_of_the_kth_neighbour(seed, n_known, k):
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(seed)
    features, known = rng.standard_normal((9, 4)), rng.standard_normal((n_known, 4))
    fitted = NearestNeighbors(n_neighbors=min(k, n_known)).fit(known / np.linalg.norm(known, axis=1, keepdims=True))
    expected = fitted.kneighbors(features / np.linalg.norm(features, axis=1, keepdims=True))[0][:, -1]
    found = u.out_of_distribution(features, known, k)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    # Length says nothing, direction does.
    np.testing.assert_allclose(u.out_of_distribution(5 * features, 0.1 * known, k), found, atol=1e-3)


def test_nothing_known_is_no_distance():
    assert np.isnan(u.out_of_distribution(np.ones((3, 4)), np.empty((0, 4)), 1)).all()
    half = np.eye(4, dtype=np.float16)
    assert u.out_of_distribution(half, half[:2], 1) == pytest.approx([0, 0, 2**0.5, 2**0.5])
    assert (u.unit_length(np.zeros((2, 3))) == 0).all()


def test_many_tiles_are_taken_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    features, known = rng.standard_normal((50, 8)), rng.standard_normal((7, 8))
    whole = u.out_of_distribution(features, known, 3)
    monkeypatch.setattr(u, "_BLOCK", 30)
    np.testing.assert_allclose(u.out_of_distribution(features, known, 3), whole, atol=1e-6)
