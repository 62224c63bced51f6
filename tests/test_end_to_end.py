"""The whole loop through the real window on real micrographs: paint, fine-tune twice, cancel, kill, resume."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtTest import QTest
from skimage.io import imread

sys.path.append(str(Path(__file__).parent / "gui"))

from gui_helpers import Hands, open_dock

from napari_emtransfer.gui.demo_strokes import plan_strokes
from napari_emtransfer.session.state import Phase

BRUSH_PX = 9
ROUND = {"iterations": 24, "crop_px": 64, "batch_size": 4, "validate_every": 12, "device": "cpu"}
LONG = {"iterations": 4000, "crop_px": 64, "batch_size": 4, "validate_every": 4, "device": "cpu"}


@pytest.fixture
def micrographs(request, tmp_path):
    """Three images of three specimens with their exact masks: [(image, specimen, mask)], real ones where they lie."""
    try:
        folder = request.getfixturevalue("real_data") / "nasa_super"
    except pytest.skip.Exception:
        from napari_emtransfer.core.synth.sample import write_sample_dataset

        folder = write_sample_dataset(tmp_path / "sample")
    groups = json.loads((folder / "dataset.json").read_text())["groups"]
    chosen = {}
    for stem, specimen in groups.items():
        chosen.setdefault(specimen, stem)
    images = {path.stem: path for path in (folder / "images").iterdir()}
    return [
        (images[stem], specimen, imread(folder / "masks" / f"{stem}.png"))
        for specimen, stem in list(chosen.items())[:3]
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_from_micrographs_to_an_overlay_with_its_iou(make_napari_viewer, tmp_path, micrographs):
    viewer = make_napari_viewer(show=True)
    hands = Hands(viewer, open_dock(viewer))
    try:
        _make_project(hands, tmp_path / "project", micrographs)
        truth = {image.stem: mask for image, _, mask in micrographs}
        _label(hands, truth, n_tiles=4)
        first = _round(hands, number=1)
        _cancel_one(hands)
        killed = _kill_one(hands)
        _resume(hands, killed)
        _label(hands, truth, n_tiles=1)
        second = _round(hands, number=2)
        assert hands.session.project.run(second).record.parent is not None, "the second round goes on from a model"
        assert second != first
        _read_scores(hands)
    finally:
        hands.dock.owner.close()


def _make_project(hands, root, micrographs):
    panel, session = hands.dock.project_panel, hands.session
    hands.shot("01-start")
    session.create_project(root, ["phase 1", "phase 2"])
    panel.micrographs.add_files([image for image, _, _ in micrographs])
    hands.wait(lambda: len(session.records) == len(micrographs), "the micrographs")
    for row, (_, specimen, _) in enumerate(micrographs):
        panel.micrographs.table.item(row, 1).setText(specimen)  # as a user types it into the cell
    assert [record.specimen for record in session.records] == [specimen for _, specimen, _ in micrographs]
    panel.classes.name_edits[1].setText("matrix")
    panel.classes.name_edits[1].editingFinished.emit()
    for extra in range(3, int(max(mask.max() for _, _, mask in micrographs)) + 1):
        panel.classes.new_name.setText(f"phase {extra}")
        panel.classes.new_name.returnPressed.emit()
    assert session.schema.names[:2] == ("matrix", "phase 2")
    hands.wait(lambda: not panel.micrographs.table.stems_without_thumbnail(), "the thumbnails", 30)
    hands.shown()
    hands.shot("02-project")


def _label(hands, truth, n_tiles):
    """Scribble each class on some tiles, with the mouse."""
    hands.dock.choose_tab("Label")
    hands.dock.label_panel.tools.brush_slider.setValue(BRUSH_PX)
    for _ in range(n_tiles):
        hands.click(hands.dock.loop_bar.next_button)
        hands.wait(lambda: hands.session.tile is not None and hands.dock.canvas.shown == hands.session.tile.micrograph)
        tile = hands.session.tile
        corner = np.array([tile.window.y0, tile.window.x0])
        part = truth[tile.micrograph][tile.window.slices]
        for value in range(1, len(hands.session.schema) + 1):
            hands.click(hands.dock.label_panel.palette_box.button(value))
            for stroke in plan_strokes(part, value, n=3, brush_px=BRUSH_PX):
                hands.drag(*(np.array(point) + corner for point in stroke))
        painted = hands.session.labelling.annotation(tile.micrograph)[tile.window.slices]
        assert painted.any()
        agreeing = painted[painted > 0] == part[painted > 0]
        assert agreeing.mean() > 0.95, "the mouse paints where it points"
    hands.wait(lambda: not hands.session.labelling.save_state.unsaved, "the autosave")
    stored = hands.session.project.annotations.read(hands.session.current)
    assert np.array_equal(stored, hands.session.labelling.annotation(hands.session.current))
    hands.shot("03-label")


def _configure(hands, values):
    form = hands.dock.train_panel.form
    for name, value in values.items():
        form.editor(name).value = value
    assert form.config.iterations == values["iterations"]


def _start(hands, values):
    hands.dock.choose_tab("Train")
    _configure(hands, values)
    hands.click(hands.dock.loop_bar.train_button)
    hands.wait(lambda: hands.session.training.state.is_active, "the start")
    return hands.session.training.state.run_id


def _round(hands, number):
    run_id = _start(hands, ROUND)
    training = hands.session.training
    hands.wait(lambda: len(training.curves.validations) >= 1, "a validation", 120)
    hands.shot(f"04-training-{number}")
    hands.wait(lambda: not training.state.is_active, "the end", 120)
    assert training.state.phase is Phase.FINISHED, training.state.message
    assert hands.session.readouts.model.run_id == run_id
    hands.wait(lambda: hands.session.prediction.mask(hands.session.current).all(), "the overlay", 60)
    hands.dock.choose_tab("Measure")
    hands.shot(f"05-overlay-{number}")
    return run_id


def _cancel_one(hands):
    _start(hands, LONG)
    training = hands.session.training
    hands.wait(lambda: training.state.iteration >= 4, "some iterations", 120)
    hands.shot("06-running")
    hands.dock.loop_bar.cancel_requested.emit()
    assert training.state.phase is Phase.CANCELLING
    hands.wait(lambda: not training.state.is_active, "the cancelled run", 30)
    assert training.state.phase is Phase.CANCELLED
    assert training.state.resumable


def _kill_one(hands):
    run_id = _start(hands, LONG)
    training = hands.session.training
    run = hands.session.project.run(run_id)
    hands.wait(lambda: run.checkpoint_path("last").is_file(), "a checkpoint", 120)
    hands.dock.loop_bar.kill_requested.emit()
    hands.wait(lambda: not training.state.is_active, "the killed run", 30)
    assert training.state.phase is Phase.CANCELLED
    hands.wait(lambda: hands.dock.train_panel.runs.resume_button.isEnabled(), "Resume")
    hands.shot("07-killed")
    return run_id


def _resume(hands, run_id):
    panel, training = hands.dock.train_panel, hands.session.training
    assert panel.runs.selected == run_id
    done_before = training.state.iteration
    panel.runs.resume_button.click()
    hands.wait(lambda: training.state.phase is Phase.RUNNING, "the resumed run", 60)
    assert training.state.run_id == run_id
    hands.wait(lambda: training.state.iteration > max(done_before, 4), "its next iteration", 60)
    hands.dock.loop_bar.stop_early_requested.emit()
    hands.wait(lambda: not training.state.is_active, "the end of the resumed run", 60)
    assert training.state.phase is Phase.FINISHED


def _read_scores(hands):
    panel, session = hands.dock.measure_panel, hands.session
    hands.dock.choose_tab("Measure")
    model = session.readouts.model
    assert model is not None
    assert 0.0 <= model.mean_iou <= 1.0
    assert f"{model.mean_iou:.2f}" in panel.model_label.text()
    assert f"IoU {model.mean_iou:.2f}" in hands.dock.loop_bar.iou_label.text()
    hands.wait(lambda: session.readouts.tile is not None, "the readout of the tile")
    hands.wait(
        lambda: (
            "of this tile labelled" in hands.viewer.canvas.overlays.text.text
            or "no labels" in hands.viewer.canvas.overlays.text.text
        )
    )
    fractions = [panel.table.item(row, 3).text() for row in range(len(session.schema))]
    assert sum(float(text.removesuffix(" %")) for text in fractions) == pytest.approx(100, abs=0.3)
    hands.shot("08-measure")
    QTest.qWait(50)
