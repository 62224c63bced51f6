"""Folds: every specimen is held out once, never on both sides, and the selection is told apart from the measurement."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_splits import Masks, labelled_worlds, record, two_classes, world

from napari_emtransfer.core.data.folds import MIN_TRAINING_SPECIMENS, split_into_folds
from napari_emtransfer.core.data.split import Fold, Split, check_no_leak, stems_of, whole
from napari_emtransfer.core.data.splits import SplitOptions
from napari_emtransfer.core.errors import LabelError, SplitError


def specimens(n, per_specimen=1):
    of = {f"{name}{i}": name for name in "abcdefgh"[:n] for i in range(per_specimen)}
    return world(of, {stem: two_classes() for stem in of})


@given(labelled_worlds(), st.one_of(st.integers(2, 6), st.just("leave-one-out")), st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_no_specimen_is_ever_on_both_sides(made, folds, seed):
    records, fractions, masks = world(*made)
    of = {r.stem: r.specimen for r in records}
    labelled = [r for r in records if fractions[r.stem] > 0]
    present = {r.specimen for r in labelled}
    try:
        split = split_into_folds(folds, records, fractions, masks, SplitOptions(seed=seed))
    except LabelError:
        assert len({v for m in masks.values() for v in np.unique(m)} - {0}) < 2
        return
    except SplitError as error:
        if "is labelled, so the network" not in error.message:
            assert len(present) < (2 if folds == "leave-one-out" else folds)
        return
    check_no_leak(split, records)
    held = [region.micrograph for fold in split.folds for region in fold.held_out]
    assert sorted(held) == sorted(r.stem for r in labelled)
    assert len(split.folds) == (len(present) if folds == "leave-one-out" else folds)
    for fold in split.folds:
        sides = [{of[s] for s in stems_of(part)} for part in (fold.train, fold.selection, fold.held_out)]
        assert sum(map(len, sides)) == len(set().union(*sides))
        assert set().union(*sides) == present
        assert not fold.selection or len(sides[0]) >= MIN_TRAINING_SPECIMENS
    assert len({bool(fold.selection) for fold in split.folds}) == 1
    shuffled = list(reversed(records))
    assert split_into_folds(folds, shuffled, fractions, masks, SplitOptions(seed=seed)) == split


def test_a_leak_inside_a_fold_is_refused():
    records, _, _ = specimens(3, per_specimen=2)
    fold = Fold(train=whole(["a0", "b0", "b1"]), held_out=whole(["a1"]))
    split = Split(name="x", train=whole(["a0"]), validation=(), ground="specimen", note="", folds=(fold,))
    with pytest.raises(SplitError, match="a both in training"):
        check_no_leak(split, records)
    chosen_on_trained = fold.model_copy(update={"held_out": whole(["c0"]), "selection": whole(["a1"])})
    with pytest.raises(SplitError, match="a both in training"):
        check_no_leak(split.model_copy(update={"folds": (chosen_on_trained,)}), records)


def test_more_folds_than_specimens_names_both_and_the_way_out():
    with pytest.raises(SplitError, match="5 folds need as many labelled specimens, but there are 3") as caught:
        split_into_folds(5, *specimens(3))
    assert "leave-one-out" in caught.value.hint


def test_a_single_specimen_has_no_folds():
    with pytest.raises(SplitError, match="one only: 'a'"):
        split_into_folds("leave-one-out", *specimens(1, per_specimen=4))


def test_enough_specimens_allow_a_clean_choice_and_few_are_admitted():
    few = split_into_folds("leave-one-out", *specimens(4))
    assert [fold.selection for fold in few.folds] == [()] * 4
    assert all(fold.chosen_on == fold.held_out for fold in few.folds)
    assert "chosen on that same ground" in few.note
    many = split_into_folds("leave-one-out", *specimens(5))
    assert all(len(fold.train) == 3 and len(fold.selection) == 1 for fold in many.folds)
    assert "neither trained nor measured on" in many.note
    assert "each of 5 specimens once" in many.note


def test_a_rare_class_stays_in_every_training_side_where_it_can():
    """Two specimens hold the rare class; dealt into one fold, training there would lose it."""
    masks = {f"m{i}": two_classes() for i in range(6)}
    for stem in ("m1", "m4"):
        masks[stem] = masks[stem].copy()
        masks[stem][:5] = 3
    records, fractions, masks = world({stem: stem for stem in masks}, masks)
    for seed in range(10):
        split = split_into_folds(2, records, fractions, masks, SplitOptions(seed=seed))
        homes = [{"m1", "m4"} & stems_of(fold.held_out) for fold in split.folds]
        assert sorted(map(len, homes)) == [1, 1]


def test_a_fold_left_with_one_class_names_its_specimen():
    masks = {"m0": np.full((8, 8), 1, np.uint8), "m1": np.full((8, 8), 2, np.uint8), "m2": np.full((8, 8), 1, np.uint8)}
    records, fractions, masks = world({stem: f"s{stem}" for stem in masks}, masks)
    with pytest.raises(SplitError, match="Without sm1 only 'class 1'"):
        split_into_folds("leave-one-out", records, fractions, masks)


def test_folds_of_a_data_set_are_taken_and_a_shared_specimen_is_told():
    stems = {f"m{i}": two_classes() for i in range(4)}
    records = [record(s, "odd" if int(s[1]) % 2 else "even") for s in stems]
    masks = Masks(stems)
    given_folds = {"0": ["m0", "m1"], "1": ["m2", "m3", "unknown"]}
    split = split_into_folds("dataset", records, masks.fractions(), masks, prescribed=given_folds)
    assert [stems_of(fold.held_out) for fold in split.folds] == [{"m0", "m1"}, {"m2", "m3"}]
    assert split.ground == "micrograph"
    assert "expect optimism on new specimens" in split.note
    with pytest.raises(SplitError, match="two are needed"):
        split_into_folds("dataset", records, masks.fractions(), masks, prescribed={})


def test_folds_of_an_earlier_round_are_dealt_again_and_new_specimens_added():
    five = specimens(5)
    before = [{"b", "c"}, {"a"}, {"d"}]
    split = split_into_folds(3, *five, before=before)
    assert [stems_of(fold.held_out) for fold in split.folds] == [{"b0", "c0"}, {"a0", "e0"}, {"d0"}]
    assert len(split_into_folds(2, *five, before=before).folds) == 2
    gone = split_into_folds(3, *five, before=[{"a", "b"}, {"c", "d", "e"}, {"x"}])
    assert all(fold.held_out for fold in gone.folds)


def test_the_validation_part_is_what_the_folds_hold_out():
    split = split_into_folds(2, *specimens(4))
    assert stems_of(split.part("validation")) == {"a0", "b0", "c0", "d0"}
    assert split.validation == ()
