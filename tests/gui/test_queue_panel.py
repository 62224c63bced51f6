"""The Queue tab in the real window, over a queue whose words the test says, and over the session's own."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from types import SimpleNamespace

import numpy as np
import pytest
from gui_helpers import Hands, open_dock
from napari.components import ViewerModel
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QColor, QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication
from queue_helpers import SaidQueue, entries, rounds
from session_helpers import make_project

from napari_emtransfer.core.active.rounds import RoundFacts
from napari_emtransfer.core.active.stopping import StopSettings, advise
from napari_emtransfer.core.data.queue_records import QueueEntry
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.events import RunFailed
from napari_emtransfer.gui import queue_words
from napari_emtransfer.gui.bridge import Bridge
from napari_emtransfer.gui.canvas import Canvas
from napari_emtransfer.gui.queue_canvas import QueueOnCanvas
from napari_emtransfer.gui.queue_curve import LearningCurve, curve_points
from napari_emtransfer.gui.queue_list import MARGIN, row_html
from napari_emtransfer.gui.queue_panel import QueuePanel
from napari_emtransfer.gui.tile_layers import CHOSEN_COLOR, CONTROL_COLOR, QueueMark
from napari_emtransfer.gui.tile_pictures import sampled_limits, tile_picture
from napari_emtransfer.gui.viewer_session import ViewerSession
from napari_emtransfer.session.queue_state import QueueState
from napari_emtransfer.session.session import Session


@pytest.fixture
def said(make_napari_viewer, runner, tmp_path):
    """Hands on a real window with twelve tiles in the queue, which is said by the test."""
    viewer = make_napari_viewer(show=True)
    session = Session(runner)
    session.queue = SaidQueue(session)
    ViewerSession(viewer, session)
    hands = Hands(viewer, open_dock(viewer, runner, size=(1000, 900)))
    hands.dock.project_panel.open_project(make_project(tmp_path / "project"))
    hands.shown()
    hands.dock.choose_tab("Queue")
    session.queue.become(entries=entries(session), ranked=True, n_tiles=3520, n_scored=3400, resolved="clasp")
    hands.wait(lambda: hands.dock.queue_panel.list.count() == 12, "the rows")
    yield hands
    hands.dock.owner.close()


@pytest.fixture
def panel(qtbot, runner, tmp_path):
    """The tab alone, over a canvas without a window; nothing is queued yet."""
    session = Session(runner)
    session.queue = SaidQueue(session)
    bridge = Bridge(lambda message, hint: pytest.fail(f"{message} {hint}"))
    viewer = ViewerModel()
    canvas = Canvas(viewer, session, bridge)
    on_canvas = QueueOnCanvas(viewer, session, canvas, bridge)
    panel = QueuePanel(SimpleNamespace(session=session, bridge=bridge, canvas=canvas, queue_on_canvas=on_canvas))
    qtbot.addWidget(panel)
    bridge.start(session, canvas.tick)
    session.open_project(make_project(tmp_path / "project"))
    panel.resize(380, 900)
    panel.show()
    panel.queue, panel.session, panel.canvas = session.queue, session, canvas
    yield panel
    bridge.close()
    session.close()


@pytest.fixture
def queued(panel, qtbot):
    """The tab alone, with a tile on the canvas and twelve in the queue."""
    panel.session.labelling.next_tile()
    panel.queue.become(entries=entries(panel.session), ranked=True, n_tiles=3520, n_scored=3400, resolved="clasp")
    qtbot.waitUntil(lambda: panel.canvas.shown is not None)
    return panel


def row(panel, number):
    """Where a row of the list is clicked."""
    item = panel.list.item_of(number)
    panel.list.scrollToItem(item)
    return panel.list.visualItemRect(item).center()


def click(widget):
    assert widget.isVisible(), widget.text()
    QTest.mouseClick(widget, Qt.MouseButton.LeftButton)


# ---- in the real window


def test_a_click_goes_to_the_tile_and_marks_it(said):
    panel, session = said.dock.queue_panel, said.session
    images = said.dock.canvas.images
    chosen = next(e for e in session.queue.state.entries[4:] if e.stem != session.current)
    said.wait(lambda: all(images.get(r.stem) for r in session.records), "the micrographs")
    QTest.mouseClick(panel.list.viewport(), Qt.MouseButton.LeftButton, pos=row(panel, chosen.number))
    assert (session.tile.micrograph, session.tile.row, session.tile.column) == chosen.tile
    assert said.dock.canvas.shown == chosen.stem, "what is fetched is shown at once"
    assert panel.list.current == chosen.number
    assert not panel.list.hasFocus(), "keys stay with the canvas"
    roles = [layer.metadata["emtransfer"] for layer in said.viewer.layers]
    assert roles[-3:] == ["grid", "queue", "tile"]
    assert said.viewer.layers.selection.active is said.dock.canvas.layers.annotation


def test_keys_buttons_and_clicks_on_the_canvas(said):
    session, panel = said.session, said.dock.queue_panel
    window = session.tile.window
    session.queue.told.clear()
    said.drag((window.y0 + 8, window.x0 + 8), (window.y0 + 20, window.x0 + 20))
    said.drag((window.y0 + 30, window.x0 + 8), (window.y0 + 40, window.x0 + 20))
    assert session.queue.told.count(("count_click",)) == 2
    seen = []
    for act in (
        lambda: said.key("s"),
        lambda: said.click(panel.skip_button),
        lambda: said.click(panel.unsure_button),
        lambda: said.click(panel.done_button),
    ):
        tile = session.tile
        act()
        seen.append(session.labelling.tile_state(tile))
        assert session.tile != tile
        said.shown()
    assert seen == ["skipped", "skipped", "unsure", "done"]


def test_nothing_is_cut_off_with_a_full_queue(said):
    session, dock, panel = said.session, said.dock, said.dock.queue_panel
    session.queue.become(rounds=rounds(session.schema.names), phase="ranking")
    for width in (300, 380):
        dock.setFixedWidth(width)
        QTest.qWait(50)
        assert panel.minimumSizeHint().width() <= dock.tabs.currentWidget().viewport().width()
        rows = [panel.list.visualItemRect(panel.list.item(i)) for i in range(panel.list.count())]
        assert all(rect.width() <= panel.list.viewport().width() for rect in rows)
        said.shot(f"queue-{width}")


def test_the_sessions_own_queue_is_shown(project, runner):
    """The real controller: looking at the tab asks the engine for a ranking, and a fault is said."""
    panel, session = project.dock.queue_panel, project.session

    def asked():
        return [request for request in runner.engine.requests if request.kind == "rank"]

    project.dock.choose_tab("Queue")
    project.wait(asked, "the question")
    project.wait(panel.job_bar.isVisible, "the bar")
    runner.engine.say(RunFailed(run_id=asked()[-1].run_id, kind="memory", message="No memory.", hint="Close others."))
    project.wait(lambda: panel.error_label.text() == "No memory. Close others.", "the fault")
    panel.findings.finetune_box.setValue(4)
    assert session.queue.state.finetune_every == 4


# ---- the tab alone


def test_where_the_loop_stands_is_said_in_a_line(queued, qtbot):
    queue, bar = queued.queue, queued.job_bar
    assert queued.status_label.text() == "12 tiles queued, 2 of them random controls · scored 3,400 of 3,520"
    assert bar.isHidden()
    queue.become(phase="ranking", n_scored=100, n_tiles=400)
    assert bar.isVisible()
    assert queued.rank_button.isHidden()
    queue.become(n_scored=300)
    qtbot.waitUntil(lambda: bar.progress.value() == 300)
    assert bar.progress.format().startswith("300 of 400 · ")
    click(bar.cancel_button)
    assert queue.told[-1] == ("cancel",)
    queue.become(phase="failed", error="The disk is full.", hint="Free some space.")
    assert queued.error_label.text() == "The disk is full. Free some space."
    click(queued.rank_button)
    assert queue.told[-1] == ("refresh", ("again", True))


def test_pictures_and_reasons_stand_in_each_row(queued, qtbot):
    proposed, colors = queued.queue.state.entries, [c.color for c in queued.session.schema.classes]
    qtbot.waitUntil(lambda: all(queued._picture(e) is not None for e in proposed))
    picture = queued._picture(proposed[0])
    assert max(picture.width(), picture.height()) == 64
    first, control = queued.list.item_of(1), queued.list.item_of(5)
    assert "Uncertain matrix" in first.text()
    assert "score&nbsp;0.83" in first.text()
    assert colors[0] in first.text()
    assert "Random control" in control.text()
    assert "without bias" in control.toolTip()
    assert "probability 0.013" in first.toolTip()
    for item, color in ((first, CHOSEN_COLOR), (control, CONTROL_COLOR)):
        queued.list.scrollToItem(item)
        corner = queued.list.visualItemRect(item).topLeft() + QPoint(MARGIN + 1, MARGIN + 1)
        seen, wanted = queued.list.viewport().grab().toImage().pixelColor(corner), QColor(color)
        assert np.allclose(seen.getRgb(), wanted.getRgb(), atol=24), "the frame"


def test_the_list_stays_where_it_was(queued):
    queued.list.verticalScrollBar().setValue(150)
    queued.queue.become(entries=queued.queue.state.entries[1:])
    assert queued.list.count() == 11
    assert queued.list.verticalScrollBar().value() == 150
    queued.queue.become(current=queued.queue.state.entries[0])
    assert queued.list.current == 2
    assert queued.list.verticalScrollBar().value() < 150, "the one on the canvas is in sight"
    queued.queue.become(current=None)
    assert queued.list.current is None


def test_the_queue_is_outlined_on_the_canvas(queued):
    canvas, window = queued.canvas, Window(y0=0, x0=0, y1=64, x1=64)
    layer = canvas.tiles.find("queue")
    assert len(layer.data) == sum(e.stem == canvas.shown for e in queued.queue.state.entries) == 4
    click(queued.outline_check)
    assert not layer.visible
    click(queued.outline_check)
    assert layer.visible
    here = next(e for e in queued.queue.state.entries if e.stem == canvas.shown)
    queued.queue.become(current=here)
    assert len(layer.data) == 3, "the tile that is painted on has its white frame"
    queued.queue.become(entries=(), current=None)
    assert not layer.visible
    canvas.tiles.show_queue([], 2.5, "nm")
    assert {str(unit) for unit in layer.units} == {"nanometer"}, "hidden layers share the unit, else napari uses none"
    for marks in ([False, True], [True], [True, False]):
        canvas.tiles.show_queue([QueueMark(window, is_control) for is_control in marks], 1.0, "pixel")
        wanted = [CONTROL_COLOR if is_control else CHOSEN_COLOR for is_control in marks]
        assert ["#" + "".join(f"{round(255 * v):02X}" for v in color[:3]) for color in layer.edge_color] == wanted


def test_the_next_micrographs_are_fetched_first(queued, qtbot):
    images, proposed = queued.canvas.images, queued.queue.state.entries
    assert images._first == tuple(e.stem for e in proposed[:3])
    queued.queue.become(entries=proposed[2:])
    assert images._first[0] == proposed[2].stem
    away = next(e for e in proposed[5:] if e.stem != images._first[0])
    QTest.mouseMove(queued.list.viewport(), row(queued, away.number))
    qtbot.waitUntil(lambda: images._first[0] == away.stem)
    qtbot.waitUntil(lambda: away.stem in queued.session.labelling._annotations)


def test_ways_to_choose_differ_by_classes_and_model(panel):
    box, queue = panel.acquisition_box, panel.queue

    def offered():
        return [box.itemData(i) for i in range(box.count())]

    assert offered()[0] == "default"
    untaught = replace(rounds(("a", "b"), 1)[0], facts={"n_labelled_tiles": 0, "n_scored": 0, "model": "no head"})
    queue.become(rounds=(untaught,), ranked=True, resolved="typiclust")
    assert offered() == ["default", "typiclust", "kcenter", "random"], "there is no model yet"
    queue.become(rounds=rounds(panel.session.schema.names), ranked=True, resolved="clasp")
    assert "entropy" in offered()
    assert "margin" not in offered(), "the same as entropy for two classes"
    assert panel.acquisition_label.text().endswith("Now: clasp.")
    assert all(box.itemData(i, Qt.ItemDataRole.ToolTipRole) for i in range(box.count()))
    box.setCurrentIndex(box.findData("random"))
    box.activated.emit(box.currentIndex())
    assert queue.told[-1] == ("set_acquisition", "random")


def test_the_curve_and_what_it_says(panel):
    findings, names = panel.findings, panel.session.schema.names
    assert "measured on these alone" in findings.curve.missing_label.text()
    assert not findings.iou_label.isVisible()
    known = rounds(names)
    advice = advise([RoundFacts.model_validate(one.facts) for one in known], StopSettings(target_half_width=0.02))
    panel.queue.become(rounds=known, ranked=True, advice=advice)
    assert findings.iou_label.text().startswith("IoU 0.82 [0.77–0.86] on 5 random tiles")
    assert list(findings.curve.line.getData()[0]) == [4, 8, 12, 16, 20]
    findings.curve.axis_box.setCurrentIndex(1)
    assert np.allclose(findings.curve.line.getData()[0], np.arange(1, 6) * 95 / 60)
    assert findings.curve.bars.opts["top"].size == 5
    assert findings.difference_label.text().startswith("Chosen tiles teach more than random ones: +0.06 IoU")
    assert findings.advice_label.text().startswith(advice.sentence)
    assert all(escape(one.sentence) in findings.advice_label.toolTip() for one in advice.evidence)
    assert [findings.table.item(0, c).text() for c in range(3)] == ["matrix", "62.0 %\n[59.0–65.0]", "0.82"]


def test_wishes_reach_the_session_and_states_do_not_echo(panel):
    findings, queue = panel.findings, panel.queue
    queue.told.clear()
    queue.become(target_half_width=0.03, finetune_every=8, n_until_finetune=2, ranked=True)
    assert (findings.finetune_box.value(), findings.target_box.value()) == (8, 3.0)
    assert findings.finetune_label.text() == "The next fine-tune starts after 2 more done tiles."
    assert not [told for told in queue.told if told[0].startswith("set_")]
    findings.target_box.setValue(1.5)
    findings.finetune_box.setValue(0)
    assert queue.told[-2:] == [("set_target", 0.015), ("set_finetune_every", None)]


# ---- words, without a window


def test_words_of_an_empty_queue():
    text = queue_words.status_text
    assert text(QueueState()) == "Open a project; the tiles worth labelling next then stand here."
    assert text(QueueState(phase="ready")) == "Nothing is queued yet: Rank now proposes tiles"
    assert text(QueueState(phase="ranking")) == "Looking for the tiles worth labelling next"
    assert text(QueueState(phase="ready", ranked=True, n_tiles=1200, n_scored=1200)) == (
        "No tile waits: all are done, skipped or put aside · scored 1,200 of 1,200"
    )


def test_a_difference_is_claimed_only_where_its_interval_allows():
    say = queue_words.difference_sentence
    assert "cannot be told yet" in say(None)
    found = {"difference": -0.02, "low": -0.07, "high": 0.03, "n_tiles": 4}
    assert say({"chosen_minus_random": found}) == (
        "Chosen and random tiles cannot be told apart yet: −0.02 IoU [−0.07 to +0.03], tested on 4 random tiles."
    )
    assert "teach less" in say({"chosen_minus_random": found | {"high": -0.01}})
    assert "told apart" in say({"chosen_minus_random": found | {"low": None, "high": None}})


def test_an_iou_stands_with_its_ground():
    control = {"mean_iou": 0.5, "low": None, "high": None, "ground": "1 random tile, not learnt from. No interval."}
    say = queue_words.iou_sentence
    assert say({"control": control}) == "IoU 0.50 on 1 random tile, not learnt from. No interval."
    assert say({"control": control | {"low": 0.4, "high": 0.6}}).startswith("IoU 0.50 [0.40–0.60] on 1 random")
    assert say({"control": None, "n_control": 1}).startswith("One random control is labelled yet")


def test_the_last_of_several_rankings_of_the_same_labels_counts():
    known = [dict(one.facts) for one in rounds(("a", "b"), 4)]
    known.append(known[-1] | {"control": known[-1]["control"] | {"mean_iou": 0.9}, "seconds_labelling": None})
    points = curve_points(known)
    assert [p.n_tiles for p in points] == [4, 8, 12]
    assert points[-1].mean_iou == 0.9
    assert np.isnan(points[-1].minutes)


def test_a_curve_without_times_is_drawn_against_tiles_only(qtbot):
    curve = LearningCurve()
    qtbot.addWidget(curve)
    curve.set_rounds([dict(one.facts) | {"seconds_labelling": None} for one in rounds(("a",), 4)])
    assert len(curve.line.getData()[0]) == 3
    curve.axis_box.setCurrentIndex(1)
    assert curve.line.getData()[0] is None or len(curve.line.getData()[0]) == 0


def test_a_picture_is_the_mean_of_blocks_in_the_grey_of_the_micrograph():
    pixels = np.tile(np.repeat([0.0, 100.0], 4), (300, 50)).astype(np.float32)
    picture = tile_picture(pixels, Window(y0=0, x0=0, y1=256, x1=200), (0.0, 100.0), edge=64)
    assert picture.shape == (64, 50)
    assert set(np.unique(picture)) == {0, 255}
    pixels[0, 0] = np.nan
    assert tile_picture(pixels, Window(y0=0, x0=0, y1=10, x1=10), (0.0, 100.0), edge=64).shape == (10, 10)
    assert sampled_limits(pixels) == (0.0, 100.0)


def test_names_are_no_markup():
    entry = QueueEntry("a<b>&c", "2x2", 0, 0, 1, 0.5, "uncertain <i>", "clasp", "none")
    html = row_html(entry, 1, {})
    assert "a&lt;b&gt;&amp;c" in html
    assert "<i>" not in html


def test_the_wheel_scrolls_and_changes_no_setting(queued):
    """A fine-tune that starts by itself must not come of scrolling over its box."""
    findings = queued.findings
    for box in (findings.finetune_box, findings.target_box, queued.acquisition_box, findings.curve.axis_box):
        box.clearFocus()
        before = box.currentIndex() if hasattr(box, "currentIndex") else box.value()
        middle = QPointF(box.rect().center())
        down = QWheelEvent(
            middle,
            QPointF(box.mapToGlobal(box.rect().center())),
            QPoint(),
            QPoint(0, 240 * (1 if hasattr(box, "value") else -1)),
            Qt.MouseButton.NoButton,
            Qt.KeyboardModifier.NoModifier,
            Qt.ScrollPhase.NoScrollPhase,
            False,
        )
        QApplication.sendEvent(box, down)
        assert (box.currentIndex() if hasattr(box, "currentIndex") else box.value()) == before
        assert not down.isAccepted()
    assert not {"set_acquisition", "set_target", "set_finetune_every"} & {told[0] for told in queued.queue.told}


def test_what_is_being_typed_survives_a_ranking(queued, qtbot):
    box = queued.findings.finetune_box
    box.selectAll()
    QTest.keyClicks(box, "12")
    typed = box.text()
    assert (typed.startswith("12"), box.value()) == (True, 0)  # not confirmed yet
    queued.queue.become(rounds=rounds(queued.session.schema.names))
    assert box.text() == typed
    queued.queue.become(finetune_every=7)
    qtbot.waitUntil(lambda: box.value() == 7)
