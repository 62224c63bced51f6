"""A trained model ready to predict, and micrographs as that model wants to see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.config import PredictConfig
from napari_emtransfer.core.data.intensity import Standardization
from napari_emtransfer.core.data.micrograph import Micrograph
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.resample import WorkingView
from napari_emtransfer.core.data.run import Run
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import ProjectError, WeightsError
from napari_emtransfer.core.nn import devices
from napari_emtransfer.core.nn.checkpoint import Checkpoint, CheckpointMeta
from napari_emtransfer.core.nn.predictor import Predictor

# Native pixels that are held as float32 probabilities of all classes at once when a small view is enlarged.
_MAX_NATIVE_PIXELS: Final = 4_000_000


@dataclass(frozen=True)
class TrainedModel:
    """The best network of a run on its device, and how it wants its micrographs."""

    run: Run
    checkpoint: Path
    meta: CheckpointMeta
    predictor: Predictor

    @property
    def n_classes(self) -> int:
        """K."""
        return len(self.meta.classes)

    @property
    def device(self) -> str:
        """The device in words."""
        return devices.describe(self.predictor.device)

    def view(self, micrograph: Micrograph) -> WorkingView:
        """A micrograph as the model saw its training data: same pixel size, same standardisation."""
        return working_view(
            micrograph, Standardization.model_validate(self.meta.standardization), self.meta.working_pixel_size_nm
        )


def load_model(project: Project, ref: str, config: PredictConfig) -> TrainedModel:
    """The best checkpoint of a run (the last one where there is no best yet), on the device of `config`.

    Raises
    ------
    ProjectError
        When there is no such run.
    WeightsError
        When it has no checkpoint.
    """
    run = project.run(ref)
    paths = [p for p in (run.checkpoint_path("best"), run.checkpoint_path("last")) if p.is_file()]
    if not paths:
        raise WeightsError(f"The run {run.id} has no checkpoint: it ended before the first one.", "Choose another run.")
    devices.set_threads(config.compute.threads)
    stat = paths[0].stat()
    meta, predictor = _load(paths[0], (stat.st_mtime_ns, stat.st_size), config)
    return TrainedModel(run, paths[0], meta, predictor)


@lru_cache(maxsize=1)
def _load(path: Path, stamp: tuple[int, int], config: PredictConfig) -> tuple[CheckpointMeta, Predictor]:  # noqa: ARG001
    """Kept for the next request, because the engine is asked for one window after another of the same model."""
    checkpoint = Checkpoint.load(path)
    return checkpoint.meta, Predictor(checkpoint.build(), config)


def check_classes(project: Project, model: TrainedModel, *, exactly: bool) -> None:
    """Refuse a model whose class values mean something else here; without `exactly`, classes added later are fine.

    Raises
    ------
    ProjectError
        Naming both lists of classes.
    """
    trained, present = model.meta.classes, project.schema.names
    if trained != (present if exactly else present[: len(trained)]):
        raise ProjectError(
            f"The run {model.run.id} was trained on the classes {_listed(trained)}, "
            f"but those of the project are {_listed(present)}.",
            "Train again with the present classes, or choose a run that knows them.",
        )


def open_for(project: Project, stem: str) -> Micrograph:
    """A project's micrograph with the pixel size and info bar that the project has on record."""
    record = project.record(stem)
    return replace(project.open_micrograph(stem), pixel_size_nm=record.pixel_size_nm, info_bar=record.info_bar)


def working_view(
    micrograph: Micrograph, standardization: Standardization, working_pixel_size_nm: float | None
) -> WorkingView:
    """A micrograph at a working pixel size; at its native one where either size is unknown."""
    native = micrograph.pixel_size_nm
    scale = native / working_pixel_size_nm if native and working_pixel_size_nm else 1.0
    return WorkingView(micrograph, scale=scale, intensity=standardization.fit(micrograph))


def predict_native(
    predictor: Predictor, view: WorkingView, window: Window | None, should_stop: Callable[[], bool]
) -> Iterator[tuple[Window, NDArray[np.float32]]]:
    """Probabilities (C, h, w) in native pixels, piece by piece in reading order, each pixel once.

    `window` (native) is covered, with a margin of less than a working pixel; None is everything.
    """
    target = None if window is None else view.to_working(window)
    for place, probabilities in predictor.predict(view, should_stop, window=target):
        for cell, native in _to_native(view, place, probabilities):
            if 0 not in cell.shape:
                yield cell, native


def _to_native(
    view: WorkingView, place: Window, probabilities: NDArray[np.float32]
) -> Iterator[tuple[Window, NDArray[np.float32]]]:
    """One predicted window, resampled in strips of rows, so that a strongly enlarged one fits the memory."""
    height, width = place.shape
    enlargement = np.prod(view.micrograph.shape) / np.prod(view.shape)
    n_rows = max(1, int(_MAX_NATIVE_PIXELS / (enlargement * width)))
    reach = 2 + 2 * -(-view.shape[0] // view.micrograph.shape[0])  # rows that a strip's rim interpolates with
    for start in range(0, height, n_rows):
        stop = min(start + n_rows, height)
        first, last = max(0, start - reach), min(height, stop + reach)
        strip, wide = (
            place.model_copy(update={"y0": place.y0 + a, "y1": place.y0 + b}) for a, b in ((start, stop), (first, last))
        )
        cell = view.native_cell(strip)
        wide_cell, native = view.probabilities_to_native(probabilities[:, first:last], wide)
        yield cell, native[:, cell.y0 - wide_cell.y0 : cell.y1 - wide_cell.y0]


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names)) or "none"
