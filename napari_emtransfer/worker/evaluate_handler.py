"""Measure a model on held-out ground: in native pixels, on labelled pixels only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Final

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
from napari_emtransfer.core.evaluate.calibration import (
    MAX_PIXELS,
    Calibration,
    PixelSample,
    apply_calibration,
    draw_pixels,
    fit_calibration,
    near_boundaries,
)
from napari_emtransfer.core.evaluate.confusion import ConfusionMatrix
from napari_emtransfer.core.evaluate.report import Evaluation, summarize
from napari_emtransfer.core.events import ProgressMade, RunStarted
from napari_emtransfer.core.nn.ground import labelled_windows
from napari_emtransfer.worker.averaging import tell_of_averages, with_symmetries
from napari_emtransfer.worker.control import Cancelled, Emit, RunControl
from napari_emtransfer.worker.ground import Ground, choose_ground
from napari_emtransfer.worker.models import (
    TrainedModel,
    check_classes,
    load_fold,
    load_model,
    open_for,
    predict_native,
)
from napari_emtransfer.worker.prediction_sinks import mask_of
from napari_emtransfer.worker.protocol import EvaluateRequest

_CELL_PX: Final = 256

# Which model measures a region: of a run with folds, one that never saw it.
ModelFor = Callable[[Region], TrainedModel]


def evaluate(request: EvaluateRequest, emit: Emit, control: RunControl) -> dict[str, Any]:
    """Measure `model_run` on the labels as they are now; returns the `Evaluation`'s fields, `run`, `on`, `device`."""
    with Project.open(request.project) as project:
        config = with_symmetries(request.config, project, tta=request.tta)
        model = load_model(project, request.model_run, config, ensemble=request.ensemble)
        check_classes(project, model, exactly=True)
        ground = choose_ground(project, model.run, request.on, model.others)
        emit(RunStarted(run_id=request.run_id, n_steps=len(ground.regions), device=model.device))
        tell_of_averages(request.run_id, model, emit, tta=request.tta)

        def report(done: int, total: int) -> None:
            emit(ProgressMade(run_id=request.run_id, done=done, total=total, what="regions"))

        def model_for(region: Region) -> TrainedModel:
            fold = ground.fold_of.get(region.micrograph)
            return model if fold is None else load_fold(model.run, fold, config)

        measurement = measure(project, model_for, ground, project.annotations, lambda: control.cancelled, report)
        evaluation = measurement.evaluation(ground, calibration_of(model, ground, measurement.samples))
    return {
        "run": model.run.id,
        "ensemble": [run.id for run in model.others],
        "symmetries": list(config.symmetries),
        "on": list(request.on),
        "device": model.device,
        **evaluation.model_dump(mode="json"),
    }


def calibration_of(model: TrainedModel, ground: Ground, samples: Mapping[str, PixelSample]) -> Calibration | None:
    """What the model's own temperature gives on a ground; on that which it was fitted on, told without flattery."""
    if not samples:  # so few labels in a window of a large micrograph that none was drawn
        return None
    words = f"temperature {model.temperature:.2f}, fitted on the validation ground of the run{_fitted_for(model)}"
    if model.temperature == 1:
        return apply_calibration(samples, 1.0, "no temperature has been fitted for this model")
    if not ground.is_validation:
        return apply_calibration(samples, model.temperature, f"{words} and reported on this other ground")
    if len(samples) == 1:
        note = f"{words} and reported on a specimen of that same ground, so expect worse calibration on others"
        return apply_calibration(samples, model.temperature, note)
    return fit_calibration(samples, "this ground").model_copy(
        update={
            "temperature": model.temperature,
            "note": f"{words}; each specimen is reported with the temperature of the others",
        }
    )


def _fitted_for(model: TrainedModel) -> str:
    """What the temperature was fitted for, where that is not quite what predicts."""
    parts = ["for each network of the folds alone"] if model.run.fold_folders() else []
    parts += ["for one orientation"] if len(model.predictor.config.symmetries) > 1 else []
    return f" ({', '.join(parts)})" if parts else ""


