"""Measure a model on held-out ground: in native pixels, on labelled pixels only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.data.annotation import AnnotationStore
from napari_emtransfer.core.data.labels import UNLABELLED, to_targets
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.resample import WorkingView
from napari_emtransfer.core.data.splits import Region
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import LabelError
from napari_emtransfer.core.evaluate.boundary import BoundaryCounts, boundary_counts
from napari_emtransfer.core.evaluate.confusion import ConfusionMatrix
from napari_emtransfer.core.evaluate.report import Evaluation, summarize
from napari_emtransfer.core.events import ProgressMade, RunStarted
from napari_emtransfer.core.nn.ground import labelled_windows
from napari_emtransfer.core.nn.predictor import Predictor
from napari_emtransfer.worker.control import Cancelled, Emit, RunControl
from napari_emtransfer.worker.ground import Ground, choose_ground
from napari_emtransfer.worker.models import TrainedModel, check_classes, load_model, open_for, predict_native
from napari_emtransfer.worker.prediction_sinks import mask_of
from napari_emtransfer.worker.protocol import EvaluateRequest

_CELL_PX = 256


def evaluate(request: EvaluateRequest, emit: Emit, control: RunControl) -> dict[str, Any]:
    """Measure `model_run` on the labels as they are now; returns the `Evaluation`'s fields, `run`, `on`, `device`."""
    with Project.open(request.project) as project:
        model = load_model(project, request.model_run, request.config)
        check_classes(project, model, exactly=True)
        ground = choose_ground(project, model.run, request.on)
        emit(RunStarted(run_id=request.run_id, n_steps=len(ground.regions), device=model.device))

        def report(done: int, total: int) -> None:
            emit(ProgressMade(run_id=request.run_id, done=done, total=total, what="regions"))

        evaluation = measure(project, model, ground, project.annotations, lambda: control.cancelled, report)
    return {"run": model.run.id, "on": list(request.on), "device": model.device, **evaluation.model_dump(mode="json")}


def measure(
    project: Project,
    model: TrainedModel,
    ground: Ground,
    labels: AnnotationStore,
    should_stop: Callable[[], bool],
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> Evaluation:
    """Predict the labelled parts of `ground` and compare them with `labels`.

    Raises
    ------
    Cancelled
        When `should_stop` says so.
    LabelError
        When nothing is labelled there.
    """
    specimens = {record.stem: record.specimen for record in project.micrographs()}
    tally = _Tally(model.n_classes, BoundaryCounts.zeros(model.n_classes))
    for i, region in enumerate(ground.regions):
        view = model.view(open_for(project, region.micrograph))
        truth = restricted(labels.read(region.micrograph), region)
        tally.n_pixels += _n_pixels(region, truth.shape)
        for pair in _compare(model.predictor, view, truth, should_stop):
            tally.add(specimens[region.micrograph], *pair)
        report(i + 1, len(ground.regions))
    if not tally.n_labelled:
        raise LabelError(
            f"Nothing is labelled on {', '.join(ground.on)}, so there is nothing to measure.", "Label some tiles there."
        )
    return summarize(
        tally.confusion,
        model.meta.classes,
        ground=ground.closeness,
        note=ground.note,
        labelled_fraction=tally.n_labelled / tally.n_pixels,
        micrographs=list(dict.fromkeys(r.micrograph for r in ground.regions)),
        boundary=tally.boundary,
    )


def restricted(mask: NDArray[np.uint8], region: Region) -> NDArray[np.uint8]:
    """Label values (H, W) → the same inside the region, unlabelled outside."""
    if region.window is None:
        return mask
    inside = np.full_like(mask, UNLABELLED)
    inside[region.window.slices] = mask[region.window.slices]
    return inside


@dataclass
class _Tally:
    """What has been counted so far, the confusion by specimen."""

    n_classes: int
    boundary: BoundaryCounts
    confusion: dict[str, ConfusionMatrix] = field(default_factory=dict)
    n_pixels: int = 0
    n_labelled: int = 0

    def add(self, specimen: str, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> None:
        """Label values of truth (0..K) and prediction (1..K), both (h, w)."""
        before = self.confusion.get(specimen, ConfusionMatrix.zeros(self.n_classes))
        self.confusion[specimen] = before + ConfusionMatrix.from_masks(truth, prediction, self.n_classes)
        self.boundary += boundary_counts(truth, prediction, self.n_classes)
        self.n_labelled += int(np.count_nonzero(truth))


def _compare(
    predictor: Predictor, view: WorkingView, truth: NDArray[np.uint8], should_stop: Callable[[], bool]
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Pairs of truth and prediction (h, w) that hold every labelled pixel of `truth` (H, W) once; erases `truth`."""
    for window in labelled_windows(to_targets(truth), cell_px=_CELL_PX):
        yield truth[window.slices], _predict(predictor, view, window, should_stop)
        # The bounding boxes of two labelled groups may overlap.
        truth[window.slices] = UNLABELLED


def _predict(
    predictor: Predictor, view: WorkingView, window: Window, should_stop: Callable[[], bool]
) -> NDArray[np.uint8]:
    """Predicted label values of a native window, (h, w)."""
    prediction = np.zeros(window.shape, np.uint8)
    for cell, probabilities in predict_native(predictor, view, window, should_stop):
        part = cell.intersection(window)
        if part is not None:
            inside = (slice(part.y0 - cell.y0, part.y1 - cell.y0), slice(part.x0 - cell.x0, part.x1 - cell.x0))
            into = (slice(part.y0 - window.y0, part.y1 - window.y0), slice(part.x0 - window.x0, part.x1 - window.x0))
            prediction[into] = mask_of(probabilities)[inside]
    if should_stop():
        raise Cancelled
    return prediction


def _n_pixels(region: Region, shape: tuple[int, int]) -> int:
    height, width = region.window.shape if region.window is not None else shape
    return height * width
