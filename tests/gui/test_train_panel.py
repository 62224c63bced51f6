"""Training from the window, with a process whose words the test says."""

from __future__ import annotations

import numpy as np
import pytest
from session_helpers import label

from napari_emtransfer.core.data.split import Split
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.events import (
    CheckpointSaved,
    EngineReady,
    IterationEnded,
    RegionPredicted,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunStarted,
    ValidationEnded,
)
from napari_emtransfer.session.state import Phase


@pytest.fixture
def labelled(project):
    for record in project.session.records:
        label(project.session.project, record.stem)
    return project


def start(hands, runner):
    hands.dock.choose_tab("Train")
    hands.click(hands.dock.loop_bar.train_button)
    hands.wait(lambda: bool(runner.jobs), "the start")
    run_id = runner.job.requests[0].run_id
    runner.job.say(RunStarted(run_id=run_id, n_steps=100, device="cpu"))
    return run_id


def test_what_is_proposed_is_said_and_can_be_overridden(labelled, runner):
    panel = labelled.dock.train_panel
    labelled.dock.choose_tab("Train")
    labelled.wait(lambda: "labelled tile" in panel.proposal_label.text(), "the proposal")
    panel.advanced.expand(animate=False)
    panel.form.editor("iterations").value = 33
    panel.form._optional["learning_rate"]._tick.native.click()
    panel.form.editor("learning_rate").value = 1e-5
    start(labelled, runner)
    config = runner.job.requests[0].config
    assert (config.iterations, config.learning_rate) == (33, 1e-5)
    assert panel.proposal_label.text().endswith("Your changes: iterations, learning rate.")


def test_what_the_user_did_not_touch_follows_the_proposal(labelled, runner):
    panel, project = labelled.dock.train_panel, labelled.session.project
    panel.form.editor("iterations").value = 33
    earlier = project.create_run("train", {})
    earlier.checkpoint_path("best").write_bytes(b"x")
    earlier.write_split(Split(name="auto", train=(), validation=(), ground="specimen", note="held out: c"))
    earlier.update("finished", mean_iou=0.5)
    start(labelled, runner)
    config = runner.job.requests[0].config
    assert (config.iterations, config.weights) == (33, f"run:{earlier.id}")
    panel.forget_changes()
    labelled.wait(lambda: panel.form.config.iterations != 33, "the proposal")


def test_a_run_is_followed_to_its_end(labelled, runner):
    bar, panel, session = labelled.dock.loop_bar, labelled.dock.train_panel, labelled.session
    run_id = start(labelled, runner)
    say = runner.job.say
    for i in range(1, 41):
        say(
            IterationEnded(
                run_id=run_id, iteration=i, loss=1 / i, learning_rates={"decoder": 1e-3}, seconds_left=60 - i
            )
        )
    iou = {"matrix": 0.9, "pore": 0.5}
    say(ValidationEnded(run_id=run_id, iteration=40, loss=0.2, mean_iou=0.7, iou=iou, is_best=True, ground="specimen"))
    labelled.wait(lambda: bar.progress.format() == "40 % · 0:20 left", "the progress")
    assert not bar.train_button.isEnabled()
    labelled.wait(lambda: panel.plots.isVisible() and panel.plots._loss_line.xData is not None, "the curves")
    labelled.wait(lambda: len(panel.plots._loss_line.xData) == 40, "all points")
    session.project.run(run_id).checkpoint_path("best").write_bytes(b"x")
    result = {"run": run_id, "mean_iou": 0.7, "iou": iou, "iterations": 40, "note": "held out: specimen c"}
    session.project.run(run_id).write_result(result)
    session.project.run(run_id).write_split(Split(name="auto", train=(), validation=(), ground="specimen", note=""))
    session.project.run(run_id).update("finished", mean_iou=0.7, iterations=40)
    say(RunFinished(run_id=run_id, result=result))
    labelled.wait(lambda: session.training.state.phase is Phase.FINISHED, "the end")
    labelled.wait(lambda: "IoU 0.70" in bar.iou_label.text(), "the score")
    labelled.wait(lambda: f"go on from run {run_id}" in panel.proposal_label.text(), "what comes next")
    labelled.dock.choose_tab("Measure")
    assert "Held out: specimen c" in labelled.dock.measure_panel.model_label.text()
    assert [labelled.dock.measure_panel.table.item(row, 1).text() for row in range(2)] == ["0.90", "0.50"]
    labelled.dock.choose_tab("Train")
    labelled.wait(lambda: panel.runs.tree.topLevelItem(0).text(1) == "finished", "the run list")
    _predict(labelled, runner, run_id)


