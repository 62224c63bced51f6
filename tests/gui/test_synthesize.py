"""*Synthesise …* in the real window: the dialog, its preview, the classes, and what is asked of the worker."""

from __future__ import annotations

import numpy as np
import pytest
from gui_helpers import Hands, open_dock
from qtpy.QtTest import QTest
from session_helpers import label, make_project

from napari_emtransfer.core.data.labels import LabelSchema
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.project_records import MicrographRecord
from napari_emtransfer.core.events import ProgressMade, RunCancelled, RunFailed, RunFinished
from napari_emtransfer.gui.micrograph_table import Column, MicrographTable
from napari_emtransfer.gui.synthesize_classes import ClassMap
from napari_emtransfer.session.classes import PLACEHOLDER_CLASSES
from napari_emtransfer.session.synthesis import MADE

GENERATED = ["grain interior", "grain boundary"]


@pytest.fixture
def shown(tmp_path):
    """The result of a preview of four micrographs: a line of class 2 through class 1."""
    masks = np.ones((4, 40, 40), np.uint8)
    masks[:, 18:22] = 2
    file = tmp_path / "preview.npz"
    np.savez(file, images=np.full((4, 40, 40), 90, np.uint8), masks=masks)
    return {"file": str(file), "classes": GENERATED, "omits": ["no inclusions"], "detector": "", "seconds": 2.0}


@pytest.fixture
def action(project):
    return project.dock.project_panel.micrographs.synthesis


@pytest.fixture
def dialog(project, action, runner, shown):
    """The dialog, opened with the mouse, after its first preview."""
    project.dock.choose_tab("Project")
    project.click(action.button)
    answer(project, runner, shown)
    return action.dialog


def answer(project, runner, result):
    """Wait for the question, answer it, wait until that is shown."""
    action = project.dock.project_panel.micrographs.synthesis
    project.wait(lambda: action.dialog.preview.busy.isVisible() and runner.helpers, "the question")
    project.wait(lambda: not action.dialog._still.isActive(), "the last question")
    runner.helper.say(RunFinished(run_id=runner.helper.requests[-1].run_id, result=result))
    project.wait(lambda: not action.dialog.preview.busy.isVisible(), "the preview")


def asked(runner):
    return runner.helper.requests[-1].make


def choose(dialog, name, text):
    box = dialog.class_map.boxes[name]
    box.setCurrentIndex([box.itemText(i) for i in range(box.count())].index(text))


def test_the_dialog_shows_four_with_their_outlines_and_what_is_left_out(project, dialog, runner):
    assert (asked(runner).generator, asked(runner).n, asked(runner).presets) == ("voronoi", 4, ("equiaxed",))
    assert "annealing" in dialog.form.what.text()
    assert dialog.form.omits.text() == "Leaves out: no inclusions."
    assert "0.5 s each" in dialog.preview.note.text()
    assert "synthetic equiaxed" in dialog.promise.text()
    assert all(view.pixels.shape == (40, 40, 3) for view in dialog.preview.views)
    grey = (90, 90, 90)
    choose(dialog, "grain boundary", "pore")
    pixels = dialog.preview.views[0].pixels
    assert tuple(pixels[20, 5]) != grey, "the line has its class's colour"
    assert tuple(pixels[5, 5]) == grey
    dialog.preview.outlines.click()
    assert tuple(dialog.preview.views[0].pixels[20, 5]) == grey


def test_nothing_is_guessed_about_classes_and_without_one_nothing_is_added(project, dialog, runner):
    assert dialog.class_map.mapping == dict.fromkeys(GENERATED)
    assert not dialog.add_button.isEnabled()
    assert "Choose for at least one" in dialog.class_map.note.text()
    choose(dialog, "grain interior", "matrix")
    choose(dialog, "grain boundary", "new class “grain boundary”")
    project.click(dialog.add_button)
    assert not dialog.isVisible()
    (request,) = runner.job.requests
    assert request.classes == {"grain interior": "matrix", "grain boundary": "grain boundary"}
    assert not request.replace_classes
    assert (request.make.n, request.make.shape, request.make.seed) == (8, (512, 512), 0)


