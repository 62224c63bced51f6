"""Measure what a training run has reached, calibrate it, and put both into its result and its checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from napari_emtransfer.core.config import ComputeConfig, PredictConfig, TrainConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.run import Run
from napari_emtransfer.core.data.split import Region, Split
from napari_emtransfer.core.evaluate.calibration import fit_calibration
from napari_emtransfer.core.evaluate.report import by_class
from napari_emtransfer.core.nn.checkpoint import set_temperature
from napari_emtransfer.core.nn.trainer import FitResult
from napari_emtransfer.worker.evaluate_handler import Measurement, measure
from napari_emtransfer.worker.fold_handler import FoldsFit
from napari_emtransfer.worker.ground import choose_ground
from napari_emtransfer.worker.models import TrainedModel, load_fold, load_model

_MEAN_NOT_CALIBRATED: Final = (
    "it was fitted for each network alone, and their mean, which is the run's model, was not calibrated itself"
)


def measure_run(
    project: Project,
    run: Run,
    config: TrainConfig,
    split: Split,
    fit: FitResult | FoldsFit,
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    """The run on its validation ground, in native pixels, with the frozen labels → its result.

    Each fold is measured by its own network. The temperature that is fitted on this ground is written into the
    checkpoints; what it gives is reported on specimens that it was not fitted on, where there are two.

    Raises
    ------
    Cancelled
        When `should_stop` says so.
    SplitError
        When no fold has been finished.
    """
    predict = PredictConfig(compute=ComputeConfig.model_validate(config.compute))
    ground = choose_ground(project, run, ("validation",))

    def model_for(region: Region) -> TrainedModel:
        fold = ground.fold_of.get(region.micrograph)
        return load_model(project, run.id, predict) if fold is None else load_fold(run, fold, predict)

    measurement = measure(project, model_for, ground, run.labels, should_stop)
    samples = measurement.samples
    calibration = fit_calibration(samples, "the validation ground") if samples else None
    if calibration is not None:
        for path in run.model_paths():
            set_temperature(path, calibration.temperature)
        if split.folds:
            calibration = calibration.model_copy(update={"note": f"{calibration.note}; {_MEAN_NOT_CALIBRATED}"})
    result = measurement.evaluation(ground, calibration).model_dump(mode="json")
    if isinstance(fit, FoldsFit):
        return result | {"ended": fit.ended, "folds": list(_folds(split, fit, measurement))}
    return result | {"ended": fit.reason, "best_iteration": fit.best_iteration}


def _folds(split: Split, fit: FoldsFit, measurement: Measurement) -> Any:
    """Each fold's own figures on what it held out."""
    for k, one in fit.fits.items():
        fold = split.folds[k]
        confusion = measurement.confusion(fold.held_out)
        iou = confusion.mean_iou()
        yield {
            "fold": k,
            "held_out": [region.micrograph for region in fold.held_out],
            "chosen_on": [region.micrograph for region in fold.chosen_on],
            "mean_iou": iou if confusion.n_pixels else None,
            "iou": by_class(measurement.classes, confusion.iou()),
            "best_iteration": one.best_iteration,
            "iterations": one.iterations,
            "seconds": one.seconds,
            "ended": one.reason,
        }
