"""Hands and eyes for tests of the real window: clicks, strokes with the mouse, keys, screenshots."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from skimage.io import imsave

from napari_emtransfer.gui.dock import EMTransferDock
from napari_emtransfer.gui.viewer_session import ViewerSession
from napari_emtransfer.session.session import Session

SHOTS = os.environ.get("EMTRANSFER_SCREENSHOTS")


def open_dock(viewer, runner=None, size=(1500, 1000)):
    """The dock in a viewer, over a session with this runner (real processes when None)."""
    ViewerSession(viewer, Session(runner))
    dock = EMTransferDock(viewer)
    viewer.window.add_dock_widget(dock, name="EM Transfer", area="right")
    viewer.window._qt_window.resize(*size)
    QTest.qWait(50)
    return dock


class Hands:
    """A user in front of one window."""

    def __init__(self, viewer, dock):
        self.viewer, self.dock, self.session = viewer, dock, dock.session

    @property
    def native(self):
        return self.viewer.window._qt_viewer.canvas.native

    def wait(self, condition, what="something", seconds=15.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (
                f"waited {seconds:.0f} s in vain for {what}; {self.dock.messages.texts()}"
            )
            QTest.qWait(10)

    def click(self, widget):
        self.wait(widget.isVisible, f"{widget.text()} in sight", 3)
        assert widget.isEnabled(), f"{widget.text()} is disabled"
        QTest.mouseClick(widget, Qt.MouseButton.LeftButton)
        QTest.qWait(10)

    def shown(self, stem=None):
        """Wait until the current micrograph (or a certain one) is on the canvas."""
        self.wait(
            lambda: self.dock.canvas.shown is not None and self.dock.canvas.shown == (stem or self.session.current)
        )
        QTest.qWait(30)

    def position(self, point):
        """Pixel (y, x) of the micrograph → position on the canvas widget."""
        world = np.array(self.dock.canvas.layers.annotation.data_to_world(point))
        camera, size = self.viewer.camera, np.array(self.viewer.window._qt_viewer.canvas.size)
        y, x = size / 2 + (world - np.array(camera.center[-2:])) * camera.zoom
        return QPoint(round(x), round(y))

    def drag(self, start, end, steps=8):
        """A stroke with the left mouse button from pixel to pixel."""
        points = [self.position(p) for p in np.linspace(start, end, steps)]
        QTest.mouseMove(self.native, points[0])
        QTest.mousePress(self.native, Qt.MouseButton.LeftButton, pos=points[0])
        for point in points:
            QTest.mouseMove(self.native, point)
            QTest.qWait(1)
        QTest.mouseRelease(self.native, Qt.MouseButton.LeftButton, pos=points[-1])
        QTest.qWait(5)

    def key(self, text, modifier=Qt.KeyboardModifier.NoModifier):
        """A key on the canvas."""
        self.native.setFocus()
        QTest.keyClick(self.native, text, modifier)
        QTest.qWait(10)

    def shot(self, name):
        """Save a picture of the whole window to $EMTRANSFER_SCREENSHOTS, if it is set."""
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            QTest.qWait(300)
            picture = self.viewer.window.screenshot(canvas_only=False, flash=False)
            imsave(Path(SHOTS) / f"{name}.png", picture, check_contrast=False)
