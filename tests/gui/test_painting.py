"""Strokes are found through napari's own history: every changed pixel lies in a window that was told."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.gui.painting import StrokeWatcher


class Watched:
    def __init__(self):
        self.layer = ViewerModel().add_labels(np.zeros((80, 120), np.uint8))
        self.layer.brush_size = 7
        self.windows, self.strokes = [], []
        self.watcher = StrokeWatcher(self.layer, self.windows.append, self.strokes.append)
        self.remember()

    def remember(self):
        self.before = self.layer.data.copy()
        self.windows.clear()

    def assert_told(self):
        """Every changed pixel is inside; and the windows are not simply everything."""
        changed = self.before != self.layer.data
        assert changed.any()
        told = np.zeros_like(changed)
        for window in self.windows:
            told[window.slices] = True
        assert not (changed & ~told).any()
        assert told.sum() < told.size
        self.remember()


@pytest.fixture
def watched():
    return Watched()


def test_brush_eraser_fill_and_polygon(watched):
    layer = watched.layer
    layer.paint((20, 30), 2)
    watched.assert_told()
    layer.paint((22, 33), 0)
    watched.assert_told()
    layer.fill((20, 28), 1)
    watched.assert_told()
    layer.paint_polygon([(40, 40), (40, 60), (60, 60)], 3)
    watched.assert_told()


def test_a_drag_is_told_while_it_goes_on(watched):
    layer = watched.layer
    layer.mode = "paint"
    with layer.block_history():
        layer._draw(1, (10, 10), (10, 10))
        layer._draw(1, (10, 10), (30, 70))
        watched.assert_told()


def test_a_drag_begins_and_ends_once_and_whatever_else_only_ends(watched):
    layer = watched.layer
    layer.mode = "paint"
    with layer.block_history():
        layer._draw(1, (10, 10), (10, 10))
        assert watched.strokes == [True]
        layer._draw(1, (10, 10), (30, 70))
    assert (watched.strokes[0], watched.strokes.count(False), watched.strokes[-1]) == (True, 1, False)
    for act in (
        lambda: layer.fill((60, 100), 2),
        lambda: layer.paint_polygon([(40, 40), (40, 60), (60, 60)], 3),
        layer.undo,
        layer.redo,
    ):
        watched.strokes.clear()
        act()
        assert watched.strokes == [False]
    watched.strokes.clear()
    layer.refresh()
    with layer.block_history():
        pass
    assert watched.strokes == []


def test_undo_and_redo(watched):
    layer = watched.layer
    layer.paint((20, 30), 2)
    layer.paint((50, 90), 1)
    watched.remember()
    layer.undo()
    watched.assert_told()
    layer.undo()
    watched.assert_told()
    layer.redo()
    watched.assert_told()


def test_a_redraw_alone_says_nothing(watched):
    watched.layer.refresh()
    assert watched.windows == []


def test_the_window_of_a_stroke_is_small(watched):
    watched.layer.paint((20, 30), 2)
    assert Window(y0=16, x0=26, y1=25, x1=35).intersection(watched.windows[-1]) == watched.windows[-1]


def test_nothing_is_said_after_closing(watched):
    watched.watcher.close()
    watched.layer.paint((20, 30), 2)
    assert watched.windows == []
