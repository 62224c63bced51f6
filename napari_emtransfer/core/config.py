"""What a user can choose, as frozen models: validated once here, trusted everywhere inside."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Modality = Literal["sem", "tem", "hrtem", "stem", "ebsd", "other"]
Architecture = Literal["Unet", "UnetPlusPlus", "DeepLabV3Plus", "FPN", "Segformer"]
StrategyName = Literal["auto", "scratch", "fine-tune"]
AugmentPreset = Literal["none", "basic", "extended"]
Precision = Literal["auto", "bf16", "fp32"]
BlendMode = Literal["valid", "hann"]


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
    one's), the path of a file, or "run:ID" to go on from an earlier run.
    `split` names a split that came with an imported data set; otherwise the labelled micrographs are split by specimen.
    `train` and `validation` name micrographs (stems) by hand and win over both.
    """

    strategy: StrategyName = "auto"
    weights: str = "none"
    architecture: Architecture = "Unet"
    encoder: str = "resnet18"
    iterations: int = Field(default=250, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=8, ge=1)
    crop_px: int = Field(default=256, ge=32, multiple_of=32)
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    encoder_learning_rate: float | None = Field(default=None, gt=0, le=1)
    weight_decay: float = Field(default=1e-2, ge=0)
    augment: AugmentPreset = "basic"
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
    """

    roi_px: int | None = Field(default=None, ge=64)
    halo_px: int = Field(default=192, ge=0)
    blend: BlendMode = "valid"
    batch_size: int | None = Field(default=None, ge=1)
    compute: ComputeConfig = ComputeConfig()
