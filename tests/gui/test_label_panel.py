"""Labelling with mouse and keys in the real window."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import Qt


def test_a_stroke_of_the_mouse_reaches_the_disk(project):
    session, panel = project.session, project.dock.label_panel
    project.dock.choose_tab("Label")
    project.click(panel.palette_box.button(2))
    tile = session.tile
    start = np.array([tile.window.y0 + 10, tile.window.x0 + 10])
    project.drag(start, start + 20)
    labels = session.labelling.annotation(tile.micrograph)
    assert labels[tuple(start + 10)] == 2
    project.wait(
        lambda: session.labelling.save_state.unsaved is False and panel.save_label.text() == "All strokes are saved.",
        "autosave",
    )
    assert np.array_equal(session.project.annotations.read(tile.micrograph), labels)
    assert session.labelling.tile_state(tile) == "started"
    assert "started" in panel.tile_label.text()
    project.click(panel.tools.undo_button)
    project.wait(lambda: not session.project.annotations.read(tile.micrograph).any(), "the saved undo")


def test_keys_choose_class_tool_and_tile(project):
    layer, session = project.dock.canvas.layers.annotation, project.session
    project.key("2")
    assert layer.selected_label == 2
    assert str(layer.mode) == "paint"
    assert project.dock.label_panel.palette_box.chosen == 2
    for key, mode in {"e": "erase", "f": "fill", "p": "polygon", "m": "pan_zoom", "b": "paint"}.items():
        project.key(key)
        assert str(layer.mode) == mode
        assert project.dock.label_panel.tools.buttons[mode].isChecked()
    size = layer.brush_size
    project.key("]")
    assert layer.brush_size == size + 1
    first = session.tile
    project.key("n")
    assert session.tile != first
    second = session.tile
    project.shown()
    project.key("d")
    assert session.labelling.tile_state(second) == "done"
    assert project.dock.loop_bar.tile_label.text().startswith("1 of ")
    third = session.tile
    project.shown()
    project.key("u")
    assert session.labelling.tile_state(third) == "unsure"
    assert project.dock.help_label.isHidden()
    main_window = project.viewer.window._qt_window
    main_window.activateWindow()
    project.wait(main_window.isActiveWindow, "an active window")
    project.key("?", Qt.KeyboardModifier.ShiftModifier)
    assert not project.dock.help_label.isHidden()


def test_keys_are_free_again_after_closing(project):
    layer = project.dock.canvas.layers.annotation
    assert layer.keymap
    project.dock.shortcuts.close()
    assert not layer.keymap
    assert not project.viewer.keymap


def test_another_micrograph_is_shown_from_the_box(project):
    box = project.dock.label_panel.micrograph_box
    other = next(r.stem for r in project.session.records if r.stem != project.session.current)
    project.dock.choose_tab("Label")
    box.setCurrentIndex(box.findText(other))
    box.activated.emit(box.currentIndex())
    project.shown(other)
    assert project.dock.canvas.layers.find("micrograph").name == other
    roles = [layer.metadata["emtransfer"] for layer in project.viewer.layers]
    assert roles == ["micrograph", "entropy", "prediction", "annotation", "grid", "tile"]
    assert not project.viewer.layers[-1].visible, "no tile of this micrograph is chosen"
    assert project.dock.canvas.layers.annotation.data is project.session.labelling.annotation(other)


def test_layers_are_known_by_metadata_not_by_name(project):
    for layer in project.viewer.layers:
        layer.name = "renamed"
    layers = project.dock.canvas.layers
    assert layers.annotation is not layers.prediction
    assert layers.annotation.data is project.session.labelling.annotation(project.session.current)


def test_the_prediction_is_drawn_as_wanted(project):
    view, layer = project.dock.label_panel.view, project.dock.canvas.layers.prediction
    project.dock.toggle_live()
    project.wait(lambda: not layer.visible, "no overlay: there is neither a live head nor a model")
    project.session.prediction.model_run = "0001-train"
    for index, contour, visible in [(1, 0, True), (2, 0, False), (0, 2, True)]:
        view.style_box.setCurrentIndex(index)
        assert (layer.visible, layer.contour) == (visible, contour)
    view.entropy_check.setChecked(True)
    assert project.dock.canvas.layers.find("entropy").visible
    view.grid_check.setChecked(False)
    assert not project.dock.canvas.tiles.find("grid").visible


def test_pixel_sizes_place_the_layers_in_nanometres(project):
    stem = project.session.current
    project.session.update_micrograph(stem, pixel_size_nm=2.5)
    project.wait(lambda: tuple(project.dock.canvas.layers.annotation.scale) == (2.5, 2.5), "the new scale")
    assert {str(layer.units[0]) for layer in project.viewer.layers} == {"nanometer"}
    tile = project.session.tile
    center = np.array(project.viewer.camera.center[-2:]) / 2.5
    assert tile.window.y0 < center[0] < tile.window.y1
    assert tile.window.x0 < center[1] < tile.window.x1
    start = np.array([tile.window.y0 + 12, tile.window.x0 + 12])
    project.key("1")
    project.drag(start, start + 5)
    assert project.session.labelling.annotation(stem)[tuple(start)] == 1
