"""What is trained how fast: parameter groups and the course of the learning rate."""

from __future__ import annotations

import math
from typing import Any, Final, Literal

from torch import nn

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.nn.model import SegmentationModel

WARM_UP_FRACTION: Final = 0.05
FINE_TUNE_RATIO: Final = 0.1


def resolve_strategy(config: TrainConfig) -> Literal["scratch", "fine-tune"]:
    """The strategy that "auto" stands for: "fine-tune" where there are weights to tune, else "scratch"."""
    if config.strategy == "auto":
        return "scratch" if config.weights == "none" else "fine-tune"
    return config.strategy


def encoder_rate(config: TrainConfig) -> float:
    """Peak learning rate of the encoder: as given, else the decoder's, ten times less when fine-tuning."""
    if config.encoder_learning_rate is not None:
        return config.encoder_learning_rate
    return config.learning_rate * (FINE_TUNE_RATIO if resolve_strategy(config) == "fine-tune" else 1.0)


def parameter_groups(model: SegmentationModel, config: TrainConfig) -> list[dict[str, Any]]:
    """Optimizer groups "encoder" and "decoder", each split in two: no weight decay on norms and biases.

    Every group holds its name as `part` and its peak learning rate as `peak_lr`. Frozen parameters are left out.
    """
    rates = {"encoder": encoder_rate(config), "decoder": config.learning_rate}
    parts = {"encoder": [model.encoder], "decoder": [model.decoder, model.segmentation_head]}
    groups = []
    for part, modules in parts.items():
        for decay in (True, False):
            parameters = [p for module in modules for p in _parameters(module, decay=decay)]
            if parameters:
                groups.append(
                    {
                        "params": parameters,
                        "part": part,
                        "lr": rates[part],
                        "peak_lr": rates[part],
                        "weight_decay": config.weight_decay if decay else 0.0,
                    }
                )
    return groups


def _parameters(module: nn.Module, *, decay: bool) -> list[nn.Parameter]:
    # Norm scales and all biases are vectors; every weight that mixes channels has at least two axes.
    return [p for p in module.parameters() if p.requires_grad and (p.ndim > 1) == decay]


def schedule(progress: float) -> float:
    """Share of the peak learning rate at `progress` in [0, 1]: linear warm-up for 5 %, then half a cosine."""
    if progress < WARM_UP_FRACTION:
        return (progress + 1e-3) / (WARM_UP_FRACTION + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - WARM_UP_FRACTION) / (1 - WARM_UP_FRACTION))))
