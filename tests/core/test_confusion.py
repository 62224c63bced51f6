import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_emtransfer.core.evaluate.confusion import ConfusionMatrix, nanmean_rows

K = 4
SHAPE = (7, 9)
truths = arrays(np.uint8, SHAPE, elements=st.integers(0, K))
predictions = arrays(np.uint8, SHAPE, elements=st.integers(1, K))


def test_counts_have_truth_in_rows_and_leave_unlabelled_out():
    truth = np.array([[1, 1, 2, 0]], np.uint8)
    prediction = np.array([[1, 2, 2, 1]], np.uint8)
    matrix = ConfusionMatrix.from_masks(truth, prediction, 2)
    assert matrix.counts.tolist() == [[1, 1], [0, 1]]
    np.testing.assert_allclose(matrix.iou(), [0.5, 0.5])
    np.testing.assert_allclose(matrix.dice(), [2 / 3, 2 / 3])
    assert matrix.accuracy() == pytest.approx(2 / 3)


def test_absent_classes():
    truth = np.array([[1, 1, 1]], np.uint8)
    prediction = np.array([[1, 1, 2]], np.uint8)
    iou = ConfusionMatrix.from_masks(truth, prediction, 3).iou()
    assert iou[1] == 0  # predicted, but not there
    assert np.isnan(iou[2])  # neither there nor predicted
    assert ConfusionMatrix.from_masks(truth, prediction, 3).mean_iou() == pytest.approx((2 / 3 + 0) / 2)


@pytest.mark.filterwarnings("error")
def test_nothing_labelled_is_nan_without_a_warning():
    matrix = ConfusionMatrix.from_masks(np.zeros(SHAPE, np.uint8), np.ones(SHAPE, np.uint8), K)
    assert matrix.n_pixels == 0
    assert np.isnan(matrix.mean_iou())
    assert np.isnan(matrix.accuracy())
    assert np.isnan(nanmean_rows(np.full((1, 2), np.nan))[0])


@given(truths, predictions)
def test_agrees_with_the_definition_by_sets(truth, prediction):
    iou = ConfusionMatrix.from_masks(truth, prediction, K).iou()
    labelled = truth > 0
    for k in range(1, K + 1):
        t, p = (truth == k) & labelled, (prediction == k) & labelled
        union = np.count_nonzero(t | p)
        expected = np.count_nonzero(t & p) / union if union else np.nan
        np.testing.assert_equal(iou[k - 1], expected)


@given(truths, predictions, st.integers(1, SHAPE[0] - 1))
def test_parts_add_up_to_the_whole(truth, prediction, row):
    whole = ConfusionMatrix.from_masks(truth, prediction, K)
    parts = ConfusionMatrix.from_masks(truth[:row], prediction[:row], K) + ConfusionMatrix.from_masks(
        truth[row:], prediction[row:], K
    )
    np.testing.assert_array_equal(whole.counts, parts.counts)


@given(truths)
def test_a_perfect_prediction_scores_one(truth):
    prediction = np.where(truth == 0, 1, truth).astype(np.uint8)
    matrix = ConfusionMatrix.from_masks(truth, prediction, K)
    iou = matrix.iou()
    assert set(iou[~np.isnan(iou)]) <= {1.0}
    np.testing.assert_allclose(matrix.dice(), 2 * iou / (1 + iou))


@given(truths, predictions, st.permutations(range(1, K + 1)))
def test_renaming_classes_permutes_the_iou(truth, prediction, order):
    lookup = np.array([0, *order], np.uint8)
    before = ConfusionMatrix.from_masks(truth, prediction, K).iou()
    after = ConfusionMatrix.from_masks(lookup[truth], lookup[prediction], K).iou()
    np.testing.assert_array_equal(before, after[np.array(order) - 1])


def test_values_beyond_the_classes_are_refused():
    with pytest.raises(ValueError, match="prediction holds a value outside"):
        ConfusionMatrix.from_masks(np.array([[1]]), np.array([[0]]), 2)
    with pytest.raises(ValueError, match="truth holds a value outside"):
        ConfusionMatrix.from_masks(np.array([[3]]), np.array([[1]]), 2)
    with pytest.raises(ValueError, match="shape"):
        ConfusionMatrix.from_masks(np.ones((2, 2), int), np.ones((2, 3), int), 2)
