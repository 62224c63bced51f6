"""How soon a stroke changes the overlay, in the real window with the real engine, and whether painting stays smooth.

    python -m benchmarks.live_window [--strokes 8] [--shots DIR]     (without a display: xvfb-run -a python -m …)

A tile of a nickel superalloy (nasa_super) is scribbled on with the mouse, class by class in turn, inside what its mask
calls that class; the next stroke begins when the overlay is there. The last line is one JSON object: `first_overlay_s`
from the stroke that completes the second class (features of the tile are made there), `p50_ms` and `p95_ms` of the
strokes after it, from the release of the mouse to the new pixels on the canvas. `gap_p99_ms` and `gap_worst_ms` are
those of the event loop meanwhile; `fast_…` of strokes that do not wait for the overlay, and `off_…` of such strokes
with the live head off (on a machine without a graphics card Mesa draws, which is most of all three). `tile_iou` is
measured against the whole mask of the tile. `held_…` is what the session's own work takes of the window's thread at a
time; the rest of a gap is drawing.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import napari
import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from skimage.io import imread, imsave

from benchmarks._common import data_folder, finish, say
from benchmarks.gui_latency import GapMeter, wait
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.evaluate.confusion import ConfusionMatrix
from napari_emtransfer.gui.demo_strokes import Stroke, plan_strokes
from napari_emtransfer.gui.dock import EMTransferDock

STEMS = ("spot2_0d_0", "spot2_180d_3")
BRUSH_PX = 5


class Held:
    """For how long the session's own work keeps the thread of the window: answers taken in, ticks, ends of strokes."""

    def __init__(self, dock: EMTransferDock) -> None:
        self.times_ms: list[float] = []
        for owner, name in ((dock.session, "apply"), (dock.session, "tick"), (dock.canvas, "_end_stroke")):
            setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self.times_ms.append((time.perf_counter() - began) * 1000)

        return timed


class Painter:
    """A hand with a mouse, and a clock that notes when overlays change."""

    def __init__(self, viewer: napari.Viewer, dock: EMTransferDock) -> None:
        self.viewer, self.dock, self.session = viewer, dock, dock.session
        self.changed = 0.0
        self.held = Held(dock)
        dock.session.signals.prediction_changed.connect(self._note)

    def _note(self, _stem: str, _window: object) -> None:
        self.changed = time.perf_counter()

    def stroke(self, value: int, line: Stroke) -> float:
        """Draw a line in a class; returns when the mouse was released."""
        self.dock.label_panel.choose_class(value)
        native = self.viewer.window._qt_viewer.canvas.native
        points = [self._on_canvas(point) for point in np.linspace(*line, 12)]
        QTest.mouseMove(native, points[0])
        QTest.mousePress(native, Qt.MouseButton.LeftButton, pos=points[0])
        for point in points:
            QTest.mouseMove(native, point)
            QTest.qWait(8)
        released = time.perf_counter()
        QTest.mouseRelease(native, Qt.MouseButton.LeftButton, pos=points[-1])
        return released

    def answered(self, since: float, seconds: float = 120) -> float:
        """Wait for an overlay newer than `since` and an idle head; returns how long after it came, in ms."""
        wait(lambda: self.changed > since and self.session.live.state.phase == "ready", seconds)
        return (self.changed - since) * 1000

    def _on_canvas(self, point: NDArray[np.float64]) -> QPoint:
        world = np.array(self.dock.canvas.layers.annotation.data_to_world(point))
        size = np.array(self.viewer.window._qt_viewer.canvas.size)
        y, x = size / 2 + (world - np.array(self.viewer.camera.center[-2:])) * self.viewer.camera.zoom
        return QPoint(round(x), round(y))


def make_project(root: Path, folder: Path) -> None:
    """The micrographs and classes of the data set, nothing labelled."""
    names = json.loads((folder / "dataset.json").read_text())["classes"]
    with Project.create(root, classes=list(names.values())) as project:
        for stem in STEMS:
            project.add_micrograph(next((folder / "images").glob(f"{stem}.*")))


def planned(truth: NDArray[np.uint8], tile: Any, n: int) -> list[tuple[int, Stroke]]:
    """Strokes of all classes in turn, in pixels of the micrograph."""
    found = []
    for value in range(1, int(truth.max()) + 1):
        lines = plan_strokes(truth[tile.window.slices], value, n=n, brush_px=BRUSH_PX, max_length_px=40)
        found.append([(value, tuple((y + tile.window.y0, x + tile.window.x0) for y, x in line)) for line in lines])
    return [stroke for turn in range(n) for strokes in found for stroke in strokes[turn : turn + 1]]


