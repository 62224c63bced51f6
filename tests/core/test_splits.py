"""Splits: no specimen on both sides, gaps kept, every class in training, the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_emtransfer.core.data.project_records import MicrographRecord
from napari_emtransfer.core.data.split import distance_px, stems_of, whole
from napari_emtransfer.core.data.splits import (
    Split,
    SplitOptions,
    check_no_leak,
    split_by_specimen,
    split_from_names,
    split_from_stems,
)
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import LabelError, SplitError


class Masks(dict):
    """Labels in memory with the methods that splitting needs."""

    def shape(self, stem):
        return self[stem].shape

    def read(self, stem, window=None):
        return self[stem] if window is None else self[stem][window.slices]

    def class_counts(self, stem, n_classes=None):
        return np.bincount(self[stem].ravel(), minlength=256)[: (n_classes or 255) + 1]

    def fractions(self):
        return {stem: float((mask > 0).mean()) for stem, mask in self.items()}


def record(stem, specimen, shape=(64, 64)):
    return MicrographRecord(
        stem=stem, path=Path(f"/{stem}.png"), checksum=stem, height=shape[0], width=shape[1], specimen=specimen
    )


def world(specimen_of, masks):
    masks = Masks(masks)
    return [record(s, specimen_of[s], masks[s].shape) for s in masks], masks.fractions(), masks


def two_classes(shape=(64, 64), first=1):
    mask = np.full(shape, first, np.uint8)
    mask[:, ::2] = first + 1
    return mask


def pixels_on(split_part, masks):
    return np.concatenate([masks.read(r.micrograph, r.window).ravel() for r in split_part])


@st.composite
def labelled_worlds(draw):
    n = draw(st.integers(2, 9))
    stems = [f"m{i}" for i in range(n)]
    specimen_of = {s: f"sp{draw(st.integers(0, 4))}" for s in stems}
    masks = {}
    for s in stems:
        values = draw(st.sets(st.integers(1, 4), max_size=3))
        mask = np.zeros((32, 32), np.uint8)
        for i, value in enumerate(sorted(values)):
            mask[4 * i : 4 * i + 4, draw(st.integers(0, 20)) :] = value
        masks[s] = mask
    return specimen_of, masks


@given(labelled_worlds(), st.integers(0, 5), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_any_split_is_honest_and_repeatable(made, seed, random):
    records, fractions, masks = world(*made)
    options = SplitOptions(seed=seed, gap_px=8)
    try:
        split = split_by_specimen(records, fractions, masks, options)
    except (LabelError, SplitError):
        classes = set(np.unique(np.concatenate([m.ravel() for m in masks.values()]))) - {0}
        labelled = [m for m in masks.values() if m.any()]
        # Refusing is right only where labels are too few or every class sits in a single place.
        assert len(classes) < 2 or len(labelled) < 2 or _every_class_once(masks)
        return
    check_no_leak(split, records)
    assert pixels_on(split.train, masks).any()
    assert pixels_on(split.validation, masks).any()
    if split.ground == "specimen":
        specimens = {r.stem: r.specimen for r in records}
        assert not {specimens[s] for s in stems_of(split.train)} & {specimens[s] for s in stems_of(split.validation)}
    shuffled = records[:]
    random.shuffle(shuffled)
    assert split_by_specimen(shuffled, fractions, masks, options) == split


def _every_class_once(masks):
    homes = [set(np.unique(m)) - {0} for m in masks.values() if m.any()]
    return len(homes) <= 2 or max(sum(c in h for h in homes) for c in set.union(*homes)) == 1


def test_whole_specimens_are_held_out_and_named():
    specimen_of = {f"{s}_{i}": s for s in "abcd" for i in range(3)}
    records, fractions, masks = world(specimen_of, {s: two_classes() for s in specimen_of})
    split = split_by_specimen(records, fractions, masks)
    held = {specimen_of[s] for s in stems_of(split.validation)}
    assert len(held) == 1
    assert split.ground == "specimen"
    assert split.note == f"held out: specimen {held.pop()} (3 micrographs)"


def test_the_seed_chooses_among_equal_specimens():
    specimen_of = {f"m{i}": f"s{i}" for i in range(8)}
    records, fractions, masks = world(specimen_of, {s: two_classes() for s in specimen_of})
    seen = {
        frozenset(stems_of(split_by_specimen(records, fractions, masks, SplitOptions(seed=k)).validation))
        for k in range(12)
    }
    assert len(seen) > 3
    assert all(len(held) == 2 for held in seen)


def test_a_rare_class_stays_in_training():
    specimen_of = {f"m{i}": f"s{i}" for i in range(6)}
    masks = {s: two_classes() for s in specimen_of}
    masks["m3"][:4] = 3
    records, fractions, masks = world(specimen_of, masks)
    for seed in range(10):
        split = split_by_specimen(records, fractions, masks, SplitOptions(seed=seed))
        assert "m3" in stems_of(split.train)


def test_one_specimen_is_split_by_micrograph_and_says_so():
    specimen_of = {f"m{i}": "only" for i in range(4)}
    records, fractions, masks = world(specimen_of, {s: two_classes() for s in specimen_of})
    split = split_by_specimen(records, fractions, masks)
    assert split.ground == "micrograph"
    assert split.note == "held out: other fields of view of the same specimen – expect optimism on new specimens"
    assert len(stems_of(split.validation)) == 1


@given(st.tuples(st.integers(150, 500), st.integers(150, 500)), st.integers(0, 64), st.integers(0, 3), st.data())
@settings(max_examples=60, deadline=None)
def test_blocks_keep_their_gap_and_hold_labels(shape, gap, seed, data):
    mask = np.zeros(shape, np.uint8)
    for value in (1, 2):
        for _ in range(3):
            y, x = data.draw(st.integers(0, shape[0] - 20)), data.draw(st.integers(0, shape[1] - 20))
            mask[y : y + 20, x : x + 20] = value
    records, fractions, masks = world({"m": "s"}, {"m": mask})
    try:
        split = split_by_specimen(records, fractions, masks, SplitOptions(seed=seed, gap_px=gap))
    except (LabelError, SplitError):
        return
    (train,), (held,) = split.train, split.validation
    assert split.ground == "block"
    assert distance_px(train.window, held.window) == gap
    assert pixels_on(split.validation, masks).any()
    assert {1, 2} <= set(np.unique(pixels_on(split.train, masks)))
    check_no_leak(split, records)


def test_blocks_of_a_full_mask_hold_out_about_a_quarter_with_all_classes():
    records, fractions, masks = world({"m": "s"}, {"m": two_classes((512, 512))})
    split = split_by_specimen(records, fractions, masks)
    share = pixels_on(split.validation, masks).size / 512**2
    assert 0.15 < share < 0.4
    assert set(np.unique(pixels_on(split.validation, masks))) == {1, 2}
    assert "separate blocks of the same micrograph, 64 px apart" in split.note


def test_a_single_small_patch_cannot_be_split():
    mask = np.zeros((400, 400), np.uint8)
    mask[100:130, 100:115], mask[100:130, 115:130] = 1, 2
    records, fractions, masks = world({"m": "s"}, {"m": mask})
    with pytest.raises(SplitError, match="too close together") as fault:
        split_by_specimen(records, fractions, masks)
    assert "64 pixels" in fault.value.hint


def test_classes_in_one_place_each_fall_back_to_blocks():
    masks = {"a": np.ones((300, 300), np.uint8), "b": np.full((300, 300), 2, np.uint8)}
    records, fractions, masks = world({"a": "sa", "b": "sb"}, masks)
    split = split_by_specimen(records, fractions, masks)
    assert split.ground == "block"
    assert set(np.unique(pixels_on(split.train, masks))) == {1, 2}


def test_no_labels_and_one_class_are_refused_by_name():
    records, fractions, masks = world({"a": "s"}, {"a": np.zeros((64, 64), np.uint8)})
    with pytest.raises(LabelError, match="No pixel"):
        split_by_specimen(records, fractions, masks)
    records, fractions, masks = world({"a": "s"}, {"a": np.full((64, 64), 2, np.uint8)})
    with pytest.raises(LabelError, match="Only the class 'pore'") as fault:
        split_by_specimen(records, fractions, masks, SplitOptions(class_names=("matrix", "pore")))
    assert "second class" in fault.value.hint


PARTS = {"train": ["a1", "a2", "b1"], "val": ["c1"], "test": ["d1"], "different_test": ["e1"]}


def named_world():
    specimen_of = {s: s[0] for s in ("a1", "a2", "b1", "c1", "d1", "e1")}
    return world(specimen_of, {s: two_classes() for s in specimen_of})


def test_a_prescribed_split_is_taken_as_it_is():
    split = split_from_names("Super1", PARTS, *named_world())
    assert [stems_of(p) for p in (split.train, split.validation, split.test)] == [{"a1", "a2", "b1"}, {"c1"}, {"d1"}]
    assert split.other == {"different_test": whole(["e1"])}
    assert split.ground == "specimen"
    assert split.note == "held out: specimen c (1 micrograph), as prescribed by the split 'Super1'"
    assert split.part("different_test") == whole(["e1"])
    with pytest.raises(SplitError, match="no part 'tset'"):
        split.part("tset")


@pytest.mark.parametrize("alias", ["val", "valid", "Validation", "dev"])
def test_validation_has_many_names(alias):
    split = split_from_names("s", {"train": ["a1"], alias: ["b1"]}, *named_world())
    assert stems_of(split.validation) == {"b1"}


def test_missing_validation_is_carved_out_of_training_by_specimen():
    parts = {"train": ["a1", "a2", "b1"], "test": ["d1"]}
    split = split_from_names("s", parts, *named_world())
    assert stems_of(split.train) | stems_of(split.validation) == {"a1", "a2", "b1"}
    assert stems_of(split.test) == {"d1"}
    assert {s[0] for s in stems_of(split.train)}.isdisjoint({s[0] for s in stems_of(split.validation)})


def test_a_specimen_on_both_sides_is_said():
    records, fractions, masks = named_world()
    split = split_from_names("s", {"train": ["a1", "b1"], "val": ["a2"]}, records, fractions, masks)
    assert split.ground == "micrograph"
    assert "specimen a, which training sees as well – expect optimism" in split.note
    check_no_leak(split, records)
    with pytest.raises(SplitError, match="both in training and held out"):
        check_no_leak(split.model_copy(update={"ground": "specimen"}), records)


def test_a_micrograph_on_both_sides_is_not_trained_on():
    split = split_from_names("s", {"train": ["a1", "b1", "c1"], "val": ["c1", "gone"]}, *named_world())
    assert stems_of(split.train) == {"a1", "b1"}
    assert "1 micrograph of its training part left out" in split.note
    assert "1 micrograph of its part 'validation' left out" in split.note


def test_a_split_without_training_part_is_refused():
    with pytest.raises(SplitError, match="no labelled training"):
        split_from_names("s", {"fold": ["a1"]}, *named_world())


def test_by_hand_fills_the_empty_side_from_other_specimens():
    split = split_from_stems(["a1"], [], *named_world())
    assert stems_of(split.train) == {"a1"}
    assert stems_of(split.validation) == {"b1", "c1", "d1", "e1"}
    split = split_from_stems([], ["a1"], *named_world())
    assert stems_of(split.train) == {"b1", "c1", "d1", "e1"}


def test_by_hand_refuses_unknown_unlabelled_and_double():
    records, fractions, masks = named_world()
    with pytest.raises(SplitError, match="no micrograph 'zz'"):
        split_from_stems(["zz"], [], records, fractions, masks)
    with pytest.raises(SplitError, match="a1 cannot be in training and in validation"):
        split_from_stems(["a1"], ["a1"], records, fractions, masks)
    with pytest.raises(LabelError, match="'b1' has no labels"):
        split_from_stems(["a1", "b1"], [], records, fractions | {"b1": 0.0}, masks)


def test_overlapping_blocks_are_refused():
    records = [record("m", "s", (300, 300))]
    train, held = Window(y0=0, x0=0, y1=300, x1=150), Window(y0=0, x0=180, y1=300, x1=300)
    split = Split(
        name="x",
        train=({"micrograph": "m", "window": train},),
        validation=({"micrograph": "m", "window": held},),
        ground="block",
        note="",
        gap_px=64,
    )
    with pytest.raises(SplitError, match="closer than 64 px"):
        check_no_leak(split, records)
    check_no_leak(split.model_copy(update={"gap_px": 30}), records)
