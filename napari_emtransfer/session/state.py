"""What the window shows, as frozen values: replaced whole by the controllers, never edited in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from napari_emtransfer.core.config import StrategyName, TrainConfig
from napari_emtransfer.core.evaluate.report import SPARSE_FRACTION
from napari_emtransfer.core.events import ParameterGroup


class Phase(StrEnum):
    """Where a training run stands; the last four are terminal."""

    IDLE = "idle"
    STARTING = "starting"
    RUNNING = "running"
    CANCELLING = "cancelling"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


ACTIVE_PHASES = frozenset({Phase.STARTING, Phase.RUNNING, Phase.CANCELLING})


@dataclass(frozen=True)
class RunState:
    """One training run as the user sees it.

    `iteration` counts to `n_iterations`; `seconds_left` is None until the worker can tell. `mean_iou`, `iou` and `ci95`
    are those of the held-out ground named in `ground`; `note` is the honest sentence about that ground. `message` and
    `hint` say why a run ended early; `resumable` whether it can go on from its last checkpoint; `stopping_early` that
    the user has asked for the best checkpoint so far.
    """

    phase: Phase = Phase.IDLE
    run_id: str | None = None
    iteration: int = 0
    n_iterations: int = 0
    seconds_left: float | None = None
    mean_iou: float | None = None
    iou: Mapping[str, float | None] = field(default_factory=dict)
    ci95: tuple[float, float] | None = None
    ground: str = ""
    note: str = ""
    device: str = ""
    message: str = ""
    hint: str = ""
    resumable: bool = False
    stopping_early: bool = False

    @property
    def is_active(self) -> bool:
        """True from the start of the process until its one terminal event."""
        return self.phase in ACTIVE_PHASES

    @property
    def fraction(self) -> float:
        """Done part of the run, 0..1."""
        return min(1.0, self.iteration / self.n_iterations) if self.n_iterations else 0.0


@dataclass(frozen=True)
class ValidationPoint:
    """One validation: IoU on the held-out ground after `iteration` iterations, and on the training crops of late.

    `n_stale` counts the validations since the best one.
    """

    iteration: int
    loss: float | None
    mean_iou: float | None
    iou: Mapping[str, float | None]
    is_best: bool
    n_stale: int = 0
    training_iou: float | None = None


@dataclass(frozen=True)
class StageMark:
    """Stage `stage` (from 1) of the strategy, which began after `iteration` iterations, with its parameter groups."""

    iteration: int
    stage: int
    n_stages: int
    name: str
    reason: str
    groups: tuple[ParameterGroup, ...] = ()


@dataclass(frozen=True)
class FoldMark:
    """A fold that began after `iteration` iterations, without the `held_out` specimens."""

    iteration: int
    fold: int
    n_folds: int
    held_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Curves:
    """The curves of one run: loss, learning rates and memory against iteration, the validations, stages and folds.

    `losses[i]`, `memory_gb[i]` and `learning_rates[group][i]` belong to `iterations[i]`; a group that learns later
    has a nan there, and so has memory that nobody told. The lists grow while a run goes on and are replaced by fresh
    ones when the next run starts.
    """

    run_id: str | None = None
    iterations: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    learning_rates: dict[str, list[float]] = field(default_factory=dict)
    validations: list[ValidationPoint] = field(default_factory=list)
    memory_gb: list[float] = field(default_factory=list)
    stages: list[StageMark] = field(default_factory=list)
    folds: list[FoldMark] = field(default_factory=list)


EnginePhase = Literal["off", "starting", "ready", "busy", "dead"]


@dataclass(frozen=True)
class EngineState:
    """The resident process that predicts: its light in the header, its device, and its free memory in GB."""

    phase: EnginePhase = "off"
    device: str = ""
    memory_free_gb: float | None = None
    message: str = ""
    hint: str = ""


LivePhase = Literal["off", "waiting", "updating", "ready", "failed"]


@dataclass(frozen=True)
class LiveState:
    """The live head: what it is at, in a line (`message`) with its explanation (`hint`).

    `seconds` passed between the last stroke and its overlay, learnt from `n_pixels` labelled pixels. "waiting" is for
    labels to learn from.
    """

    phase: LivePhase = "off"
    seconds: float | None = None
    n_pixels: int = 0
    message: str = ""
    hint: str = ""


class Advice(BaseModel):
    """What is recommended for a training. `config` is what was asked about, with strategy, norms and rates decided.

    `strategy` is what the rules say, also where the user's own choice stays in `config`; `rule` names the row that was
    followed and `source` where it comes from. `gap` is the measured one, None where unknown. `failed`: nothing could be
    recommended, and `reason` says why.
    """

    model_config = ConfigDict(frozen=True)
    config: TrainConfig
    reason: str
    strategy: StrategyName = "auto"
    rule: str = ""
    source: str = ""
    gap: float | None = None
    failed: bool = False


SynthesisPhase = Literal["idle", "making", "adding", "cancelling"]


@dataclass(frozen=True)
class SynthesisState:
    """How far the synthesis is: `done` of `total` micrographs are made or, after that, added to the project."""

    phase: SynthesisPhase = "idle"
    done: int = 0
    total: int = 0

    @property
    def is_active(self) -> bool:
        """Whether micrographs are being made."""
        return self.phase != "idle"


@dataclass(frozen=True)
class SaveState:
    """Whether strokes wait to be written, and the sentence that says why the last attempt failed."""

    unsaved: bool = False
    failing: bool = False
    message: str = ""
    hint: str = ""


@dataclass(frozen=True)
class ModelReadout:
    """IoU per class of a finished run on its held-out ground, with the 95 % interval of the mean and its note.

    `labelled_fraction` is the share of that ground's pixels that the figure was measured on; None where unknown.
    `synthetic`: none of that ground is real.
    """

    run_id: str
    mean_iou: float | None
    iou: Mapping[str, float | None]
    ci95: tuple[float, float] | None
    ground: str
    note: str
    labelled_fraction: float | None = None
    synthetic: bool = False

    @property
    def is_from_strokes(self) -> bool:
        """True where most of the ground is unlabelled: strokes keep off the boundaries, so the figure flatters."""
        return self.labelled_fraction is not None and self.labelled_fraction < SPARSE_FRACTION


TileGround = Literal["training tile", "training micrograph", "held-out"]


@dataclass(frozen=True)
class TileReadout:
    """The prediction measured on the labelled pixels of one tile.

    `iou` has one entry per class; None where the class is absent from label and prediction. `phase_fractions` are those
    of the prediction over the whole tile. `ground` says whether the model learnt from labels of this tile, from
    other places of the same micrograph, or never saw the micrograph; `source` which model that is, in words;
    `synthetic` that the micrograph is not a real one.
    """

    iou: Mapping[str, float | None]
    mean_iou: float | None
    labelled_fraction: float
    ground: TileGround
    phase_fractions: Mapping[str, float]
    source: str = ""
    synthetic: bool = False

    @property
    def is_training_tile(self) -> bool:
        """True when the model learnt from labels of this very tile."""
        return self.ground == "training tile"


@dataclass(frozen=True)
class Readouts:
    """What the loop bar and the Measure tab show; a part that cannot be told is None."""

    model: ModelReadout | None = None
    tile: TileReadout | None = None


@dataclass(frozen=True)
class Failure:
    """A file that could not be added, with the sentence why and the way out.

    `n_frames` says that it holds so many images, of which one is to be chosen.
    """

    path: Path
    message: str
    hint: str = ""
    n_frames: int | None = None


@dataclass(frozen=True)
class AddReport:
    """What came of adding files: stems that are in the project now, files that are not, and remarks on the former."""

    added: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    notices: tuple[str, ...] = ()


NoticeCode = Literal["no_pixel_size", "mixed_pixel_sizes", "info_bar", "one_specimen", "no_classes", "missing_file"]


@dataclass(frozen=True)
class ProjectNotice:
    """A fault of the project as a whole that the Project tab points out, with the micrographs it concerns."""

    code: NoticeCode
    message: str
    hint: str
    stems: tuple[str, ...] = ()