def iou(painter: Painter, truth: NDArray[np.uint8], tile: Any) -> float:
    """Mean IoU of the overlay on all pixels of the tile."""
    where = tile.window.slices
    predicted = painter.session.prediction.mask(tile.micrograph)[where]
    return round(float(ConfusionMatrix.from_masks(truth[where], predicted, int(truth.max())).mean_iou()), 3)


def play(painter: Painter, truth: NDArray[np.uint8], n: int, shots: Path | None) -> dict[str, Any]:
    """Scribble on two tiles: live, and for comparison with the live head off."""
    session, dock = painter.session, painter.dock
    tile = session.labelling.go_to_point(STEMS[0], 100, 100)
    wait(lambda: dock.canvas.shown == STEMS[0])
    QTest.qWait(1000)
    if not session.live.enabled:
        dock.loop_bar.live_button.click()
    wait(lambda: session.live.state.phase in ("waiting", "ready"))
    say(dock.loop_bar.live_label.text())
    strokes = planned(truth, tile, n)
    painter.stroke(*strokes[0])
    QTest.qWait(1500)
    say(dock.loop_bar.live_label.text())
    result: dict[str, Any] = {"first_overlay_s": round(painter.answered(painter.stroke(*strokes[1])) / 1000, 2)}
    latencies = []
    with GapMeter() as meter:
        for stroke in strokes[2:]:
            latencies.append(painter.answered(painter.stroke(*stroke)))
            QTest.qWait(200)
    QTest.qWait(800)
    result |= {"strokes": len(latencies), "p50_ms": round(float(np.percentile(latencies, 50)))}
    result |= {"p95_ms": round(float(np.percentile(latencies, 95))), "tile_iou": iou(painter, truth, tile)}
    result |= {"gap_p99_ms": meter.percentile(99), "gap_worst_ms": meter.percentile(100)}
    result |= {f"held_p{q}_ms": round(float(np.percentile(painter.held.times_ms, q)), 1) for q in (99, 100)}
    say(dock.loop_bar.live_label.text())
    if shots:
        imsave(shots / "live.png", painter.viewer.window.screenshot(canvas_only=False, flash=False))
    return result | hurry(painter, truth, n)


def hurry(painter: Painter, truth: NDArray[np.uint8], n: int) -> dict[str, Any]:
    """Strokes that wait for nothing on another tile, with the live head on; then on a third with it off."""
    session = painter.session
    tile = session.labelling.go_to_point(STEMS[0], 400, 100)
    QTest.qWait(1500)
    changes: list[float] = []
    session.signals.prediction_changed.connect(lambda *_: changes.append(time.perf_counter()))
    with GapMeter() as on:
        for stroke in planned(truth, tile, n):
            last = painter.stroke(*stroke)
    final = painter.answered(last)
    overlays = sum(change < last for change in changes)
    painter.dock.loop_bar.live_button.click()
    tile = session.labelling.go_to_point(STEMS[0], 400, 400)
    QTest.qWait(1500)
    with GapMeter() as off:
        for stroke in planned(truth, tile, n):
            painter.stroke(*stroke)
    return {
        "fast_overlays_meanwhile": overlays,
        "fast_last_ms": round(final),
        "fast_gap_p99_ms": on.percentile(99),
        "fast_gap_worst_ms": on.percentile(100),
        "off_gap_p99_ms": off.percentile(99),
        "off_gap_worst_ms": off.percentile(100),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--strokes", type=int, default=8, help="strokes per class and tile")
    parser.add_argument("--shots", type=Path, help="folder for screenshots")
    options = parser.parse_args()
    folder = data_folder() / "nasa_super"
    truth = imread(folder / "masks" / f"{STEMS[0]}.png")
    with tempfile.TemporaryDirectory() as temporary:
        make_project(Path(temporary) / "project", folder)
        viewer = napari.Viewer()
        dock = EMTransferDock(viewer)
        viewer.window.add_dock_widget(dock, name="EM Transfer", area="right")
        viewer.window._qt_window.resize(1300, 900)
        dock.session.open_project(Path(temporary) / "project")
        dock.choose_tab("Label")
        wait(lambda: dock.session.engine.state.phase == "ready")
        dock.label_panel.tools.brush_slider.setValue(BRUSH_PX)
        try:
            result = play(Painter(viewer, dock), truth, options.strokes, options.shots)
        finally:
            dock.owner.close()
            viewer.close()
    finish(result | {"load": round(os.getloadavg()[0], 1)})


if __name__ == "__main__":
    main()
