"""Figures from random control tiles: unbiased, intervals that cover, and silence where there are too few."""

from __future__ import annotations

import numpy as np
import pytest

from napari_emtransfer.core.active.control import chosen_against_random, control_iou, phase_fractions
from napari_emtransfer.core.evaluate.confusion import ConfusionMatrix

N, K, PIXELS = 2000, 2, 256
NAMES = ("matrix", "phase")


@pytest.fixture(scope="module")
def world():
    """N tiles of 20 specimens: true and predicted shares, confusions; difficult tiles are predicted worse."""
    rng = np.random.default_rng(3)
    specimen = np.arange(N) % 20
    share = np.clip(0.3 + 0.1 * rng.standard_normal(20)[specimen] + 0.15 * rng.standard_normal(N), 0, 1)
    difficulty = rng.beta(1, 4, N)
    present = rng.binomial(PIXELS, share)
    missed = rng.binomial(present, 0.05 + 0.7 * difficulty)
    invented = rng.binomial(PIXELS - present, 0.02 + 0.1 * difficulty)
    confusions = np.stack(
        [np.stack([PIXELS - present - invented, invented], -1), np.stack([missed, present - missed], -1)], axis=1
    )
    truth = np.stack([1 - present / PIXELS, present / PIXELS], -1)
    found = (present - missed + invented) / PIXELS
    predicted = np.stack([1 - found, found], -1)
    chosen_first = np.argsort(-difficulty + 0.05 * rng.standard_normal(N))
    return {
        "specimens": [f"s{s}" for s in specimen],
        "confusions": confusions.astype(np.int64),
        "truth": truth,
        "predicted": predicted,
        "chosen": chosen_first,
        "mean_iou": ConfusionMatrix(confusions.sum(axis=0)).mean_iou(),
        "fraction": truth[:, 1].mean(),
    }


def draws(n_draws, m, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.choice(N, m, replace=False) for _ in range(n_draws)]


def of(values, tiles):
    return [values[i] for i in tiles]


@pytest.mark.parametrize(("m", "least"), [(6, 0.88), (12, 0.9), (40, 0.92)])
def test_the_interval_of_iou_covers_the_truth(world, m, least):
    covered, values = [], []
    for tiles in draws(300, m):
        facts = control_iou(world["confusions"][tiles], ["one"] * m, NAMES)
        covered.append(facts.low <= world["mean_iou"] <= facts.high)
        values.append(facts.mean_iou)
    assert least <= np.mean(covered) <= 0.985
    assert np.mean(values) == pytest.approx(world["mean_iou"], abs=0.01)


def test_over_specimens_the_interval_covers_the_mean_of_all_specimens():
    """Specimens differ, tiles of one hardly: tiles must not count as so many independent ones."""
    rng = np.random.default_rng(1)
    quality = rng.uniform(0.6, 0.95, 400)
    hits = np.round(1000 * quality)[:, None]
    confusions = np.stack([np.hstack([hits, 1000 - hits]), np.hstack([1000 - hits, hits])], axis=1).astype(np.int64)
    truth = ConfusionMatrix(confusions.sum(axis=0)).mean_iou()
    covered = {"specimens": 0, "tiles": 0}
    for _ in range(300):
        picked = np.repeat(rng.choice(400, 8, replace=False), 4)
        known = control_iou(confusions[picked], [f"s{i}" for i in picked], NAMES)
        unknown = control_iou(confusions[picked], ["one"] * 32, NAMES)
        assert "over 8 specimens" in known.ground
        assert "over 32 tiles, so for these specimens" in unknown.ground
        covered["specimens"] += known.low <= truth <= known.high
        covered["tiles"] += unknown.low <= truth <= unknown.high
    assert covered["specimens"] >= 0.9 * 300
    assert covered["tiles"] < 0.8 * 300  # what would have been claimed


def test_chosen_tiles_would_give_a_biased_iou_and_random_ones_do_not(world):
    chosen = world["chosen"][:40]
    facts = control_iou(world["confusions"][chosen], ["one"] * 40, NAMES)
    assert facts.high < world["mean_iou"] - 0.1
    random = [control_iou(world["confusions"][t], ["one"] * 40, NAMES).mean_iou for t in draws(200, 40)]
    assert np.mean(random) == pytest.approx(world["mean_iou"], abs=0.005)


