"""What is trained when and how fast: the stages of a strategy, parameter groups, the course of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from napari_emtransfer.core.config import Freeze, Schedule, TrainConfig
from napari_emtransfer.core.nn.model import SegmentationModel
from napari_emtransfer.core.nn.stages import ENCODER, Parts, is_encoder, parts_of
from napari_emtransfer.core.rates import (
    check_rates,
    encoder_rate,
    is_pretrained,
    learning_rate,
    resolve_normalization,
    resolve_strategy,
    trains_encoder,
)

__all__ = ["Plan", "Stage", "check_rates", "encoder_rate", "plan_of", "resolve_normalization", "resolve_strategy"]

WARM_UP_FRACTION: Final = 0.05
_POLY_POWER: Final = 0.9


@dataclass(frozen=True)
class Stage:
    """One stage of a strategy: the peak rate of each part that learns; all other parts are frozen."""

    name: str
    rates: Mapping[str, float]


@dataclass(frozen=True)
class Plan:
    """The parts of a network and the stages in which they are trained; what once learns goes on learning."""

    parts: Parts
    stages: tuple[Stage, ...]
    weight_decay: Mapping[str, float]

    def groups(self, stage: int, begun: set[str]) -> list[dict[str, Any]]:
        """Optimizer groups of the parts that learn in `stage` and have not `begun` yet.

        Each part is split in two: no weight decay on norms and biases. A group holds its name as `part` and its peak
        learning rate as `peak_lr`.
        """
        groups = []
        for part, rate in self.stages[stage].rates.items():
            for decays in (True, False) if part not in begun else ():
                # Norm scales and all biases are vectors; every weight that mixes channels has at least two axes.
                parameters = [p for p in self.parts[part] if (p.ndim > 1) == decays]
                decay = self.weight_decay[part] if decays else 0.0
                group = {"params": parameters, "part": part, "lr": rate, "peak_lr": rate, "weight_decay": decay}
                groups += [group] if parameters else []
        return groups

    def frozen(self, stage: int) -> list[str]:
        """Names of the parts that do not learn in `stage`."""
        return [part for part in self.parts if part not in self.stages[stage].rates]

    def freeze(self, stage: int) -> None:
        """Let the parts of `stage` have gradients, and no others."""
        frozen = self.frozen(stage)
        for part, parameters in self.parts.items():
            for parameter in parameters:
                parameter.requires_grad_(part not in frozen)


def plan_of(model: SegmentationModel, config: TrainConfig) -> Plan:
    """The stages in which `config` trains `model`: three where it is gradual, one otherwise.

    Of an encoder that is tuned, each stage learns `depth_decay` times as fast as the next deeper one; from scratch all
    of it learns alike. `freeze` takes its part out of every stage, and stages that then are no different from the one
    before are left out.
    """
    strategy = resolve_strategy(config)
    graded = strategy == "gradual" or (strategy == "fine-tune" and config.depth_decay < 1)
    parts = parts_of(model, by_depth=graded and trains_encoder(config), size_px=config.crop_px)
    new = dict.fromkeys(("head", "decoder"), learning_rate(config))
    encoder = _encoder_rates(parts, config)
    deepest = dict([next(iter(encoder.items()))]) if encoder else {}
    match strategy:
        case "feature-extraction":
            stages = [Stage("feature extraction", new)]
        case "gradual":
            stages = [
                Stage("head and decoder", new),
                Stage("last encoder block", new | deepest),
                Stage("all, graded by depth", new | encoder),
            ]
        case "scratch" | "fine-tune":
            stages = [Stage(strategy, new | encoder)]
    pulled = is_pretrained(config) and config.l2_sp > 0
    # The pull towards the pretrained weights takes the place of the pull towards zero (Li et al., ICML 2018).
    decay = {part: 0.0 if pulled and is_encoder(part) else config.weight_decay for part in parts}
    return Plan(parts, _distinct([_without(stage, config.freeze, parts) for stage in stages]), decay)


def _encoder_rates(parts: Parts, config: TrainConfig) -> dict[str, float]:
    """Peak rate of each part of the encoder, deepest first."""
    decay = config.depth_decay if resolve_strategy(config) in ("fine-tune", "gradual") else 1.0
    rate, names = encoder_rate(config), [part for part in parts if is_encoder(part)]
    return {part: rate * decay**above for above, part in enumerate(names)}


def _without(stage: Stage, freeze: Freeze, parts: Parts) -> Stage:
    """`stage` as far as its parts exist and are not frozen by hand; a frozen decoder leaves the head to be trained."""
    frozen = {part for part in parts if part == freeze or (freeze == ENCODER and is_encoder(part))}
    rates = {part: rate for part, rate in stage.rates.items() if part in parts and part not in frozen}
    return Stage(stage.name, rates)


def _distinct(stages: list[Stage]) -> tuple[Stage, ...]:
    return tuple(s for i, s in enumerate(stages) if i == 0 or s.rates.keys() != stages[i - 1].rates.keys())


def schedule(progress: float, shape: Schedule = "cosine", began: float = 0.0) -> float:
    """Share of the peak learning rate at `progress` in [0, 1] of the run, for parameters that `began` to learn there.

    Linear warm-up over 5 % of the run, then to zero at its end: by half a cosine, or as (1 − t)^0.9 ("poly").
    """
    learnt = progress - began
    if learnt < WARM_UP_FRACTION:
        return (learnt + 1e-3) / (WARM_UP_FRACTION + 1e-3)
    done = min(1.0, (learnt - WARM_UP_FRACTION) / max(1e-9, 1 - began - WARM_UP_FRACTION))
    return 0.5 * (1 + math.cos(math.pi * done)) if shape == "cosine" else (1 - done) ** _POLY_POWER


def cautions(config: TrainConfig, *, has_batch_norms: bool) -> list[str]:
    """What a user should know about a choice that is possible, but does not do what its name promises."""
    strategy, policy = resolve_strategy(config), resolve_normalization(config)
    said = []
    if not is_pretrained(config) and strategy != "scratch":
        said.append(f"There are no weights: the encoder of this {strategy} starts at random.")
    if is_pretrained(config) and strategy == "scratch":
        said.append(f"It starts from the weights {config.weights!r}, not from random ones; all of it learns alike.")
    if not has_batch_norms and policy != "train":
        said.append(f"The encoder {config.encoder} has no batch norms: normalization {policy!r} changes nothing.")
    elif not is_pretrained(config) and policy != "train":
        said.append(f"Without weights, normalization {policy!r} holds the batch norms of random filters; 'train' fits.")
    elif config.normalization == "train" and not trains_encoder(config):
        said.append("The encoder is frozen, and so are the statistics of its batch norms; 'adabn' would adapt them.")
    return said
