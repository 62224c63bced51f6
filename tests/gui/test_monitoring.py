"""What the Train tab shows of a run, and what its run list does, with a process whose words the test says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from qtpy.QtWidgets import QMessageBox
from session_helpers import label

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.split import Split, whole
from napari_emtransfer.core.events import (
    FoldBegan,
    IterationEnded,
    ParameterGroup,
    RunFinished,
    RunStarted,
    StageBegan,
    ValidationEnded,
)
from napari_emtransfer.gui.compare_view import CompareView, shortened
from napari_emtransfer.gui.groups_table import GroupsTable
from napari_emtransfer.gui.plots import RunPlots, rate_legend_text
from napari_emtransfer.gui.run_monitor import course_text
from napari_emtransfer.session.compare import compare
from napari_emtransfer.session.state import Curves, FoldMark, Phase, StageMark, ValidationPoint
from napari_emtransfer.worker import provenance

GROUPS = (
    ParameterGroup(part="head", n_parameters=288, learning_rate=1e-3, weight_decay=0.01),
    ParameterGroup(part="head", n_parameters=2, learning_rate=1e-3, weight_decay=0.0),
    ParameterGroup(part="encoder", n_parameters=11_000, learning_rate=0.0, weight_decay=0.0),
)
COLORS = {"matrix": "#56B4E9", "pore": "#E69F00"}


@pytest.fixture
def labelled(project):
    for record in project.session.records:
        label(project.session.project, record.stem)
    return project


@pytest.fixture
def shown(qtbot):
    def show(widget):
        qtbot.addWidget(widget)
        widget.resize(360, 500)
        widget.show()
        qtbot.waitExposed(widget)
        return widget

    return show


def finished(project, iou, **settings):
    """A run as a training leaves it, held out m2."""
    run = project.create_run("train", TrainConfig(**settings).model_dump(mode="json"))
    run.snapshot_labels(["m0", "m2"])
    run.write_split(Split(name="x", train=whole(["m0"]), validation=whole(["m2"]), ground="specimen", note="n"))
    run.append_event(IterationEnded(run_id=run.id, iteration=5, loss=0.5, learning_rates={"head": 1e-3}))
    run.append_event(validation(run.id, 5, iou))
    run.write_result(
        {"mean_iou": iou, "iou": {"matrix": iou, "pore": None}, "ci95": [iou - 0.1, iou + 0.1], "ground": "specimen"}
    )
    provenance.record(project, run, TrainConfig(**settings), run.split())
    run.checkpoint_path("best").write_bytes(b"x")
    run.update("finished", mean_iou=iou, iterations=5)
    return run.id


def validation(run_id, iteration, iou, n_stale=0):
    return ValidationEnded(
        run_id=run_id,
        iteration=iteration,
        loss=0.2,
        mean_iou=iou,
        iou={"matrix": iou, "pore": None},
        is_best=n_stale == 0,
        ground="specimen",
        n_stale=n_stale,
        training_iou=0.95,
    )


def test_a_run_in_stages_is_shown_as_it_goes(labelled, runner):
    panel = labelled.dock.train_panel
    labelled.dock.choose_tab("Train")
    panel.form.editor("patience").value = 5
    panel.form._optional["patience"]._tick.native.click()
    labelled.click(labelled.dock.loop_bar.train_button)
    labelled.wait(lambda: bool(runner.jobs), "the start")
    run_id, say = runner.job.requests[0].run_id, runner.job.say
    say(RunStarted(run_id=run_id, n_steps=100, device="cpu"))
    stage = {"run_id": run_id, "n_stages": 1, "groups": GROUPS}
    say(StageBegan(iteration=0, stage=1, name="fine-tune", reason="it is the only stage", **stage))
    for i in range(1, 41):
        say(IterationEnded(run_id=run_id, iteration=i, loss=1 / i, learning_rates={"head": 1e-3}, memory_gb=1.26))
    say(validation(run_id, 20, 0.6))
    say(validation(run_id, 40, 0.5, n_stale=2))
    course = panel.monitor.course_label
    labelled.wait(lambda: "No better for 2 of 5 validations" in course.text(), "the plateau")
    assert "Memory 1.3 GB." in course.text()
    assert panel.monitor.groups.heading.text() == "Parts and rates · fine-tune"
    lines = panel.plots._lines
    labelled.wait(lambda: "training" in lines and lines["training"].yData is not None, "the curves")
    assert list(lines["training"].yData) == [0.95, 0.95]
    say(RunFinished(run_id=run_id, result={"mean_iou": 0.6}))
    labelled.wait(lambda: labelled.session.training.state.phase is Phase.FINISHED, "the end")
    labelled.wait(course.isHidden, "nothing left to count")


def test_a_rate_that_would_undo_the_pretraining_is_asked_about_once(labelled, runner, monkeypatch):
    asked = []
    answers = iter([QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes])

    def question(parent, title, text, *buttons):
        asked.append(text)
        return next(answers)

    monkeypatch.setattr(QMessageBox, "question", question)
    panel = labelled.dock.train_panel
    labelled.dock.choose_tab("Train")
    for name, value in {"weights": "imagenet", "strategy": "fine-tune", "encoder_learning_rate": 1e-3}.items():
        panel.form.editor(name).value = value
    panel.form._optional["encoder_learning_rate"]._tick.native.click()
    panel.start()
    labelled.wait(lambda: len(asked) == 1, "the question")
    assert "forgets what it was pretrained for" in asked[0]
    labelled.wait(panel.train_button.isEnabled, "another try")
    assert not runner.jobs
    panel.start()
    labelled.wait(lambda: bool(runner.jobs), "the start")
    assert runner.job.requests[0].config.confirm_uniform_rate
    assert len(asked) == 2
    assert not labelled.dock.messages.texts()


def test_settings_are_cloned_until_back_to_the_proposal(labelled):
    panel, project = labelled.dock.train_panel, labelled.session.project
    run_id = finished(project, 0.8, l2_sp=1e-3, iterations=77, weights="imagenet", train=("m0",), validation=("m2",))
    labelled.dock.choose_tab("Train")
    panel.run_actions.refresh()
    labelled.wait(lambda: panel.runs.selected == run_id, "the newest run")
    labelled.click(panel.runs.clone_button)
    # Not the settings themselves: the proposal to go on from this run shares some of them.
    labelled.wait(lambda: f"settings of run {run_id}" in panel.proposal_label.text(), "the settings")
    assert panel.form.config.validation == ("m2",)
    assert panel.form.config.l2_sp == 1e-3
    panel.forget_changes()
    labelled.wait(lambda: panel.form.config.weights == f"run:{run_id}", "the proposal")
    labelled.click(panel.runs.go_on_button)
    labelled.wait(lambda: "going on from the best" in panel.proposal_label.text(), "the words")
    assert (panel.form.config.weights, panel.form.config.l2_sp) == (f"run:{run_id}", 1e-3)


def test_a_run_is_repeated_with_its_frozen_labels(labelled, runner):
    panel, project = labelled.dock.train_panel, labelled.session.project
    run_id = finished(project, 0.8, iterations=77)
    labelled.dock.choose_tab("Train")
    panel.run_actions.refresh()
    labelled.wait(lambda: panel.runs.selected == run_id, "the newest run")
    labelled.click(panel.runs.replay_button)
    labelled.wait(lambda: bool(runner.jobs), "the start")
    request = runner.job.requests[0]
    assert request.config.iterations == 77
    again = project.run(request.run_id)
    assert again.split() == project.run(run_id).split()
    assert np.array_equal(again.labels.read("m0"), project.run(run_id).labels.read("m0"))
    assert labelled.session.training.state.run_id == request.run_id


def test_runs_are_compared_side_by_side(labelled):
    panel, project = labelled.dock.train_panel, labelled.session.project
    ids = [finished(project, 0.8, l2_sp=1e-3), finished(project, 0.7), finished(project, 0.6)]
    labelled.dock.choose_tab("Train")
    panel.run_actions.refresh()
    labelled.wait(lambda: panel.runs.tree.topLevelItemCount() == 3, "the runs")
    assert not panel.runs.compare_button.isEnabled()
    panel.runs.choose(ids[:2])
    assert not panel.runs.clone_button.isEnabled()
    labelled.click(panel.runs.compare_button)
    labelled.wait(lambda: panel.run_actions.compare_view is not None, "the view")
    view = panel.run_actions.compare_view
    table = view.table
    texts = [[table.item(r, c).text() for c in range(3)] for r in range(table.rowCount())]
    assert [table.horizontalHeaderItem(c).text() for c in (1, 2)] == ids[:2]
    assert texts[0] == ["mean IoU", "0.80 [0.70–0.90]", "0.70 [0.60–0.80]"]
    assert ["pore", "–", "–"] in texts
    assert ["ground", "by specimen: m2", "by specimen: m2"] in texts
    assert texts[-1] == ["l2 sp", "0.001", "0"]
    assert "overlap" in view.caution_label.text()
    assert len(view.iou_plot.listDataItems()) == 2
    view.close()


def test_a_comparison_replaces_the_one_before(labelled, qtbot):
    project = labelled.session.project
    ids = [finished(project, 0.8), finished(project, 0.7), finished(project, 0.6)]
    view = CompareView()
    qtbot.addWidget(view)
    view.set_comparison(compare(project, ids), "#808080")
    view.set_comparison(compare(project, ids[:2]), "#808080")
    assert view.table.columnCount() == 3
    assert len(view.loss_plot.listDataItems()) == 2
    assert view.table.item(view.table.rowCount() - 1, 1).text() == "the same"


def curves():
    points = [ValidationPoint(10, 0.4, 0.6, {"matrix": 0.7, "pore": 0.5}, True)]
    stages = [StageMark(0, 1, 2, "a", "r"), StageMark(6, 2, 2, "b", "r")]
    rates = {"head": [1e-3, 1e-3], "encoder 5": [math.nan, 1e-5]}
    return Curves("r", [5, 10], [0.9, 0.5], rates, points, [0.5, 0.6], stages, [FoldMark(0, 0, 2), FoldMark(8, 1, 2)])


def test_rates_and_marks_are_drawn(shown, qtbot):
    plots = shown(RunPlots())
    plots.set_curves(curves(), COLORS)
    qtbot.waitUntil(lambda: "encoder 5" in plots._rate_lines)
    assert list(plots._rate_lines["head"].getOriginalDataset()[1]) == [1e-3, 1e-3]
    assert np.isnan(plots._rate_lines["encoder 5"].getOriginalDataset()[1][0])
    assert sorted({line.value() for _, line in plots._marks}) == [6, 8]
    assert [line.label.format for plot, line in plots._marks if plot is plots.loss_plot] == ["stage 2", "fold 2"]
    assert "encoder&nbsp;5" in plots.rate_legend.text()
    plots.set_curves(Curves("s", [5], [0.9], {"head": [1e-3]}), COLORS)
    qtbot.waitUntil(lambda: set(plots._rate_lines) == {"head"})
    assert not plots._marks
    assert rate_legend_text([]) == ""


def test_a_class_can_be_hidden(shown, qtbot):
    plots = shown(RunPlots())
    plots.set_curves(curves(), COLORS)
    qtbot.waitUntil(lambda: "pore" in plots._lines)
    assert list(plots.legend.ticks) == ["matrix", "pore", "mean", "training"]
    plots.legend.ticks["pore"].click()
    assert not plots._lines["pore"].isVisible()
    assert plots._lines["matrix"].isVisible()
    plots.set_ink("#ffffff")
    assert plots.legend.hidden == {"pore"}


def test_the_curves_are_drawn_at_most_once_a_second(shown, qtbot, monkeypatch):
    drawn = []
    # On the class: a slot of the test's own, held by the widget that it holds, may be collected while Qt calls it.
    monkeypatch.setattr(RunPlots, "redraw", lambda _plots: drawn.append(1))
    plots = shown(RunPlots())
    qtbot.wait(1100)
    drawn.clear()
    for _ in range(30):
        plots.set_curves(curves(), COLORS)
        qtbot.wait(40)
    plots._timer.stop()
    assert 1 <= len(drawn) <= 2


def test_parts_are_listed_once_with_their_rates(shown):
    table = shown(GroupsTable())
    table.set_stage(StageMark(0, 2, 3, "last encoder block", "the IoU no longer rose", GROUPS))
    table.expand()
    rows = [[table.tree.topLevelItem(r).text(c) for c in range(4)] for r in range(table.tree.topLevelItemCount())]
    assert rows == [["head", "290", "0.001", "0.01"], ["encoder", "11,000", "frozen", "–"]]
    assert table.heading.text() == "Parts and rates · stage 2 of 3, last encoder block"
    assert table.reason_label.text() == "The IoU no longer rose"
    table.set_stage(None)
    assert table.isHidden()


def test_long_lists_of_names_are_shortened():
    assert shortened("a, b, c") == "a, b, c"
    assert shortened("by specimen: a, b, c, d, e") == "by specimen: a, b, c and 2 more"


def test_the_fold_is_named_with_what_it_leaves_out():
    told = Curves("r", folds=[FoldMark(0, 1, 3, ("a", "b"))])
    assert course_text(told, TrainConfig()) == "Fold 2 of 3, without a, b."
    assert course_text(Curves(), TrainConfig()) == ""
    assert FoldBegan(run_id="r", fold=1, n_folds=3, held_out=("a",)).fold == 1
