"""Train a run: choose the ground, freeze the labels, fit, measure the best checkpoint, write down what was done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from napari_emtransfer.core.config import ComputeConfig, PredictConfig, TrainConfig
from napari_emtransfer.core.data.intensity import Standardization
from napari_emtransfer.core.data.labels import to_targets
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.run import Run
from napari_emtransfer.core.data.splits import Region, Split
from napari_emtransfer.core.data.storage import write_text
from napari_emtransfer.core.errors import LabelError, WeightsError
from napari_emtransfer.core.events import (
    CheckpointSaved,
    Event,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunStarted,
    ValidationEnded,
)
from napari_emtransfer.core.nn import devices
from napari_emtransfer.core.nn.checkpoint import Checkpoint
from napari_emtransfer.core.nn.ground import (
    HeldOutRegion,
    TrainingImage,
    View,
    held_out_regions,
    training_images,
)
from napari_emtransfer.core.nn.trainer import FitResult, RunContext, Trainer, initial_model
from napari_emtransfer.worker.card import write_card
from napari_emtransfer.worker.control import Cancelled, Emit, RunControl, Terminal, failure, terminal_of
from napari_emtransfer.worker.evaluate_handler import measure, restricted
from napari_emtransfer.worker.ground import Ground, describe
from napari_emtransfer.worker.models import load_model, open_for, working_view
from napari_emtransfer.worker.protocol import TrainRequest
from napari_emtransfer.worker.recommend_handler import resolve
from napari_emtransfer.worker.split_choice import choose_split


def train(request: TrainRequest, emit: Emit, control: RunControl) -> Terminal:
    """Train `request.run_id`, which its project must know, and return the terminal event, which the run records too.

    An abandoned run is recorded as interrupted and without a terminal event: it can be resumed.
    """
    try:
        with Project.open(request.project) as project:
            run = project.run(request.run_id)
            run.update("running", message="")
            _clear_torn_checkpoints(run)
            training = _Training(project, run, request, _recording(run, emit), control)
            terminal = terminal_of(run.id, control, training.do)
            _record_end(run, terminal, control)
            return terminal
    except Exception as error:
        return failure(request.run_id, error)


def _reason_told(run: Run) -> str:
    """Why a run that is resumed has its strategy, as it said when it began."""
    began = [event for event in run.events() if isinstance(event, RunStarted)]
    return str(began[0].details.get("reason", "")) if began else ""


def _clear_torn_checkpoints(run: Run) -> None:
    """A kill in the middle of writing a checkpoint leaves a temporary file of a few hundred megabytes."""
    for path in run.root.glob(".tmp-*"):
        path.unlink(missing_ok=True)


def _recording(run: Run, emit: Emit) -> Emit:
    """Events go into the run's folder as well, and its record says how far it is, should it be killed."""

    def record(event: Event) -> None:
        run.append_event(event)
        match event:
            case CheckpointSaved():
                run.update(iterations=event.iteration)
            case ValidationEnded(is_best=True):
                run.update(mean_iou=event.mean_iou)
        emit(event)

    return record


def _record_end(run: Run, terminal: Terminal, control: RunControl) -> None:
    match terminal:
        case RunFinished():
            run.append_event(terminal)
            run.update("finished")
        case RunCancelled() if control.abandoned:
            run.update("interrupted")
        case RunCancelled():
            run.append_event(terminal)
            run.update("cancelled")
        case RunFailed():
            run.append_event(terminal)
            run.update("failed", message=terminal.message)


