"""Training on the labelled parts of micrographs, validated on held-out ground."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from napari_emtransfer.core import events
from napari_emtransfer.core.config import ModelConfig, PredictConfig, TrainConfig
from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.core.nn import devices
from napari_emtransfer.core.nn.checkpoint import Checkpoint, CheckpointMeta
from napari_emtransfer.core.nn.dataset import PatchSampler
from napari_emtransfer.core.nn.ground import HeldOutRegion, TrainingImage
from napari_emtransfer.core.nn.model import SegmentationModel, build_model
from napari_emtransfer.core.nn.pace import Pace
from napari_emtransfer.core.nn.prefetch import prefetched
from napari_emtransfer.core.nn.step import Optimization
from napari_emtransfer.core.nn.validation import Validation, validate

Emit = Callable[[events.Event], None]
StopReason = Literal["done", "patience", "minutes", "stopped"]


@dataclass(frozen=True)
class RunContext:
    """What the run is called and where it writes: `folder`/best.safetensors and last.safetensors.

    `ground` says what the held-out regions are, such as "specimen"; the rest goes into the checkpoints.
    """

    run_id: str
    classes: tuple[str, ...]
    folder: Path
    ground: str = "specimen"
    standardization: Mapping[str, Any] = field(default_factory=dict)
    working_pixel_size_nm: float | None = None

    def checkpoint_path(self, which: Literal["last", "best"]) -> Path:
        """Where the checkpoint lies."""
        return self.folder / f"{which}.safetensors"


@dataclass(frozen=True)
class FitResult:
    """`mean_iou` and `iou` are the best checkpoint's on the held-out ground; None where there was none."""

    best_iteration: int
    mean_iou: float | None
    iou: dict[str, float | None]
    iterations: int
    seconds: float
    reason: StopReason

    @property
    def stopped_early(self) -> bool:
        """True when not all iterations were done."""
        return self.reason != "done"


@dataclass
class _Best:
    iteration: int = 0
    mean_iou: float | None = None
    iou: dict[str, float | None] = field(default_factory=dict)
    n_stale: int = 0


def initial_model(config: TrainConfig, n_classes: int) -> SegmentationModel:
    """The network that a run starts from; the same for the same seed. Raises as `build_model` does."""
    with torch.random.fork_rng():
        torch.manual_seed(config.compute.seed)
        model_config = ModelConfig(architecture=config.architecture, encoder=config.encoder, n_classes=n_classes)
        return build_model(model_config, config.weights)


