"""The live overlay with mouse, window and the real engine, on a real micrograph."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gui_helpers import Hands, open_dock
from skimage.io import imread

from napari_emtransfer.core.data.project import Project
from napari_emtransfer.gui.demo_strokes import plan_strokes
from napari_emtransfer.worker.protocol import LIVE_RUN

STEM, BRUSH_PX = "spot2_0d_0", 5


@pytest.fixture
def hands(real_data, make_napari_viewer, tmp_path):
    """Hands on a window with one micrograph of a superalloy, brush in hand, its first tile shown."""
    pytest.importorskip("torch")
    folder = real_data / "nasa_super"
    names = list(json.loads((folder / "dataset.json").read_text())["classes"].values())
    with Project.create(tmp_path / "project", classes=names) as project:
        project.add_micrograph(next((folder / "images").glob(f"{STEM}.*")))
    viewer = make_napari_viewer(show=True)
    dock = open_dock(viewer, size=(1200, 850))
    dock.session.open_project(tmp_path / "project")
    dock.session.labelling.go_to_point(STEM, 100, 100)
    hands = Hands(viewer, dock)
    hands.shown(STEM)
    dock.choose_tab("Label")
    dock.label_panel.tools.brush_slider.setValue(BRUSH_PX)
    yield hands
    dock.owner.close()


def stroke(hands, truth, value):
    """A scribble inside a class, where somebody who knows the truth would put it; returns its middle pixel."""
    window = hands.session.tile.window
    (line,) = plan_strokes(truth[window.slices], value, n=1, brush_px=BRUSH_PX, max_length_px=40)
    start, end = (np.array([y + window.y0, x + window.x0]) for y, x in line)
    hands.dock.label_panel.choose_class(value)
    hands.drag(start, end)
    return tuple(((start + end) / 2).round().astype(int))


@pytest.mark.slow
def test_two_strokes_bring_an_overlay_and_a_third_changes_it(hands, real_data):
    truth = imread(real_data / "nasa_super" / "masks" / f"{STEM}.png")
    live, session = hands.session.live, hands.session
    window, mask = session.tile.window, session.prediction.mask(STEM)
    assert live.enabled, "in a new project nobody has to switch it on"
    hands.wait(lambda: live.state.phase == "waiting", "the hint without labels", 90)
    stroke(hands, truth, 1)
    hands.wait(lambda: live.state.phase == "updating", "the update", 10)
    hands.wait(lambda: live.state.phase == "waiting", "the hint with one class", 90)
    assert "second class" in hands.dock.loop_bar.live_label.text()
    assert not mask.any()

    dark = stroke(hands, truth, 2)
    hands.wait(lambda: live.state.phase == "ready", "the first overlay", 60)
    assert mask[window.slices].all()
    assert not np.delete(mask, np.s_[window.y0 : window.y1], axis=0).any()
    assert mask[dark] == 2
    assert (mask[window.slices] == truth[window.slices]).mean() > 0.7, "two strokes tell bright from dark"
    assert live.state.seconds < 30
    assert session.overlays.of(STEM).run == LIVE_RUN
    hands.dock.canvas.tick()
    assert session.text_overlay.startswith("live head · IoU")
    assert session.text_overlay.endswith("training tile")

    before = mask.copy()
    third = stroke(hands, truth, 3)
    hands.wait(lambda: mask[third] == 3, "the third class in the overlay", 30)
    assert (before != mask)[window.slices].any()
    hands.click(hands.dock.label_panel.tools.undo_button)
    hands.wait(lambda: not (mask == 3).any(), "an overlay without the class whose only stroke was undone", 30)
    hands.shot("live")
    hands.key("l")
    assert not mask.any(), "there is no model whose overlay could come back"
