"""What crosses the process boundary: one JSON request line in, one JSON control line at any time after, events out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from napari_emtransfer.core.config import ComputeConfig, PredictConfig, TrainConfig
from napari_emtransfer.core.data.tiles import Window


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WarmRequest(_Message):
    """Import what is slow to import, probe the device, answer `EngineReady`."""

    kind: Literal["warm"] = "warm"
    run_id: str = "warm"
    compute: ComputeConfig = ComputeConfig()


class TrainRequest(_Message):
    """Train, in `runs/<run_id>/`. With `resume`, go on from its last checkpoint with its own configuration."""

    kind: Literal["train"] = "train"
    run_id: str
    project: Path
    config: TrainConfig
    resume: bool = False


class PredictRequest(_Message):
    """Predict micrographs (all of the project when none is named) with the best checkpoint of `model_run`.

    `paths` are image files outside the project. `window` restricts one named micrograph to a part, in native pixels.
    With `out`, masks are written there as TIFF; otherwise into the project's prediction store.
    """

    kind: Literal["predict"] = "predict"
    run_id: str
    project: Path
    model_run: str = "latest"
    micrographs: tuple[str, ...] = ()
    paths: tuple[Path, ...] = ()
    window: Window | None = None
    generation: int = 0
    out: Path | None = None
    probabilities: bool = False
    uncertainty: Literal["none", "entropy"] = "entropy"
    config: PredictConfig = PredictConfig()


class EvaluateRequest(_Message):
    """Measure `model_run` on "validation", "test", any other part of the run's split, or named micrographs."""

    kind: Literal["evaluate"] = "evaluate"
    run_id: str
    project: Path
    model_run: str = "latest"
    on: tuple[str, ...] = ("validation",)
    config: PredictConfig = PredictConfig()


Request = Annotated[WarmRequest | TrainRequest | PredictRequest | EvaluateRequest, Field(discriminator="kind")]


class Control(_Message):
    """A word to a running request. Cancel banks the work; stop early keeps the best checkpoint and finishes."""

    control: Literal["cancel", "stop_early"]
    run_id: str


_INCOMING: TypeAdapter[Request | Control] = TypeAdapter(Request | Control)


def to_line(message: Request | Control) -> str:
    """Message → one line of JSON, without the newline."""
    return message.model_dump_json()


def from_line(line: str) -> Request | Control:
    """One line of JSON → request or control word; raises `pydantic.ValidationError` on anything else."""
    return _INCOMING.validate_json(line)
