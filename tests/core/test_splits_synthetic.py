"""Synthetic micrographs in splits: trained on, and held out only where nothing real can be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_emtransfer.core.data.folds import split_into_folds
from napari_emtransfer.core.data.project_records import MicrographRecord
from napari_emtransfer.core.data.split import check_no_leak, stems_of
from napari_emtransfer.core.data.splits import SplitOptions, split_by_specimen, split_from_names, split_from_stems
from napari_emtransfer.core.errors import SplitError

SHAPE = (64, 256)


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


def whole(*classes):
    mask = np.zeros(SHAPE, np.uint8)
    for i, value in enumerate(classes):
        mask[:, i :: len(classes)] = value
    return mask


def stroke(*classes):
    """A few neighbouring pixels of each class: too near to each other for a block with a gap."""
    mask = np.zeros(SHAPE, np.uint8)
    for i, value in enumerate(classes):
        mask[3, 3 + 2 * i] = value
    return mask


def world(real, n_synthetic=4):
    """Real micrographs as (specimen, mask) and `n_synthetic` synthetic ones on as many specimens."""
    masks = Masks({f"r{i}": mask for i, (_, mask) in enumerate(real)})
    specimens = {f"r{i}": specimen for i, (specimen, _) in enumerate(real)}
    for i in range(n_synthetic):
        masks[f"s{i}"], specimens[f"s{i}"] = whole(1, 2), f"synthetic {i}"
    records = [
        MicrographRecord(
            stem=stem,
            path=Path(f"/{stem}.png"),
            checksum=stem,
            height=SHAPE[0],
            width=SHAPE[1],
            specimen=specimens[stem],
            synthetic=stem.startswith("s"),
        )
        for stem in masks
    ]
    return records, masks.fractions(), masks


MADE = {"s0", "s1", "s2", "s3"}


@pytest.mark.parametrize("seed", range(5))
def test_held_out_are_real_specimens_and_all_synthetic_ones_are_trained_on(seed):
    records, labelled, masks = world([("A", whole(1, 2)), ("B", whole(1, 2)), ("C", whole(1, 2))])
    split = split_by_specimen(records, labelled, masks, SplitOptions(seed=seed))
    check_no_leak(split, records)
    assert split.ground == "specimen"
    assert stems_of(split.validation) < {"r0", "r1", "r2"}
    assert stems_of(split.train) > MADE
    assert "all of it real, while 4 synthetic micrographs are trained on" in split.note


def test_one_real_specimen_is_split_finer_rather_than_measuring_on_synthetic_ones():
    records, labelled, masks = world([("A", whole(1, 2)), ("A", whole(1, 2))])
    split = split_by_specimen(records, labelled, masks)
    assert split.ground == "micrograph"
    assert len(split.validation) == 1
    assert stems_of(split.validation) < {"r0", "r1"}
    records, labelled, masks = world([("A", whole(1, 2))])
    split = split_by_specimen(records, labelled, masks)
    check_no_leak(split, records)
    assert split.ground == "block"
    assert stems_of(split.validation) == {"r0"}
    assert stems_of(split.train) == MADE | {"r0"}
    assert "real" in split.note


def test_a_class_that_only_the_synthetic_ones_teach_is_not_lost():
    """Each class lies in one real specimen only: held out, it is still seen in training."""
    records, labelled, masks = world([("A", whole(1, 2)), ("B", whole(1))])
    split = split_by_specimen(records, labelled, masks)
    assert split.ground == "specimen"
    without = [r for r in records if not r.synthetic]
    alone = split_by_specimen(without, labelled, masks)
    assert stems_of(alone.train) == {"r0"}, "without them class 2 must stay in training"


@pytest.mark.parametrize("painted", [stroke(1, 2), whole(1)])
def test_where_no_real_ground_can_be_held_out_that_is_said(painted):
    records, labelled, masks = world([("A", painted)])
    split = split_by_specimen(records, labelled, masks)
    check_no_leak(split, records)
    assert stems_of(split.validation) < MADE
    assert "r0" in stems_of(split.train), "what the user painted is learnt from"
    assert "synthetic micrographs only, because the labels on real ones are too few" in split.note


def test_synthetic_micrographs_alone_are_split_and_say_that_they_tell_nothing():
    records, labelled, masks = world([])
    split = split_by_specimen(records, labelled, masks)
    assert split.ground == "specimen"
    assert split.note.endswith("synthetic micrographs only – tells nothing about real ones")


def test_real_micrographs_without_labels_do_not_count():
    records, labelled, masks = world([("A", np.zeros(SHAPE, np.uint8))])
    assert "tells nothing about real ones" in split_by_specimen(records, labelled, masks).note


def test_by_hand_an_empty_side_is_filled_with_real_ones():
    records, labelled, masks = world([("A", whole(1, 2)), ("B", whole(1, 2))])
    split = split_from_stems(["s0", "s1"], [], records, labelled, masks)
    assert stems_of(split.validation) == {"r0", "r1"}
    split = split_from_stems(["r0", "r1", "s0"], [], records, labelled, masks)
    assert stems_of(split.validation) < {"r0", "r1"}, "no real one is free: it is carved out of the training"
    split = split_from_stems([], ["s0", "r1"], records, labelled, masks)
    assert "1 of these 2 micrographs synthetic" in split.note


def test_a_prescribed_validation_part_that_is_synthetic_says_so():
    records, labelled, masks = world([("A", whole(1, 2))])
    split = split_from_names("mine", {"train": ["r0", "s0"], "val": ["s1"]}, records, labelled, masks)
    assert "synthetic micrographs only" in split.note


def test_folds_hold_out_real_specimens_only_and_train_on_all_synthetic_ones():
    records, labelled, masks = world([(name, whole(1, 2)) for name in "ABCDE"])
    split = split_into_folds("leave-one-out", records, labelled, masks)
    assert len(split.folds) == 5
    for fold in split.folds:
        assert stems_of(fold.train) >= MADE
        assert not MADE & stems_of((*fold.held_out, *fold.selection))
        assert fold.selection, "a real specimen chooses the checkpoint"
    assert "each of 5 specimens once" in split.note
    assert "4 synthetic micrographs are trained on" in split.note


def test_folds_of_synthetic_specimens_alone_say_so_and_one_real_specimen_has_none():
    records, labelled, masks = world([])
    assert "synthetic micrographs only" in split_into_folds(2, records, labelled, masks).note
    records, labelled, masks = world([("A", whole(1, 2))])
    with pytest.raises(SplitError, match="one only: 'A'") as refused:
        split_into_folds(2, records, labelled, masks)
    assert "no synthetic one" in refused.value.hint