@pytest.mark.parametrize(("m", "least"), [(6, 0.88), (12, 0.9), (40, 0.9)])
def test_the_interval_of_phase_fractions_covers_the_truth(world, m, least):
    covered, values = [], []
    for tiles in draws(300, m, seed=1):
        estimate = phase_fractions(
            world["predicted"], world["truth"][tiles], world["predicted"][tiles], tiles, ["one"] * N, ["one"] * N, NAMES
        )
        phase = estimate.phases["phase"]
        covered.append(phase.low <= world["fraction"] <= phase.high)
        values.append(phase.fraction)
    assert least <= np.mean(covered) <= 0.99
    assert np.mean(values) == pytest.approx(world["fraction"], abs=0.01)
    assert f"over {m} tiles" in estimate.ground
    assert phase.from_errors > 0.8


def test_over_specimens_the_interval_covers_the_fraction_of_the_material():
    """Each time twelve new specimens of one material are imaged; errors and fractions go with the specimen."""
    rng = np.random.default_rng(8)
    names = [f"s{i // 15}" for i in range(180)]
    covered, of_tiles = [], []
    for _ in range(300):
        own, error = (np.repeat(rng.standard_normal(12), 15) for _ in range(2))
        true = 0.4 + 0.06 * own + 0.05 * rng.standard_normal(180)
        seen = true - 0.05 + 0.04 * error + 0.02 * rng.standard_normal(180)
        truth, predicted = np.stack([1 - true, true], -1), np.stack([1 - seen, seen], -1)
        tiles = rng.choice(180, 24, replace=False)
        known = phase_fractions(predicted, truth[tiles], predicted[tiles], tiles, names, names, NAMES)
        unknown = phase_fractions(predicted, truth[tiles], predicted[tiles], tiles, ["a"] * 180, ["a"] * 180, NAMES)
        covered.append(known.phases["phase"].low <= 0.4 <= known.phases["phase"].high)
        of_tiles.append(unknown.phases["phase"].low <= 0.4 <= unknown.phases["phase"].high)
    assert 0.9 <= np.mean(covered) <= 0.99
    assert np.mean(of_tiles) < 0.85  # what would have been claimed
    assert known.phases["phase"].from_errors < 0.5  # more labels would help little: specimens differ


def test_predictions_alone_and_chosen_tiles_give_biased_fractions(world):
    naive = world["predicted"][:, 1].mean()
    chosen = world["chosen"][:40]
    corrected_by_chosen = naive + (world["truth"] - world["predicted"])[chosen, 1].mean()
    assert abs(naive - world["fraction"]) > 0.02
    assert abs(corrected_by_chosen - world["fraction"]) > 0.03


def test_prediction_powered_fractions_are_surer_than_control_tiles_alone(world):
    (tiles,) = draws(1, 30)
    inputs = (world["truth"][tiles], world["predicted"][tiles], tiles, ["one"] * N, ["one"] * N, NAMES)
    powered = phase_fractions(world["predicted"], *inputs)
    unfinished = world["predicted"].copy()
    unfinished[7] = np.nan
    alone = phase_fractions(unfinished, *inputs)
    assert "alone: not all tiles are predicted yet" in alone.ground
    assert alone.phases["phase"].fraction == pytest.approx(world["truth"][tiles, 1].mean())
    assert powered.phases["phase"].half_width < 0.7 * alone.phases["phase"].half_width


def test_large_tiles_weigh_more():
    predicted, areas = np.array([[1.0, 0], [0, 1]]), np.array([3.0, 1])
    same = (predicted, predicted, np.arange(2), ["a", "b"], ["a", "b"], NAMES)
    assert phase_fractions(predicted, *same, areas=areas).phases["matrix"].fraction == pytest.approx(0.75)


