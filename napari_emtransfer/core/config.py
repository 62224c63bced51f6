"""What a user can choose, as frozen models: validated once here, trusted everywhere inside."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

# How micrographs were made, or what in them is not to be touched; names, and what follows for augmentation, are in
# core/legality.toml.
Modality = Literal[
    "sem",
    "tem",
    "hrtem",
    "stem",
    "haadf",
    "ebsd",
    "eds",
    "eels",
    "equiaxed",
    "directional",
    "weld",
    "time",
    "metric",
    "lom",
    "other",
]
Architecture = Literal["Unet", "UnetPlusPlus", "DeepLabV3Plus", "FPN", "Segformer"]
StrategyName = Literal["auto", "scratch", "feature-extraction", "fine-tune", "gradual"]
Freeze = Literal["none", "encoder", "decoder"]
NormPolicy = Literal["auto", "source", "train", "adabn", "mix"]
Schedule = Literal["cosine", "poly"]
ClassWeights = Literal["none", "balanced"]
Folds = Literal["leave-one-out", "dataset"] | Annotated[int, Field(ge=2)]
AugmentPreset = Literal["none", "basic", "extended", "em-noise"]
Precision = Literal["auto", "bf16", "fp32"]
BlendMode = Literal["valid", "hann"]

# Ways to choose the tiles that are labelled next; "default" is what the program takes (`core.active.acquisition`).
Acquisition = Literal[
    "default",
    "random",
    "foreground-random",
    "typiclust",
    "entropy",
    "margin",
    "bald",
    "kcenter",
    "entropy+kcenter",
    "clasp",
]

AUTO_WEIGHTS: Final = "auto"
DEFAULT_ENCODER: Final = "tu-regnety_002"
"""That of the weights which come with the program."""


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ComputeConfig(_Config):
    """Where and how reproducibly to compute."""

    device: str = "auto"
    threads: int | None = Field(default=None, ge=1)
    precision: Precision = "auto"
    seed: int = Field(default=0, ge=0)


class ModelConfig(_Config):
    """A segmentation network with one input channel and one logit channel per class."""

    architecture: Architecture = "Unet"
    encoder: str = "resnet18"
    n_classes: int = Field(ge=1)


class TrainConfig(_Config):
    """One training run. Iterations, not epochs: five tiles and fifty are comparable then.

    `weights` is "none", a name of the registry of weights ("imagenet", "micronet", "micronet:resnet50", an imported
    one's), the path of a file, or "run:ID" to go on from an earlier run. "auto" is the weights that come with the
    program where `encoder` is theirs and the strategy not "scratch", else "none": `core.rates.resolve_weights`.
    `split` names a split that came with an imported data set; otherwise the labelled micrographs are split by specimen.
    `train` and `validation` name micrographs (stems) by hand and win over both.

    `learning_rate` is that of decoder and head; None stands for what measured best for the weights, else 1e-3.

    Transfer: `freeze` keeps a part as it was loaded. `normalization` says whose statistics the encoder's batch norms
    use: those of the weights ("source"), of each batch ("train"), of this project's micrographs, measured once and then
    frozen ("adabn"), or half of both ("mix"); "auto" is "train" from scratch and "adabn" otherwise. `depth_decay` is
    the rate of each encoder stage relative to the next deeper one. `l2_sp` pulls pretrained parameters back to where
    they began. `plateau` is how many validations without a better IoU end a stage of the gradual strategy. A rate
    above 1e-4 that is the same for a pretrained encoder as for the decoder needs `confirm_uniform_rate`.
    Going on from a run ("run:ID"), `shrink` scales decoder and head before a little noise is added (1 leaves them), and
    pixels labelled since then count `new_weight` times; both are off, as that measured better (`benchmarks.rounds`).
    `folds` trains one network per fold of specimens; together they are the run's model. "dataset" takes the folds that
    came with an imported data set.
    `illegal_augment` names transforms that the project's modality forbids and the user wants all the same.
    """

    strategy: StrategyName = "auto"
    weights: str = AUTO_WEIGHTS
    architecture: Architecture = "Unet"
    encoder: str = DEFAULT_ENCODER
    iterations: int = Field(default=250, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=8, ge=1)
    crop_px: int = Field(default=256, ge=32, multiple_of=32)
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    encoder_learning_rate: float | None = Field(default=None, gt=0, le=1)
    depth_decay: float = Field(default=0.7, gt=0, le=1)
    weight_decay: float = Field(default=1e-2, ge=0)
    freeze: Freeze = "none"
    normalization: NormPolicy = "auto"
    schedule: Schedule = "cosine"
    l2_sp: float = Field(default=0.0, ge=0)
    class_weights: ClassWeights = "none"
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    average: float = Field(default=0.98, ge=0, lt=1)
    plateau: int = Field(default=2, ge=1)
    confirm_uniform_rate: bool = False
    shrink: float = Field(default=1.0, gt=0, le=1)
    new_weight: float = Field(default=1.0, ge=1)
    folds: Folds | None = None
    augment: AugmentPreset = "basic"
    illegal_augment: tuple[str, ...] = ()
    split: str | None = None
    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    validate_every: int = Field(default=50, ge=1)
    patience: int | None = Field(default=None, ge=1)
    compute: ComputeConfig = ComputeConfig()


class PredictConfig(_Config):
    """Tiled prediction. `roi_px` is the window fed to the network, halo included; None lets the device decide.

    `halo_px` is what is computed and thrown away around each window: a trained ResNet-18 U-Net sees so far that
    62 px leave differences of 0.7 in probability at worst; at 192 px they are below 1e-3.
    `symmetries` are the elements of `core.nn.augment.dihedral` over whose predictions is averaged; 0 is the image as
    it is.
    """

    roi_px: int | None = Field(default=None, ge=64)
    halo_px: int = Field(default=192, ge=0)
    blend: BlendMode = "valid"
    batch_size: int | None = Field(default=None, ge=1)
    symmetries: tuple[int, ...] = Field(default=(0,), min_length=1)
    compute: ComputeConfig = ComputeConfig()


class LiveConfig(_Config):
    """The live head: a pixel classifier trained anew at every stroke, on filters and on features of a frozen network.

    `weights` is "none" (filters alone), a name or a path as in `TrainConfig.weights`, or "run:ID". Which ones a window
    takes is chosen by `session.live_weights`: the run in use, else the weights that come with the program.
    """

    weights: str = "none"
    encoder: str = DEFAULT_ENCODER
    compute: ComputeConfig = ComputeConfig()


class RankConfig(_Config):
    """Which tiles to label next: `n_tiles` by `acquisition`, and one in `control_every` of them uniformly at random.

    Tiles are scored by a head that is fitted on all labels, on features of a frozen network: `weights` is "run:ID", a
    name or a path as in `TrainConfig.weights`, or "auto": the newest run with a model, else the weights that come with
    the program. Specimens and micrographs of a round share its tiles where `spread` is set.
    """

    acquisition: Acquisition = "default"
    n_tiles: int = Field(default=8, ge=1, le=1000)
    control_every: int = Field(default=5, ge=2)
    spread: bool = False
    weights: str = AUTO_WEIGHTS
    encoder: str = DEFAULT_ENCODER
    compute: ComputeConfig = ComputeConfig()
