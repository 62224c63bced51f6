"""Training on the labelled parts of micrographs, validated on held-out ground."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from napari_emtransfer.core import events
from napari_emtransfer.core.config import ModelConfig, PredictConfig, TrainConfig
from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.core.nn import devices
from napari_emtransfer.core.nn.bank import Bank
from napari_emtransfer.core.nn.checkpoint import Checkpoint
from napari_emtransfer.core.nn.dataset import PatchSampler
from napari_emtransfer.core.nn.ground import ArrayView, HeldOutRegion, TrainingImage, View
from napari_emtransfer.core.nn.head_fit import fit_head
from napari_emtransfer.core.nn.losses import SegmentationLoss, class_weights_of
from napari_emtransfer.core.nn.model import SegmentationModel, build_model
from napari_emtransfer.core.nn.normalization import adapt, batch_norms
from napari_emtransfer.core.nn.outcome import Best, FitResult, RunContext, StopReason
from napari_emtransfer.core.nn.pace import Pace, validation_interval
from napari_emtransfer.core.nn.prefetch import prefetched
from napari_emtransfer.core.nn.stage_control import BEGINS, RESUMED, StageControl
from napari_emtransfer.core.nn.step import Optimization
from napari_emtransfer.core.nn.strategy import cautions, check_rates, plan_of, resolve_normalization
from napari_emtransfer.core.nn.validation import Validation, validate
from napari_emtransfer.core.rates import learning_rate, resolve_weights

__all__ = ["FitResult", "RunContext", "StopReason", "Trainer", "initial_model"]

Emit = Callable[[events.Event], None]


def initial_model(
    config: TrainConfig, n_classes: int, progress: Callable[[int, int | None], None] | None = None
) -> SegmentationModel:
    """The network that a run starts from; the same for the same seed.

    `progress` is told bytes done and in all where weights are fetched first. Raises as `build_model` does.
    """
    with torch.random.fork_rng():
        torch.manual_seed(config.compute.seed)
        model_config = ModelConfig(architecture=config.architecture, encoder=config.encoder, n_classes=n_classes)
        return build_model(model_config, resolve_weights(config), progress)


class Trainer:
    """Trains a model for a number of iterations, in the stages of its strategy.

    It emits StageBegan, IterationEnded (at most ten a second), ValidationEnded, CheckpointSaved and NoticePosted;
    beginning and end of the run are its caller's to tell. The weights that are validated and saved are the running
    average.

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
    adaptation
        Micrographs whose statistics the encoder's batch norms take over where the policy says so; none that the run is
        measured on. The training images where left out.

    Raises
    ------
    LabelError
        When fewer than two classes are labelled in `train`.
    DeviceError
        When the device does not exist.
    RateError
        When a pretrained encoder would learn as fast as the decoder.
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
        adaptation: Sequence[View] = (),
    ) -> None:
        check_rates(config)
        self._config, self._context, self._resume = config, context, resume
        self._train, self._held_out = train, held_out
        self._sampler = PatchSampler(
            train,
            len(context.classes),
            crop_px=config.crop_px,
            batch_size=config.batch_size,
            preset=config.augment,
            seed=config.compute.seed,
            new_weight=config.new_weight,
            allowed=context.allowed,
        )
        self._adaptation = adaptation or [ArrayView(part.image) for part in train]
        balance = class_weights_of(train, len(context.classes)) if config.class_weights == "balanced" else None
        self._loss = SegmentationLoss(class_weights=balance, label_smoothing=config.label_smoothing)
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
        spent = self._prepare()
        budget = None if self._config.minutes is None else 60 * self._config.minutes
        self._pace = Pace(self._config.iterations, self.validate_every, budget, spent, self._validation_cost)
        self._say_what_to_expect()
        self._banked = -1
        iteration, reason = self._iterate()
        self._bank(iteration)
        best = self._stored.best
        if best.iteration == 0:
            self._stored.save("best", iteration, self._pace)
        if not self._stages.is_last:
            self._notify(
                f"The run ended in stage {self._stages.stage + 1} of {self._stages.n_stages} "
                f"({self._plan.stages[self._stages.stage].name}): later stages had no turn."
            )
        return FitResult(best.iteration, best.mean_iou, best.iou, iteration, self._pace.seconds, reason)

    def _prepare(self) -> float:
        """Norms, optimiser and stages as the run begins, or as it was interrupted → the seconds spent before."""
        config = self._config
        self.model = devices.moved(self.model, self.device)
        self._plan = plan_of(self.model, config)
        if self._resume is None:
            policy = resolve_normalization(config)
            adapt(self.model, policy, self._adaptation, crop_px=config.crop_px, seed=config.compute.seed)
            fit_head(self.model, self._train, config.compute.seed)
        self._optimization = Optimization(self.model, config, self._plan, self._loss, self.device, self._notify)
        self._stages = StageControl(len(self._plan.stages), config.plateau, validates=bool(self._held_out))
        self._stored = Bank(self._context, self._optimization, self._stages, self._emit, Best())
        return 0.0 if self._resume is None else self._stored.restore(self._resume)

    def _say_what_to_expect(self) -> None:
        for caution in cautions(self._config, has_batch_norms=bool(batch_norms(self.model.encoder))):
            self._notify(caution)
        if self.validate_every != self._config.validate_every:
            self._notify(f"The held-out ground is large: it is measured every {self.validate_every} iterations.")
        self._tell_stage(self.first_iteration, BEGINS if self._resume is None else RESUMED)

    @property
    def averaged_weights(self) -> Mapping[str, Tensor]:
        """The running average of the weights: what is validated and saved."""
        return self._optimization.average.state

    def _iterate(self) -> tuple[int, StopReason]:
        """→ iterations done in all, and why no more."""
        iteration, n = self.first_iteration, self._config.iterations
        losses: list[Tensor] = []
        with prefetched(self._sampler, iteration) as batches:
            while iteration < n:
                if self._should_stop():
                    self._tell(iteration, losses)
                    return iteration, "stopped"
                started, progress = time.monotonic(), self._pace.progress(iteration)
                self._maybe_advance(iteration, progress)
                losses.append(self._optimization.step(next(batches), iteration, progress))
                iteration += 1
                self._pace.step_took(time.monotonic() - started)
                over = self._pace.over_budget
                due = iteration % self.validate_every == 0 or iteration == n or over
                # Before anything is banked: weights that have become nan are no work to go on from.
                if self._pace.may_speak() or due:
                    self._tell(iteration, losses)
                if due:
                    self._validate(iteration)
                    self._bank(iteration)
                if self._out_of_patience():
                    return iteration, "patience"
                if over and iteration < n:
                    return iteration, "minutes"
        return iteration, "done"

    def _maybe_advance(self, iteration: int, progress: float) -> None:
        reason = self._stages.reason_to_advance(progress)
        if reason is not None:
            self._stages.advance(progress)
            self._optimization.advance(progress)
            self._pace.steps_changed()
            self._tell_stage(iteration, reason)

    def _tell_stage(self, iteration: int, reason: str) -> None:
        self._emit(
            events.StageBegan(
                run_id=self._context.run_id,
                iteration=iteration,
                stage=self._stages.stage + 1,
                n_stages=self._stages.n_stages,
                name=self._plan.stages[self._stages.stage].name,
                reason=reason,
                groups=self._optimization.groups(),
            )
        )

    def _tell(self, iteration: int, losses: list[Tensor]) -> None:
        """Emit the mean loss since the last time, if any; reading it waits for the device, hence not at every step."""
        if not losses:
            return
        loss = float(torch.stack(losses).mean())
        losses.clear()
        if not math.isfinite(loss):
            raise EMTransferError(
                f"The loss became {loss} by iteration {iteration}.",
                f"Lower the learning rate ({learning_rate(self._config):g} now).",
            )
        self._emit(
            events.IterationEnded(
                run_id=self._context.run_id,
                iteration=iteration,
                loss=loss,
                learning_rates=self._optimization.learning_rates(),
                seconds_left=self._pace.seconds_left(iteration),
                memory_gb=devices.process_memory_gb(self.device),
            )
        )

    def _validate(self, iteration: int) -> None:
        if not self._held_out:
            self._stored.best = Best(iteration)
            self._stored.save("best", iteration, self._pace)
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
        best = self._stored.best
        is_best = best.iteration == 0 or (result.mean_iou or 0.0) > (best.mean_iou or 0.0)
        n_stale = 0 if is_best else best.n_stale + 1
        self._stored.best = Best(iteration, result.mean_iou, iou) if is_best else replace(best, n_stale=n_stale)
        self._stages.validated(is_best=is_best)
        self._emit(
            events.ValidationEnded(
                run_id=self._context.run_id,
                iteration=iteration,
                loss=result.loss,
                mean_iou=result.mean_iou,
                iou=iou,
                is_best=is_best,
                ground=self._context.ground,
                n_stale=n_stale,
                training_iou=self._optimization.accuracy.mean_iou(),
            )
        )
        if is_best:
            self._stored.save("best", iteration, self._pace)

    def _out_of_patience(self) -> bool:
        patience = self._config.patience
        return patience is not None and self._stages.is_last and self._stages.n_stale >= patience

    def _bank(self, iteration: int) -> None:
        if iteration != self._banked:
            self._stored.save("last", iteration, self._pace)
            self._banked = iteration

    def _notify(self, message: str) -> None:
        self._emit(events.NoticePosted(run_id=self._context.run_id, message=message))
