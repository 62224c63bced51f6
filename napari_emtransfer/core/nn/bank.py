"""What a run has reached, put by as checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from napari_emtransfer.core import events
from napari_emtransfer.core.errors import WeightsError
from napari_emtransfer.core.nn.checkpoint import Checkpoint, CheckpointMeta
from napari_emtransfer.core.nn.outcome import Best, RunContext
from napari_emtransfer.core.nn.pace import Pace
from napari_emtransfer.core.nn.stage_control import StageControl
from napari_emtransfer.core.nn.step import Optimization


@dataclass
class Bank:
    """Writes the checkpoints of a run and takes the last one up again; `best` is the best validation so far."""

    context: RunContext
    optimization: Optimization
    stages: StageControl
    emit: Callable[[events.Event], None]
    best: Best

    def save(self, which: Literal["last", "best"], iteration: int, pace: Pace) -> None:
        """Write the averaged weights; "last" also holds all that a resume needs. Raises `StorageError`."""
        context, best = self.context, self.best
        meta = CheckpointMeta(
            model=self.optimization.model.config,
            classes=context.classes,
            standardization=dict(context.standardization),
            working_pixel_size_nm=context.working_pixel_size_nm,
            run_id=context.run_id,
            iteration=iteration,
            mean_iou=best.mean_iou,
            iou=best.iou,
            progress=self._progress(pace),
        )
        resume = self.optimization.resume_state() if which == "last" else {}
        path = context.checkpoint_path(which)
        Checkpoint(meta, self.optimization.average.state, resume).save(path)
        self.emit(events.CheckpointSaved(run_id=context.run_id, iteration=iteration, which=which, path=str(path)))

    def _progress(self, pace: Pace) -> dict[str, Any]:
        return {
            "best": vars(self.best),
            "seconds": pace.seconds,
            "part_size": self.optimization.part_size,
            "stages": self.stages.state(),
        }

    def restore(self, last: Checkpoint) -> float:
        """Take up where `last` was saved → the seconds spent until then.

        Raises
        ------
        WeightsError
            When the checkpoint knows nothing of stages, and so orders its parameters otherwise.
        """
        progress = last.meta.progress
        if "stages" not in progress:
            raise WeightsError(
                f"The run {last.meta.run_id} was interrupted in an older version of the program.",
                f"Start a new run, from its weights if you like (run:{last.meta.run_id}).",
            )
        self.stages.restore(progress["stages"])
        self.optimization.restore(last.state, last.resume, self.stages.began)
        self.optimization.part_size = progress["part_size"]
        self.best = Best(**progress["best"])
        return float(progress["seconds"])