@dataclass
class Measurement:
    """What has been counted so far: the confusion by region and by specimen, and labelled pixels to calibrate on."""

    classes: tuple[str, ...]
    boundary: BoundaryCounts
    by_region: dict[Region, ConfusionMatrix] = field(default_factory=dict)
    by_specimen: dict[str, ConfusionMatrix] = field(default_factory=dict)
    drawn: dict[str, list[PixelSample]] = field(default_factory=dict)
    n_pixels: int = 0
    n_labelled: int = 0

    def add(self, region: Region, specimen: str, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> None:
        """Label values of truth (0..K) and prediction (1..K), both (h, w)."""
        n_classes = len(self.classes)
        counts = ConfusionMatrix.from_masks(truth, prediction, n_classes)
        zeros = ConfusionMatrix.zeros(n_classes)
        self.by_region[region] = self.by_region.get(region, zeros) + counts
        self.by_specimen[specimen] = self.by_specimen.get(specimen, zeros) + counts
        self.boundary += boundary_counts(truth, prediction, n_classes)
        self.n_labelled += int(np.count_nonzero(truth))

    def add_pixels(self, specimen: str, drawn: PixelSample) -> None:
        """Labelled pixels of one specimen, with what the model says of them."""
        self.drawn.setdefault(specimen, []).append(drawn)

    @property
    def samples(self) -> dict[str, PixelSample]:
        """The labelled pixels of each specimen that has any."""
        joined = {specimen: PixelSample.joined(parts) for specimen, parts in self.drawn.items()}
        return {specimen: sample for specimen, sample in joined.items() if len(sample)}

    def confusion(self, regions: tuple[Region, ...]) -> ConfusionMatrix:
        """One matrix over some of the regions."""
        parts = (self.by_region[region] for region in regions if region in self.by_region)
        return reduce(lambda a, b: a + b, parts, ConfusionMatrix.zeros(len(self.classes)))

    def evaluation(self, ground: Ground, calibration: Calibration | None) -> Evaluation:
        """Everything together, in numbers and words."""
        return summarize(
            self.by_specimen,
            self.classes,
            ground=ground.closeness,
            note=ground.note,
            labelled_fraction=self.n_labelled / self.n_pixels,
            micrographs=list(dict.fromkeys(r.micrograph for r in ground.regions)),
            boundary=self.boundary,
            calibration=calibration,
        )


def measure(
    project: Project,
    model_for: ModelFor,
    ground: Ground,
    labels: AnnotationStore,
    should_stop: Callable[[], bool],
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> Measurement:
    """Predict the labelled parts of `ground` and compare them with `labels`.

    Raises
    ------
    Cancelled
        When `should_stop` says so.
    LabelError
        When nothing is labelled there.
    """
    specimens = {record.stem: record.specimen for record in project.micrographs()}
    classes = model_for(ground.regions[0]).meta.classes
    tally = Measurement(classes, BoundaryCounts.zeros(len(classes)))
    share, rng = _share_to_draw(ground, labels), np.random.default_rng(0)
    for i, region in enumerate(ground.regions):
        model, specimen = model_for(region), specimens[region.micrograph]
        view = model.view(open_for(project, region.micrograph))
        truth = restricted(labels.read(region.micrograph), region)
        tally.n_pixels += _n_pixels(region, truth.shape)
        for window, part in _labelled_parts(truth):
            near, prediction = near_boundaries(part), np.zeros(part.shape, np.uint8)
            for place, probabilities in _predict(model, view, window, should_stop):
                prediction[place] = mask_of(probabilities)
                tally.add_pixels(specimen, draw_pixels(part[place], probabilities, near[place], share, rng))
            tally.add(region, specimen, part, prediction)
        report(i + 1, len(ground.regions))
    if not tally.n_labelled:
        raise LabelError(
            f"Nothing is labelled on {', '.join(ground.on)}, so there is nothing to measure.", "Label some tiles there."
        )
    return tally


def restricted(mask: NDArray[np.uint8], region: Region) -> NDArray[np.uint8]:
    """Label values (H, W) → the same inside the region, unlabelled outside."""
    if region.window is None:
        return mask
    inside = np.full_like(mask, UNLABELLED)
    inside[region.window.slices] = mask[region.window.slices]
    return inside


def _share_to_draw(ground: Ground, labels: AnnotationStore) -> float:
    """Share of the labelled pixels that calibration looks at; regions that are windows are counted as a whole."""
    stems = dict.fromkeys(region.micrograph for region in ground.regions)
    n = sum(int(labels.class_counts(stem)[1:].sum()) for stem in stems)
    return min(1.0, MAX_PIXELS / max(n, 1))


def _labelled_parts(truth: NDArray[np.uint8]) -> Iterator[tuple[Window, NDArray[np.uint8]]]:
    """Windows of `truth` (H, W) and what they hold, (h, w): every labelled pixel once; erases `truth`."""
    for window in labelled_windows(to_targets(truth), cell_px=_CELL_PX):
        yield window, truth[window.slices].copy()
        # The bounding boxes of two labelled groups may overlap.
        truth[window.slices] = UNLABELLED


def _predict(
    model: TrainedModel, view: WorkingView, window: Window, should_stop: Callable[[], bool]
) -> Iterator[tuple[tuple[slice, slice], NDArray[np.float32]]]:
    """Slices of a native window and the probabilities (C, h, w) there, as the network gives them, each pixel once."""
    for cell, probabilities in predict_native(model.predictor, view, window, should_stop):
        part = cell.intersection(window)
        if part is not None:
            inside = (slice(part.y0 - cell.y0, part.y1 - cell.y0), slice(part.x0 - cell.x0, part.x1 - cell.x0))
            into = (slice(part.y0 - window.y0, part.y1 - window.y0), slice(part.x0 - window.x0, part.x1 - window.x0))
            yield into, probabilities[:, *inside]
    if should_stop():
        raise Cancelled


def _n_pixels(region: Region, shape: tuple[int, int]) -> int:
    height, width = region.window.shape if region.window is not None else shape
    return height * width
