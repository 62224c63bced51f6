"""A training run, from the button to its one terminal event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.errors import ProjectError, StorageError
from napari_emtransfer.core.events import (
    Event,
    IterationEnded,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunStarted,
    ValidationEnded,
)
from napari_emtransfer.session.context import Context
from napari_emtransfer.session.proposal import check_trainable, propose, survey
from napari_emtransfer.session.runs import newest_model
from napari_emtransfer.session.state import Curves, Phase, RunState, ValidationPoint
from napari_emtransfer.worker.protocol import TrainRequest
from napari_emtransfer.worker.runners import Job, Runner

if TYPE_CHECKING:
    from napari_emtransfer.core.data.run import RunRecord

DIED = "died"


class TrainingController:
    """Starts, stops and follows one training at a time. `state` and `curves` are written only by `apply` and commands.

    Parameters
    ----------
    save
        Puts all strokes on disk, waiting for it; False when that failed.
    """

    def __init__(self, context: Context, runner: Runner, save: Callable[[], bool]) -> None:
        self._context, self._runner, self._save = context, runner, save
        self._job: Job | None = None
        self._killed = False
        self.state = RunState()
        self.curves = Curves()

    # ---- commands

    def proposed_config(self) -> tuple[TrainConfig, str]:
        """What the program proposes for the labels on disk, and why. Reads all labels: not for every repaint."""
        project = self._context.require_project()
        return propose(survey(project), newest_model(project))

    def start(self, config: TrainConfig) -> str:
        """Start a training and return the run's id.

        Raises
        ------
        EMTransferError
            When one is going on already, nothing can be learnt from the labels, or the strokes cannot be saved.
        """
        self._refuse_second()
        project = self._context.require_project()
        self._save_or_refuse()
        check_trainable(project, survey(project), config)
        parent = config.weights.removeprefix("run:") if config.weights.startswith("run:") else None
        run = project.create_run("train", config.model_dump(mode="json"), parent=parent)
        self._launch(TrainRequest(run_id=run.id, project=project.root, config=config))
        return run.id

    def resume(self, run_id: str) -> str:
        """Go on with an interrupted run from its last checkpoint, with its own configuration and labels."""
        self._refuse_second()
        project = self._context.require_project()
        self._save_or_refuse()
        run = project.run(run_id)
        if not run.checkpoint_path("last").exists():
            raise ProjectError(
                f"Run {run.id} has no checkpoint to go on from; it ended before the first one was written.",
                "Start a new training.",
            )
        config = TrainConfig.model_validate(run.record.config)
        self._launch(TrainRequest(run_id=run.id, project=project.root, config=config, resume=True))
        return run.id

    def stop_early(self) -> None:
        """Ask the run to keep its best checkpoint and finish."""
        if self._job is not None and self.state.phase in (Phase.STARTING, Phase.RUNNING):
            self._set(replace(self.state, stopping_early=True))
            self._job.stop_early()

    def cancel(self) -> None:
        """Ask the run to bank what is done and end."""
        if self._job is not None and self.state.phase in (Phase.STARTING, Phase.RUNNING):
            self._set(replace(self.state, phase=Phase.CANCELLING))
            self._job.cancel()

    def kill(self) -> None:
        """End the run's process at once; what its last checkpoint holds can be resumed."""
        if self._job is not None:
            self._killed = True
            self._job.kill()

    def end(self, timeout: float) -> None:
        """Bank the run and wait for its process, at most `timeout` seconds; then kill it. For closing the program."""
        if self._job is None:
            return
        job = self._job
        if self.state.is_active:
            self.cancel()
        if not job.wait(timeout):
            job.kill()
            job.wait(1.0)
        self._job = None

    def interrupted_runs(self) -> list[RunRecord]:
        """Runs of the open project that ended without a word and can be resumed, newest first."""
        project = self._context.project
        if project is None:
            return []
        found = [
            r for r in project.runs() if r.kind == "train" and r.status == "interrupted" and r.id != self._active_id
        ]
        found = [r for r in found if project.run(r.id).checkpoint_path("last").exists()]
        return sorted(found, key=lambda r: r.created, reverse=True)

    def reset(self) -> None:
        """Forget the run: the project was closed."""
        self._job = None
        self._set(RunState())
        self._new_curves(None)

    # ---- events

    def apply(self, event: Event) -> bool:
        """Take an event of the current run; True when it was its terminal event. Events of other runs are dropped."""
        if event.run_id != self.state.run_id or not self.state.is_active:
            return False
        match event:
            case RunStarted():
                self._started(event)
            case IterationEnded():
                self._iterated(event)
            case ValidationEnded():
                self._validated(event)
            case RunFinished() | RunCancelled() | RunFailed():
                self._ended(event)
                return True
        return False

    def _started(self, event: RunStarted) -> None:
        phase = Phase.RUNNING if self.state.phase is Phase.STARTING else self.state.phase
        details = {key: str(event.details[key]) for key in ("ground", "note") if event.details.get(key)}
        counts = {"iteration": event.first_step, "n_iterations": event.n_steps}
        self._set(replace(self.state, phase=phase, device=event.device, **counts, **details))

    def _iterated(self, event: IterationEnded) -> None:
        curves = self.curves
        curves.iterations.append(event.iteration)
        curves.losses.append(event.loss)
        for group, rate in event.learning_rates.items():
            curves.learning_rates.setdefault(group, []).append(rate)
        self._set(replace(self.state, iteration=event.iteration, seconds_left=event.seconds_left))
        self._context.signals.curves_changed.emit()

    def _validated(self, event: ValidationEnded) -> None:
        point = ValidationPoint(event.iteration, event.loss, event.mean_iou, event.iou, event.is_best)
        self.curves.validations.append(point)
        if event.is_best:
            self._set(replace(self.state, mean_iou=event.mean_iou, iou=event.iou, ground=event.ground))
        self._context.signals.curves_changed.emit()

    def _ended(self, event: RunFinished | RunCancelled | RunFailed) -> None:
        self._job = None
        state = replace(self.state, seconds_left=None, stopping_early=False)
        match event:
            case RunFinished():
                self._set(
                    replace(state, phase=Phase.FINISHED, iteration=_iterations(event, state), **_shown(event.result))
                )
            case RunCancelled():
                self._set(
                    replace(state, phase=Phase.CANCELLED, resumable=self._has_checkpoint(), **_shown(event.result))
                )
            case RunFailed():
                self._failed(event, state)

    def _failed(self, event: RunFailed, state: RunState) -> None:
        resumable = self._has_checkpoint()
        if event.kind == DIED:
            self._mark_interrupted()
        if event.kind == DIED and (self._killed or state.phase is Phase.CANCELLING):
            said = f"The training was ended at iteration {state.iteration}."
            phase = Phase.CANCELLED
        else:
            said, phase = event.message, Phase.FAILED
        hint = (
            "Resume it from its last checkpoint, or start a new one."
            if event.kind == DIED and resumable
            else event.hint
        )
        self._set(replace(state, phase=phase, message=said, hint=hint, resumable=resumable))
        if phase is Phase.FAILED:
            self._context.signals.failed.emit(said, hint)

    # ---- inside

    @property
    def _active_id(self) -> str | None:
        return self.state.run_id if self.state.is_active else None

    def _launch(self, request: TrainRequest) -> None:
        self._killed = False
        self._new_curves(request.run_id)
        config = request.config
        self._set(RunState(Phase.STARTING, request.run_id, n_iterations=config.iterations))
        try:
            self._job = self._runner.start(request, self._context.inbox.put)
        except OSError as error:
            message = f"The training process could not be started: {error}."
            self._set(replace(self.state, phase=Phase.FAILED, message=message))
            raise StorageError(message, "Close other programs to free memory, then try again.") from error

    def _refuse_second(self) -> None:
        if self.state.is_active:
            raise ProjectError(
                f"Run {self.state.run_id} is still training; one training goes on at a time.",
                "Wait for it, stop it early, or cancel it first.",
            )

    def _save_or_refuse(self) -> None:
        if not self._save():
            raise StorageError(
                "The last strokes could not be saved, so the training would not see them.",
                "Free some disk space, or check that the project folder may be written to, then start again.",
            )

    def _has_checkpoint(self) -> bool:
        project = self._context.project
        if project is None or self.state.run_id is None:
            return False
        return bool(project.run(self.state.run_id).checkpoint_path("last").exists())

    def _mark_interrupted(self) -> None:
        """A process that died could not say so itself."""
        project = self._context.project
        if project is not None and self.state.run_id is not None:
            project.run(self.state.run_id).set_status("interrupted")

    def _new_curves(self, run_id: str | None) -> None:
        self.curves = Curves(run_id)
        self._context.signals.curves_changed.emit()

    def _set(self, state: RunState) -> None:
        if state != self.state:
            self.state = state
            self._context.signals.run_changed.emit(state)


def _shown(result: dict[str, Any]) -> dict[str, Any]:
    """The keys of a result that the state shows."""
    shown = {key: result[key] for key in ("mean_iou", "iou", "ground", "note", "device") if result.get(key) is not None}
    if result.get("ci95"):
        low, high = result["ci95"]
        shown["ci95"] = (float(low), float(high))
    return shown


def _iterations(event: RunFinished, state: RunState) -> int:
    return int(event.result.get("iterations", state.iteration))
