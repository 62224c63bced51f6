"""The live overlay in the window: switched by button or key, asked for by the mouse, told in words."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.events import EngineReady, RegionPredicted, RunFailed, RunFinished
from napari_emtransfer.gui.canvas_text import in_lines
from napari_emtransfer.gui.loop_bar import LoopBar, live_text
from napari_emtransfer.session.state import LiveState
from napari_emtransfer.worker.protocol import LIVE_RUN


@pytest.fixture
def painter(project, runner):
    """A window on a small project, brush in hand, the engine warm, live off."""
    project.session.live.set_enabled(False)
    project.session.labelling.annotation("m2")[:4, :4] = 1  # strokes of an earlier day, elsewhere
    project.session.labelling.mark_dirty(Window(y0=0, x0=0, y1=4, x1=4), stem="m2")
    project.wait(project.session.labelling.save_now, "the strokes on disk")
    runner.engine.say(EngineReady(run_id="warm", device="CPU"))
    runner.engine.requests.clear()
    project.dock.choose_tab("Label")
    project.click(project.dock.label_panel.palette_box.button(1))
    return project


def start(project):
    tile = project.session.tile
    return np.array([tile.window.y0 + 10, tile.window.x0 + 10])


def answer(project, runner, value):
    """What the engine does for the last request."""
    request = runner.engine.requests[-1]
    store, stem, window = project.session.project.predictions, request.micrograph, request.window
    if not store.exists(LIVE_RUN, stem):
        store.create(LIVE_RUN, stem, (128, 192))
    ones = np.ones(window.shape, np.float16)
    mask = np.full(window.shape, value, np.uint8)
    store.write(LIVE_RUN, stem, window, mask=mask, entropy=0.5 * ones, confidence=ones)
    where = {"micrograph": stem, "model_run": LIVE_RUN, "generation": request.generation, **window.model_dump()}
    runner.engine.say(RegionPredicted(run_id=request.run_id, **where))
    runner.engine.say(RunFinished(run_id=request.run_id, result={"n_pixels": 5}))


def test_it_is_on_in_a_new_project_and_gives_way_to_the_first_network(project):
    session, told = project.session, []
    assert session.live.enabled, "a few strokes are to bring an overlay without any switch"
    session.signals.notice_posted.connect(lambda message, hint: told.append(message))
    first, second = (session.project.create_run("train", TrainConfig().model_dump(mode="json")).id for _ in range(2))
    session.use_model(first)
    assert not session.live.enabled
    assert any("trained network" in message for message in told)
    session.live.toggle()
    session.use_model(second)
    assert session.live.enabled, "what the user switched on stays on"


def test_a_project_with_a_network_opens_with_the_networks_overlay(project):
    session, root = project.session, project.session.project.root
    run = session.project.create_run("train", TrainConfig().model_dump(mode="json"))
    for name in ("best", "last"):
        run.checkpoint_path(name).write_bytes(b"as good as any")
    run.update("finished")
    session.close_project()
    project.dock.project_panel.open_project(root)
    assert session.prediction.model_run == run.id
    assert not session.live.enabled
    assert not any("network" in text for text in project.dock.messages.texts()), "nothing has been trained just now"


def test_button_and_key_switch_it_and_the_bar_tells(painter, runner):
    bar, live = painter.dock.loop_bar, painter.session.live
    assert not bar.live_label.isVisible()
    painter.click(bar.live_button)
    assert live.enabled
    assert bar.live_button.isChecked()
    assert "preparing features" in bar.live_label.text()
    answer(painter, runner, 1)
    painter.wait(lambda: bar.live_label.text().startswith("Live: updated in "), "the first overlay")
    painter.key("l")
    assert not live.enabled
    assert not bar.live_button.isChecked()
    assert not bar.live_label.isVisible()
    painter.key("l")
    assert live.enabled


def test_a_stroke_is_answered_by_an_overlay_and_undo_by_another(painter, runner):
    layers, session = painter.dock.canvas.layers, painter.session
    painter.click(painter.dock.loop_bar.live_button)
    answer(painter, runner, 1)
    painter.wait(lambda: session.live.state.phase == "ready", "the first overlay")
    assert layers.prediction.visible, "shown although there is no model yet"
    asked = len(runner.engine.requests)
    painter.drag(start(painter), start(painter) + 20)
    painter.wait(lambda: len(runner.engine.requests) == asked + 1, "the request", 3)
    labels = session.project.annotations.read(session.current)
    assert np.array_equal(labels, session.labelling.annotation(session.current)), "the whole stroke is on disk"
    answer(painter, runner, 2)
    window = session.tile.window
    painter.wait(lambda: (layers.prediction.data[window.slices] == 2).all(), "the overlay")
    text = painter.viewer.canvas.overlays.text
    painter.wait(lambda: " · ".join(text.text.splitlines()).startswith("live head · IoU"), "its name")
    painter.click(painter.dock.label_panel.tools.undo_button)
    painter.wait(lambda: len(runner.engine.requests) == asked + 2, "the request after undo", 3)
    assert not session.project.annotations.read(session.current).any()


def test_a_missing_class_is_a_hint_below_the_buttons_and_no_message(painter, runner):
    painter.click(painter.dock.loop_bar.live_button)
    run_id = runner.engine.requests[-1].run_id
    runner.engine.say(RunFailed(run_id=run_id, kind="label", message="Only 'matrix' is labelled.", hint="Paint."))
    bar = painter.dock.loop_bar
    painter.wait(lambda: bar.live_label.text() == "Live: paint a second class to see an overlay", "the hint")
    assert bar.live_label.toolTip() == "Only 'matrix' is labelled. Paint."
    assert painter.dock.messages.texts() == []


def test_next_tile_is_asked_for_and_the_view_of_the_old_one_is_no_place(painter, runner):
    session = painter.session
    painter.click(painter.dock.loop_bar.live_button)
    painter.wait(lambda: bool(runner.engine.requests) and session.visible is not None, "a tick")
    before = session.current
    painter.key("n")
    painter.shown()
    places = [(r.micrograph, r.window) for r in runner.engine.requests]
    assert places[-1] == (session.current, session.tile.window)
    assert session.current != before
    assert all(window in [tile.window for tile in session.labelling.grid(stem)] for stem, window in places)
    assert len(places) == 2


def test_the_line_on_the_canvas_breaks_where_the_canvas_ends():
    text = "live head · IoU matrix .96 · secondary precipitate .88 — 34 % of this tile labelled, training tile"
    assert in_lines(text, 200) == [text]
    lines = in_lines(text, 50)
    assert lines == [
        "live head · IoU matrix .96",
        "secondary precipitate .88",
        "34 % of this tile labelled, training tile",
    ]
    assert in_lines("", 50) == [""]


def test_without_a_project_the_key_does_nothing(window):
    window.dock.toggle_live()
    assert not window.session.live.enabled
    assert window.dock.messages.texts() == []


def test_the_line_breaks_and_a_fault_names_the_way_out(qtbot):
    bar = LoopBar()
    qtbot.addWidget(bar)
    bar.show()
    bar.setFixedWidth(360)
    fault = LiveState("failed", message="The weights 'mine' do not fit.", hint="Choose others in the Train tab.")
    bar.set_live(fault)
    assert live_text(fault) == "Live: The weights 'mine' do not fit. Choose others in the Train tab."
    assert bar.live_label.wordWrap()
    for button in (bar.previous_button, bar.next_button, bar.live_button, bar.train_button):
        assert button.width() >= button.minimumSizeHint().width()
        assert button.toolTip()
    with qtbot.waitSignal(bar.live_requested):
        qtbot.mouseClick(bar.live_button, Qt.MouseButton.LeftButton)
