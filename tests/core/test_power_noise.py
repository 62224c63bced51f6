"""Draws have the chances that are recorded, and these are what an unbiased estimate needs."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from napari_emtransfer.core.active.power_noise import beta_of_round, draw, noised, probabilities

SCORES = np.array([0.1, 0.2, 0.4, 0.8, 1.6])
ALL = np.ones(len(SCORES), bool)
# Fixed seeds: a right draw fails none of these, a wrong one fails by many orders.
LIKELY = 1e-3

pools = st.lists(st.sampled_from([np.nan, 0.0, 1e-6, 0.3, 0.3, 0.5, 1.0, 700.0]), min_size=1, max_size=12)
betas = st.sampled_from([0.2, 1.0, 7.0, 300.0, np.inf])


def test_beta_grows_from_round_to_round():
    betas = [beta_of_round(i, first=1, last=100, n_rounds=8) for i in range(12)]
    assert betas[0] == 1
    assert betas[:9] == sorted(set(betas[:9]))
    assert betas[8:] == pytest.approx([100] * 4)
    assert beta_of_round(2, first=2, last=32, n_rounds=4) == pytest.approx(8)
    assert beta_of_round(0, first=5, last=5, n_rounds=8) == beta_of_round(3, first=5, last=5, n_rounds=8) == 5


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_first_draws_are_as_frequent_as_the_power_of_the_score(beta):
    rng = np.random.default_rng(0)
    first = [draw(SCORES, beta, 1, rng, ALL)[0][0] for _ in range(6000)]
    expected = SCORES**beta / (SCORES**beta).sum() * len(first)
    assert stats.chisquare(np.bincount(first, minlength=5), expected).pvalue > LIKELY


def ordered_pairs(beta):
    """Exact chance of each ordered pair drawn without replacement."""
    w = SCORES**beta
    return {(i, j): w[i] / w.sum() * w[j] / (w.sum() - w[i]) for i, j in itertools.permutations(range(5), 2)}


@pytest.mark.parametrize("way", ["draw", "noised"])
def test_pairs_are_drawn_as_without_replacement(way):
    rng, expected, n = np.random.default_rng(1), ordered_pairs(0.7), 6000
    if way == "draw":
        found = [tuple(draw(SCORES, 0.7, 2, rng, ALL)[0]) for _ in range(n)]
    else:
        found = [tuple(np.argsort(-noised(SCORES, 0.7, rng))[:2]) for _ in range(n)]
    counts = [found.count(pair) for pair in expected]
    assert sum(counts) == n
    assert stats.chisquare(counts, n * np.array(list(expected.values()))).pvalue > LIKELY


def test_the_recorded_chance_is_that_of_the_draw():
    (i, j), (p, q) = draw(SCORES, 0.7, 2, np.random.default_rng(3), ALL)
    assert p * q == pytest.approx(ordered_pairs(0.7)[i, j])


@settings(deadline=None)
@given(pools, betas, st.integers(1, 15), st.integers(0, 2**32 - 1))
def test_each_chance_is_one_of_a_distribution_over_what_is_left(pool, beta, n, seed):
    scores, rng = np.array(pool), np.random.default_rng(seed)
    left = rng.random(len(scores)) < 0.8
    groups = rng.integers(3, size=len(scores))
    allowed = left.copy()
    indices, chances = draw(scores, beta, n, rng, allowed, excludes=lambda i: groups == groups[i])
    for index, chance in zip(indices, chances, strict=True):
        now = probabilities(scores, beta, left)
        assert now.sum() == pytest.approx(1)
        assert (now[~left] == 0).all()
        assert chance == pytest.approx(now[index])
        assert chance > 0
        left &= groups != groups[index]
    assert len(set(groups[indices])) == len(indices) == len(chances)
    # It stops where nothing is left, not before.
    assert len(indices) == n or not (left & np.isfinite(scores)).any()


@settings(deadline=None)
@given(pools, betas, st.integers(0, 2**32 - 1))
def test_what_is_not_scored_or_not_allowed_is_never_drawn(pool, beta, seed):
    scores, rng = np.array(pool), np.random.default_rng(seed)
    allowed = rng.random(len(scores)) < 0.7
    indices, chances = draw(scores, beta, len(scores), rng, allowed)
    assert sorted(indices) == list(np.flatnonzero(allowed & np.isfinite(scores)))
    # Without another score a zero is not beaten, with one it always is.
    drawn_scores = scores[indices]
    assert (np.diff((drawn_scores == 0).astype(int)) >= 0).all()
    assert np.isneginf(noised(scores, beta, rng)[np.isnan(scores)]).all()
    assert chances[-1:] == pytest.approx([1] * len(chances[-1:]))


@pytest.mark.parametrize("beta", [1e6, np.inf])
def test_a_large_beta_takes_the_highest(beta):
    scores = np.random.default_rng(4).random(200)
    indices, chances = draw(scores, beta, 20, np.random.default_rng(5), np.ones(200, bool))
    np.testing.assert_array_equal(indices, np.argsort(-scores)[:20])
    assert chances == pytest.approx(1)


def test_ties_of_the_highest_are_broken_by_chance():
    scores, rng = np.array([1.0, 2.0, 2.0, 2.0]), np.random.default_rng(6)
    draws = [draw(scores, np.inf, 1, rng, np.ones(4, bool)) for _ in range(900)]
    assert {float(chances[0]) for _, chances in draws} == {1 / 3}
    counts = np.bincount([indices[0] for indices, _ in draws], minlength=4)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > LIKELY


def test_chances_of_nothing():
    assert (probabilities(SCORES, 1.0, ~ALL) == 0).all()
    indices, chances = draw(np.full(3, np.nan), 1.0, 2, np.random.default_rng(0), np.ones(3, bool))
    assert len(indices) == len(chances) == 0
    assert len(draw(SCORES, 1.0, 0, np.random.default_rng(0), ALL)[0]) == 0


def test_recorded_chances_make_an_estimate_from_chosen_tiles_unbiased():
    """LURE (Farquhar et al. 2021, eq. 4) finds the mean loss of the pool; the plain mean of the chosen does not."""
    rng, n_pool, n_drawn = np.random.default_rng(8), 12, 4
    loss = rng.random(n_pool)
    scores = 0.2 + loss**2  # what is uncertain is wrong more often
    m = np.arange(1, n_drawn + 1)
    plain, weighted = [], []
    for _ in range(4000):
        indices, chances = draw(scores, 2.0, n_drawn, rng, np.ones(n_pool, bool))
        weights = 1 + (n_pool - n_drawn) / (n_pool - m) * (1 / ((n_pool - m + 1) * chances) - 1)
        plain.append(loss[indices].mean())
        weighted.append((weights * loss[indices]).mean())
    error = lambda x: (np.mean(x) - loss.mean()) / (np.std(x) / len(x) ** 0.5)  # noqa: E731
    assert abs(error(weighted)) < 3.5
    assert error(plain) > 20