class Trainer:
    """Trains a model for a number of iterations.

    It emits IterationEnded (at most ten a second), ValidationEnded, CheckpointSaved and NoticePosted; beginning and
    end of the run are its caller's to tell. The weights that are validated and saved are the running average.

    Parameters
    ----------
    model
        Trained in place.
    train
        Labelled images.
    held_out
        Regions to validate on; may be empty, then the last weights count as the best.
    resume
        The "last" checkpoint of an interrupted run with the same configuration and labels.

    Raises
    ------
    LabelError
        When fewer than two classes are labelled in `train`.
    DeviceError
        When the device does not exist.
    """

    def __init__(
        self,
        model: SegmentationModel,
        config: TrainConfig,
        train: Sequence[TrainingImage],
        held_out: Sequence[HeldOutRegion],
        context: RunContext,
        *,
        resume: Checkpoint | None = None,
    ) -> None:
        self._config, self._context, self._held_out, self._resume = config, context, held_out, resume
        self._sampler = PatchSampler(
            train,
            len(context.classes),
            crop_px=config.crop_px,
            batch_size=config.batch_size,
            preset=config.augment,
            seed=config.compute.seed,
        )
        self.device = devices.resolve_device(config.compute.device)
        self.model = model
        self.first_iteration = resume.meta.iteration if resume else 0
        step_pixels = config.batch_size * config.crop_px**2
        self._validation_cost = sum(math.prod(r.window.shape) for r in held_out) / step_pixels
        self.validate_every = validation_interval(config.validate_every, self._validation_cost)

    def fit(self, emit: Emit, should_stop: Callable[[], bool] = lambda: False) -> FitResult:
        """Train to the end, to the minutes given, until nothing improves, or until `should_stop` says so.

        `should_stop` is asked before every iteration and every window of a validation.

        Raises
        ------
        DeviceError
            When not even one crop fits the memory.
        EMTransferError
            When the loss becomes infinite or nan.
        StorageError
            When a checkpoint cannot be written.
        """
        self._emit, self._should_stop = emit, should_stop
        devices.set_threads(self._config.compute.threads)
        devices.seed_everything(self._config.compute.seed)
        self._optimization = Optimization(self.model, self._config, self.device, self._notify)
        self._best, spent = self._restored()
        budget = None if self._config.minutes is None else 60 * self._config.minutes
        self._pace = Pace(self._config.iterations, self.validate_every, budget, spent, self._validation_cost)
        if self.validate_every != self._config.validate_every:
            self._notify(f"The held-out ground is large: it is measured every {self.validate_every} iterations.")
        self._banked = -1
        iteration, reason = self._iterate()
        self._bank(iteration)
        if not self._best_exists():
            self._save("best", iteration)
        best = self._best
        return FitResult(best.iteration, best.mean_iou, best.iou, iteration, self._pace.seconds, reason)

    @property
    def averaged_weights(self) -> Mapping[str, Tensor]:
        """The running average of the weights: what is validated and saved."""
        return self._optimization.average.state

    def _restored(self) -> tuple[_Best, float]:
        if self._resume is None:
            return _Best(), 0.0
        self._optimization.restore(self._resume.state, self._resume.resume)
        progress = dict(self._resume.meta.progress)
        self._optimization.part_size = progress.pop("part_size")
        return _Best(**progress["best"]), progress["seconds"]

    def _iterate(self) -> tuple[int, StopReason]:
        """→ iterations done in all, and why no more."""
        iteration, n = self.first_iteration, self._config.iterations
        losses: list[Tensor] = []
        with prefetched(self._sampler, iteration) as batches:
            while iteration < n:
                if self._should_stop():
                    return iteration, "stopped"
                started = time.monotonic()
                batch = next(batches)
                losses.append(self._optimization.step(batch, iteration, self._pace.progress(iteration)))
                iteration += 1
                self._pace.step_took(time.monotonic() - started)
                over = self._pace.over_budget
                if self._pace.may_speak() or iteration == n:
                    self._tell(iteration, losses)
                if iteration % self.validate_every == 0 or iteration == n or over:
                    self._validate(iteration)
                    self._bank(iteration)
                if self._out_of_patience():
                    return iteration, "patience"
                if over and iteration < n:
                    return iteration, "minutes"
        return iteration, "done"

    def _tell(self, iteration: int, losses: list[Tensor]) -> None:
        """Emit the mean loss since the last time; reading it waits for the device, hence not at every step."""
        loss = float(torch.stack(losses).mean())
        losses.clear()
        if not math.isfinite(loss):
            raise EMTransferError(
                f"The loss became {loss} by iteration {iteration}.",
                f"Lower the learning rate ({self._config.learning_rate:g} now).",
            )
        self._emit(
            events.IterationEnded(
                run_id=self._context.run_id,
                iteration=iteration,
                loss=loss,
                learning_rates=self._optimization.learning_rates(),
                seconds_left=self._pace.seconds_left(iteration),
            )
        )

    def _validate(self, iteration: int) -> None:
        if not self._held_out:
            self._best = _Best(iteration)
            self._save("best", iteration)
            return
        started = time.monotonic()
        with self._optimization.average.applied():
            config = PredictConfig(compute=self._config.compute)
            result = validate(self.model, self._held_out, config, self.device, self._should_stop)
        self._pace.validation_took(time.monotonic() - started)
        if result is not None:
            self._judge(iteration, result)

    def _judge(self, iteration: int, result: Validation) -> None:
        iou = result.iou_by_name(self._context.classes)
        is_best = self._best.iteration == 0 or (result.mean_iou or 0.0) > (self._best.mean_iou or 0.0)
        self._best = _Best(iteration, result.mean_iou, iou) if is_best else self._best
        self._best.n_stale += not is_best
        self._emit(
            events.ValidationEnded(
                run_id=self._context.run_id,
                iteration=iteration,
                loss=result.loss,
                mean_iou=result.mean_iou,
                iou=iou,
                is_best=is_best,
                ground=self._context.ground,
            )
        )
        if is_best:
            self._save("best", iteration)

    def _out_of_patience(self) -> bool:
        return self._config.patience is not None and self._best.n_stale >= self._config.patience

    def _best_exists(self) -> bool:
        return self._best.iteration > 0

    def _bank(self, iteration: int) -> None:
        if iteration != self._banked:
            self._save("last", iteration)
            self._banked = iteration

    def _save(self, which: Literal["last", "best"], iteration: int) -> None:
        """Write a checkpoint of the averaged weights; "last" also holds all that a resume needs."""
        context, best = self._context, self._best
        progress = {"best": vars(best), "seconds": self._pace.seconds, "part_size": self._optimization.part_size}
        meta = CheckpointMeta(
            model=self.model.config,
            classes=context.classes,
            standardization=dict(context.standardization),
            working_pixel_size_nm=context.working_pixel_size_nm,
            run_id=context.run_id,
            iteration=iteration,
            mean_iou=best.mean_iou,
            iou=best.iou,
            progress=progress,
        )
        resume = self._optimization.resume_state() if which == "last" else {}
        path = context.checkpoint_path(which)
        Checkpoint(meta, self._optimization.average.state, resume).save(path)
        self._emit(events.CheckpointSaved(run_id=context.run_id, iteration=iteration, which=which, path=str(path)))

    def _notify(self, message: str) -> None:
        self._emit(events.NoticePosted(run_id=self._context.run_id, message=message))


def validation_interval(wanted: int, cost: float) -> int:
    """Iterations between validations: as wanted, or so many that validating takes about half as long as training.

    `cost` is pixels of a validation over pixels of a training step; a forward pass takes a third of a step. By
    pixels, not by the clock, so that the same run validates at the same iterations on any machine.
    """
    return wanted * max(1, math.ceil(cost / 3 / (0.5 * wanted)))
