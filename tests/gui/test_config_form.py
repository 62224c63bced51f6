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


def test_folds_take_the_place_of_a_ground_held_out_before(qtbot):
    form = ConfigForm()
    qtbot.addWidget(form)
    form.config = TrainConfig(validation=("b",))
    form.editor("folds").value = "3"
    assert (form.config.folds, form.config.validation) == (3, ())
    form.editor("folds").value = "none"
    assert form.config.validation == ("b",)


def test_the_arrow_shows_all_weights_known_by_name(qtbot):
    form = ConfigForm()
    qtbot.addWidget(form)
    form.show()
    form.sections["Strategy"].expand()
    edit = form.editor("weights").native
    edit.actions()[0].trigger()
    popup = edit.completer().popup()
    assert popup.isVisible()
    shown = [popup.model().index(row, 0).data() for row in range(popup.model().rowCount())]
    assert {"none", "imagenet", "micronet"} <= set(shown)
    popup.hide()


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
        depth_decay=0.85,
        weight_decay=0.0,
        freeze="decoder",
        normalization="mix",
        schedule="poly",
        l2_sp=1e-7,
        class_weights="balanced",
        label_smoothing=0.05,
        average=0.9995,
        plateau=7,
        confirm_uniform_rate=True,
        shrink=0.123,
        new_weight=3.5,
        folds=4,
        augment="none",
        illegal_augment=("quarter-turn",),
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


def test_every_field_of_a_configuration_has_an_editor_or_is_kept():
    kept = {"split", "train", "validation", "confirm_uniform_rate", "illegal_augment", "compute"}
    assert set(TrainConfig.model_fields) - kept == set(FIELDS) - set(ComputeConfig.model_fields)


@pytest.mark.parametrize("folds", [None, 3, 5, "leave-one-out", "dataset", 7])
def test_folds_survive_the_round_trip(qtbot, folds):
    form = ConfigForm(TrainConfig(folds=folds))
    qtbot.addWidget(form)
    assert form.config.folds == folds


def test_what_a_strategy_ignores_is_greyed_and_says_why(qtbot):
    form = ConfigForm(TrainConfig(weights="imagenet"))
    qtbot.addWidget(form)
    assert form.editor("plateau").native.isEnabled()  # auto may still choose the gradual strategy
    form.editor("strategy").value = "feature-extraction"
    assert not form._optional["encoder_learning_rate"].isEnabled()
    assert not form.editor("depth_decay").native.isEnabled()
    assert "encoder stays as it is" in form.editor("depth_decay").native.toolTip()
    assert not form.editor("shrink").native.isEnabled()
    form.editor("weights").value = "run:0001"
    form.editor("strategy").value = "gradual"
    for name in ("plateau", "shrink", "new_weight", "l2_sp", "depth_decay"):
        assert form.editor(name).native.isEnabled(), name
        assert "no effect" not in form.editor(name).native.toolTip()
    assert form._optional["encoder_learning_rate"].isEnabled()
    assert not form.editor("encoder_learning_rate").native.isEnabled()  # its tick is off


def test_allowing_what_physics_forbids_is_an_edit_and_reaches_the_configuration(qtbot):
    form, edited = ConfigForm(), []
    qtbot.addWidget(form)
    form.edited.connect(edited.append)
    form.set_modality("ebsd")
    form.augment_box.rows["quarter-turn"].tick.click()
    assert form.config.illegal_augment == ("quarter-turn",)
    assert edited == ["illegal_augment"]
    form.fill(TrainConfig(iterations=5), keep={"illegal_augment"})
    assert form.config.illegal_augment == ("quarter-turn",)
    form.mark_changes({"illegal_augment", "seed"})
    assert form.sections["Augmentation"].heading.text() == "Augmentation · 1 changed"
    assert form.sections["Network"].heading.text() == "Network"


def test_the_first_step_from_zero_is_of_use(qtbot):
    form = ConfigForm()
    qtbot.addWidget(form)
    form.editor("label_smoothing").native.stepBy(1)
    assert form.config.label_smoothing == pytest.approx(0.01)


def test_the_form_fits_a_narrow_dock(qtbot):
    form = ConfigForm()
    qtbot.addWidget(form)
    for section in form.sections.values():
        section.expand()
    assert form.minimumSizeHint().width() <= 350


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
