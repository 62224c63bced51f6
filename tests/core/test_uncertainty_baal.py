"""The same numbers as baal, the library of Bayesian active learning, where both measure the same.

Where definitions differ: baal's margin and certainty fall with uncertainty (ours rise: 1 − value), its variance is the
mean over the classes (ours the sum), its power sampling has a temperature, 1/β.
"""

import numpy as np
import pytest

from napari_emtransfer.core.active import power_noise
from napari_emtransfer.core.active import uncertainty as u

heuristics = pytest.importorskip("baal.active.heuristics", reason="baal comes with the extra `dev`")

N_CLASSES = 4
OURS_FROM_THEIRS = {
    "BALD": (u.bald, lambda value: value),
    "Entropy": (u.entropy, lambda value: value),
    "Margin": (u.margin, lambda value: 1 - value),
    "Certainty": (u.least_confidence, lambda value: 1 - value),
}


@pytest.fixture(scope="module", params=[0.2, 1.0, 20.0])
def samples(request):
    """Probabilities (S, C, N, H, W)."""
    rng = np.random.default_rng(7)
    return np.moveaxis(rng.dirichlet([request.param] * N_CLASSES, (6, 3, 8, 9)), -1, 1)


def as_baal(samples):
    """(S, C, N, H, W) → (N, C, H, W, S)."""
    return np.ascontiguousarray(np.transpose(samples, (2, 1, 3, 4, 0)))


@pytest.mark.parametrize("name", OURS_FROM_THEIRS)
def test_equal_to_baal(name, samples):
    ours, from_theirs = OURS_FROM_THEIRS[name]
    theirs = getattr(heuristics, name)().get_uncertainties(as_baal(samples))
    assert theirs.shape == samples.shape[2:]
    np.testing.assert_allclose(ours(samples), from_theirs(theirs), atol=1e-12)
    np.testing.assert_allclose(ours(samples.astype(np.float32)), from_theirs(theirs), atol=2e-6)


def test_the_variance_is_the_sum_over_classes(samples):
    # baal reduces over all axes but the first, pixels too: each pixel is given as an item of its own.
    pixels = samples.reshape(*samples.shape[:2], -1)
    theirs = heuristics.Variance().get_uncertainties(np.transpose(pixels, (2, 1, 0)))
    np.testing.assert_allclose(u.variance(pixels), N_CLASSES * theirs, atol=1e-12)


def test_disagreement_is_its_bald(samples):
    theirs = heuristics.BALD().get_uncertainties(as_baal(samples))
    np.testing.assert_allclose(u.disagreement(samples), theirs, atol=1e-12)


@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
def test_chances_are_those_of_power_sampling(beta):
    from baal.active.heuristics.stochastics import PowerSampling

    scores = np.random.default_rng(1).gamma(2, 0.3, 30)
    sampling = PowerSampling(heuristics.Precomputed(), query_size=3, temperature=1 / beta)
    theirs = sampling.get_ranks(scores.copy())[1]
    np.testing.assert_allclose(power_noise.probabilities(scores, beta, np.ones(30, bool)), theirs, rtol=1e-9)
