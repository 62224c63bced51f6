"""Train the live head on all labels on disk and predict the window that somebody looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from napari_emtransfer.core.config import LiveConfig
from napari_emtransfer.core.data.intensity import Standardization
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import ProjectError
from napari_emtransfer.core.events import NoticePosted, ProgressMade, RegionPredicted, RunStarted
from napari_emtransfer.core.nn import devices
from napari_emtransfer.core.nn.feature_cache import FeatureCache
from napari_emtransfer.core.nn.features import FeatureSource
from napari_emtransfer.core.nn.live import LiveHead
from napari_emtransfer.worker.clock import Clock
from napari_emtransfer.worker.control import Cancelled, Emit, RunControl
from napari_emtransfer.worker.frozen import load_frozen, weights_stamp
from napari_emtransfer.worker.live_state import LiveState
from napari_emtransfer.worker.prediction_sinks import entropy_of, mask_of
from napari_emtransfer.worker.protocol import LIVE_RUN, LiveRequest

FEATURES_FOLDER: Final = "features"
_NOT_KEPT: Final = "Features are not kept; all else works."


class _Key(NamedTuple):
    """What the kept state depends on; anything else is looked up at each request."""

    root: Path
    config: LiveConfig
    classes: tuple[str, ...]
    working_nm: float | None
    tile_px: int
    weights: tuple[tuple[str, int, int], ...]


class _Recipe(NamedTuple):
    """Features, and how they want their micrographs."""

    source: FeatureSource
    standardization: Standardization
    working_nm: float | None


class _Kept:
    """The state of the process: that of the project and settings asked for last."""

    key: _Key | None = None
    state: LiveState | None = None
    faults: list[tuple[str, str]] = []  # noqa: RUF012 - one per process, as the rest; (sentence, hint)


def forget() -> None:
    """Drop what is kept; the next request starts afresh."""
    _Kept.key, _Kept.state = None, None
    _Kept.faults.clear()


def update_live(request: LiveRequest, emit: Emit, control: RunControl) -> dict[str, Any]:
    """Learn from every labelled pixel and predict `request.window`, into the store under `LIVE_RUN`.

    Only what changed since the last request is read and computed. Returns `n_pixels` (that the head learnt from),
    `classes` (names of those that are labelled), `seconds` of each step, and `weights`.

    Raises
    ------
    LabelError
        When fewer than two classes are labelled.
    ProjectError
        When there is no such micrograph, or the window lies outside of it.
    WeightsError
        When the weights cannot be had.
    """
    clock = Clock()
    devices.set_threads(request.config.compute.threads)
    with Project.open(request.project) as project:
        window = _inside(project, request)
        state = _state(project, request, clock)
        emit(RunStarted(run_id=request.run_id, n_steps=1))
        state.read_labels(project, control.should_stop, lambda done, total: _tell(request, emit, done, total))
        _stop_if_asked(control)
        parts = state.labelled_pixels(request.micrograph, window)
        clock.lap("features")
        head = LiveHead(len(project.schema), seed=request.config.compute.seed, n_threads=torch.get_num_threads())
        n_pixels = head.fit(parts)
        clock.lap("fit")
        _predict(project, request, state, head, window, emit, control)
        clock.lap("predict")
        names = project.schema.names
    for words, hint in _Kept.faults:
        emit(NoticePosted(run_id=request.run_id, message=words, hint=hint))
    _Kept.faults.clear()
    labelled = sorted({int(c) for part in parts for c in np.unique(part.classes)})
    return {
        "n_pixels": n_pixels,
        "classes": [names[c] for c in labelled],
        "seconds": clock.seconds(),
        "weights": request.config.weights,
    }


def _predict(
    project: Project,
    request: LiveRequest,
    state: LiveState,
    head: LiveHead,
    window: Window,
    emit: Emit,
    control: RunControl,
) -> None:
    """Write and tell one tile after the other."""
    store, stem = project.predictions, request.micrograph
    ground = state.ground(project, project.record(stem))
    if not store.exists(LIVE_RUN, stem):
        store.create(LIVE_RUN, stem, ground.record.shape)
    n_total = window.shape[0] * window.shape[1]
    n_done = 0
    for tile, place, features in state.pieces(ground, window):
        _stop_if_asked(control)
        part = tile.window.intersection(window)
        cell, native = ground.view.probabilities_to_native(head.predict(features), place)
        part = part.intersection(cell) if part is not None else None
        if part is None:
            continue
        probabilities = native[:, part.y0 - cell.y0 : part.y1 - cell.y0, part.x0 - cell.x0 : part.x1 - cell.x0]
        store.write(LIVE_RUN, stem, part, **_maps(probabilities))
        emit(
            RegionPredicted(
                run_id=request.run_id,
                micrograph=stem,
                **part.model_dump(),
                model_run=LIVE_RUN,
                generation=request.generation,
            )
        )
        n_done += part.shape[0] * part.shape[1]
        emit(ProgressMade(run_id=request.run_id, done=n_done / 1e6, total=n_total / 1e6, what="megapixels"))


def _tell(request: LiveRequest, emit: Emit, n_done: int, n_total: int) -> None:
    """How far the reading is; a single piece is not worth a word."""
    if n_total > 1:
        emit(ProgressMade(run_id=request.run_id, done=n_done, total=n_total, what="tiles"))


def _maps(probabilities: NDArray[np.float32]) -> dict[str, Any]:
    return {
        "mask": mask_of(probabilities),
        "entropy": entropy_of(probabilities).astype(np.float16),
        "confidence": probabilities.max(axis=0).astype(np.float16),
    }


def _stop_if_asked(control: RunControl) -> None:
    if control.should_stop():
        raise Cancelled


def _inside(project: Project, request: LiveRequest) -> Window:
    height, width = project.record(request.micrograph).shape
    window = request.window.intersection(Window(y0=0, x0=0, y1=height, x1=width))
    if window is None:
        raise ProjectError(
            f"The window {request.window} lies outside of {request.micrograph!r}.",
            f"Choose one inside of its {height} × {width} px.",
        )
    return window


# ---- what is kept


def _state(project: Project, request: LiveRequest, clock: Clock) -> LiveState:
    """The state kept from the last request, or a fresh one when project, classes, weights or sizes are others."""
    settings = project.settings
    key = _Key(
        project.root,
        request.config,
        project.schema.names,
        settings.working_pixel_size_nm,
        settings.tile_size_px,
        weights_stamp(project, request.config.weights),
    )
    if _Kept.state is None or _Kept.key != key:
        forget()
        recipe = _recipe(project, request.config)
        folder = None if project.read_only else project.root / FEATURES_FOLDER
        state = LiveState(
            recipe.source,
            FeatureCache(folder, on_fault=lambda words: _Kept.faults.append((words, _NOT_KEPT))),
            recipe.standardization,
            recipe.working_nm,
            n_classes=len(project.schema),
            seed=request.config.compute.seed,
            on_fault=lambda error: _Kept.faults.append((f"Live leaves labels out. {error.message}", error.hint)),
        )
        # What another head has predicted does not go with what this one will.
        project.predictions.remove(LIVE_RUN)
        _Kept.key, _Kept.state = key, state
        clock.lap("weights")
    return _Kept.state


def _recipe(project: Project, config: LiveConfig) -> _Recipe:
    if config.weights == "none":
        return _Recipe(FeatureSource(), Standardization(), project.settings.working_pixel_size_nm)
    frozen = load_frozen(project, config.weights, config.encoder)
    (network,) = frozen.networks(devices.resolve_device(config.compute.device))
    return _Recipe(FeatureSource(network), frozen.standardization, frozen.working_nm)
