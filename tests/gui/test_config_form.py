"""The training form: every default survives the round trip, whatever the magnitude."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qtpy.QtCore import Qt

from napari_emtransfer.core.config import ComputeConfig, TrainConfig
from napari_emtransfer.gui.config_form import FIELDS, ConfigForm
from napari_emtransfer.gui.log_spin_box import LogSpinBox


def test_every_default_survives_the_round_trip(qtbot):
    form = ConfigForm()
    qtbot.addWidget(form)
    assert form.config == TrainConfig()


def test_every_field_takes_another_value(qtbot):
    other = TrainConfig(
        strategy="scratch",
        weights="imagenet",
        architecture="FPN",
        encoder="resnet101",
        iterations=7,
        minutes=0.5,
        batch_size=3,
        crop_px=96,
        learning_rate=1e-5,
        encoder_learning_rate=2.5e-6,
        weight_decay=0.0,
        augment="none",
        split="Super1",
        train=("a",),
        validation=("b",),
        validate_every=11,
        patience=2,
        compute=ComputeConfig(device="cpu", threads=3, precision="fp32", seed=9),
    )
    form = ConfigForm()
    qtbot.addWidget(form)
    form.config = other
    assert form.config == other
    form.config = TrainConfig()
    assert form.config == TrainConfig()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rate=st.floats(1e-8, 1.0))
def test_no_learning_rate_is_rounded(qtbot, rate):
    box = LogSpinBox()
    box.setValue(rate)
    assert box.value() == rate
    box.deleteLater()


@pytest.mark.parametrize(("typed", "expected"), [("3e-4", 3e-4), ("0.00001", 1e-5), ("7", 1.0), ("nonsense", 1e-3)])
def test_typing_a_magnitude(qtbot, typed, expected):
    box = LogSpinBox()
    qtbot.addWidget(box)
    box.setValue(1e-3)
    box.show()
    box.selectAll()
    qtbot.keyClicks(box.lineEdit(), typed)
    qtbot.keyClick(box, Qt.Key.Key_Return)
    assert box.value() == pytest.approx(expected)


def test_steps_multiply(qtbot):
    box = LogSpinBox()
    qtbot.addWidget(box)
    box.setValue(1e-4)
    box.stepBy(3)
    assert box.value() == pytest.approx(1e-3)
    box.stepBy(-6)
    assert box.value() == pytest.approx(1e-5)


def test_only_the_user_edits(qtbot):
    form, edited = ConfigForm(), []
    qtbot.addWidget(form)
    form.edited.connect(edited.append)
    form.config = TrainConfig(iterations=5, minutes=3.0)
    assert edited == []
    form.editor("iterations").value = 7
    form._optional["patience"]._tick.native.click()
    assert edited == ["iterations", "patience"]
    form.fill(TrainConfig(compute=ComputeConfig(seed=3)), keep={"iterations"})
    assert (form.config.iterations, form.config.compute.seed, form.config.patience) == (7, 3, None)


def test_each_field_says_what_it_does(qtbot):
    form = ConfigForm()
    qtbot.addWidget(form)
    assert all(form.editor(name).native.toolTip() for name in FIELDS)
