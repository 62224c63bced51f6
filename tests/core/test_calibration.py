"""Known answers: calibrated pixels, a known temperature, figures by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_emtransfer.core.evaluate.calibration import (
    TEMPERATURE_RANGE,
    PixelSample,
    apply_calibration,
    brier,
    classwise_ece,
    draw_pixels,
    fit_calibration,
    fit_temperature,
    near_boundaries,
    negative_log_likelihood,
    reliability,
    tempered,
)


def sample(probabilities, truth):
    truth = np.asarray(truth, np.uint8)
    return PixelSample(np.asarray(probabilities, np.float32), truth, np.zeros(len(truth), bool))


def drawn(temperature, n=40_000, n_classes=3, seed=0):
    """Truth drawn from the softmax of logits; the probabilities shown are those of `temperature` times the logits."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, n_classes))
    softmax = lambda z: np.exp(z) / np.exp(z).sum(1, keepdims=True)  # noqa: E731
    truth = (softmax(logits).cumsum(1) < rng.random((n, 1))).sum(1)
    return sample(softmax(temperature * logits), truth)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_is_found_again(temperature):
    overdone = drawn(temperature)
    assert fit_temperature(overdone) == pytest.approx(temperature, rel=0.03)
    mended = overdone.at(fit_temperature(overdone))
    assert classwise_ece(mended) < 0.01
    if temperature > 2:
        assert classwise_ece(overdone) > 0.05
        assert negative_log_likelihood(mended) < negative_log_likelihood(overdone)


def test_a_network_that_is_never_wrong_stays_within_the_range():
    sure = sample([[0.9, 0.1]] * 50 + [[0.1, 0.9]] * 50, [0] * 50 + [1] * 50)
    assert fit_temperature(sure) == pytest.approx(TEMPERATURE_RANGE[0], rel=0.02)
    wrong = sample(sure.probabilities, 1 - sure.truth)
    assert fit_temperature(wrong) == pytest.approx(TEMPERATURE_RANGE[1], rel=0.02)


def test_calibration_error_by_hand():
    """Of ten pixels with 0.8 for class 0 six are of it: off by 0.2 for either class."""
    ten = sample([[0.8, 0.2]] * 10, [0] * 6 + [1] * 4)
    assert classwise_ece(ten) == pytest.approx(0.2)
    assert classwise_ece(sample([[0.8, 0.2]] * 10, [0] * 8 + [1] * 2)) == pytest.approx(0, abs=1e-6)
    two_bins = sample([[0.95, 0.05]] * 10 + [[0.55, 0.45]] * 10, [0] * 10 + [1] * 10)
    assert classwise_ece(two_bins) == pytest.approx(0.5 * 0.05 + 0.5 * 0.55)


def test_brier_and_likelihood_by_hand():
    pair = sample([[0.8, 0.2], [0.3, 0.7]], [0, 0])
    assert brier(pair) == pytest.approx((2 * 0.2**2 + 2 * 0.7**2) / 2)
    assert negative_log_likelihood(pair) == pytest.approx(-(np.log(0.8) + np.log(0.3)) / 2)


def test_reliability_diagram_by_hand():
    bins = reliability(sample([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 2, [0, 0, 0, 1, 1, 0]))
    assert [(round(b.confidence, 3), b.accuracy, b.n) for b in bins] == [(0.6, 0.5, 2), (0.9, 0.75, 4)]


@given(st.integers(0, 1000), st.floats(*TEMPERATURE_RANGE))
def test_a_temperature_never_changes_the_answer(seed, temperature):
    p = np.random.default_rng(seed).dirichlet([0.1] * 4, (6, 7)).transpose(2, 0, 1).astype(np.float32)
    scaled = tempered(p, temperature)
    np.testing.assert_array_equal(scaled.argmax(0), p.argmax(0))
    assert np.allclose(scaled.sum(0), 1, atol=1e-5)
    grown = scaled.max(0) - p.max(0)
    assert np.all(grown <= 1e-6) if temperature >= 1 else np.all(grown >= -1e-6)


@pytest.mark.parametrize("temperature", [0.3, 1.7, 8.0])
def test_rounding_makes_no_ties(temperature):
    half = np.float32(0.5)
    p = np.array([np.nextafter(half, np.float32(0)), half])[:, None, None]
    assert tempered(p, temperature).argmax(0).item() == 1


def test_temperature_scaling_is_that_of_the_logits():
    z = np.random.default_rng(0).normal(0, 3, (50, 3))
    softmax = lambda z: np.exp(z) / np.exp(z).sum(1, keepdims=True)  # noqa: E731
    np.testing.assert_allclose(tempered(softmax(z).astype(np.float32), 2.0, axis=1), softmax(z / 2), atol=1e-6)


def test_boundaries_are_between_classes_and_not_at_the_rim_of_a_stroke():
    truth = np.zeros((20, 30), np.uint8)
    truth[5:15, 5:15], truth[5:15, 15:25] = 1, 2
    near = near_boundaries(truth)
    assert near[10].nonzero()[0].tolist() == [13, 14, 15, 16]
    assert not near[truth == 0].any()


def test_labelled_pixels_only_are_drawn_and_about_the_share_asked_for():
    truth = np.repeat(np.arange(3, dtype=np.uint8), 1000).reshape(3, 1000)
    p = np.stack([np.full((3, 1000), 0.25, np.float32), np.full((3, 1000), 0.75, np.float32)])
    near = np.zeros_like(truth, bool)
    everything = draw_pixels(truth, p, near, 1.0, np.random.default_rng(0))
    assert np.bincount(everything.truth).tolist() == [1000, 1000]
    assert everything.probabilities.shape == (2000, 2)
    assert 350 < len(draw_pixels(truth, p, near, 0.2, np.random.default_rng(0))) < 450


def test_each_specimen_is_reported_with_the_temperature_of_the_others():
    """One specimen overdone, one not: in-sample fitting would look better than what a new specimen can expect."""
    parts = {"a": drawn(3.0, seed=1), "b": drawn(1.0, seed=2)}
    fitted = fit_calibration(parts, "the validation ground")
    assert "each of its 2 specimens is reported with the temperature of the others" in fitted.note
    swapped = PixelSample.joined(
        [parts["a"].at(fit_temperature(parts["b"])), parts["b"].at(fit_temperature(parts["a"]))]
    )
    assert fitted.ece == pytest.approx(classwise_ece(swapped))
    assert fitted.ece > classwise_ece(PixelSample.joined(parts.values()).at(fitted.temperature))
    assert fitted.n_pixels == 80_000


def test_a_single_specimen_is_admitted():
    alone = fit_calibration({"a": drawn(2.0)}, "the validation ground")
    assert "that same specimen" in alone.note
    assert alone.ece < alone.ece_before
    assert alone.temperature == pytest.approx(2.0, rel=0.05)


def test_elsewhere_the_given_temperature_counts_and_boundaries_are_told_apart():
    inner, rim = drawn(1.0, seed=3), drawn(4.0, seed=4)
    both = PixelSample.joined([inner, PixelSample(rim.probabilities, rim.truth, np.ones(len(rim), bool))])
    report = apply_calibration({"c": both}, 1.5, "fitted elsewhere")
    assert (report.temperature, report.note) == (1.5, "fitted elsewhere")
    assert report.ece_inside_before < 0.01 < report.ece_before
    assert report.ece == pytest.approx(classwise_ece(both.at(1.5)))
