"""What a running computation tells the world. Past tense; frozen; one JSON line each.

A run emits one `RunStarted`, any number of the middle ones, and exactly one terminal event.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    run_id: str


class EngineReady(_Event):
    """The resident engine has imported torch and answers requests at once from now on."""

    event: Literal["EngineReady"] = "EngineReady"
    device: str
    memory_free_gb: float | None = None


class RunStarted(_Event):
    """Work has begun on `device`; `n_steps` is what the progress bar counts to."""

    event: Literal["RunStarted"] = "RunStarted"
    n_steps: int
    first_step: int = 0
    device: str = "cpu"
    details: dict[str, Any] = Field(default_factory=dict)


class IterationEnded(_Event):
    """One optimiser step. `loss` is the mean over the iterations since the last such event.

    `memory_gb` is what the device holds for this process.
    """

    event: Literal["IterationEnded"] = "IterationEnded"
    iteration: int
    loss: float
    learning_rates: dict[str, float]
    seconds_left: float | None = None
    memory_gb: float | None = None


class ValidationEnded(_Event):
    """IoU on the held-out ground; a class absent from label and prediction is None.

    `n_stale` counts the validations since the best one; `training_iou` is the mean IoU on the training crops of late.
    """

    event: Literal["ValidationEnded"] = "ValidationEnded"
    iteration: int
    loss: float | None
    mean_iou: float | None
    iou: dict[str, float | None]
    is_best: bool
    ground: str
    n_stale: int = 0
    training_iou: float | None = None


class ParameterGroup(BaseModel):
    """Parameters that learn alike; a frozen group has the rate 0."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    part: str
    n_parameters: int
    learning_rate: float
    weight_decay: float


class StageBegan(_Event):
    """A stage of the strategy; all but the gradual one have a single stage. `reason` says why it begins now."""

    event: Literal["StageBegan"] = "StageBegan"
    iteration: int
    stage: int
    n_stages: int
    name: str
    reason: str
    groups: tuple[ParameterGroup, ...]


class FoldBegan(_Event):
    """The network of fold `fold` (from 0) of `n_folds` is trained now, without the `held_out` specimens."""

    event: Literal["FoldBegan"] = "FoldBegan"
    fold: int
    n_folds: int
    held_out: tuple[str, ...]


class CheckpointSaved(_Event):
    """A checkpoint lies complete on disk."""

    event: Literal["CheckpointSaved"] = "CheckpointSaved"
    iteration: int
    which: Literal["last", "best"]
    path: str


class ProgressMade(_Event):
    """`done` of `total` units of `what` (tiles, megapixels, files)."""

    event: Literal["ProgressMade"] = "ProgressMade"
    done: float
    total: float
    what: str


class RegionPredicted(_Event):
    """The prediction of one window of one micrograph lies in the project's prediction store.

    The window is in native pixels; `generation` echoes the request, so that late answers can be dropped.
    """

    event: Literal["RegionPredicted"] = "RegionPredicted"
    micrograph: str
    y0: int
    x0: int
    y1: int
    x1: int
    model_run: str
    generation: int = 0


class NoticePosted(_Event):
    """Something the user should know, but that stopped nothing: a smaller batch, a one-specimen split."""

    event: Literal["NoticePosted"] = "NoticePosted"
    message: str
    hint: str = ""


class RunFinished(_Event):
    """Terminal: done. `result` holds the keys that the command line prints."""

    event: Literal["RunFinished"] = "RunFinished"
    result: dict[str, Any] = Field(default_factory=dict)


class RunCancelled(_Event):
    """Terminal: the user stopped it; what was done is banked in the last checkpoint."""

    event: Literal["RunCancelled"] = "RunCancelled"
    result: dict[str, Any] = Field(default_factory=dict)


class RunFailed(_Event):
    """Terminal: `kind` is an `EMTransferError.kind`, "died" for a process that ended mute, or "bug"."""

    event: Literal["RunFailed"] = "RunFailed"
    kind: str
    message: str
    hint: str = ""
    traceback: str = ""


Event = Annotated[
    EngineReady
    | RunStarted
    | IterationEnded
    | ValidationEnded
    | StageBegan
    | FoldBegan
    | CheckpointSaved
    | ProgressMade
    | RegionPredicted
    | NoticePosted
    | RunFinished
    | RunCancelled
    | RunFailed,
    Field(discriminator="event"),
]
TERMINAL = (RunFinished, RunCancelled, RunFailed)

_ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)


def to_line(event: Event) -> str:
    """Event → one line of JSON, without the newline."""
    return event.model_dump_json()


def from_line(line: str) -> Event:
    """One line of JSON → Event; raises `pydantic.ValidationError` on anything else."""
    return _ADAPTER.validate_json(line)
