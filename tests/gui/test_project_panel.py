"""Micrographs and classes from the window."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtTest import QTest
from session_helpers import label
from skimage.io import imsave

from napari_emtransfer.gui import dialogs
from napari_emtransfer.gui.micrograph_table import Column
from napari_emtransfer.gui.thumbnails import EDGE


def test_files_are_added_and_bad_ones_reported(project, tmp_path):
    good, bad = tmp_path / "good.npy", tmp_path / "bad.tif"
    np.save(good, np.random.default_rng(5).normal(size=(64, 64)).astype(np.float32))
    bad.write_bytes(b"II*\x00 but no more")
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(good)), QUrl.fromLocalFile(str(bad))])
    panel = project.dock.project_panel
    drop = QDropEvent(
        QPointF(5, 5), Qt.DropAction.CopyAction, mime, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    )
    panel.dropEvent(drop)
    project.wait(lambda: panel.micrographs.table.rowCount() == 4, "the new row")
    project.wait(lambda: any("bad.tif" in text for text in project.dock.messages.texts()), "the message")
    project.wait(lambda: not panel.micrographs.job_bar.isVisible(), "the end of the progress bar")
    project.wait(lambda: not panel.micrographs.table.stems_without_thumbnail(), "the thumbnails")


def test_specimen_domain_and_pixel_size_are_corrected_in_the_table(project):
    panel, session = project.dock.project_panel, project.session
    panel.micrographs.table.item(0, Column.SPECIMEN).setText("alloy 7")
    assert session.records[0].specimen == "alloy 7"
    panel.micrographs.table.item(0, Column.PIXEL_SIZE).setText("2,5")
    assert session.records[0].pixel_size_nm == 2.5
    panel.micrographs.table.item(1, Column.PIXEL_SIZE).setText("wide")
    assert session.records[1].pixel_size_nm is None
    assert project.dock.messages.texts()
    assert panel.micrographs.table.item(1, Column.PIXEL_SIZE).text() == ""
    assert panel.micrographs.table.isColumnHidden(Column.DOMAIN)
    panel.micrographs.table.selectRow(2)
    panel.micrographs.domain_edit.setText("80 kV")
    panel.micrographs.domain_edit.returnPressed.emit()
    assert session.records[2].domain == "80 kV"
    assert not panel.micrographs.table.isColumnHidden(Column.DOMAIN)


def test_a_notice_mends_itself_with_its_button(project, monkeypatch):
    panel, session = project.dock.project_panel, project.session
    row = next(row for row in panel.notices.rows if "pixel size" in row.message)
    monkeypatch.setattr(dialogs, "ask_pixel_size", lambda _parent, stems: 3.0)
    row.mend_button.click()
    assert {record.pixel_size_nm for record in session.records} == {3.0}
    assert not any("no pixel size" in row.message for row in panel.notices.rows)


def test_scales_are_matched_and_tiles_follow(project):
    panel, session = project.dock.project_panel, project.session
    n_tiles = session.labelling.n_tiles
    for i, record in enumerate(session.records):
        session.update_micrograph(record.stem, pixel_size_nm=2.0 + i)
    row = next(row for row in panel.notices.rows if "Pixel sizes differ" in row.message)
    row.mend_button.click()
    assert session.project.settings.working_pixel_size_nm == 3.0
    assert panel.settings.scale.text() == "3"
    panel.settings.scale.setText("nonsense")
    panel.settings.scale.editingFinished.emit()
    assert session.project.settings.working_pixel_size_nm == 3.0
    assert panel.settings.scale.text() == "3"
    assert project.dock.messages.texts()
    panel.settings.tile.setValue(32)
    assert session.labelling.n_tiles > n_tiles
    panel.settings.modality.setCurrentText("HRTEM")
    panel.settings.modality.activated.emit(panel.settings.modality.currentIndex())
    assert session.project.settings.modality == "hrtem"


def test_classes_are_added_renamed_and_removed(project):
    classes, session = project.dock.project_panel.classes, project.session
    classes.new_name.setText("crack")
    classes.new_name.returnPressed.emit()
    assert session.schema.names == ("matrix", "pore", "crack")
    classes.name_edits[3].setText("fissure")
    classes.name_edits[3].editingFinished.emit()
    assert session.schema.names == ("matrix", "pore", "fissure")
    classes.recolored.emit(1, "#102030")
    assert session.schema.classes[0].color == "#102030"
    assert project.dock.label_panel.palette_box.button(3).text() == "3  fissure"
    classes.removed.emit(3)
    assert session.schema.names == ("matrix", "pore")


def test_a_painted_class_cannot_be_removed(project):
    label(project.session.project, "m0")
    project.dock.project_panel.classes.removed.emit(2)
    assert project.session.schema.names == ("matrix", "pore")
    assert "painted" in project.dock.messages.texts()[0]
    assert len(project.dock.project_panel.classes.name_edits) == 2


def test_micrographs_are_shown_by_double_click_and_removed_after_asking(project, monkeypatch):
    panel, session = project.dock.project_panel, project.session
    other = next(i for i, r in enumerate(session.records) if r.stem != session.current)
    stem = session.records[other].stem
    panel.micrographs.table.itemDoubleClicked.emit(panel.micrographs.table.item(other, Column.NAME))
    project.shown(stem)
    panel.micrographs.table.selectRow(other)
    monkeypatch.setattr(dialogs, "confirm_removal", lambda _parent, stems: False)
    project.click(panel.micrographs.remove_button)
    assert len(session.records) == 3
    monkeypatch.setattr(dialogs, "confirm_removal", lambda _parent, stems: True)
    project.click(panel.micrographs.remove_button)
    assert stem not in {r.stem for r in session.records}


def test_labelled_parts_are_shown(project):
    stem = project.session.current
    row = [r.stem for r in project.session.records].index(stem)
    project.session.labelling.annotation(stem)[:64] = 1
    project.session.labelling.mark_dirty()
    table = project.dock.project_panel.micrographs.table
    project.wait(lambda: table.item(row, Column.LABELLED).text() == "50 %", "the labelled part")


def test_a_labelled_folder_is_imported_and_can_be_stopped(project, tmp_path):
    box = project.dock.project_panel.micrographs
    folder = write_dataset(tmp_path / "data", n=4)
    box.import_dataset(folder)
    box.job_bar.cancel_button.click()
    project.wait(lambda: not box.job_bar.isVisible(), "the end of the job")
    assert "The import was stopped." in project.dock.messages.texts()[0]
    box.import_dataset(folder)
    project.wait(lambda: box.table.rowCount() == 7, "the imported micrographs")
    assert project.session.schema.names == ("matrix", "pore", "crack")
    assert set(project.dock.project_panel.classes.name_edits) == {1, 2, 3}
    rows = [row for row in range(7) if box.table.item(row, Column.NAME).text().startswith("im")]
    project.wait(lambda: {box.table.item(row, Column.LABELLED).text() for row in rows} == {"100 %"}, "their labels")


def write_dataset(folder, n):
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for i in range(n):
        pixels = np.random.default_rng(i).integers(0, 255, (64, 64), np.uint8)
        imsave(folder / "images" / f"im{i}.png", pixels, check_contrast=False)
        imsave(folder / "masks" / f"im{i}.png", (pixels % 3 + 1).astype(np.uint8), check_contrast=False)
    classes = {"1": "matrix", "2": "pore", "3": "crack"}
    (folder / "dataset.json").write_text(json.dumps({"classes": classes}))
    return folder


@pytest.mark.parametrize("missing", ["", "no-such-folder"])
def test_a_folder_that_is_no_project_is_refused(window, tmp_path, missing):
    window.dock.project_panel.open_project(tmp_path / missing)
    assert window.session.project is None
    assert window.dock.messages.texts()


def test_of_a_stack_one_image_is_chosen(project, monkeypatch, tmp_path):
    frames = np.stack([np.full((96, 96), value, np.uint8) + np.eye(96, dtype=np.uint8) for value in (10, 20, 30)])
    tifffile.imwrite(tmp_path / "series.tif", frames, photometric="minisblack")
    asked = []
    monkeypatch.setattr(dialogs, "ask_frame", lambda _parent, name, n: asked.append((name, n)) or 1)
    n_before = len(project.session.records)
    project.dock.project_panel.micrographs.add_files([tmp_path / "series.tif"])
    project.wait(lambda: len(project.session.records) > n_before, "the chosen frame")
    assert asked == [("series.tif", 3)]
    stem = next(r.stem for r in project.session.records if r.stem.startswith("series"))
    assert project.session.open_micrograph(stem).read()[0, 1] == 20
    assert not project.dock.messages.texts()


def test_a_long_specimen_name_leaves_room_for_the_name(project):
    table, session = project.dock.project_panel.micrographs.table, project.session
    session.update_micrograph(session.records[0].stem, specimen="a specimen named after its file " * 3)
    project.wait(lambda: table.item(0, Column.SPECIMEN).text().startswith("a specimen"), "the new name")
    QTest.qWait(100)
    assert abs(table.columnWidth(Column.NAME) - table.columnWidth(Column.SPECIMEN) - EDGE) <= 4, (
        "the same for the words"
    )
    assert not table.horizontalScrollBar().isVisible()
    wide = table.columnWidth(Column.SPECIMEN)
    session.update_micrograph(session.records[0].stem, specimen="a")
    project.wait(lambda: table.columnWidth(Column.SPECIMEN) < wide, "what short specimens leave to the names")


def test_nothing_is_cut_off_in_a_narrow_dock(project):
    assert project.dock.project_panel.minimumSizeHint().width() <= 300
