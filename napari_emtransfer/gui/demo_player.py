"""The sample project in napari; with --headless somebody labels it: real mouse events, real training, real screenshots.

`python -m napari_emtransfer.gui.demo_player PROJECT [--headless --out DIR]`, as `emtransfer demo` starts it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import napari
import numpy as np
from numpy.typing import NDArray
from skimage.io import imread

from napari_emtransfer.core.config import AUTO_WEIGHTS
from napari_emtransfer.core.data.project import DATABASE_NAME, Project
from napari_emtransfer.core.data.tiles import Tile
from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.core.evaluate.confusion import ConfusionMatrix
from napari_emtransfer.gui.demo_hands import DemoError, DemoHands, rest
from napari_emtransfer.gui.demo_strokes import plan_hatching, plan_strokes
from napari_emtransfer.gui.dock import EMTransferDock
from napari_emtransfer.gui.widgets import iou_text
from napari_emtransfer.session.state import Phase

WINDOW_SIZE: Final = (1440, 940)
BRUSH_PX: Final = 7
STROKES_PER_CLASS: Final = 4
HATCHED: Final = 0.6
HATCHING_PX: Final = (25, 13, 7)
# (tiles, iterations). A demonstration, not a contest: small crops and few iterations, for the patience of two cores.
ROUNDS: Final = ((6, 40), (3, 20))
TRAINING: Final = {"crop_px": 128, "validate_every": 20}


class DemoPlayer:
    """A labelling session in a real window.

    Parameters
    ----------
    viewer, dock
        The window that is played on.
    out
        Folder for the screenshots.
    """

    def __init__(self, viewer: napari.Viewer, dock: EMTransferDock, out: Path) -> None:
        self._viewer, self._dock, self._out = viewer, dock, out
        self._session, self._canvas, self._hands = dock.session, dock.owner.canvas, DemoHands(viewer, dock)
        self._started = time.monotonic()
        self._painted: list[Tile] = []
        self.screenshots: list[str] = []

    def play(self, project: Path) -> dict[str, Any]:
        """Make the sample project, label (then by the queue) and train, look at the held-out specimen, read scores."""
        self._session.create_sample_project(project)
        self._hands.wait(lambda: self._session.prediction.engine.phase == "ready", "the prediction engine")
        self._photograph("01-project")
        for number, (n_tiles, iterations) in enumerate(ROUNDS):
            if number == 0:
                self._label(n_tiles)
                self._photograph("02-painted")
            else:
                self._label_queued(n_tiles)
                self._photograph("04-queue")
            self._configure_training(iterations)
            self._fine_tune(photograph=number == 0)
        self._look_at_held_out()
        self._photograph("05-overlay")
        self._measure_a_tile()
        self._photograph("06-measure")
        return self._result(time.monotonic() - self._started)

    @property
    def _project(self) -> Project:
        project = self._session.project
        assert project is not None  # noqa: S101 - for the type checker: `play` opens it first
        return project

    # ---- labelling

    def _label(self, n_tiles: int) -> None:
        self._dock.choose_tab("Label")
        for _ in range(n_tiles):
            # Done goes on to the next tile by itself.
            done = self._session.tile in self._painted
            if done or self._session.tile is None:
                self._hands.click(self._dock.label_panel.done_button if done else self._dock.loop_bar.next_button)
            self._hands.wait(self._tile_is_shown, "the next tile on the canvas")
            self._paint_tile()
        self._say(f"labelled {n_tiles} tiles")

    def _label_queued(self, n_tiles: int) -> None:
        """Go by the queue: densely enough for a random control to be measured on; the second tile is one."""
        queue = self._session.queue
        self._dock.choose_tab("Queue")
        self._hands.wait(lambda: any(entry.control for entry in queue.state.waiting), "a random control in the queue")
        self._hands.press("D")  # the one before the training
        for number in range(n_tiles):
            if number == 1:
                control = next(entry for entry in queue.state.waiting if entry.control)
                self._hands.click_queued(control.number)
            self._hands.wait(self._new_tile_is_shown, "the queued tile on the canvas")
            self._hatch_tile()
            self._hands.press("D")
        self._hands.wait(
            lambda: queue.state.facts is not None and bool(queue.state.facts.phases), "the phase fractions"
        )
        self._say(f"labelled {n_tiles} tiles of the queue, a random control among them")

    def _hatch_tile(self) -> None:
        tile = self._session.tile
        assert tile is not None  # noqa: S101 - for the type checker: it is on the canvas
        truth = self._truth(tile.micrograph)[tile.window.slices]
        for label_class in self._session.schema.classes:
            strokes = plan_hatching(truth, label_class.value, share=HATCHED, brushes_px=HATCHING_PX)
            self._hands.hatch(tile, strokes)
        self._painted.append(tile)

    def _new_tile_is_shown(self) -> bool:
        return self._tile_is_shown() and self._session.tile not in self._painted

    def _tile_is_shown(self) -> bool:
        tile = self._session.tile
        return tile is not None and self._canvas.shown == tile.micrograph

    def _paint_tile(self) -> None:
        tile = self._session.tile
        assert tile is not None  # noqa: S101 - for the type checker: it is on the canvas
        truth = self._truth(tile.micrograph)[tile.window.slices]
        self._dock.label_panel.tools.brush_slider.setValue(BRUSH_PX)
        for label_class in self._session.schema.classes:
            self._hands.click(self._dock.label_panel.palette_box.button(label_class.value))
            for stroke in plan_strokes(truth, label_class.value, n=STROKES_PER_CLASS, brush_px=BRUSH_PX):
                self._hands.drag([(y + tile.window.y0, x + tile.window.x0) for y, x in stroke])
        self._painted.append(tile)

    def _truth(self, stem: str) -> NDArray[np.uint8]:
        mask: NDArray[np.uint8] = imread(self._project.root / "sample" / "masks" / f"{stem}.png")
        return mask

    # ---- training

    def _configure_training(self, iterations: int) -> None:
        """Take the program's proposal, with fewer iterations and smaller crops."""
        panel, model = self._dock.train_panel, self._session.prediction.model_run
        self._dock.choose_tab("Train")
        panel.reset_button.click()
        expected = (f"run:{model}",) if model else (AUTO_WEIGHTS, "none")
        self._hands.wait(lambda: panel.form.config.weights in expected, "the proposal")
        for name, value in (TRAINING | {"iterations": iterations}).items():
            panel.form.editor(name).value = value

    def _fine_tune(self, *, photograph: bool) -> None:
        self._hands.click(self._dock.loop_bar.train_button)
        training = self._session.training
        self._hands.wait(lambda: training.state.is_active, "the start of the training")
        if photograph:
            self._hands.wait(lambda: len(training.curves.validations) >= 1, "the first validation")
            self._photograph("03-training")
        self._hands.wait(lambda: not training.state.is_active, "the end of the training")
        state = training.state
        if state.phase is not Phase.FINISHED:
            raise DemoError(f"The training ended as {state.phase}: {state.message}", state.hint)
        self._say(f"trained {state.run_id}: IoU {iou_text(state.mean_iou)} on the strokes of the held-out specimen")
        self._hands.wait(lambda: self._session.prediction.model_run == state.run_id, "the new model")

    # ---- looking

    def _look_at_held_out(self) -> None:
        for stem in reversed(self._held_out()):
            self._session.show(stem)
            self._hands.wait(partial(self._is_predicted, stem), f"the prediction of {stem}")
        self._dock.choose_tab("Label")
        self._viewer.reset_view()

    def _measure_a_tile(self) -> None:
        held_out = next(tile for tile in self._painted if tile.micrograph in self._held_out())
        self._session.labelling.go_to(held_out)
        self._hands.wait(partial(self._is_predicted, held_out.micrograph), "the held-out tile")
        self._dock.choose_tab("Measure")
        self._hands.wait(lambda: self._session.readouts.tile is not None, "the IoU of the tile")

    def _is_predicted(self, stem: str) -> bool:
        """Whether the canvas shows all of what the newest model says; until then it still shows the model before."""
        if self._canvas.shown != stem or not self._project.predictions.exists(self._model, stem):
            return False
        mask = self._prediction(stem)
        return bool(mask.all()) and np.array_equal(mask, self._session.prediction.mask(stem))

    def _prediction(self, stem: str) -> NDArray[np.uint8]:
        return self._project.predictions.read(self._model, stem, "mask").astype(np.uint8)

    @property
    def _model(self) -> str:
        return self._project.run("latest").id

    def _held_out(self) -> list[str]:
        """Micrographs of the specimens that the newest model has not been trained on."""
        project = self._project
        trained = {region.micrograph for region in project.run("latest").split().train}
        specimens = {record.specimen for record in project.micrographs() if record.stem in trained}
        return [record.stem for record in project.micrographs() if record.specimen not in specimens]

    def _result(self, seconds: float) -> dict[str, Any]:
        stems, n_classes = self._held_out(), len(self._session.schema)
        total = ConfusionMatrix.zeros(n_classes)
        for stem in stems:
            total += ConfusionMatrix.from_masks(self._truth(stem), self._prediction(stem), n_classes)
        model = self._session.readouts.model
        return {
            "mean_iou": float(total.mean_iou()),
            "ground": f"every pixel of {' and '.join(stems)}: a specimen that was not trained on",
            "mean_iou_in_window": model.mean_iou if model else None,
            "screenshots": self.screenshots,
            "seconds": round(seconds, 1),
        }

    # ---- hands and eyes

    def _say(self, line: str) -> None:
        sys.stderr.write(f"{time.monotonic() - self._started:6.1f} s  {line}\n")

    def _photograph(self, name: str) -> None:
        path = self._out / f"{name}.png"
        self._hands.photograph(path)
        self.screenshots.append(str(path))