def test_two_control_tiles_give_values_but_no_interval(world):
    tiles = np.array([3, 9])
    facts = control_iou(world["confusions"][tiles], of(world["specimens"], tiles), NAMES, n_missing=1)
    assert facts.mean_iou == ConfusionMatrix(world["confusions"][tiles].sum(axis=0)).mean_iou()
    assert facts.low is None
    assert facts.high is None
    assert "No interval from 2 random tiles: it takes 3." in facts.ground
    assert "1 more was skipped" in facts.ground
    estimate = phase_fractions(
        world["predicted"], world["truth"][tiles], world["predicted"][tiles], tiles, ["a"] * N, ["a"] * N, NAMES
    )
    assert all(p.low is None and p.high is None for p in estimate.phases.values())
    assert "No interval" in estimate.ground
    difference = chosen_against_random(world["confusions"][tiles], world["confusions"][tiles], ["a"] * 2)
    assert (difference.difference, difference.low, difference.high) == (0.0, None, None)


def test_without_controls_nothing_is_said(world):
    none = np.zeros(0, np.intp)
    assert control_iou(np.zeros((0, K, K), np.int64), [], NAMES) is None
    assert control_iou(np.zeros((3, K, K), np.int64), ["a"] * 3, NAMES) is None  # nothing compared
    assert chosen_against_random(np.zeros((0, K, K), np.int64), np.zeros((0, K, K), np.int64), []) is None
    empty = np.zeros((0, K))
    assert phase_fractions(world["predicted"], empty, empty, none, ["a"] * N, ["a"] * N, NAMES) is None


def test_facts_are_json(world):
    tiles = np.arange(6)
    facts = control_iou(world["confusions"][tiles], of(world["specimens"], tiles), (*NAMES,))
    assert type(facts).model_validate_json(facts.model_dump_json()) == facts
    absent = control_iou(np.array([[[5, 0], [0, 0]]]), ["a"], NAMES)
    assert absent.iou == {"matrix": 1.0, "phase": None}


def confusions_with_errors(errors):
    right = np.full_like(errors, 500) - errors
    return np.stack([np.stack([right, errors], -1), np.stack([errors, right], -1)], axis=1).astype(np.int64)


def test_chosen_against_random_is_paired_and_covers():
    rng = np.random.default_rng(5)
    difficulty = rng.integers(20, 300, 3000)
    random = confusions_with_errors(difficulty)
    chosen = confusions_with_errors(np.clip(difficulty - rng.integers(-5, 16, 3000), 0, 500))
    truth = ConfusionMatrix(chosen.sum(axis=0)).mean_iou() - ConfusionMatrix(random.sum(axis=0)).mean_iou()
    covered, paired, single = [], [], []
    for _ in range(300):
        tiles = rng.choice(3000, 8, replace=False)
        facts = chosen_against_random(chosen[tiles], random[tiles], ["one"] * 8)
        covered.append(facts.low <= truth <= facts.high)
        paired.append(facts.high - facts.low)
        alone = control_iou(chosen[tiles], ["one"] * 8, NAMES)
        single.append(alone.high - alone.low)
    assert 0.9 <= np.mean(covered) <= 0.99
    assert np.mean(paired) < 0.25 * np.mean(single)


def test_tiles_that_the_network_was_trained_on_are_said_to_be_left_out(world):
    tiles = draws(1, 6)[0]
    facts = control_iou(world["confusions"][tiles], ["one"] * 6, NAMES, n_trained_on=2)
    assert "2 more are left out: the run whose network is used was trained on them." in facts.ground
    none = control_iou(world["confusions"][:0], [], NAMES, n_trained_on=6)
    assert (none.mean_iou, none.n_tiles) == (None, 0)
    assert "the 6 random tiles" in none.ground
    none = control_iou(world["confusions"][:0], [], NAMES, n_missing=1)
    assert "of the 1 random tile so far none" in none.ground


def test_with_every_tile_labelled_the_fractions_are_those_of_the_labels(world):
    truth, without, everything = world["truth"][:50], world["predicted"][:50], np.arange(50)
    found = phase_fractions(without, truth, without, everything, ["one"] * 50, ["m"] * 50, NAMES)
    assert found.phases["phase"].fraction == pytest.approx(truth[:, 1].mean())