def test_every_setting_reaches_the_worker_and_asks_for_a_new_preview(project, dialog, runner, shown):
    form = dialog.form
    form.choose_preset("columnar")
    assert not dialog.add_button.isEnabled(), "its classes are not known yet"
    assert dialog.class_map.mapping == {}
    answer(project, runner, shown)
    form.n.setValue(3)
    form.edge.setCurrentIndex(form.edge.findData(256))
    form.pixel_size.setValue(4.0)
    form.detector.setCurrentIndex(form.detector.findData("fib-sem"))
    project.click(form.other_seed)
    answer(project, runner, shown)
    make = asked(runner)
    assert (make.presets, make.n, make.shape, make.seed) == (("columnar",), 3, (256, 256), 1)
    assert (make.pixel_size_nm, make.instrument) == (4.0, "fib-sem")
    n_before = len(runner.helper.requests)
    project.click(dialog.preview_button)
    assert len(runner.helper.requests) == n_before + 1
    answer(project, runner, shown)


def test_an_answer_about_the_structure_before_is_dropped(project, dialog, runner, shown):
    project.click(dialog.preview_button)
    late = RunFinished(run_id=runner.helper.requests[-1].run_id, result=shown)
    dialog.form.choose_preset("columnar")
    runner.helper.say(late)
    project.wait(lambda: asked(runner).presets == ("columnar",), "the next question")
    assert dialog.class_map.mapping == {}
    assert not dialog.add_button.isEnabled(), "its classes would be those of another structure"
    answer(project, runner, shown)
    assert list(dialog.class_map.mapping) == GENERATED


def test_the_other_kind_has_its_own_structures_scale_and_detectors(project, dialog, runner, shown):
    form = dialog.form
    form.kind.setCurrentIndex(form.kind.findData("hrtem"))
    answer(project, runner, shown)
    assert asked(runner).generator == "hrtem"
    assert asked(runner).pixel_size_nm < 0.1
    assert form.detector.findData("fib-sem") == -1
    form.kind.setCurrentIndex(form.kind.findData("voronoi"))
    answer(project, runner, shown)
    assert asked(runner).pixel_size_nm > 1


def test_a_flat_field_is_asked_for_and_its_fault_stands_in_the_dialog(
    project, dialog, runner, shown, monkeypatch, tmp_path
):
    form, measured = dialog.form, dialog.form.detector.findData("measured")
    monkeypatch.setattr("napari_emtransfer.gui.dialogs.ask_flat_field", lambda _parent: [])
    form.detector.setCurrentIndex(measured)
    assert form.detector.currentIndex() == 0, "without files the detector is drawn"
    answer(project, runner, shown)
    monkeypatch.setattr("napari_emtransfer.gui.dialogs.ask_flat_field", lambda _parent: [tmp_path / "flat.tif"])
    form.detector.setCurrentIndex(measured)
    project.wait(lambda: asked(runner).flat_field == (tmp_path / "flat.tif",), "the question")
    assert form.flat_field_label.isVisible()
    failed = RunFailed(
        run_id=runner.helper.requests[-1].run_id, kind="flat_field", message="Too even.", hint="Another."
    )
    runner.helper.say(failed)
    project.wait(lambda: dialog.preview.note.text() == "Too even. Another.", "the sentence")
    assert not dialog.add_button.isEnabled()
    assert dialog.preview.views[0].pixels.size == 0


def test_a_scale_that_is_far_from_the_projects_is_pointed_out(project, dialog):
    project.session.project.update_settings(working_pixel_size_nm=25.0)
    project.session.signals.schema_changed.emit()
    dialog.form.pixel_size.setValue(20.0)
    assert not dialog.form.scale_note.isVisible()
    dialog.form.pixel_size.setValue(0.05)
    assert "shrunk 500 times" in dialog.form.scale_note.text()
    assert dialog.form.scale_note.isVisible()


def test_progress_stands_in_the_project_tab_and_can_be_cancelled(project, dialog, action, runner):
    choose(dialog, "grain interior", "matrix")
    project.click(dialog.add_button)
    assert action.job_bar.isVisible()
    run_id = runner.job.requests[0].run_id
    runner.job.say(ProgressMade(run_id=run_id, done=2, total=8, what=MADE))
    project.wait(lambda: action.job_bar.progress.value() == 2, "progress")
    assert action.job_bar.progress.format().startswith("2 of 8")
    project.click(action.button)
    assert not dialog.add_button.isEnabled(), "one after the other"
    dialog.close()
    project.click(action.job_bar.cancel_button)
    assert runner.job.words == ["cancel"]
    runner.job.say(RunCancelled(run_id=run_id))
    project.wait(lambda: not action.isVisible(), "the end")