def main(arguments: Sequence[str] | None = None) -> int:
    """Open the window, or play in it; the last line of stdout is what came of it, as JSON."""
    parser = argparse.ArgumentParser(prog="napari_emtransfer.gui.demo_player")
    parser.add_argument("project", type=Path)
    parser.add_argument("--headless", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("demo-out"))
    options = parser.parse_args(arguments)
    try:
        result = _play(options.project, options.out) if options.headless else _open(options.project)
    except EMTransferError as error:
        result = {"error": error.message, "hint": error.hint}
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if "error" in result else 0


def _play(project: Path, out: Path) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)
    viewer, dock = _window()
    try:
        return DemoPlayer(viewer, dock, out).play(project)
    finally:
        dock.owner.close()
        viewer.close()


def _open(project: Path) -> dict[str, Any]:
    _viewer, dock = _window()
    if (project / DATABASE_NAME).is_file():
        dock.session.open_project(project)
    else:
        dock.session.create_sample_project(project)
    napari.run()
    return {"project": str(project.resolve())}


def _window() -> tuple[napari.Viewer, EMTransferDock]:
    viewer = napari.Viewer(title="EM Transfer")
    dock = EMTransferDock(viewer)
    viewer.window.add_dock_widget(dock, name="EM Transfer", area="right")
    viewer.window._qt_window.resize(*WINDOW_SIZE)
    rest(100)
    return viewer, dock


if __name__ == "__main__":
    sys.exit(main())
