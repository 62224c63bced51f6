import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from napari_emtransfer.core.evaluate.bootstrap import mean_iou_interval
from napari_emtransfer.core.evaluate.confusion import ConfusionMatrix


def matrix(hits: int, misses: int) -> ConfusionMatrix:
    return ConfusionMatrix(np.array([[hits, misses], [misses, hits]], np.int64))


def specimens(*hits: int) -> dict[str, ConfusionMatrix]:
    return {f"s{i}": matrix(h, 100 - h) for i, h in enumerate(hits)}


def test_one_specimen_has_no_interval():
    assert mean_iou_interval(specimens(90)) is None
    assert mean_iou_interval({**specimens(90), "empty": ConfusionMatrix.zeros(2)}) is None
    assert mean_iou_interval({}) is None


def test_below_five_it_is_students_t_on_the_specimens():
    group = specimens(90, 80, 85)
    interval = mean_iou_interval(group)
    values = [m.mean_iou() for m in group.values()]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert interval.method == "t-interval"
    assert interval.values == pytest.approx(values)
    assert (interval.low, interval.high) == pytest.approx((low, min(1.0, high)))


def test_t_interval_stays_within_zero_and_one():
    interval = mean_iou_interval(specimens(99, 20))
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_five_or_more_bootstrap_whole_specimens():
    hits = (95, 90, 85, 80, 60, 97)
    interval = mean_iou_interval(specimens(*hits), seed=3)
    assert interval.method == "cluster bootstrap"
    total = sum(specimens(*hits).values(), ConfusionMatrix.zeros(2)).mean_iou()
    assert interval.low < total < interval.high
    assert mean_iou_interval(specimens(*hits), seed=3) == interval


def test_bootstrap_agrees_with_a_slow_one_that_adds_matrices():
    group = list(specimens(95, 90, 85, 80, 60, 97).values())
    rng = np.random.default_rng(0)
    slow = [sum((group[i] for i in rng.integers(0, 6, 6)), ConfusionMatrix.zeros(2)).mean_iou() for _ in range(2000)]
    interval = mean_iou_interval(dict(enumerate(group)))
    assert (interval.low, interval.high) == pytest.approx(np.percentile(slow, (2.5, 97.5)), abs=0.015)


def test_interval_does_not_narrow_with_more_pixels_per_specimen():
    hits = (95, 90, 85, 80, 60, 97)
    few = mean_iou_interval(specimens(*hits))
    many = mean_iou_interval({k: ConfusionMatrix(m.counts * 1000) for k, m in specimens(*hits).items()})
    assert (few.low, few.high) == pytest.approx((many.low, many.high))


@given(st.lists(st.integers(1, 99), min_size=5, max_size=12))
def test_bootstrap_lies_within_the_specimens(hits):
    interval = mean_iou_interval(specimens(*hits), n_resamples=200)
    values = interval.values
    assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9
