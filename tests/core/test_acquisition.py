"""Acquisitions by name, and the playing of a known set."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_emtransfer.core.active.acquisition import choose, offered, resolve
from napari_emtransfer.core.active.pool import TilePool
from napari_emtransfer.core.active.simulate import (
    Curve,
    budgets_of,
    mean_curve,
    paired_difference,
    play,
    tiles_to_target,
)

NAMES = ("random", "foreground-random", "typiclust", "entropy", "margin", "bald", "kcenter", "entropy+kcenter", "clasp")


def pool_of(n=60, n_classes=3, seed=0, scored=True, n_micrographs=6):
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(n, 8)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    shares = rng.dirichlet(np.ones(n_classes) / 2, n).astype(np.float32)
    entropies = np.where(shares > 0.02, rng.uniform(0.05, 1, (n, n_classes)), np.nan).astype(np.float32)
    scores = {name: rng.uniform(0.01, 1, n).astype(np.float32) for name in ("entropy", "margin", "bald", "novelty")}
    if not scored:
        scores = {name: np.full(n, np.nan, np.float32) for name in scores}
        shares, entropies = np.full_like(shares, np.nan), np.full_like(entropies, np.nan)
    numbers = np.arange(n) % n_micrographs
    everything = np.ones(n, bool)
    return TilePool(numbers, numbers // 2, everything, ~everything, embeddings, scores, shares, entropies)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_chosen_tiles_are_open_and_different(name, data):
    pool = pool_of(seed=data.draw(st.integers(0, 5)))
    is_open = np.array(data.draw(st.lists(st.booleans(), min_size=60, max_size=60)))
    labelled = ~is_open & (np.arange(60) % 2 == 0)
    n = data.draw(st.integers(0, 70))
    spread = data.draw(st.booleans())
    found = choose(
        name,
        replace(pool, open=is_open, labelled=labelled),
        n,
        query_round=data.draw(st.integers(0, 12)),
        spread=spread,
    )
    tiles = [choice.index for choice in found]
    assert len(set(tiles)) == len(tiles) == min(n, is_open.sum())
    assert is_open[tiles].all()
    assert all(choice.score is None or math.isfinite(choice.score) for choice in found)
    if name in ("random", "typiclust", "foreground-random"):
        assert all(choice.score is None for choice in found), "chosen by no score"
    assert all(choice.probability is None or 0 < choice.probability <= 1 for choice in found)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_chooses_the_same(name):
    pool = pool_of()
    assert choose(name, pool, 8, seed=3) == choose(name, pool, 8, seed=3)


def test_the_default_needs_no_model_before_there_is_one():
    without, scored = pool_of(scored=False), pool_of()
    assert resolve("default", without) == "typiclust"
    assert resolve("entropy", without) == "typiclust"
    assert resolve("random", without) == "random"
    assert resolve("default", scored) == "clasp"
    assert len(choose("typiclust", without, 5)) == 5


def test_of_two_classes_rankings_that_are_the_same_are_offered_once():
    assert "margin" in offered(3, has_model=True)
    assert "margin" not in offered(2, has_model=True)
    assert set(offered(3, has_model=False)) == {"typiclust", "kcenter", "random"}
    assert set(offered(3, has_model=True)) == set(NAMES)


def test_entropy_takes_the_highest_when_nothing_else_is_asked():
    pool = pool_of()
    tiles = [choice.index for choice in choose("entropy", pool, 5, spread=False)]
    assert tiles == np.argsort(-pool.scores["entropy"])[:5].tolist()


def test_spreading_gives_each_micrograph_its_share():
    pool = pool_of()
    high = pool.scores["entropy"] + 10 * (pool.micrographs == 2)
    crowded = replace(pool, scores=dict(pool.scores) | {"entropy": high})
    together = {int(pool.micrographs[c.index]) for c in choose("entropy", crowded, 6, spread=False)}
    apart = {int(pool.micrographs[c.index]) for c in choose("entropy", crowded, 6, spread=True)}
    assert together == {2}
    assert apart == set(range(6))


def test_classes_take_turns():
    """Were entropy all that counts, the class that is uncertain everywhere would get all the tiles."""
    pool = pool_of(n=300)
    entropies = pool.class_entropy.copy()
    entropies[:, 0] *= 100
    chosen = choose("clasp", replace(pool, class_entropy=entropies), 18, query_round=12)
    found = [choice for choice in chosen if choice.reason == "uncertain-class"]
    assert {choice.reason for choice in chosen} == {"uncertain-class", "foreground", "random"}
    assert np.bincount([choice.klass for choice in found], minlength=3).tolist() == [3, 3, 3]
    assert all(pool.shares[choice.index, choice.klass] >= 0.02 for choice in found)


def test_noise_falls_from_round_to_round():
    pool = pool_of(n=400)

    def mean_score(query_round):
        found = [c.score for s in range(20) for c in choose("clasp", pool, 6, query_round=query_round, seed=s)]
        found = [score for score in found if score is not None]
        return np.mean(found)

    assert mean_score(0) < mean_score(12)


def test_foreground_is_what_is_not_the_commonest_class():
    pool = pool_of(n=200)
    shares = np.zeros((200, 3), np.float32)
    shares[:, 0] = 1
    shares[:20] = (0.5, 0.5, 0)
    found = choose("foreground-random", replace(pool, shares=shares), 9)
    assert sum(choice.index < 20 for choice in found) >= 6
    assert {choice.reason for choice in found} == {"foreground", "random"}


def test_random_is_uniform():
    pool, counts = pool_of(n=10), np.zeros(10)
    for seed in range(400):
        counts[[choice.index for choice in choose("random", pool, 3, seed=seed)]] += 1
    assert counts.min() > 80  # 120 expected, standard deviation 9
    assert counts.max() < 160


# --- playing


class Counting:
    """Its IoU is the share of kinds of tiles that it was shown; `least` kinds are what it needs to begin."""

    def __init__(self, kinds, least=1):
        self.kinds, self.known, self.least = kinds, set(), least

    def learn(self, tiles):
        self.known = {int(self.kinds[t]) for t in tiles}
        return len(self.known) >= self.least

    def look(self, pool):
        """Unsure of tiles of kinds that it does not know."""
        unsure = np.array([kind not in self.known for kind in self.kinds], np.float32)
        return replace(pool, scores=dict(pool.scores) | {"entropy": unsure})

    def measure(self):
        return len(self.known) / len(set(self.kinds))


@pytest.fixture
def kinds():
    """One common kind and eight rare ones."""
    return np.r_[np.zeros(52, int), np.arange(1, 9)]


def test_uncertainty_finds_rare_kinds_sooner_than_chance(kinds):
    pool, budgets = pool_of(scored=False), budgets_of(6, 2)
    areas = {
        name: np.mean([play(name, Counting(kinds), pool, budgets, seed=s, spread=False).area for s in range(10)])
        for name in ("entropy", "random")
    }
    assert areas["entropy"] > areas["random"] + 0.2


def test_play_labels_each_tile_once_and_stops_with_the_pool(kinds):
    curve = play("default", Counting(kinds), pool_of(scored=False), (4, 20, 200), seed=0, control_every=5)
    assert curve.n_tiles == (4, 20, 60)
    assert sorted(curve.order) == list(range(60))


def test_play_gives_no_number_before_two_classes_are_known():
    curve = play("random", Counting(np.zeros(60, int), least=2), pool_of(scored=False), (2, 4), seed=0)
    assert curve.mean_iou == (None, None)
    assert curve.area == 0


def test_controls_are_uniform_whatever_is_uncertain(kinds):
    """Rare kinds are all the entropy wants; every other tile that is labelled is a control, and nearly all common."""
    pool = pool_of(scored=False)
    common = [
        np.mean(
            kinds[list(play("entropy", Counting(kinds), pool, (4, 12), seed=s, control_every=2, spread=False).order)]
            == 0
        )
        for s in range(10)
    ]
    without = [
        np.mean(kinds[list(play("entropy", Counting(kinds), pool, (4, 12), seed=s, spread=False).order)] == 0)
        for s in range(10)
    ]
    assert np.mean(common) > np.mean(without) + 0.1


def test_play_can_be_stopped(kinds):
    rounds = []
    curve = play(
        "random", Counting(kinds), pool_of(scored=False), (2, 4, 6), seed=0,
        should_stop=lambda: len(rounds) == 2, on_round=lambda n, iou: rounds.append(n),
    )  # fmt: skip
    assert curve.n_tiles == (2, 4)


def test_curves_are_summed_up():
    steep = Curve("a", 0, (4, 8, 16), (0.5, 0.7, 0.9), ())
    flat = Curve("b", 0, (4, 8, 16), (0.5, 0.5, 0.5), ())
    assert flat.area == pytest.approx(0.5)
    assert steep.area == pytest.approx((4 * 0.6 + 8 * 0.8) / 12)
    assert tiles_to_target(steep, 0.7) == 8
    assert tiles_to_target(flat, 0.7) is None
    assert mean_curve([steep, flat]).mean_iou == pytest.approx((0.5, 0.6, 0.7))


def test_a_difference_is_paired_by_seed():
    rng = np.random.default_rng(0)
    level = rng.uniform(0.3, 0.9, 6)  # specimens differ far more than acquisitions
    ours = [Curve("a", s, (4, 8), (v + 0.02, v + 0.02 + 0.001 * (s % 2)), ()) for s, v in enumerate(level)]
    theirs = [Curve("b", s, (4, 8), (v, v), ()) for s, v in enumerate(level)]
    difference, low, high = paired_difference(ours, theirs)
    assert 0.019 < low < difference < high < 0.022
    assert paired_difference(ours[:1], theirs)[1:] == (-math.inf, math.inf)