def test_what_was_chosen_is_there_when_the_dialog_is_opened_again(project, dialog, action, runner, shown):
    dialog.form.choose_preset("columnar")
    answer(project, runner, shown)
    choose(dialog, "grain interior", "matrix")
    project.click(dialog.add_button)
    assert runner.helper.words[-1] == "close", "nobody looks at previews any more"
    project.click(action.button)
    answer(project, runner, shown)
    assert dialog.form.spec.preset == "columnar"
    assert dialog.class_map.mapping["grain interior"] == "matrix"


def test_closing_the_project_closes_the_dialog(project, dialog, action):
    project.click(project.dock.project_panel.close_button)
    project.wait(lambda: action.dialog is None, "its end")


def test_nothing_is_cut_off_in_a_small_dialog(dialog):
    dialog.resize(640, 420)
    QTest.qWait(50)
    for label_widget in (dialog.form.what, dialog.form.omits, dialog.promise, dialog.preview.note):
        assert label_widget.height() >= label_widget.heightForWidth(label_widget.width()), label_widget.text()
    assert dialog.form.width() <= dialog.form.parentWidget().parentWidget().width(), "no sideways scrolling"


def test_in_a_project_without_classes_of_its_own_the_generated_ones_become_them(qtbot):
    widget = ClassMap()
    qtbot.addWidget(widget)
    widget.set_classes(GENERATED, LabelSchema.from_names(PLACEHOLDER_CLASSES), free=True)
    assert widget.mapping == {name: name for name in GENERATED}
    assert len(set(widget.colors)) == 2
    assert not any(box.isVisibleTo(widget) for box in widget.boxes.values())
    widget.set_classes(GENERATED, LabelSchema.from_names(["Grain interior", "x"]), free=False)
    assert widget.mapping == {"grain interior": "Grain interior", "grain boundary": None}
    assert widget.colors[1] is None


@pytest.mark.slow
def test_with_the_real_processes_micrographs_are_previewed_added_and_never_measured_on(make_napari_viewer, tmp_path):
    root = make_project(tmp_path / "project")
    with Project.open(root) as made:
        label(made, "m0")
        label(made, "m1")
    viewer = make_napari_viewer(show=True)
    dock = open_dock(viewer, size=(1400, 900))
    dock.project_panel.open_project(root)
    hands = Hands(viewer, dock)
    hands.shown()
    dock.choose_tab("Project")
    action = dock.project_panel.micrographs.synthesis
    hands.click(action.button)
    hands.wait(lambda: len(action.dialog.class_map.boxes) == 2, "the preview", 60)
    form = action.dialog.form
    form.n.setValue(2)
    form.edge.setCurrentIndex(form.edge.findData(128))
    hands.wait(lambda: action.dialog.preview.views[1].pixels.shape == (128, 128, 3), "the other preview", 60)
    assert action.dialog.preview.views[2].pixels.size == 0
    choose(action.dialog, "grain interior", "matrix")
    choose(action.dialog, "grain boundary", "pore")
    hands.shot("synthesise")
    hands.click(action.dialog.add_button)
    hands.wait(lambda: len(hands.session.records) == 5, "the micrographs", 60)
    added = [record for record in hands.session.records if record.synthetic]
    assert {record.domain for record in added} == {"synthetic equiaxed"}
    assert hands.session.project.class_counts(added[0].stem)[1:].min() > 0
    assert hands.session.labelling.n_tiles == 3 * 6
    assert any("2 synthetic micrographs" in text for text in dock.messages.texts())
    dock.owner.close()


def test_synthetic_rows_are_slanted_and_take_no_room_for_their_domain(qtbot):
    table = MicrographTable()
    qtbot.addWidget(table)
    real, made = (
        MicrographRecord(
            stem=stem,
            path=f"/{stem}.tif",
            checksum=stem,
            height=9,
            width=9,
            specimen=stem,
            domain=domain,
            synthetic=synthetic,
        )
        for stem, domain, synthetic in (("a", "default", False), ("b", "synthetic equiaxed", True))
    )
    table.set_records([real, made])
    assert table.isColumnHidden(Column.DOMAIN)
    assert [table.item(row, Column.NAME).font().italic() for row in range(2)] == [False, True]
    assert "synthetic equiaxed" in table.item(1, Column.NAME).toolTip()
    table.set_records([real, made, real.model_copy(update={"stem": "c", "domain": "30 kV"})])
    assert not table.isColumnHidden(Column.DOMAIN)
