"""A training run, from the button to its one terminal event."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.errors import EMTransferError, ProjectError, StorageError
from napari_emtransfer.core.events import (
    Event,
    IterationEnded,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunStarted,
    ValidationEnded,
)
from napari_emtransfer.core.rates import check_rates
from napari_emtransfer.session.context import Context, require_saved
from napari_emtransfer.session.curves import record, replayed
from napari_emtransfer.session.proposal import check_trainable, propose
from napari_emtransfer.session.state import Curves, Phase, RunState
from napari_emtransfer.worker.protocol import TrainRequest
from napari_emtransfer.worker.replay import replay_request
from napari_emtransfer.worker.runners import Job, Runner

if TYPE_CHECKING:
    from napari_emtransfer.core.data.run import RunRecord

DIED = "died"


class TrainingController:
    """Starts, stops and follows one training at a time.

    `state`, `curves` and `config` (of the run that they belong to) are written only by `apply` and commands.

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
        self.config = TrainConfig()

    # ---- commands

    def proposed_config(self) -> tuple[TrainConfig, str]:
        """What the program proposes for the labels on disk, and why.

        Reads all labels, which takes a while in a large project; may be called on any thread.
        """
        return propose(self._context.require_project())

    def start(self, config: TrainConfig) -> str:
        """Start a training and return the run's id.

        Raises
        ------
        RateError
            When a pretrained encoder would learn as fast as the decoder and `config` does not confirm it.
        EMTransferError
            When one is going on already, nothing can be learnt from the labels, or the strokes cannot be saved.
        """
        self._refuse_second()
        project = self._context.require_project()
        check_rates(config)
        require_saved(self._save(), "the training does not start")
        check_trainable(project, config)
        weights, _, ref = config.weights.partition(":")
        parent = project.run(ref).id if weights == "run" else None
        run = project.create_run("train", config.model_dump(mode="json"), parent=parent)
        self._launch(TrainRequest(run_id=run.id, project=project.root, config=config), Curves(run.id))
        return run.id

    def resume(self, run_id: str) -> str:
        """Go on with an interrupted run from its last checkpoint, with its own configuration and labels.

        A run that ended before its first checkpoint begins anew.
        """
        self._refuse_second()
        project = self._context.require_project()
        require_saved(self._save(), "the training does not start")
        run = project.run(run_id)
        config = TrainConfig.model_validate(run.config)
        request = TrainRequest(run_id=run.id, project=project.root, config=config, resume=True)
        self._launch(request, replayed(run.id, run.events()))
        return run.id

    def replay(self, run_id: str) -> str:
        """Repeat a run: the same settings, weights and seed, and the labels and split that it froze; → the new id.

        Raises
        ------
        EMTransferError
            When something that the run was made of is gone or has changed.
        """
        self._refuse_second()
        request = replay_request(self._context.require_project(), run_id)
        self._launch(request, Curves(request.run_id))
        return request.run_id

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
        job, self._job = self._job, None
        if not self.state.is_active:
            return
        job.cancel()
        if not job.wait(timeout):
            job.kill()
            job.wait(1.0)
        run = self._context.require_project().run(self.state.run_id or "")
        if run.record.status != "finished":
            self._mark_interrupted(run.id, "The program was closed while it was training.")

    def interrupted_runs(self) -> list[RunRecord]:
        """Runs of the open project that were cut short and can be resumed, newest first."""
        project = self._context.project
        if project is None:
            return []
        found = [r for r in project.runs() if r.kind == "train" and r.status == "interrupted"]
        return sorted(found, key=lambda r: r.created, reverse=True)

    def reset(self) -> None:
        """Forget the run: the project was closed."""
        self._job = None
        self._set(RunState())
        self._show_curves(Curves())

    # ---- events

    def apply(self, event: Event) -> bool:
        """Take an event of the current run; True when it was its terminal event. Events of other runs are dropped."""
        if event.run_id != self.state.run_id or not self.state.is_active:
            return False
        if record(self.curves, event):
            self._context.signals.curves_changed.emit()
        match event:
            case RunStarted():
                self._started(event)
            case IterationEnded():
                self._set(replace(self.state, iteration=event.iteration, seconds_left=event.seconds_left))
            case ValidationEnded(is_best=True):
                self._set(replace(self.state, mean_iou=event.mean_iou, iou=event.iou, ground=event.ground))
            case RunFinished() | RunCancelled() | RunFailed():
                self._ended(event)
                return True
        return False

    def _started(self, event: RunStarted) -> None:
        phase = Phase.RUNNING if self.state.phase is Phase.STARTING else self.state.phase
        state = replace(self.state, phase=phase, device=event.device, n_iterations=event.n_steps)
        ground, note = (str(event.details.get(key) or "") for key in ("ground", "note"))
        self._set(replace(state, iteration=event.first_step, ground=ground, note=note))

    def _ended(self, event: RunFinished | RunCancelled | RunFailed) -> None:
        self._job = None
        state = replace(self.state, seconds_left=None, stopping_early=False)
        match event:
            case RunFinished():
                self._set(replace(state, phase=Phase.FINISHED, **_shown(event.result)))
            case RunCancelled():
                resumable = self._has_last_checkpoint()
                self._set(replace(state, phase=Phase.CANCELLED, resumable=resumable, **_shown(event.result)))
            case RunFailed():
                self._failed(event, state)

    def _failed(self, event: RunFailed, state: RunState) -> None:
        died, hint = event.kind == DIED, event.hint
        if died:
            self._mark_interrupted(state.run_id, event.message)
            whence = "from its last checkpoint" if self._has_last_checkpoint() else "from the start"
            hint = f"Resume it {whence}, or start a new one."
        state = replace(state, hint=hint, resumable=died)
        if died and self._killed:
            said = f"The training was ended at iteration {state.iteration}."
            self._set(replace(state, phase=Phase.CANCELLED, message=said))
            return
        self._set(replace(state, phase=Phase.FAILED, message=event.message))
        self._context.signals.failed.emit(event.message, hint)

    # ---- inside

    def _launch(self, request: TrainRequest, curves: Curves) -> None:
        self._killed = False
        self.config = request.config
        self._show_curves(curves)
        self._set(RunState(Phase.STARTING, request.run_id, n_iterations=request.config.iterations))
        try:
            self._job = self._runner.start(request, self._context.inbox.put)
        except OSError as error:
            message = f"The training process could not be started: {error}."
            self._set(replace(self.state, phase=Phase.FAILED, message=message))
            self._mark_interrupted(request.run_id, message)
            raise StorageError(message, "Close other programs to free memory, then try again.") from error

    def _refuse_second(self) -> None:
        if self.state.is_active:
            raise ProjectError(
                f"Run {self.state.run_id} is still training; one training goes on at a time.",
                "Wait for it, stop it early, or cancel it first.",
            )

    def _has_last_checkpoint(self) -> bool:
        project = self._context.project
        if project is None or self.state.run_id is None:
            return False
        return project.run(self.state.run_id).is_resumable

    def _mark_interrupted(self, run_id: str | None, message: str) -> None:
        """So that it is offered for resuming; a process that died could not say so itself."""
        project = self._context.project
        if project is None or run_id is None:
            return
        with contextlib.suppress(EMTransferError):  # on a full disk the next opening finds out by itself
            project.run(run_id).update("interrupted", message=message)

    def _show_curves(self, curves: Curves) -> None:
        if curves != self.curves:
            self.curves = curves
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
