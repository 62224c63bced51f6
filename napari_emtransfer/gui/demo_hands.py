"""Hands and eyes of somebody in front of the window: clicks, keys, strokes with the mouse, screenshots."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from qtpy import QtTest
from qtpy.QtCore import QPoint, Qt
from skimage.io import imsave

from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.gui.tile_layers import camera_of
from napari_emtransfer.gui.viewer_layers import ANNOTATION

if TYPE_CHECKING:
    from napari import Viewer
    from qtpy.QtWidgets import QAbstractButton

    from napari_emtransfer.core.data.tiles import Tile
    from napari_emtransfer.gui.demo_strokes import BrushStroke, Point
    from napari_emtransfer.gui.dock import EMTransferDock

QTest: Any = QtTest.QTest  # PyQt's stubs take its static methods for methods
PATIENCE_S: Final = 180.0
LEFT: Final = Qt.MouseButton.LeftButton


class DemoError(EMTransferError):
    """The session did not go on as it should have."""

    kind = "demo"


class DemoHands:
    """A user of one window; every act goes through its widgets.

    Parameters
    ----------
    viewer, dock
        The window that is played on.
    """

    def __init__(self, viewer: Viewer, dock: EMTransferDock) -> None:
        self._viewer, self._dock = viewer, dock

    def click(self, widget: QAbstractButton) -> None:
        """Press a button with the mouse."""
        QTest.mouseClick(widget, LEFT)
        rest(20)

    def press(self, key: str, times: int = 1) -> None:
        """Press a key on the canvas."""
        native = self._viewer.window._qt_viewer.canvas.native
        native.setFocus()
        for _ in range(times):
            QTest.keyClick(native, key)

    def click_queued(self, number: int) -> None:
        """Rest with the pointer on an entry of the Queue tab, as a hand does, and click on it."""
        view = self._dock.queue_panel.list
        item = view.item_of(number)
        if item is None:
            raise DemoError(f"The list shows no entry {number}.", "It has left the queue.")
        view.scrollToItem(item)
        place = view.visualItemRect(item).center()
        QTest.mouseMove(view.viewport(), place)
        rest(150)
        QTest.mouseClick(view.viewport(), LEFT, pos=place)

    def drag(self, stroke: Sequence[Point], n_points: int = 3) -> None:
        """Press, move and release the mouse on the canvas along a stroke in pixels of the micrograph."""
        native = self._viewer.window._qt_viewer.canvas.native
        points = [self._on_canvas(point) for point in np.linspace(stroke[0], stroke[-1], n_points)]
        QTest.mouseMove(native, points[0])
        QTest.mousePress(native, LEFT, pos=points[0])
        for point in points:
            QTest.mouseMove(native, point)
            rest(1)
        QTest.mouseRelease(native, LEFT, pos=points[-1])

    def hatch(self, tile: Tile, strokes: Iterable[BrushStroke]) -> None:
        """Paint strokes in pixels of `tile`; class and brush are chosen by keys."""
        slider = self._dock.label_panel.tools.brush_slider
        chosen = None
        for value, brush_px, stroke in strokes:
            if value != chosen:
                self.press(str(value))
                chosen = value
            self.press("]" if brush_px > slider.value() else "[", abs(brush_px - slider.value()))
            # The canvas drops moves that follow each other too fast: of two points the second may be lost.
            self.drag([(y + tile.window.y0, x + tile.window.x0) for y, x in stroke], n_points=8)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Let the window live until something has happened."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                raise DemoError(f"Waited {PATIENCE_S:.0f} s in vain for {what}.", "emtransfer doctor may know why.")
            rest(20)

    def photograph(self, path: Path) -> None:
        """Save a picture of the whole window."""
        rest(800)  # what was just asked for gets drawn
        imsave(path, self._viewer.window.screenshot(canvas_only=False, flash=False), check_contrast=False)

    def _on_canvas(self, point: Sequence[float]) -> QPoint:
        """Pixel of the micrograph → pixel of the canvas."""
        world = np.array(self._dock.owner.canvas.layers.find(ANNOTATION).data_to_world(point))
        camera, size = camera_of(self._viewer), np.array(self._viewer.window._qt_viewer.canvas.size)
        y, x = size / 2 + (world - camera.center[-2:]) * camera.zoom
        return QPoint(round(x), round(y))


def rest(ms: int) -> None:
    """Let the window live for a while."""
    QTest.qWait(ms)
