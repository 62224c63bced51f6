"""Train the networks of a run with folds, one after the other, and take up again where that was interrupted."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.run import Run
from napari_emtransfer.core.data.split import Fold, Split
from napari_emtransfer.core.data.storage import write_text
from napari_emtransfer.core.events import Event, FoldBegan, IterationEnded
from napari_emtransfer.core.nn.checkpoint import Checkpoint, read_meta
from napari_emtransfer.core.nn.trainer import FitResult
from napari_emtransfer.worker.control import Emit, RunControl
from napari_emtransfer.worker.fit import FitGround, Fitter

_RESULT_NAME = "result.json"


@dataclass(frozen=True)
class FoldsFit:
    """The folds that have been trained to their end, by number; `iterations` and `seconds` are of all together."""

    fits: Mapping[int, FitResult]
    n_folds: int

    @property
    def iterations(self) -> int:
        """Optimiser steps of all folds."""
        return sum(fit.iterations for fit in self.fits.values())

    @property
    def seconds(self) -> float:
        """Training time of all folds."""
        return sum(fit.seconds for fit in self.fits.values())

    @property
    def ended(self) -> str:
        """Why no more: "stopped" where folds are missing or cut short, else what ended the last one."""
        fits = [self.fits[k] for k in sorted(self.fits)]
        return "stopped" if len(fits) < self.n_folds or not fits else fits[-1].reason


def first_step(run: Run, config: TrainConfig, split: Split) -> int:
    """Iterations that a resumed run has behind it: its finished folds count in full."""
    for k in range(len(split.folds)):
        if _finished(run.fold_folder(k)) is None:
            last = run.fold_folder(k) / "last.safetensors"
            return k * config.iterations + (read_meta(last).iteration if last.is_file() else 0)
    return len(split.folds) * config.iterations


def fit_folds(
    fitter: Fitter, config: TrainConfig, split: Split, closeness: str, emit: Emit, control: RunControl
) -> FoldsFit:
    """Train each fold that has not been; stopped early, the fold at work is the last one.

    Each fold has its own seed, so that the networks differ also in where they began, and an equal share of the minutes.
    A cancelled fold is left to be resumed.
    """
    run, fits = fitter.run, {}
    specimens = {record.stem: record.specimen for record in fitter.project.micrographs()}
    for k, fold in enumerate(split.folds):
        folder = run.fold_folder(k)
        done = _finished(folder)
        if done is not None:
            fits[k] = done
            continue
        if control.should_stop():
            break
        held_out = tuple(sorted({specimens.get(r.micrograph, r.micrograph) for r in fold.held_out}))
        emit(FoldBegan(run_id=run.id, fold=k, n_folds=len(split.folds), held_out=held_out))
        own, ground, last = _own(config, k, len(split.folds)), _ground(fold, split, closeness), _last(folder)
        told = _of_all_folds(emit, k, len(split.folds), config.iterations, last.meta.iteration if last else 0)
        fit = fitter.fit(own, ground, folder, told, last)
        if control.cancelled:
            break
        write_text(folder / _RESULT_NAME, json.dumps(asdict(fit), indent=1))
        fits[k] = fit
    return FoldsFit(fits, len(split.folds))


def _own(config: TrainConfig, fold: int, n_folds: int) -> TrainConfig:
    compute = config.compute.model_copy(update={"seed": config.compute.seed + fold})
    minutes = None if config.minutes is None else config.minutes / n_folds
    return config.model_copy(update={"compute": compute, "minutes": minutes})


def _ground(fold: Fold, split: Split, closeness: str) -> FitGround:
    others = [region for regions in split.other.values() for region in regions]
    hidden = (*fold.held_out, *fold.selection, *split.test, *others)
    return FitGround(fold.train, fold.chosen_on, fold.held_out, hidden, closeness)


def _of_all_folds(emit: Emit, fold: int, n_folds: int, iterations: int, first: int) -> Emit:
    """Iterations are counted, and the time left is told, over all folds; this one begins at iteration `first`."""
    began, share = time.monotonic(), max(1 - first / iterations, 1 / iterations)

    def told(event: Event) -> None:
        changes: dict[str, Any] = {}
        if hasattr(event, "iteration"):
            changes["iteration"] = event.iteration + fold * iterations
        if isinstance(event, IterationEnded) and event.seconds_left is not None:
            per_fold = (time.monotonic() - began + event.seconds_left) / share
            changes["seconds_left"] = event.seconds_left + (n_folds - fold - 1) * per_fold
        emit(event.model_copy(update=changes))

    return told


def _finished(folder: Path) -> FitResult | None:
    path = folder / _RESULT_NAME
    return FitResult(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def _last(folder: Path) -> Checkpoint | None:
    path = folder / "last.safetensors"
    return Checkpoint.load(path) if path.is_file() else None
