"""Numbers on the screen, and the words that keep them honest."""

import numpy as np
import pytest
from session_helpers import Recorder

from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.session.readouts import percent, short, text_overlay, tile_readout
from napari_emtransfer.session.state import Readouts, TileReadout

NAMES = ("matrix", "precipitate", "pore")


def masks():
    labels = np.zeros((10, 10), np.uint8)
    labels[:4] = 1
    labels[4:6] = 2
    prediction = np.ones((10, 10), np.uint8)
    prediction[5:] = 2
    return prediction, labels


def test_iou_is_measured_on_labelled_pixels_and_phases_on_all():
    prediction, labels = masks()
    readout = tile_readout(prediction, labels, NAMES, "held-out")
    assert readout.iou == {"matrix": 40 / 50, "precipitate": 10 / 20, "pore": None}
    assert readout.mean_iou == pytest.approx(0.65)
    assert readout.labelled_fraction == 0.6
    assert readout.phase_fractions == {"matrix": 0.5, "precipitate": 0.5, "pore": 0.0}


def test_a_class_predicted_where_there_is_none_is_zero_not_absent():
    prediction, labels = masks()
    prediction[0, 0] = 3
    assert tile_readout(prediction, labels, NAMES, "held-out").iou["pore"] == 0


def test_nothing_predicted_gives_no_readout_and_a_part_is_read_alone():
    prediction, labels = masks()
    assert tile_readout(np.zeros_like(prediction), labels, NAMES, "held-out") is None
    prediction[4:] = 0
    assert tile_readout(prediction, labels, NAMES, "held-out").iou == {
        "matrix": 1.0,
        "precipitate": None,
        "pore": None,
    }


def test_the_line_on_the_canvas():
    tile = TileReadout({"matrix": 0.96, "precipitate": 0.884, "pore": None}, 0.92, 0.34, "held-out", {})
    line = "IoU matrix .96 · precipitate .88 · pore – — 34 % of this tile labelled, held-out"
    assert text_overlay(Readouts(tile=tile)) == line


def test_a_training_tile_says_so():
    tile = TileReadout({"matrix": 1.0}, 1.0, 1.0, "training tile", {})
    assert text_overlay(Readouts(tile=tile)) == "IoU matrix 1.00 — 100 % of this tile labelled, training tile"
    assert tile.is_training_tile


def test_without_labels_the_line_shows_phases_and_without_prediction_nothing():
    tile = TileReadout({"matrix": None}, None, 0.0, "held-out", {"matrix": 0.746, "pore": 0.004})
    assert text_overlay(Readouts(tile=tile)) == "matrix 75 % · pore < 1 % — no labels on this tile"
    assert text_overlay(Readouts()) == ""


def test_short_numbers():
    assert [short(v) for v in (0.884, 1.0, 0.0, None)] == [".88", "1.00", ".00", "–"]
    assert percent(0.0) == "0 %"


def test_the_readout_follows_labels_at_the_next_tick(session):
    session.use_model(session.project.create_run("train", {}).id)
    tile = session.labelling.next_tile()
    session.prediction.mask(tile.micrograph)[:] = 1
    session.measuring.refresh()
    assert session.readouts.tile.labelled_fraction == 0
    session.labelling.annotation(tile.micrograph)[tile.window.slices] = 2
    recorder = Recorder(session.signals)
    session.labelling.mark_dirty(tile.window)
    assert recorder.of("readouts_changed") == []
    session.tick()
    (readouts,) = recorder.of("readouts_changed")[-1]
    assert readouts.tile.iou == {"matrix": 0.0, "pore": 0.0}
    assert session.text_overlay.endswith("100 % of this tile labelled, held-out")
    recorder.clear()
    session.tick()
    assert recorder.of("readouts_changed") == []


def test_labels_elsewhere_do_not_recompute_the_readout(session, monkeypatch):
    session.labelling.go_to_point("m0", 0, 0)
    calls = []
    monkeypatch.setattr(session.measuring, "refresh", lambda: calls.append(1))
    session.labelling.mark_dirty(Window(y0=100, x0=100, y1=110, x1=110))
    session.tick()
    assert calls == []
    session.labelling.mark_dirty(Window(y0=10, x0=10, y1=11, x1=11))
    session.tick()
    assert calls == [1]