def _predict(hands, runner, run_id):
    """The engine is asked for what is shown, and what it answers is drawn, in its place only."""
    runner.engine.say(EngineReady(run_id="warm", device="cpu"))
    stem = hands.session.current
    hands.wait(lambda: any(r.kind == "predict" for r in runner.engine.requests), "the request")
    request = [r for r in runner.engine.requests if r.kind == "predict"][-1]
    assert request.micrographs == (stem,)
    window = Window(y0=0, x0=0, y1=64, x1=64)
    store = hands.session.project.predictions
    store.create(run_id, stem, hands.session.prediction.mask(stem).shape)
    maps = {"entropy": np.full((64, 64), 0.3), "confidence": np.ones((64, 64))}
    store.write(run_id, stem, window, mask=np.full((64, 64), 2, np.uint8), **maps)
    runner.engine.say(
        RegionPredicted(
            run_id=request.run_id,
            micrograph=stem,
            y0=0,
            x0=0,
            y1=64,
            x1=64,
            model_run=run_id,
            generation=request.generation,
        )
    )
    layer = hands.dock.canvas.layers.prediction
    hands.wait(lambda: (layer.data[:64, :64] == 2).all(), "the overlay")
    assert not layer.data[64:].any()
    assert hands.dock.canvas.layers.find("entropy").data[10, 10] == pytest.approx(0.3, abs=1e-3)


def test_cancel_and_resume(labelled, runner):
    run_id = start(labelled, runner)
    labelled.wait(lambda: labelled.session.training.state.phase is Phase.RUNNING, "the run")
    labelled.dock.loop_bar.stop_button.menu().actions()[1].trigger()
    assert runner.job.words == ["cancel"]
    run = labelled.session.project.run(run_id)
    run.checkpoint_path("last").write_bytes(b"x")
    run.update("cancelled")
    runner.job.say(CheckpointSaved(run_id=run_id, iteration=3, which="last", path="x"))
    runner.job.say(RunCancelled(run_id=run_id))
    panel = labelled.dock.train_panel
    labelled.wait(panel.runs.resume_button.isEnabled, "Resume")
    labelled.click(panel.runs.resume_button)
    labelled.wait(lambda: len(runner.jobs) == 2, "the resumed run")
    assert runner.job.requests[0].resume
    assert runner.job.requests[0].run_id == run_id


def test_what_fails_is_said_in_the_dock(labelled, runner):
    run_id = start(labelled, runner)
    runner.job.say(RunFailed(run_id=run_id, kind="device", message="Memory is full.", hint="Take smaller crops."))
    labelled.wait(lambda: labelled.dock.messages.texts() == ["Memory is full. Take smaller crops."], "the message")
    assert labelled.dock.loop_bar.train_button.isEnabled()
    assert "Memory is full." in labelled.dock.train_panel.state_label.text()


def test_nothing_labelled_is_refused_with_a_way_out(project, runner):
    project.click(project.dock.loop_bar.train_button)
    project.wait(lambda: bool(project.dock.messages.texts()), "the message")
    assert "Paint a few strokes" in project.dock.messages.texts()[0]
    assert not runner.jobs
    assert project.dock.loop_bar.train_button.isEnabled()
    assert project.dock.train_panel.train_button.isEnabled()
