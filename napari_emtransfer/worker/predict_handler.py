"""Predict micrographs of a project, or image files beside it, at their native size."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_emtransfer.core.data.micrograph import Micrograph
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.project_records import unique_stem
from napari_emtransfer.core.data.readers import read_micrograph
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import ProjectError
from napari_emtransfer.core.evaluate.calibration import tempered
from napari_emtransfer.core.events import NoticePosted, ProgressMade, RegionPredicted, RunStarted
from napari_emtransfer.worker.averaging import tell_of_averages, with_symmetries
from napari_emtransfer.worker.control import Cancelled, Emit, RunControl
from napari_emtransfer.worker.models import TrainedModel, check_classes, load_model, open_for, predict_native
from napari_emtransfer.worker.prediction_sinks import FileSink, Sink, StoreSink
from napari_emtransfer.worker.protocol import PredictRequest

_MEGA = 1e6


@dataclass(frozen=True)
class _Target:
    """One micrograph to predict; `n_pixels` of it will be."""

    name: str
    n_pixels: int
    open: Callable[[], Micrograph]


def predict(request: PredictRequest, emit: Emit, control: RunControl) -> dict[str, Any]:
    """Predict what `request` names; returns `predictions` (stems, or paths of masks), `megapixels` and `seconds`."""
    begin = time.perf_counter()
    with Project.open(request.project) as project:
        model = load_model(
            project,
            request.model_run,
            with_symmetries(request.config, project, tta=request.tta),
            ensemble=request.ensemble,
            disagreement=request.uncertainty == "disagreement",
        )
        if request.out is None:
            check_classes(project, model, exactly=False)
        targets = list(_targets(project, request))
        emit(RunStarted(run_id=request.run_id, n_steps=len(targets), device=model.device))
        tell_of_averages(request.run_id, model, emit, tta=request.tta)
        work = _Prediction(request, emit, control, project, model, sum(t.n_pixels for t in targets))
        complete = all(work.do(target) for target in targets)
    result = {
        "run": model.run.id,
        "predictions": work.finished,
        "megapixels": work.n_done / _MEGA,
        "seconds": time.perf_counter() - begin,
        "device": model.device,
        "ensemble": [run.id for run in model.others],
        "symmetries": list(model.predictor.config.symmetries),
        "temperature": model.temperature,
    }
    if control.cancelled and not complete:
        raise Cancelled(result)
    return result


@dataclass
class _Prediction:
    """The work on one request, and how far it is."""

    request: PredictRequest
    emit: Emit
    control: RunControl
    project: Project
    model: TrainedModel
    n_total: int
    n_done: int = 0

    def __post_init__(self) -> None:
        self.finished: list[str] = []

    def do(self, target: _Target) -> bool:
        """Predict one micrograph; False when it was stopped before the end."""
        if self.control.should_stop():
            return False
        micrograph = target.open()
        self._warn_of_unknown_size(micrograph)
        view, sink = self.model.view(micrograph), self._sink(target.name, micrograph)
        pieces = predict_native(self.model.predictor, view, self.request.window, self.control.should_stop)
        n_before = self.n_done
        n_classes = self.model.n_classes
        for window, channels in pieces:
            # What a temperature mends are confidence and entropy; the mask stays as it was measured.
            probabilities = tempered(channels[:n_classes], self.model.temperature)
            sink.write(window, probabilities, channels[n_classes] if len(channels) > n_classes else None)
            self.n_done = min(n_before + target.n_pixels, self.n_done + window.shape[0] * window.shape[1])
            self._report(target.name, window)
        if self.n_done < n_before + target.n_pixels:
            return False
        self.finished.append(sink.finish())
        return True

    def _sink(self, name: str, micrograph: Micrograph) -> Sink:
        request = self.request
        if request.out is None:
            return StoreSink(self.project.predictions, self.model, name, micrograph.shape)
        return FileSink(
            request.out / name,
            self.model,
            micrograph.shape,
            micrograph.pixel_size_nm,
            uncertainty=request.uncertainty,
            probabilities=request.probabilities,
        )

    def _report(self, name: str, window: Window) -> None:
        request = self.request
        if request.out is None:
            self.emit(
                RegionPredicted(
                    run_id=request.run_id,
                    micrograph=name,
                    **window.model_dump(),
                    model_run=self.model.run.id,
                    generation=request.generation,
                )
            )
        done, total = self.n_done / _MEGA, self.n_total / _MEGA
        self.emit(ProgressMade(run_id=request.run_id, done=done, total=total, what="megapixels"))

    def _warn_of_unknown_size(self, micrograph: Micrograph) -> None:
        working = self.model.meta.working_pixel_size_nm
        if working is not None and micrograph.pixel_size_nm is None:
            message = (
                f"The pixel size of {micrograph.name!r} is unknown, so it is predicted as it is; "
                f"the model was trained at {working:g} nm per pixel."
            )
            hint = "Where the magnification differs, state its pixel size and predict it again."
            self.emit(NoticePosted(run_id=self.request.run_id, message=message, hint=hint))


def _targets(project: Project, request: PredictRequest) -> Iterator[_Target]:
    stems = list(request.micrographs)
    if not stems and not request.paths:
        stems = [record.stem for record in project.micrographs()]
    if not stems and not request.paths:
        raise ProjectError(f"The project {project.root.name!r} has no micrograph to predict.", "Add some first.")
    if request.window is not None and (len(stems) != 1 or request.paths):
        raise ProjectError("A window to predict needs exactly one micrograph of the project.", "Name that micrograph.")
    for stem in stems:
        height, width = project.record(stem).shape if request.window is None else request.window.shape
        yield _Target(stem, height * width, lambda stem=stem: open_for(project, stem))  # type: ignore[misc]
    yield from _files(request, stems)


def _files(request: PredictRequest, stems: list[str]) -> Iterator[_Target]:
    if request.paths and request.out is None:
        raise ProjectError(
            f"{str(request.paths[0])!r} is predicted outside of the project, so the mask needs a place to go.",
            "Name a folder with --out.",
        )
    taken = list(stems)
    for path in request.paths:
        micrograph = read_micrograph(Path(path))
        taken.append(unique_stem(micrograph.name, taken))
        height, width = micrograph.shape
        yield _Target(taken[-1], height * width, lambda micrograph=micrograph: micrograph)  # type: ignore[misc]
