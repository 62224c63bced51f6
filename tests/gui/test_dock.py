"""The dock as a whole: first minute, messages, nothing cut off, no torch, nothing left behind."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import tifffile
from gui_helpers import open_dock
from qtpy.QtCore import QThreadPool
from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QApplication, QComboBox, QLabel, QLineEdit, QScrollArea
from session_helpers import label, make_project

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.events import RunFinished, RunStarted
from napari_emtransfer.gui import dialogs, project_panel
from napari_emtransfer.gui.dock import WIDTH
from napari_emtransfer.gui.recent import recent_projects
from napari_emtransfer.gui.viewer_session import ViewerSession
from napari_emtransfer.session.state import Phase


def test_the_dock_imports_no_torch():
    code = (
        "import sys, napari_emtransfer.gui.dock, napari_emtransfer.gui.readers;"
        "bad = [m for m in ('torch', 'torchvision', 'timm', 'albumentations', 'rsciio') if m in sys.modules];"
        "assert not bad, bad"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_napari_opens_the_dock_by_its_plugin_name(make_napari_viewer):
    viewer = make_napari_viewer()
    _, dock = viewer.window.add_plugin_dock_widget("napari-emtransfer", "EM Transfer")
    assert dock.objectName() == "emtransfer-dock"
    assert dock.session is ViewerSession.of(viewer).session
    assert dock.sizeHint().width() == WIDTH
    dock.owner.close()


def test_first_minute_from_the_images_that_are_open(window, tmp_path, monkeypatch):
    panel = window.dock.project_panel
    assert not panel.start_box.from_images_button.isEnabled()
    path = tmp_path / "grains.tif"
    tifffile.imwrite(path, np.random.default_rng(0).integers(0, 255, (96, 96), np.uint8))
    layer = window.viewer.open(str(path), plugin="napari-emtransfer")[0]
    assert panel.start_box.from_images_button.text() == "New project from this image"
    monkeypatch.setattr(dialogs, "ask_new_folder", lambda _parent: tmp_path / "new")
    window.click(panel.start_box.from_images_button)
    window.wait(lambda: [r.stem for r in window.session.records] == ["grains"], "the micrograph")
    window.shown("grains")
    assert not layer.visible
    assert [t for t in map(window.dock.tabs.isTabEnabled, range(5)) if t] == [True] * 5
    assert recent_projects()[0] == (tmp_path / "new").resolve()


def test_first_minute_with_the_sample_project(window, tmp_path, monkeypatch):
    monkeypatch.setattr(project_panel, "ensure_sample_project", lambda: make_project(tmp_path / "sample"))
    window.click(window.dock.project_panel.start_box.sample_button)
    window.wait(lambda: window.session.project is not None, "the project")
    window.shown()
    roles = [layer.metadata.get("emtransfer") for layer in window.viewer.layers]
    assert roles == ["micrograph", "entropy", "prediction", "annotation", "grid", "tile"]
    window.click(window.dock.project_panel.close_button)
    assert window.session.project is None
    assert len(window.viewer.layers) == 0
    assert window.dock.project_panel.start_box.isVisible()
    assert not window.dock.tabs.isTabEnabled(1)


def test_faults_and_notices_are_rows_that_can_be_dismissed(project):
    project.session.signals.failed.emit("The disk is full.", "Free some space.")
    project.session.signals.notice_posted.emit("Batch halved.", "")
    assert project.dock.messages.texts() == ["Batch halved.", "The disk is full. Free some space."]
    project.click(project.dock.messages.rows[0].dismiss_button)
    assert project.dock.messages.texts() == ["The disk is full. Free some space."]


def test_nothing_is_cut_off_and_everything_explains_itself(project):
    dock = project.dock
    dock.train_panel.advanced.expand(animate=False)
    dock.setFixedWidth(WIDTH)
    for index in range(dock.tabs.count()):
        dock.tabs.setCurrentIndex(index)
        QApplication.processEvents()
        project.viewer.window._qt_window.repaint()
        assert dock.width() == WIDTH
        area = dock.tabs.widget(index)
        assert isinstance(area, QScrollArea)
        assert area.widget().minimumSizeHint().width() <= area.viewport().width(), dock.tabs.tabText(index)
        for kind in (QAbstractButton, QLabel, QComboBox):
            for widget in area.widget().findChildren(kind):
                if widget.isVisible() and not getattr(widget, "wordWrap", lambda: False)():
                    assert widget.width() >= min(widget.minimumSizeHint().width(), widget.sizeHint().width()) - 2, (
                        widget.text()
                    )
        for kind in (QAbstractButton, QComboBox, QLineEdit, QAbstractSpinBox):
            for widget in area.widget().findChildren(kind):
                inner = widget.parent() is not None and isinstance(widget.parent(), (QAbstractSpinBox, QComboBox))
                if widget.isVisible() and not inner and "Corner" not in type(widget).__name__:
                    assert widget.toolTip() or widget.parentWidget().toolTip(), (
                        f"{dock.tabs.tabText(index)}: {widget.objectName()}"
                    )


def test_closing_the_viewer_saves_and_leaves_nothing_behind(make_napari_viewer, runner, tmp_path, qtbot):
    threads, active = set(threading.enumerate()), QThreadPool.globalInstance().activeThreadCount()
    viewer = make_napari_viewer(show=True)
    dock = open_dock(viewer, runner)
    dock.session.open_project(make_project(tmp_path / "project"))
    qtbot.waitUntil(lambda: dock.canvas.shown is not None)
    stem = dock.canvas.shown
    dock.canvas.layers.annotation.paint((10, 10), 2)
    viewer.close()
    qtbot.waitUntil(lambda: dock.owner._closed)
    qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == active, timeout=3000)
    assert {t for t in set(threading.enumerate()) - threads if "emtransfer" in t.name} == set()
    assert runner.engine.words == ["kill"] or "close" in runner.engine.words
    with Project.open(tmp_path / "project") as reopened:
        assert reopened.annotations.read(stem)[10, 10] == 2


def test_a_run_that_was_going_is_banked_and_offered_again(make_napari_viewer, runner, tmp_path, qtbot):
    root = make_project(tmp_path / "project")
    with Project.open(root) as project:
        run = project.create_run("train", {})
        run.checkpoint_path("last").write_bytes(b"x")
        run.update("interrupted")
        label(project, "m0")
    viewer = make_napari_viewer(show=True)
    dock = open_dock(viewer, runner)
    dock.session.open_project(root)
    qtbot.waitUntil(
        lambda: f"Run {run.id} was interrupted. It can go on from its last checkpoint." in dock.messages.texts()
    )
    dock.messages.rows[0].mend_button.click()
    assert runner.job.requests[0].resume
    runner.job.say(RunStarted(run_id=run.id, n_steps=10))
    qtbot.waitUntil(lambda: dock.session.training.state.phase is Phase.RUNNING)
    assert any("fine-tune is running" in line for line in viewer.window._task_status_manager.get_status())
    runner.job.say(RunFinished(run_id=run.id))
    qtbot.waitUntil(lambda: not dock.session.training.state.is_active)
    assert not viewer.window._task_status_manager.is_busy()
    dock.session.training.start(TrainConfig(iterations=5))
    viewer.close()
    assert runner.job.words[0] == "cancel", "closing banks the run"


def test_the_dock_may_be_closed_and_opened_again(project):
    viewer, session = project.viewer, project.session
    viewer.window.remove_dock_widget(project.dock)
    again = open_dock_only(viewer)
    assert again.session is session
    assert again.header.project_label.full_text == session.project.settings.name
    assert again.label_panel.micrograph_box.count() == len(session.records)
    again.label_panel.choose_class(2)
    assert again.canvas.layers.annotation.selected_label == 2


def open_dock_only(viewer):
    from napari_emtransfer.gui.dock import EMTransferDock

    dock = EMTransferDock(viewer)
    viewer.window.add_dock_widget(dock, name="EM Transfer", area="right")
    return dock


def test_the_curves_follow_the_theme(window):
    for theme in ("light", "dark"):
        window.viewer.theme = theme
        ink = window.dock.train_panel.plots._ink_color
        assert (int(ink[1:3], 16) > 128) == (theme == "dark")
