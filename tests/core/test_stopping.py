"""Advice to stop: which criterion spoke and with what numbers, or what is missing; never from chosen tiles."""

from __future__ import annotations

import numpy as np
import pytest

from napari_emtransfer.core.active.rounds import ControlFacts, PhaseFacts, RoundFacts
from napari_emtransfer.core.active.slope import slope
from napari_emtransfer.core.active.stopping import StopSettings, advise, kappa, reference_round


def facts(n, *, seconds=None, iou=None, n_control=8, kappa=None, since=None, phases=None):
    control = None if iou is None else ControlFacts(mean_iou=iou, n_tiles=n_control, n_specimens=2, ground="")
    return RoundFacts(
        n_labelled_tiles=n,
        seconds_labelling=seconds,
        control=control,
        kappa=kappa,
        kappa_since=since,
        phases=phases or {},
    )


def state(advice, criterion):
    return next(s for s in advice.evidence if s.criterion == criterion)


# --- kappa


def test_kappa_is_that_of_scikit_learn():
    from sklearn.metrics import cohen_kappa_score

    rng = np.random.default_rng(0)
    a = rng.integers(0, 4, 4000).astype(np.uint8)
    b = np.where(rng.random(4000) < 0.9, a, rng.integers(0, 4, 4000)).astype(np.uint8)
    assert kappa(a, b) == pytest.approx(cohen_kappa_score(a, b))
    assert kappa(a, a) == 1.0
    assert abs(kappa(a, rng.permutation(a))) < 0.05
    with pytest.raises(ValueError, match="cannot be compared"):
        kappa(a, a[:-1])


def test_kappa_of_a_single_class_is_defined():
    ones = np.ones(50, np.uint8)
    assert kappa(ones, ones) == 1.0
    assert kappa(ones, np.zeros(50, np.uint8)) == 0.0


def test_models_are_compared_with_one_that_knew_five_tiles_less():
    assert reference_round([1, 3, 4, 6, 8], 9) == 2
    assert reference_round([1, 3, 4, 6, 8], 8) == 1
    assert reference_round([5, 6], 8) is None


# --- stability


def test_three_stable_comparisons_in_a_row_end_labelling():
    rounds = [facts(5 * i, kappa=k, since=5 * i - 5) for i, k in enumerate([0.7, 0.991, 0.995, 0.9921], start=1)]
    advice = advise(rounds)
    assert advice.stop
    assert advice.criterion == "stability"
    assert "no longer change (kappa 0.991, 0.995, 0.992" in advice.sentence
    assert not advise(rounds[:3]).stop
    assert state(advise(rounds[:3]), "stability").met is False


def test_comparisons_that_overlap_do_not_count_three_times():
    """A ranking after each tile: comparisons over five tiles that overlap the one before are passed over."""
    rounds = [facts(n, kappa=0.999, since=n - 5) for n in range(10, 15)]
    advice = advise(rounds)
    assert state(advice, "stability").met is None
    assert "about 10 more labelled tiles" in state(advice, "stability").sentence
    assert state(advise([facts(n, kappa=0.999, since=n - 5) for n in range(10, 21)]), "stability").met


def test_ranking_again_without_a_new_label_says_nothing():
    rounds = [facts(12, kappa=1.0, since=12) for _ in range(6)]
    assert state(advise(rounds), "stability").met is None


def test_what_is_just_below_the_limit_is_not_shown_as_if_it_were_not():
    rounds = [facts(5 * i, kappa=0.98996, since=5 * i - 5) for i in range(1, 4)]
    assert "0.98996" in state(advise(rounds), "stability").sentence


# --- gain per ten minutes


def flat(n=8, *, step=180.0, gain=0.0, noise=0.0002, n_control=8):
    rng = np.random.default_rng(1)
    return [
        facts(i + 5, seconds=step * (i + 1), iou=0.8 + gain * i + noise * rng.standard_normal(), n_control=n_control)
        for i in range(n)
    ]


def test_a_small_gain_ends_labelling():
    advice = advise(flat())
    assert (advice.stop, advice.criterion) == (True, "slope")
    assert "12 minutes" in advice.sentence
    assert "below 0.5 points" in advice.sentence
    assert state(advice, "slope").value < 0.005


@pytest.mark.parametrize("changes", [{"gain": 0.004}, {"noise": 0.01}])
def test_a_gain_that_may_be_larger_does_not(changes):
    advice = advise(flat(**changes))
    assert (advice.stop, advice.criterion) == (False, None)
    assert advice.sentence.startswith("Go on labelling: the last 12 minutes brought")
    assert "not surely below 0.5 points" in advice.sentence


