"""Does a training make painting stutter? Gaps of the event loop in the real window, while still and while painting.

    python -m benchmarks.gui_latency [--seconds 20] [--size 1024]     (without a display: xvfb-run -a python -m …)

A timer of 5 ms runs on the GUI thread; the gap is the time between two of its ticks beyond those 5 ms. The last line
is one JSON object. With the window open and no hand on the mouse: `idle_p99_ms` and `idle_worst_ms` without a training,
`training_p99_ms` and `worst_ms` with one, its curves in sight. While painting with real mouse events, what drawing
costs comes on top (without a graphics card, Mesa's llvmpipe: most of the time), so the floor is measured beside it:
`napari_painting_p99_ms` in plain napari, `painting_p99_ms` in the dock, `painting_training_p99_ms` with a training.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import napari
import numpy as np
from qtpy.QtCore import QPoint, Qt, QTimer
from qtpy.QtTest import QTest

from napari_emtransfer.core.config import ComputeConfig, TrainConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.synth.voronoi import two_phase
from napari_emtransfer.gui.dock import EMTransferDock
from napari_emtransfer.session.state import Phase

TICK_MS = 5


class GapMeter:
    """Gaps of the event loop while it runs."""

    def __init__(self) -> None:
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self._tick)
        self.gaps_ms: list[float] = []

    def __enter__(self) -> GapMeter:
        self.gaps_ms, self._last = [], time.perf_counter()
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.stop()

    def _tick(self) -> None:
        now = time.perf_counter()
        self.gaps_ms.append(max(0.0, (now - self._last) * 1000 - TICK_MS))
        self._last = now

    def percentile(self, q: float) -> float:
        """Gap in ms that `q` per cent of all gaps do not exceed."""
        return round(float(np.percentile(self.gaps_ms, q)), 1)


def make_project(root: Path, size: int) -> None:
    """Three micrographs of three specimens, one labelled fully so that there is something to train on."""
    with Project.create(root, classes=["matrix", "second phase"]) as project:
        for seed in range(3):
            made = two_phase((size, size), seed=seed)
            path = root / f"s{seed}.npy"
            np.save(path, made.image)
            project.add_micrograph(path, specimen=f"specimen {seed}")
            project.annotations.write(f"s{seed}", None, made.mask)


def wait(condition, seconds: float = 120) -> None:
    """Let the event loop run until `condition()` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        QTest.qWait(20)


def paint(viewer, seconds: float) -> None:
    """Strokes all over the canvas, as fast as a hand: a move every 8 ms."""
    native = viewer.window._qt_viewer.canvas.native
    rng = np.random.default_rng(0)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        start, end = (rng.uniform(0.2, 0.8, 2) * (native.width(), native.height()) for _ in range(2))
        points = [QPoint(*(round(v) for v in start + f * (end - start))) for f in np.linspace(0, 1, 30)]
        QTest.mousePress(native, Qt.MouseButton.LeftButton, pos=points[0])
        for point in points:
            QTest.mouseMove(native, point)
            QTest.qWait(8)
        QTest.mouseRelease(native, Qt.MouseButton.LeftButton, pos=points[-1])


def start_training(dock: EMTransferDock) -> None:
    """A training that does not end by itself, past its first iterations."""
    config = TrainConfig(iterations=100_000, crop_px=128, validate_every=50, compute=ComputeConfig(device="auto"))
    dock.session.training.start(config)
    wait(lambda: dock.session.training.state.iteration > 2 or not dock.session.training.state.is_active)
    state = dock.session.training.state
    if state.phase is not Phase.RUNNING:
        raise RuntimeError(f"{state.phase}: {state.message}")


def measure(seconds: float, size: int, window: tuple[int, int]) -> dict[str, object]:
    """Make a project, open it in a window, and play in it."""
    with tempfile.TemporaryDirectory() as folder:
        make_project(Path(folder) / "project", size)
        viewer = napari.Viewer()
        dock = EMTransferDock(viewer)
        viewer.window.add_dock_widget(dock, area="right")
        viewer.window._qt_window.resize(*window)
        dock.session.open_project(Path(folder) / "project")
        wait(lambda: dock.canvas.shown is not None and dock.session.prediction.engine.phase == "ready")
        dock.label_panel.choose_class(1)
        QTest.qWait(2000)
        try:
            return play(viewer, dock, seconds)
        finally:
            dock.owner.close()
            viewer.close()


def control(seconds: float, size: int, window: tuple[int, int]) -> float:
    """The same strokes on plain napari: what its drawing alone costs on this machine."""
    viewer = napari.Viewer()
    viewer.add_image(two_phase((size, size), seed=0).image)
    labels = viewer.add_labels(np.zeros((size, size), np.uint8))
    viewer.window._qt_window.resize(*window)
    labels.mode = "paint"
    QTest.qWait(2000)
    paint(viewer, 2)
    with GapMeter() as meter:
        paint(viewer, seconds)
    viewer.close()
    return meter.percentile(99)


def play(viewer, dock: EMTransferDock, seconds: float) -> dict[str, object]:
    """Hands off and painting, first without a training and then with one."""
    idle, training, painting, both = GapMeter(), GapMeter(), GapMeter(), GapMeter()
    with idle:
        QTest.qWait(round(seconds * 1000))
    paint(viewer, 2)  # first strokes build caches
    with painting:
        paint(viewer, seconds)
    dock.choose_tab("Train")
    start_training(dock)
    before = dock.session.training.state.iteration
    with training:
        QTest.qWait(round(seconds * 1000))
    with both:
        paint(viewer, seconds)
    done = dock.session.training.state.iteration - before
    return {
        "idle_p99_ms": idle.percentile(99),
        "training_p99_ms": training.percentile(99),
        "idle_worst_ms": idle.percentile(100),
        "worst_ms": training.percentile(100),
        "painting_p99_ms": painting.percentile(99),
        "painting_training_p99_ms": both.percentile(99),
        "painting_worst_ms": painting.percentile(100),
        "painting_training_worst_ms": both.percentile(100),
        "iterations_per_s": round(done / (2 * seconds), 2),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--size", type=int, default=1024, help="edge of the micrographs in pixels")
    parser.add_argument("--window", type=int, nargs=2, default=(1200, 800), help="size of the window")
    options = parser.parse_args()
    window = tuple(options.window)
    plain = control(options.seconds, options.size, window)
    found = measure(options.seconds, options.size, window)
    print(json.dumps({"napari_painting_p99_ms": plain} | found))


if __name__ == "__main__":
    main()
