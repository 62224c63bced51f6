"""Rules as data: every situation has one, every one is needed, and what is said holds the numbers."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from napari_emtransfer.core.config import Modality, TrainConfig
from napari_emtransfer.core.recommend import (
    GapClass,
    Rule,
    Situation,
    advice,
    counted_tiles,
    first_match,
    gap_class,
    recommend,
    rule_book,
)

BOOK = rule_book()
MODALITIES = (*get_args(Modality), None)
situations = st.builds(
    Situation,
    n_tiles=st.integers(0, 100_000),
    n_specimens=st.integers(0, 1000),
    gap=st.sampled_from(get_args(GapClass)),
    pretrained=st.booleans(),
    continued=st.booleans(),
    modality=st.sampled_from(MODALITIES),
)


@given(situations)
def test_every_situation_has_a_rule(situation):
    rule = first_match(BOOK.rule, situation)
    assert rule.matches(situation)
    earlier = BOOK.rule[: BOOK.rule.index(rule)]
    assert not any(other.matches(situation) for other in earlier)


@given(situations)
def test_without_weights_nothing_is_transferred_and_with_weights_something_is(situation):
    rule = first_match(BOOK.rule, situation)
    if not situation.continued:
        assert (rule.strategy == "scratch") == (not situation.pretrained)


def test_no_rule_is_unreachable():
    """Conditions are ranges and sets, so one situation on each side of every border stands for all of them."""
    tiles = {0, *(edge for r in BOOK.rule for edge in (r.tiles_from, (r.tiles_to or 0), (r.tiles_to or 0) + 1))}
    specimens = {
        0,
        *(e for r in BOOK.rule for e in (r.specimens_from, (r.specimens_to or 0), (r.specimens_to or 0) + 1)),
    }
    combinations = itertools.product(tiles, specimens, get_args(GapClass), (True, False), (True, False), MODALITIES)
    used = {
        first_match(BOOK.rule, Situation(n_tiles=t, n_specimens=s, gap=g, pretrained=p, continued=c, modality=m)).id
        for t, s, g, p, c, m in combinations
        if p or not c
    }
    assert used == {rule.id for rule in BOOK.rule}


def test_a_rule_that_is_shadowed_would_be_noticed():
    """The reachability test can fail: a rule behind one that catches everything is never used."""
    everything = Rule(id="all", strategy="fine-tune", normalization="adabn", reason="r", source="s")
    shadowed = everything.model_copy(update={"id": "shadowed", "tiles_to": 5})
    situation = Situation(n_tiles=3, n_specimens=1, gap="small", pretrained=True)
    assert shadowed.matches(situation)
    assert first_match((everything, shadowed), situation).id == "all"


def test_rules_are_named_once_and_say_why_and_who_says_so():
    assert len({rule.id for rule in BOOK.rule}) == len(BOOK.rule)
    for rule in BOOK.rule:
        assert len(rule.reason.split()) > 3
        assert not rule.reason.endswith(".")  # it stands inside a sentence
        assert len(rule.source) > 5


def test_a_typing_error_in_the_rules_is_refused():
    row = {"id": "x", "strategy": "finetune", "normalization": "adabn", "reason": "r", "source": "s"}
    with pytest.raises(ValidationError, match="strategy"):
        Rule.model_validate(row)
    with pytest.raises(ValidationError, match="tile_from"):
        Rule.model_validate(row | {"strategy": "gradual", "tile_from": 3})


@given(situations, st.floats(1e-6, 0.5))
def test_the_encoders_rate_is_the_weights_own_times_the_rules_factor(situation, rate):
    found = recommend(
        situation.n_tiles,
        situation.n_specimens,
        None,
        situation.pretrained,
        rate,
        continued=situation.continued,
        modality=situation.modality,
    )
    if found.strategy in ("fine-tune", "gradual"):
        assert found.encoder_learning_rate == pytest.approx(rate * found.rule.encoder_rate_factor)
    else:
        assert found.encoder_learning_rate is None


def test_the_reason_holds_the_numbers():
    found = recommend(18, 3, 0.31, True)
    assert found.reason.startswith(
        "18 labelled tiles on 3 specimens to learn from, large gap to the pretraining data (0.31) → "
        "feature extraction, then gradual unfreezing: "
    )
    assert (found.strategy, found.normalization) == ("gradual", "adabn")
    assert found.encoder_learning_rate == pytest.approx(BOOK.default_encoder_rate)
    assert "Pelz" in found.rule.source


def test_few_labels_keep_the_features_and_more_labels_free_them():
    assert recommend(3, 2, 0.3, True).strategy == "feature-extraction"
    assert recommend(30, 3, 0.3, True).strategy == "gradual"
    assert recommend(30, 3, 0.0, True).strategy == "fine-tune"
    assert recommend(300, 3, 0.3, True).strategy == "fine-tune"


def test_a_hrtem_encoder_is_not_frozen():
    assert recommend(30, 3, 0.3, True, modality="hrtem").strategy == "fine-tune"
    assert recommend(30, 3, 0.3, True, modality="sem").strategy == "gradual"


def test_a_run_of_the_project_goes_on():
    found = recommend(3, 1, None, False, 1e-4, continued=True)
    assert found.strategy == "fine-tune"
    assert "earlier run" in found.reason


@pytest.mark.parametrize(("n", "px", "counted"), [(0, 512, 0), (3, 512, 12), (18, 256, 18), (40, 128, 10), (1, 32, 1)])
def test_tiles_are_counted_by_their_area(n, px, counted):
    assert counted_tiles(n, px) == counted


def test_a_gap_is_small_large_or_unknown():
    edge = BOOK.small_gap_below
    assert [gap_class(g) for g in (None, 0.0, edge * 0.99, edge, 1.0)] == [
        "unknown",
        "small",
        "small",
        "large",
        "large",
    ]
    assert "gap to the pretraining data unknown" in recommend(5, 1, None, True).reason
    assert "gap" not in recommend(5, 1, None, False).reason


def test_a_recommendation_fills_in_what_is_left_open():
    found = recommend(30, 3, 0.3, True, 2e-4)
    config = found.applied_to(TrainConfig(weights="imagenet"))
    assert (config.strategy, config.normalization, config.encoder_learning_rate) == ("gradual", "adabn", 2e-4)


def test_the_users_choice_wins():
    found = recommend(30, 3, 0.3, True, 2e-4)
    own = TrainConfig(weights="imagenet", normalization="mix", encoder_learning_rate=3e-5)
    kept = found.applied_to(own)
    assert (kept.strategy, kept.normalization, kept.encoder_learning_rate) == ("gradual", "mix", 3e-5)
    chosen = TrainConfig(weights="imagenet", strategy="feature-extraction")
    assert found.applied_to(chosen) == chosen


def test_a_frozen_encoder_that_does_not_suffice_is_told():
    said = advice(0.62, 3, "feature-extraction")
    assert said is not None
    assert "0.62" in said
    assert "gradual" in said
    assert advice(0.62, 3, "fine-tune", freeze="encoder") == said
    assert advice(0.62, 0, "feature-extraction") is None  # still getting better
    assert advice(0.92, 3, "feature-extraction") is None
    assert advice(0.62, 2, "fine-tune") is None  # nothing to unfreeze


def test_knowing_by_heart_is_told():
    said = advice(0.93, 2, "fine-tune", 0.55)
    assert said is not None
    assert "0.93" in said
    assert "0.55" in said
    assert "specimen" in said
    assert advice(0.93, 2, "fine-tune", 0.9) is None
    assert advice(0.93, 2, "fine-tune") is None  # no held-out ground, nothing to compare with


def test_without_a_figure_there_is_no_advice():
    assert advice(None, 9, "feature-extraction", 0.2) is None


@given(st.floats(0, 1), st.none() | st.floats(0, 1), st.integers(0, 50), st.booleans())
def test_all_words_can_be_filled_in(training, held_out, stale, frozen):
    said = advice(training, stale, "feature-extraction" if frozen else "gradual", held_out)
    assert said is None or ("{" not in said and f"{training:.2f}" in said)
