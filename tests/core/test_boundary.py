import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import distance_transform_edt

from napari_emtransfer.core.evaluate import boundary
from napari_emtransfer.core.evaluate.boundary import boundary_counts, boundary_iou


def halves(column: int, shape: tuple[int, int] = (20, 30)) -> np.ndarray:
    mask = np.ones(shape, np.uint8)
    mask[:, column:] = 2
    return mask


def test_perfect_is_one_and_a_class_without_boundary_is_nan():
    iou = boundary_iou(halves(15), halves(15), 3)
    assert iou[:2].tolist() == [1, 1]
    assert np.isnan(iou[2])


def test_known_shift():
    # Truth's band of class 1 is columns 13, 14; shifted by one it is 14, 15: one column in common of three.
    np.testing.assert_allclose(boundary_iou(halves(15), halves(16), 2), [1 / 3, 1 / 3])
    np.testing.assert_allclose(boundary_iou(halves(15), halves(18), 2), [0, 0])


def test_boundary_iou_sees_what_the_area_hides():
    truth, prediction = halves(500, (20, 1000)), halves(503, (20, 1000))
    hits = np.count_nonzero((truth == 1) & (prediction == 1)) / np.count_nonzero((truth == 1) | (prediction == 1))
    assert hits > 0.99
    assert boundary_iou(truth, prediction, 2)[0] == 0


def test_edges_of_image_and_of_labels_are_no_boundaries():
    one_class = np.ones((20, 20), np.uint8)
    assert np.isnan(boundary_iou(one_class, one_class, 1)[0])
    scribble = np.zeros((20, 30), np.uint8)
    scribble[8:12, 5:25] = 1
    assert boundary_counts(scribble, halves(2), 2).union.sum() == 0


@settings(max_examples=30)
@given(arrays(np.uint8, (14, 12), elements=st.integers(0, 3)), st.integers(1, 3))
def test_band_agrees_with_the_distance_transform(truth, tolerance):
    far = distance_transform_edt(np.pad(truth > 0, 9, constant_values=True))[9:-9, 9:-9]
    known = (far > tolerance) if (truth == 0).any() else np.ones_like(truth, bool)
    counts = boundary_counts(truth, truth, 3, tolerance_px=tolerance)
    for value in (1, 2, 3):
        other = (truth != value) & (truth != 0)
        near = distance_transform_edt(~other) <= tolerance if other.any() else np.zeros_like(known)
        assert counts.union[value - 1] == np.count_nonzero((truth == value) & near & known)


def test_blocks_of_rows_count_as_the_whole(monkeypatch):
    rng = np.random.default_rng(0)
    truth = np.repeat(np.repeat(rng.integers(0, 4, (12, 10), np.uint8), 6, 0), 6, 1)
    prediction = np.repeat(np.repeat(rng.integers(1, 4, (12, 10), np.uint8), 6, 0), 6, 1)
    whole = boundary_counts(truth, prediction, 3)
    monkeypatch.setattr(boundary, "_ROWS_AT_A_TIME", 7)
    blocks = boundary_counts(truth, prediction, 3)
    np.testing.assert_array_equal(whole.intersection, blocks.intersection)
    np.testing.assert_array_equal(whole.union, blocks.union)
    assert whole.union.sum() > 0
