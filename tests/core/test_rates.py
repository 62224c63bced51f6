import json
import subprocess
import sys

import pytest

from napari_emtransfer.core import rates
from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.errors import RateError
from napari_emtransfer.core.nn import registry
from napari_emtransfer.core.rates import check_rates, encoder_rate, resolve_normalization, resolve_strategy


def config(**changes):
    return TrainConfig(**{"learning_rate": 1e-3, "weights": "imagenet", **changes})


@pytest.fixture
def measured(monkeypatch):
    """Weights "compact" whose encoder measured best at 1e-3, and "careful" at 3e-5."""
    rows = [
        registry.WeightsEntry(name=name, family="bundled", encoder="resnet18", encoder_learning_rate=rate)
        for name, rate in (("compact", 1e-3), ("careful", 3e-5))
    ]
    monkeypatch.setattr(registry, "bundled_entries", lambda: rows)


@pytest.mark.parametrize(
    ("changes", "strategy", "normalization"),
    [
        ({"weights": "none"}, "scratch", "train"),
        ({}, "fine-tune", "adabn"),
        ({"weights": "run:a1"}, "fine-tune", "adabn"),
        ({"strategy": "gradual"}, "gradual", "adabn"),
        ({"strategy": "feature-extraction", "normalization": "source"}, "feature-extraction", "source"),
        ({"strategy": "scratch", "normalization": "mix"}, "scratch", "mix"),
        ({"strategy": "fine-tune", "weights": "none"}, "fine-tune", "train"),
    ],
)
def test_auto_goes_by_the_weights(changes, strategy, normalization):
    assert resolve_strategy(config(**changes)) == strategy
    assert resolve_normalization(config(**changes)) == normalization


def test_the_encoders_rate_is_the_given_one_else_the_measured_one_else_a_tenth(measured):
    assert encoder_rate(config(weights="none")) == 1e-3
    assert encoder_rate(config()) == pytest.approx(1e-4)
    assert encoder_rate(config(weights="run:a1")) == pytest.approx(1e-4)
    assert encoder_rate(config(weights="/somewhere/mine.safetensors")) == pytest.approx(1e-4)
    assert encoder_rate(config(weights="no such weights")) == pytest.approx(1e-4)
    assert encoder_rate(config(weights="compact")) == 1e-3
    assert encoder_rate(config(weights="careful", strategy="gradual")) == 3e-5
    assert encoder_rate(config(weights="careful", encoder_learning_rate=2e-4)) == 2e-4


@pytest.mark.parametrize("weights", ["imagenet", "run:a1", "/a/file.safetensors", "careful"])
@pytest.mark.parametrize("strategy", ["auto", "fine-tune", "gradual"])
def test_a_uniform_high_rate_asks_first(measured, weights, strategy):
    bold = config(weights=weights, strategy=strategy, learning_rate=2e-3, encoder_learning_rate=2e-3)
    with pytest.raises(RateError, match=r"encoder would learn at 0\.002, and the decoder at 0\.002") as refused:
        check_rates(bold)
    assert "--encoder-learning-rate 0.0002" in refused.value.hint
    assert "confirm_uniform_rate" in refused.value.hint
    check_rates(bold.model_copy(update={"confirm_uniform_rate": True}))
    check_rates(bold.model_copy(update={"encoder_learning_rate": 0.0002}))


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": "none"},
        {"weights": "compact"},
        {"weights": "compact", "encoder_learning_rate": 1e-3},
        {"encoder_learning_rate": 5e-4},
        {"learning_rate": 1e-4, "encoder_learning_rate": 1e-4},
        {"encoder_learning_rate": 1e-3, "strategy": "feature-extraction"},
        {"encoder_learning_rate": 1e-3, "freeze": "encoder"},
    ],
)
def test_what_destroys_nothing_is_not_asked_about(measured, changes):
    check_rates(config(**changes))


def test_weights_that_are_then_trained_as_if_from_scratch_are_asked_about():
    with pytest.raises(RateError):
        check_rates(config(strategy="scratch"))


def test_far_above_the_measured_rate_is_asked_about_too(measured):
    with pytest.raises(RateError):
        check_rates(config(weights="compact", learning_rate=5e-3, encoder_learning_rate=5e-3))


def test_asking_needs_no_torch():
    code = f"import sys, json, {rates.__name__}; print(json.dumps('torch' in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(result.stdout) is False


def test_the_decoders_rate_is_the_given_one_else_the_weights_own_else_a_thousandth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rates.store, "stated_learning_rate", lambda weights, _: 3e-3 if weights == "known" else None)
    assert rates.learning_rate(TrainConfig(weights="known", learning_rate=2e-4)) == 2e-4
    assert rates.learning_rate(TrainConfig(weights="known")) == 3e-3
    assert rates.learning_rate(TrainConfig(weights="none")) == 1e-3
    # A tenth of the rate that is really used.
    assert rates.encoder_rate(TrainConfig(weights="known", strategy="fine-tune")) == pytest.approx(3e-4)
