"""Labels on disk: what is written is read, chunks change alone, counts are right and cheap."""

from __future__ import annotations

import time

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_emtransfer.core.data.annotation import AnnotationStore
from napari_emtransfer.core.data.annotation_counts import chunk_files
from napari_emtransfer.core.data.prediction_store import PredictionStore
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import ProjectError, StorageError


@pytest.fixture
def store(tmp_path):
    made = AnnotationStore(tmp_path / "annotations.zarr")
    made.create("a b (2)", (600, 700))
    return made


def window(y0, x0, y1, x1):
    return Window(y0=y0, x0=x0, y1=y1, x1=x1)


@given(st.lists(st.tuples(*[st.integers(0, 300)] * 2, *[st.integers(1, 300)] * 2, st.integers(0, 4)), max_size=5))
@settings(max_examples=15, deadline=None)
def test_strokes_add_up_as_in_an_array(tmp_path_factory, strokes):
    store = AnnotationStore(tmp_path_factory.mktemp("z") / "annotations.zarr")
    store.create("a", (600, 600))
    truth = np.zeros((600, 600), np.uint8)
    for y, x, h, w, value in strokes:
        truth[y : y + h, x : x + w] = value
        store.write("a", window(y, x, y + h, x + w), np.full((h, w), value, np.uint8))
        np.testing.assert_array_equal(store.class_counts("a", 4), np.bincount(truth.ravel(), minlength=5))
    np.testing.assert_array_equal(AnnotationStore(store.root).read("a"), truth)
    assert store.labelled_fraction("a") == pytest.approx((truth > 0).mean())


def test_only_chunks_that_changed_are_written(store):
    store.write("a b (2)", None, np.ones((600, 700), np.uint8))
    before = chunk_files(store.root / "a b (2)")
    labels = store.read("a b (2)")
    labels[300:310, 300:310] = 2
    store.write("a b (2)", None, labels)
    after = chunk_files(store.root / "a b (2)")
    assert [name for name in after if after[name] != before[name]] == ["c.1.1"]


def test_erasing_everything_leaves_no_chunk(store):
    store.write("a b (2)", window(0, 0, 50, 50), np.ones((50, 50), np.uint8))
    store.write("a b (2)", window(0, 0, 50, 50), np.zeros((50, 50), np.uint8))
    assert not chunk_files(store.root / "a b (2)")
    assert store.labelled_fraction("a b (2)") == 0.0
    assert store.class_counts("a b (2)").tolist() == [600 * 700]


def test_any_zarr_program_can_read_it(store):
    store.write("a b (2)", window(0, 0, 50, 50), np.full((50, 50), 3, np.uint8))
    group = zarr.open_group(store.root, mode="r")
    assert group["a b (2)"].shape == (600, 700)
    assert int(np.asarray(group["a b (2)"][10:20, 10:20]).max()) == 3


def test_another_process_sees_strokes_and_counts_at_once(store):
    other = AnnotationStore(store.root)
    assert other.labelled_fraction("a b (2)") == 0
    store.write("a b (2)", window(0, 0, 60, 70), np.ones((60, 70), np.uint8))
    assert other.labelled_fraction("a b (2)") == pytest.approx(0.01)
    assert other.labelled_fraction("a b (2)", window(0, 0, 120, 70)) == pytest.approx(0.5)


def test_a_damaged_count_file_is_counted_again(store):
    store.write("a b (2)", window(0, 0, 60, 70), np.ones((60, 70), np.uint8))
    store.labelled_fraction("a b (2)")
    sidecar = store.root / "a b (2)" / ".counts.npz"
    sidecar.write_bytes(sidecar.read_bytes()[:100])
    assert AnnotationStore(store.root).labelled_fraction("a b (2)") == pytest.approx(0.01)


def test_counting_big_micrographs_is_cheap(tmp_path):
    store = AnnotationStore(tmp_path / "annotations.zarr")
    store.create("big", (4096, 4096))
    store.write("big", window(0, 0, 4096, 1024), np.ones((4096, 1024), np.uint8))
    store.labelled_fraction("big")
    for reader in (store, AnnotationStore(store.root)):
        started = time.perf_counter()
        assert reader.labelled_fraction("big") == 0.25
        assert time.perf_counter() - started < 0.1


def test_a_snapshot_does_not_change_with_the_original(store, tmp_path):
    store.write("a b (2)", window(0, 0, 60, 70), np.ones((60, 70), np.uint8))
    frozen = AnnotationStore(tmp_path / "labels.zarr")
    store.copy_to(frozen, "a b (2)")
    store.write("a b (2)", None, np.full((600, 700), 2, np.uint8))
    assert frozen.class_counts("a b (2)", 2).tolist() == [600 * 700 - 4200, 4200, 0]


def test_unknown_stem_and_wrong_shape_are_told(store):
    with pytest.raises(ProjectError, match="no labels of a micrograph 'zz'"):
        store.read("zz")
    with pytest.raises(ValueError, match="do not fit"):
        store.write("a b (2)", window(0, 0, 5, 5), np.zeros((4, 5), np.uint8))


def test_predictions_are_a_cache_that_may_vanish(tmp_path):
    store = PredictionStore(tmp_path / "predictions.zarr")
    store.create("0001-train", "a", (600, 700))
    part = window(100, 100, 300, 700)
    values = np.linspace(0, 1, 200 * 600, dtype=np.float32).reshape(200, 600)
    store.write("0001-train", "a", part, mask=np.full((200, 600), 2, np.uint8), entropy=values, confidence=1 - values)
    assert (store.read("0001-train", "a", "mask") > 0).sum() == 200 * 600
    np.testing.assert_allclose(store.read("0001-train", "a", "entropy", part), values, atol=1e-3)
    assert store.stems("0001-train") == ["a"]
    store.remove()
    assert store.stems("0001-train") == []
    with pytest.raises(ProjectError, match="no prediction of 'a'"):
        store.read("0001-train", "a", "mask")
    with pytest.raises(StorageError, match="disk is read-only"):
        PredictionStore(tmp_path, read_only="the disk is read-only").create("r", "a", (5, 5))
