"""What crosses the process boundary: one JSON request line in, one JSON control line at any time after, events out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from napari_emtransfer.core.config import (
    Acquisition,
    AugmentPreset,
    ComputeConfig,
    LiveConfig,
    PredictConfig,
    RankConfig,
    TrainConfig,
)
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.recipe import PretrainRecipe


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
    `ensemble` names runs whose probabilities are averaged with the model's; `tta` averages over the symmetries that
    the project's modality allows. The uncertainty "disagreement" is that between the networks of folds or ensemble, in
    nats; of a single network that between the symmetries.
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
    uncertainty: Literal["none", "entropy", "disagreement"] = "entropy"
    ensemble: tuple[str, ...] = ()
    tta: bool = False
    config: PredictConfig = PredictConfig()


class EvaluateRequest(_Message):
    """Measure `model_run` on "validation", "test", any other part of the run's split, or named micrographs."""

    kind: Literal["evaluate"] = "evaluate"
    run_id: str
    project: Path
    model_run: str = "latest"
    on: tuple[str, ...] = ("validation",)
    ensemble: tuple[str, ...] = ()
    tta: bool = False
    config: PredictConfig = PredictConfig()


class RecommendRequest(_Message):
    """Measure the gap between weights and micrographs; answer with a strategy and its reason (see `core.recommend`)."""

    kind: Literal["recommend"] = "recommend"
    run_id: str
    project: Path
    config: TrainConfig


class LiveRequest(_Message):
    """Train the live head on all labels on disk and predict one window (native pixels) of one micrograph.

    The prediction lies in the project's store under the run `LIVE_RUN`; a newer request overtakes an older one.
    """

    kind: Literal["live"] = "live"
    run_id: str
    project: Path
    micrograph: str
    window: Window
    generation: int = 0
    config: LiveConfig = LiveConfig()


class RankRequest(_Message):
    """Score every tile that is to be labelled, and queue the best in the project's database (`Project.active`).

    Features that are not cached yet are computed for at most `seconds` (None: all), and as long, but at least a second,
    tiles are scored; those of the micrograph `first` before others. The answer says how many tiles are left, and asking
    again goes on. A newer request overtakes.
    """

    kind: Literal["rank"] = "rank"
    run_id: str
    project: Path
    first: str | None = None
    seconds: float | None = Field(default=None, ge=0)
    generation: int = 0
    config: RankConfig = RankConfig()


class SimulateRequest(_Message):
    """Play the labelling of a data set whose masks are known, once per acquisition and seed → learning curves.

    `split` names a split of the data set: tiles are chosen on its training part and the IoU is measured on its test
    part. Without one, half of the specimens are held out, other ones for each seed. `rounds` rounds of `query_size`
    tiles of `tile_px` are labelled in full. With `iterations` the network is fine-tuned before each measurement, else a
    head is fitted in closed form.
    """

    kind: Literal["simulate"] = "simulate"
    run_id: str
    dataset: Path
    acquisitions: tuple[Acquisition, ...] = ("default", "random")
    split: str | None = None
    rounds: int = Field(default=8, ge=1, le=1000)
    query_size: int = Field(default=4, ge=1, le=1000)
    seeds: tuple[int, ...] = (0,)
    tile_px: int = Field(default=128, ge=32)
    iterations: int = Field(default=0, ge=0)
    config: RankConfig = RankConfig()


class PreviewRequest(_Message):
    """Nine augmented crops with their labels, as the training would see them; the answer names an .npz file."""

    kind: Literal["preview"] = "preview"
    run_id: str
    project: Path
    micrograph: str
    preset: AugmentPreset
    illegal: tuple[str, ...] = ()
    crop_px: int = 256
    seed: int = 0


class PretrainRequest(_Message):
    """Train an encoder to tell the classes of a folder of micrographs apart (one folder per class); writes `out`."""

    kind: Literal["pretrain"] = "pretrain"
    run_id: str
    images: Path
    out: Path
    config: TrainConfig


class RecipeRequest(_Message):
    """Train a network on synthetic micrographs by a recipe; writes `out`, and beside it a state to go on from.

    Of `compute`, seed and precision are the recipe's. With `resume` there must be a state, without (False) it is not
    looked at; None goes on where there is one. `minutes` ends this piece of the work.
    """

    kind: Literal["recipe"] = "recipe"
    run_id: str
    recipe: PretrainRecipe
    out: Path
    resume: bool | None = None
    minutes: float | None = Field(default=None, gt=0)
    compute: ComputeConfig = ComputeConfig()


class SynthesizeRequest(_Message):
    """Make `n` synthetic micrographs with exact masks and write them as a data set that can be imported.

    `presets` are of the generator; each specimen has one of them, any where none is named. `per_specimen` micrographs
    share a material. `flat_field` are images of the user's own instrument, whose noise is taken over.
    """

    kind: Literal["synthesize"] = "synthesize"
    run_id: str
    generator: Literal["voronoi", "hrtem"]
    out: Path
    n: int = Field(ge=1, le=100_000)
    presets: tuple[str, ...] = ()
    shape: tuple[int, int] = (512, 512)
    seed: int = Field(default=0, ge=0)
    pixel_size_nm: float | None = Field(default=None, gt=0, le=1e6, allow_inf_nan=False)
    per_specimen: int = Field(default=4, ge=1)
    instrument: Literal["sem", "fib-sem", "camera"] | None = None
    flat_field: tuple[Path, ...] = ()


class SynthesisPreviewRequest(_Message):
    """The first micrographs of `make`, to look at; the answer names an .npz file in the folder `make.out`."""

    kind: Literal["synthesis_preview"] = "synthesis_preview"
    run_id: str
    make: SynthesizeRequest


class AddSyntheticRequest(_Message):
    """Make micrographs into a new folder below `make.out` and add them with their labels to a project, as `domain`.

    `classes` maps what the generator labels to classes of the project, new ones included; None leaves it unlabelled.
    With `replace_classes` the project's classes become these.
    """

    kind: Literal["add_synthetic"] = "add_synthetic"
    run_id: str
    project: Path
    make: SynthesizeRequest
    domain: str = Field(min_length=1)
    classes: dict[str, str | None]
    replace_classes: bool = False


LIVE_RUN: Final = "live"

Request = Annotated[
    WarmRequest
    | TrainRequest
    | PredictRequest
    | EvaluateRequest
    | RecommendRequest
    | LiveRequest
    | RankRequest
    | SimulateRequest
    | PreviewRequest
    | PretrainRequest
    | RecipeRequest
    | SynthesizeRequest
    | SynthesisPreviewRequest
    | AddSyntheticRequest,
    Field(discriminator="kind"),
]


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