def test_what_is_missing_is_said():
    assert advise([]).sentence == "Not to be judged yet: 5 more random control tiles are needed (5 at least)."
    assert "1 more random control tile is needed" in advise(flat(n_control=4)).sentence
    assert "no labelling time was recorded" in advise([facts(n, iou=0.8) for n in range(6)]).sentence
    assert "2 more rounds and 7 more minutes of labelling are needed" in advise(flat(2)).sentence
    assert "8 more minutes of labelling are needed" in advise(flat(8, step=20.0)).sentence
    assert not advise(flat(8, step=20.0)).stop


def test_a_removed_micrograph_begins_the_curve_anew():
    rounds = flat()
    again = [r.model_copy(update={"seconds_labelling": 60.0 + 30 * i}) for i, r in enumerate(rounds[:3])]
    assert state(advise([*rounds, *again]), "slope").met is None


def test_chosen_tiles_do_not_speak():
    """Whatever else is known of a round, without control tiles there is no word about the gain."""
    rounds = [facts(n, seconds=200.0 * n) for n in range(1, 20)]
    assert state(advise(rounds), "slope").met is None


@pytest.mark.parametrize(("noise", "least"), [("walk", 0.92), ("white", 0.97)])
def test_the_interval_of_the_gain_covers_the_truth(noise, least):
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(400):
        seconds = np.cumsum(rng.uniform(60, 240, 7))
        steps = 0.01 * rng.standard_normal(7) * np.sqrt(np.diff(seconds, prepend=0) / 600)
        errors = np.cumsum(steps) if noise == "walk" else 0.01 * rng.standard_normal(7)
        found = slope(seconds, 0.6 + 0.02 * seconds / 600 + errors)
        covered += found.low <= 0.02 <= found.high
    assert least <= covered / 400 <= 1.0
    assert noise == "white" or covered / 400 < 0.98


def test_a_straight_line_is_found():
    found = slope([0, 300, 600, 1200], [0.5, 0.51, 0.52, 0.54])
    assert found.gain == pytest.approx(0.02)
    assert found.high - found.low == pytest.approx(0, abs=1e-9)
    assert found.minutes == 20


# --- the user's target


def phases(half, errors=1.0):
    return {
        "matrix": PhaseFacts(fraction=0.7, low=0.7 - half, high=0.7 + half, half_width=half, from_errors=errors),
        "phase": PhaseFacts(fraction=0.3, low=0.29, high=0.31, half_width=0.01, from_errors=errors),
    }


def test_a_target_that_is_reached_ends_labelling():
    advice = advise([facts(9, iou=0.8, phases=phases(0.018))], StopSettings(target_half_width=0.02))
    assert (advice.stop, advice.criterion) == (True, "target")
    assert "±1.8 % or better (matrix; the target is ±2.0 %)" in advice.sentence


def test_a_target_that_is_not_reached_goes_before_the_other_criteria():
    rounds = [*flat(), facts(40, seconds=2000, iou=0.8, phases=phases(0.03))]
    settings = StopSettings(target_half_width=0.02)
    advice = advise(rounds, settings)
    assert not advice.stop
    assert "the fraction of matrix is known to ±3.0 %, the target is ±2.0 %" in advice.sentence
    assert advice.sentence.startswith("Only random control tiles help now")
    assert advise(rounds[-1:], settings).sentence.startswith("Go on labelling")
    assert advise(rounds).criterion == "slope"


def test_a_target_that_labels_cannot_reach_is_called_so():
    advice = advise([facts(9, iou=0.8, phases=phases(0.05, errors=0.1))], StopSettings(target_half_width=0.02))
    assert not advice.stop
    assert advice.sentence.startswith("Labelling cannot reach the target")
    assert "more micrographs" in advice.sentence


def test_a_target_without_intervals_or_controls_is_not_judged():
    settings = StopSettings(target_half_width=0.02)
    few = advise([facts(9, iou=0.8, n_control=3, phases=phases(0.0))], settings)
    assert few.sentence == "Not to be judged yet: 2 more random control tiles are needed (5 at least)."
    bare = {"matrix": PhaseFacts(fraction=0.7)}
    assert state(advise([facts(9, iou=0.8, phases=bare)], settings), "target").met is None
    assert advise([], settings).stop is False
