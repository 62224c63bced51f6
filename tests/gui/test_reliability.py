"""The reliability diagram and its sentence."""

import json

import numpy as np
import pytest

from napari_emtransfer.core.evaluate.calibration import PixelSample, fit_calibration
from napari_emtransfer.gui.reliability import ReliabilityDiagram, reliability_text


def sample(seed, overdone):
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, (4000, 2))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    truth = (rng.random(4000) > p[:, 0]).astype(np.uint8)
    shown = p**overdone / (p**overdone).sum(1, keepdims=True)
    return PixelSample(shown.astype(np.float32), truth, np.zeros(4000, bool))


@pytest.fixture(scope="module")
def calibration():
    """As it lies in a result.json."""
    found = fit_calibration({"a": sample(0, 3), "b": sample(1, 3)}, "the validation ground")
    return json.loads(found.model_dump_json())


def test_the_diagram_shows_both_curves_and_says_what_they_stand_on(qtbot, calibration):
    diagram = ReliabilityDiagram()
    qtbot.addWidget(diagram)
    diagram.set_calibration(calibration)
    before, after = ([np.array(axis) for axis in line.getData()] for line in (diagram.before_line, diagram.after_line))
    off = [np.abs(x - y)[1:-1].max() for x, y in (before, after)]
    assert off[0] > 0.15 > off[1]  # too sure as trained, near the diagonal with the temperature
    text = diagram.sentence.text()
    assert "reported with the temperature of the others" in text
    assert f"{calibration['ece']:.3f} ({calibration['ece_before']:.3f} as trained)" in text


def test_the_sentence_by_hand():
    said = reliability_text(
        {
            "reliability": [
                {"confidence": 0.9, "accuracy": 0.8, "n": 300},
                {"confidence": 0.5, "accuracy": 0.6, "n": 100},
            ],
            "ece": 0.05,
            "ece_before": 0.1,
            "note": "temperature 1.50, fitted on the validation ground",
        }
    )
    assert said == (
        "On average 80 % sure and 75 % right; class-wise calibration error 0.050 (0.100 as trained). "
        "Temperature 1.50, fitted on the validation ground."
    )


def test_the_measure_tab_shows_it_with_the_model_that_has_one(project, calibration):
    panel = project.dock.measure_panel
    names = project.dock.session.schema.names
    found = {"run": "0001-train", "confusion": np.eye(len(names), dtype=int).tolist()}
    panel._show_confusion(found | {"calibration": calibration})
    assert not panel.reliability_box.isHidden()
    assert "On average" in panel.reliability.sentence.text()
    panel._show_confusion(found)
    assert panel.reliability_box.isHidden()  # a run of before knows nothing of it