@dataclass
class _Training:
    """One training run from its request to its result."""

    project: Project
    run: Run
    request: TrainRequest
    emit: Emit
    control: RunControl
    reason: str = ""  # why this strategy

    def do(self) -> dict[str, Any]:
        """Train and measure; returns the result that the command line prints."""
        resume = self._checkpoint_to_resume()
        config = TrainConfig.model_validate(self.run.config) if resume else self._own_config()
        self.reason = _reason_told(self.run) or self.reason
        device = devices.describe(devices.resolve_device(config.compute.device))
        split = self.run.split() if resume else self._choose_split(config)
        ground = describe(self.project, self.run, split, ("validation",), split.validation)
        self._announce(config, split, ground, device, resume)
        fit = self._fit(config, split, ground, resume)
        self.run.update(iterations=fit.iterations, seconds=fit.seconds, device=device)
        so_far = {"run": self.run.id, "iterations": fit.iterations, "seconds": fit.seconds, "device": device}
        if self.control.cancelled:
            raise Cancelled(so_far)
        so_far |= {"strategy": config.strategy, "reason": self.reason}
        result = self._measure(config, ground) | so_far | {"best_iteration": fit.best_iteration, "ended": fit.reason}
        self.run.update(mean_iou=result["mean_iou"])
        self.run.write_result(result)
        write_card(self.project, self.run, config, split, result)
        return result

    def _checkpoint_to_resume(self) -> Checkpoint | None:
        """None also for a run that was to be resumed, but ended before its first checkpoint: it starts anew."""
        path = self.run.checkpoint_path("last")
        return Checkpoint.load(path) if self.request.resume and path.is_file() else None

    def _own_config(self) -> TrainConfig:
        """The wanted configuration with "auto" resolved, and "latest", which is another run tomorrow, by its full id."""
        config = self.request.config
        if config.weights.startswith("run:"):
            parent = self.project.run(config.weights.removeprefix("run:"))
            config = config.model_copy(update={"weights": f"run:{parent.id}"})
        config, self.reason = resolve(self.project, config)
        write_text(self.run.root / "config.json", config.model_dump_json(indent=1))
        return config

    def _choose_split(self, config: TrainConfig) -> Split:
        """Freeze the labels, then divide what is frozen."""
        labelled = [stem for stem, fraction in self.project.labelled().items() if fraction > 0]
        if not labelled:
            raise LabelError("No micrograph of the project is labelled yet.", "Paint at least two classes first.")
        self.run.snapshot_labels(labelled)
        split = choose_split(self.project, self.run.labels, labelled, config)
        self.run.write_split(split)
        return split

    def _announce(
        self, config: TrainConfig, split: Split, ground: Ground, device: str, resume: Checkpoint | None
    ) -> None:
        self.emit(
            RunStarted(
                run_id=self.run.id,
                n_steps=config.iterations,
                first_step=resume.meta.iteration if resume else 0,
                device=device,
                details={
                    "ground": ground.closeness,
                    "note": ground.note,
                    "split": split.name,
                    "strategy": config.strategy,
                    "reason": self.reason,
                    "train": [r.micrograph for r in split.train],
                    "validation": [r.micrograph for r in split.validation],
                },
            )
        )

    def _fit(self, config: TrainConfig, split: Split, ground: Ground, resume: Checkpoint | None) -> FitResult:
        devices.set_threads(config.compute.threads)
        context = RunContext(
            run_id=self.run.id,
            classes=self.project.schema.names if resume is None else resume.meta.classes,
            folder=self.run.root,
            ground=ground.closeness,
            standardization=Standardization().model_dump(),
            working_pixel_size_nm=self.project.settings.working_pixel_size_nm
            if resume is None
            else resume.meta.working_pixel_size_nm,
        )
        train = [i for r in split.train for i in self._training_images(r, context, config.crop_px)]
        held_out = [h for r in split.validation for h in self._held_out(r, context)]
        model = initial_model(self._with_weights(config, resume), len(context.classes))
        trainer = Trainer(model, config, train, held_out, context, resume=resume)
        return trainer.fit(self.emit, self.control.should_stop)

    def _training_images(self, region: Region, context: RunContext, crop_px: int) -> list[TrainingImage]:
        view, targets = self._look_at(region, context)
        return training_images(view, targets, crop_px=crop_px)

    def _held_out(self, region: Region, context: RunContext) -> list[HeldOutRegion]:
        return held_out_regions(*self._look_at(region, context))

    def _look_at(self, region: Region, context: RunContext) -> tuple[View, Any]:
        """A micrograph at working size and its targets (H, W), ignored outside of the region."""
        if self.control.cancelled:
            raise Cancelled
        view = working_view(
            open_for(self.project, region.micrograph),
            Standardization.model_validate(context.standardization),
            context.working_pixel_size_nm,
        )
        mask = restricted(self.run.labels.read(region.micrograph), region)
        return view, to_targets(view.mask_to_working(mask))

    def _with_weights(self, config: TrainConfig, resume: Checkpoint | None) -> TrainConfig:
        """The configuration with `weights` that the model builder understands: none, imagenet, or a path."""
        if resume is not None:
            return config.model_copy(update={"weights": "none"})
        if not config.weights.startswith("run:"):
            return config
        parent = self.project.run(config.weights.removeprefix("run:"))
        path = parent.checkpoint_path("best")
        if not path.is_file():
            raise WeightsError(f"The run {parent.id} has no best checkpoint to go on from.", "Choose another run.")
        return config.model_copy(update={"weights": str(path)})

    def _measure(self, config: TrainConfig, ground: Ground) -> dict[str, Any]:
        """The best checkpoint on the validation ground, in native pixels, with the frozen labels."""
        predict = PredictConfig(compute=ComputeConfig.model_validate(config.compute))
        model = load_model(self.project, self.run.id, predict)
        evaluation = measure(self.project, model, ground, self.run.labels, lambda: self.control.cancelled)
        return evaluation.model_dump(mode="json")
