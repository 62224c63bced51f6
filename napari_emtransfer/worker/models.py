"""A trained model ready to predict, and micrographs as that model wants to see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from napari_emtransfer.core.nn.checkpoint import Checkpoint, CheckpointMeta, read_meta
from napari_emtransfer.core.nn.ensemble import Ensemble
from napari_emtransfer.core.nn.predictor import Predictor

# Native pixels that are held as float32 probabilities of all classes at once when a small view is enlarged.
_MAX_NATIVE_PIXELS: Final = 4_000_000


@dataclass(frozen=True)
class TrainedModel:
    """What predicts, on its device, and how it wants its micrographs: one network, or the mean of several.

    `run` is the run that its predictions are stored under; `others` are averaged with it.
    """

    run: Run
    checkpoints: tuple[Path, ...]
    meta: CheckpointMeta
    predictor: Predictor
    temperature: float = 1.0
    others: tuple[Run, ...] = ()

    @property
    def n_classes(self) -> int:
        """K."""
        return len(self.meta.classes)

    @property
    def device(self) -> str:
        """The device in words."""
        return devices.describe(self.predictor.device)

    @property
    def recipe(self) -> str:
        """What a prediction depends on besides the run's checkpoints; empty for the run's model as it is."""
        words = [run.id for run in self.others]
        symmetries = self.predictor.config.symmetries
        return " ".join([*words, f"symmetries {symmetries}"] if symmetries != (0,) else words)

    def view(self, micrograph: Micrograph) -> WorkingView:
        """A micrograph as the model saw its training data: same pixel size, same standardisation."""
        return working_view(
            micrograph, Standardization.model_validate(self.meta.standardization), self.meta.working_pixel_size_nm
        )


def load_model(
    project: Project, ref: str, config: PredictConfig, *, ensemble: Sequence[str] = (), disagreement: bool = False
) -> TrainedModel:
    """The model of a run, and those of the runs in `ensemble`, as one, on the device of `config`.

    The model of a run is its best checkpoint (the last one where there is no best yet); of a run with folds the mean
    of their networks. With `disagreement` the predictor gives one more channel.

    Raises
    ------
    ProjectError
        When there is no such run, or a single network is asked for its disagreement.
    WeightsError
        When a run has no checkpoint, or the runs do not go together.
    """
    runs = tuple({run.id: run for run in map(project.run, (ref, *ensemble))}.values())
    paths = tuple(path for run in runs for path in _model_paths(run))
    metas = [read_meta(path) for path in paths]
    for path, meta in zip(paths, metas, strict=True):
        _check_companion(metas[0], meta, paths[0], path)
    if disagreement and len(paths) * len(config.symmetries) == 1:
        raise ProjectError(
            f"The model of the run {runs[0].id} is a single network, which cannot disagree with itself.",
            "Train with --folds, name a second run with --ensemble, or add --tta; or choose the entropy.",
        )
    devices.set_threads(config.compute.threads)
    predictor = _load(paths, tuple(map(_stamp, paths)), config, disagreement)
    # Temperatures were fitted for each run alone: several together are not calibrated.
    temperature = metas[0].temperature if len(runs) == 1 else 1.0
    return TrainedModel(runs[0], paths, metas[0], predictor, temperature, runs[1:])


def load_fold(run: Run, fold: int, config: PredictConfig) -> TrainedModel:
    """The network of one fold of a run; raises `WeightsError` where it has no checkpoint."""
    path = run.fold_folder(fold) / "best.safetensors"
    meta = read_meta(path)
    devices.set_threads(config.compute.threads)
    return TrainedModel(run, (path,), meta, _load((path,), (_stamp(path),), config, False), meta.temperature)


def _model_paths(run: Run) -> list[Path]:
    paths = run.model_paths()
    if not paths:
        raise WeightsError(f"The run {run.id} has no checkpoint: it ended before the first one.", "Choose another run.")
    return paths


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


def _check_companion(first: CheckpointMeta, other: CheckpointMeta, first_path: Path, path: Path) -> None:
    """Probabilities can be averaged only where they are of the same classes and lie on the same pixels."""
    for what, mine, its in (
        ("classes", _listed(first.classes), _listed(other.classes)),
        ("working pixel size", _size(first.working_pixel_size_nm), _size(other.working_pixel_size_nm)),
        ("standardisation", str(first.standardization), str(other.standardization)),
    ):
        if mine != its:
            raise WeightsError(
                f"The runs {_run_of(first, first_path)} and {_run_of(other, path)} cannot be averaged: "
                f"their {what} differ ({mine}; {its}).",
                "Average runs that were trained with the same classes at the same working pixel size.",
            )


def _run_of(meta: CheckpointMeta, path: Path) -> str:
    return meta.run_id or path.parent.name


def _size(nm: float | None) -> str:
    return "native" if nm is None else f"{nm:g} nm"


@lru_cache(maxsize=1)
def _load(
    paths: tuple[Path, ...],
    stamps: tuple[tuple[int, int], ...],  # noqa: ARG001
    config: PredictConfig,
    disagreement: bool,
) -> Predictor:
    """Kept for the next request, because the engine is asked for one window after another of the same model."""
    networks = [Checkpoint.load(path).build() for path in paths]
    return Predictor(networks[0] if len(networks) == 1 else Ensemble(networks), config, disagreement=disagreement)


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
    """Channels of the predictor (C, h, w) in native pixels, piece by piece in reading order, each pixel once.

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
