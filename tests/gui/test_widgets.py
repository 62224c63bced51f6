"""Small parts: loop bar, palette, messages, tables, run list."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from qtpy.QtCore import QObject, Qt

from napari_emtransfer.core.data.labels import LabelSchema
from napari_emtransfer.core.data.run import RunRecord
from napari_emtransfer.gui.class_palette import ClassPalette
from napari_emtransfer.gui.confusion_table import ConfusionTable
from napari_emtransfer.gui.latest import Latest
from napari_emtransfer.gui.loop_bar import LoopBar, TileCount, progress_text
from napari_emtransfer.gui.measure_panel import model_text, tile_text
from napari_emtransfer.gui.messages import MAX_ROWS, MessageArea
from napari_emtransfer.gui.micrograph_table import parse_pixel_size
from napari_emtransfer.gui.plots import RunPlots, joined
from napari_emtransfer.gui.run_list import RunList
from napari_emtransfer.gui.train_panel import run_text
from napari_emtransfer.gui.widgets import ElidedLabel, clock, iou_text
from napari_emtransfer.session.state import (
    Curves,
    FoldMark,
    ModelReadout,
    Phase,
    RunState,
    TileReadout,
    ValidationPoint,
)


@pytest.fixture
def shown(qtbot):
    def show(widget):
        qtbot.addWidget(widget)
        widget.show()
        return widget

    return show


def test_words_for_times_and_scores():
    assert [clock(s) for s in (None, 0, 41.2, 3700)] == ["", "0:00", "0:41", "1:01:40"]
    assert [iou_text(v) for v in (None, float("nan"), 0.8312)] == ["–", "–", "0.83"]
    assert parse_pixel_size("2,5") == 2.5
    assert parse_pixel_size("") is None
    assert parse_pixel_size("nm") != parse_pixel_size("nm")


def test_the_loop_bar_follows_a_run(shown, qtbot):
    bar = shown(LoopBar())
    assert not bar.progress.isVisible()
    bar.set_run(RunState(Phase.RUNNING, "r", iteration=63, n_iterations=100, seconds_left=41))
    assert bar.progress.isVisible()
    assert bar.progress.format() == "63 % · 0:41 left"
    assert not bar.train_button.isEnabled()
    with qtbot.waitSignals([bar.stop_early_requested, bar.cancel_requested, bar.kill_requested]):
        for action in bar.stop_button.menu().actions():
            assert action.toolTip() != action.text()
            action.trigger()
    bar.set_run(RunState(Phase.CANCELLING, "r", iteration=63, n_iterations=100))
    assert not bar.stop_button.isEnabled()
    bar.set_run(RunState(Phase.FINISHED, "r"))
    assert not bar.progress.isVisible()
    assert bar.train_button.isEnabled()


def test_the_loop_bar_shows_the_score_and_its_trend(shown):
    bar = shown(LoopBar())
    bar.set_model(ModelReadout("r1", 0.80, {}, (0.75, 0.85), "specimen", ""))
    assert bar.iou_label.text() == "IoU 0.80 [0.75–0.85]"
    bar.set_model(ModelReadout("r2", 0.83, {}, None, "specimen", "held out: spot3"))
    assert bar.iou_label.text() == "IoU 0.83 ▲"
    bar.set_model(ModelReadout("r2", 0.83, {}, None, "specimen", "held out: spot3"))
    assert bar.iou_label.text() == "IoU 0.83 ▲", "only another model changes the trend"
    assert "Held out: spot3" in bar.iou_label.toolTip()


def test_the_loop_bar_says_when_the_score_stands_on_strokes(shown):
    bar = shown(LoopBar())
    bar.set_model(ModelReadout("r1", 1.0, {}, None, "specimen", "", labelled_fraction=0.03))
    assert bar.iou_label.text() == "IoU 1.00 on strokes"


def test_values_in_between_are_left_out(qtbot):
    shown, parent = [], QObject()
    latest = Latest(shown.append, parent)
    latest.put(1, at_once=True)
    for value in range(2, 30):
        latest.put(value)
    assert shown == [1]
    qtbot.waitUntil(lambda: shown == [1, 29])
    latest.put(30)
    latest.put(31, at_once=True)
    qtbot.wait(600)
    assert shown == [1, 29, 31]


def test_the_loop_bar_counts_tiles(shown, qtbot):
    bar = shown(LoopBar())
    bar.set_tiles(TileCount(7, 40))
    assert bar.tile_label.text() == "7 of 40 tiles"
    with qtbot.waitSignal(bar.next_requested):
        qtbot.mouseClick(bar.next_button, Qt.MouseButton.LeftButton)


def test_progress_in_words():
    assert progress_text(RunState(Phase.STARTING)) == "Starting …"
    assert progress_text(RunState(Phase.RUNNING, "r", 1, 4, stopping_early=True)).startswith("Finishing")


def test_the_palette_chooses_by_click_and_by_code(shown, qtbot):
    palette = shown(ClassPalette())
    palette.set_schema(LabelSchema.from_names(["matrix", "pore", "crack"]))
    with qtbot.waitSignal(palette.class_chosen) as caught:
        qtbot.mouseClick(palette.button(2), Qt.MouseButton.LeftButton)
    assert caught.args == [2]
    palette.set_chosen(3)
    assert palette.chosen == 3
    palette.set_chosen(0)
    assert palette.chosen == 0
    assert palette.button(1).text() == "1  matrix"
    palette.set_schema(LabelSchema())
    assert palette.button(1) is None


def test_messages_are_dismissed_merged_and_few(shown, qtbot):
    area = shown(MessageArea())
    area.post("A.", "Do b.")
    area.post("A.", "Do b.")
    assert area.texts() == ["A. Do b."]
    for number in range(MAX_ROWS + 2):
        area.post(f"Fault {number}.", is_error=True)
    assert len(area.texts()) == MAX_ROWS
    area.rows[0].dismiss_button.click()
    assert len(area.texts()) == MAX_ROWS - 1
    area.clear()
    assert not area.isVisible()


def test_the_mending_button_mends_and_takes_the_row_away(shown):
    area = shown(MessageArea())
    mended = []
    area.post("A.", "Do b.", action=("Mend", lambda: mended.append(1)))
    area.rows[0].mend_button.click()
    assert mended == [1]
    assert area.texts() == []


def test_the_confusion_table_shows_shares_of_the_truth(shown):
    table = shown(ConfusionTable())
    table.set_matrix([[90, 10], [0, 0]], ["matrix", "pore"])
    assert table.item(0, 0).text() == "90"
    assert table.item(0, 1).text() == "10"
    assert table.item(1, 0).text() == "–"


def test_runs_can_be_resumed(shown, qtbot):
    runs = shown(RunList())
    now = datetime.now(UTC)
    records = [
        RunRecord(
            id="0001-train", kind="train", status="finished", created=now, mean_iou=0.5, iterations=10, seconds=3
        ),
        RunRecord(id="0002-train", kind="train", status="interrupted", created=now),
    ]
    runs.set_runs(records, frozenset({"0002-train"}), is_running=False)
    assert runs.selected == "0002-train"
    with qtbot.waitSignal(runs.resume_requested) as caught:
        qtbot.mouseClick(runs.resume_button, Qt.MouseButton.LeftButton)
    assert caught.args == ["0002-train"]
    assert not runs.use_button.isEnabled()
    runs.set_runs(records, frozenset({"0002-train"}), is_running=False, usable=frozenset({"0002-train"}))
    with qtbot.waitSignal(runs.use_requested):
        qtbot.mouseClick(runs.use_button, Qt.MouseButton.LeftButton)
    runs.set_runs(records, frozenset({"0002-train"}), is_running=True)
    assert not runs.resume_button.isEnabled()


def test_the_curves_are_those_of_the_run(shown, qtbot):
    plots = shown(RunPlots())
    points = [ValidationPoint(10, 0.4, 0.6, {"matrix": 0.7, "pore": None}, True)]
    plots.set_curves(Curves("r", [5, 10], [0.9, 0.5], {}, points), {"matrix": "#56B4E9", "pore": "#E69F00"})
    qtbot.waitUntil(lambda: plots._loss_line.xData is not None)
    assert list(plots._loss_line.yData) == [0.9, 0.5]
    assert list(plots._lines["mean"].yData) == [0.6]
    assert list(plots._lines["matrix"].yData) == [0.7]
    plots.set_curves(Curves("s"), {"matrix": "#56B4E9"})
    qtbot.waitUntil(lambda: plots._loss_line.xData is None or not len(plots._loss_line.xData))


def test_no_line_joins_two_folds():
    folds = [FoldMark(0, 0, 3, ("a",)), FoldMark(10, 1, 3, ("b",)), FoldMark(20, 2, 3, ("c",))]
    curves = Curves("r", folds=folds)
    assert joined(np.array([5.0, 10, 11, 20, 21, 30]), curves).tolist() == [1, 0, 1, 0, 1, 0]
    assert joined(np.array([5.0, 10, 20]), Curves("r")).tolist() == [1, 1, 0]
    assert joined(np.array([]), curves).size == 0


def test_of_a_run_that_goes_on_no_final_figure_is_told():
    note = "held out: specimen c (2 micrographs). The best checkpoint was chosen on this same ground."
    going = RunState(Phase.RUNNING, "0001-train", 3, 9, mean_iou=0.5, note=note)
    assert run_text(going).endswith(
        "IoU 0.50 on labelled pixels at the last validation. Held out: specimen c (2 micrographs)."
    )
    assert run_text(replace(going, phase=Phase.FINISHED)).endswith("same ground.")


def test_a_run_that_was_ended_at_once_promises_no_checkpoint():
    assert "nothing to resume" in run_text(RunState(Phase.CANCELLED, "0001-train", 0, 9))
    assert "checkpoint is kept" in run_text(RunState(Phase.CANCELLED, "0001-train", 3, 9))


def test_scores_name_their_ground():
    model = ModelReadout("0001", 0.8, {}, (0.7, 0.9), "specimen", "held out: specimen c")
    assert model_text(model) == "IoU 0.80 [0.70–0.90] of run 0001. Held out: specimen c"
    assert "nothing was held out" in model_text(ModelReadout("0001", None, {}, None, "", ""))
    tile = TileReadout({"a": 1.0}, 1.0, 0.34, "training tile", {"a": 1.0})
    assert tile_text(tile) == "This tile: IoU 1.00 on its labelled pixels (34 % of it), training tile."


def test_every_phase_has_its_sentence():
    texts = [run_text(RunState(phase, "0001-train", 3, 9)) for phase in Phase]
    assert len(set(texts)) == len(Phase)
    assert run_text(RunState()) == ""


def test_long_names_give_way_but_can_be_read(shown):
    label = shown(ElidedLabel("a very long project name that has no room at all here"))
    label.resize(80, 20)
    assert "…" in label.text()
    assert label.toolTip() == label.full_text
