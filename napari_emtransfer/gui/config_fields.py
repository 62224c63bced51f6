"""The fields of the training form as rows of data: name, meaning, editor, limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, get_args

from magicgui.widgets import ComboBox, LineEdit, SpinBox
from magicgui.widgets.bases import ValueWidget

from napari_emtransfer.core.config import (
    DEFAULT_ENCODER,
    Architecture,
    AugmentPreset,
    ClassWeights,
    Freeze,
    NormPolicy,
    Precision,
    Schedule,
    StrategyName,
)
from napari_emtransfer.gui.log_spin_box import LogFloat

ENCODERS: Final = (
    DEFAULT_ENCODER,
    "resnet18",
    "resnet34",
    "resnet50",
    "efficientnet-b0",
    "mobilenet_v2",
    "tu-convnext_tiny",
    "mit_b0",
)
NO_FOLDS: Final = "none"
FOLDS: Final = (NO_FOLDS, "3", "5", "leave-one-out")
Make = Callable[[], ValueWidget]


@dataclass(frozen=True)
class Field:
    """One choice. `when_off` is what an optional field shows while its tick is off; None where it is not optional.

    `limits` and `first_step` (the first one up from zero) are those of a magnitude.
    """

    label: str
    tooltip: str
    make: Make
    when_off: Any = None
    limits: tuple[float, float] | None = None
    first_step: float = 1e-6


def _choice(choices: tuple[str, ...]) -> Make:
    return lambda: ComboBox(choices=choices)


def _count(minimum: int, maximum: int, step: int = 1) -> Make:
    return lambda: SpinBox(min=minimum, max=maximum, step=step)


_STRATEGY: Final = {
    "strategy": Field(
        "Strategy",
        "How much of the network learns. auto: the rules decide from labels, weights and the measured gap. scratch: "
        "all of it, from random numbers. feature-extraction: the encoder stays as it is. fine-tune: the encoder learns "
        "slowly, its shallow stages slowest. gradual: first the decoder, then ever more of the encoder.",
        _choice(get_args(StrategyName)),
    ),
    "weights": Field(
        "Weights",
        "Where learning starts. auto: the weights that come with the program where the encoder is theirs "
        f"({DEFAULT_ENCODER}), else none. Also none, imagenet, micronet, the name of imported weights, a .safetensors "
        "file, or run:ID of an earlier run.",
        LineEdit,
    ),
    "freeze": Field(
        "Freeze",
        "Keeps this part exactly as it was loaded, whatever the strategy.",
        _choice(get_args(Freeze)),
    ),
    "normalization": Field(
        "Norms",
        "Whose intensity statistics the encoder's batch norms use. source: those of the weights. train: those of "
        "each batch. adabn: measured once on this project's micrographs (none of a held-out specimen), then frozen. "
        "mix: half of both. auto: train from scratch, adabn otherwise.",
        _choice(get_args(NormPolicy)),
    ),
    "plateau": Field(
        "Plateau",
        "Validations without a better IoU that end a stage of the gradual strategy.",
        _count(1, 1000),
    ),
    "l2_sp": Field(
        "Pull back",
        "Pulls pretrained weights towards where they began (L2-SP, 0.001 is usual); 0 turns it off. Helps where few "
        "labels would make a good encoder forget.",
        LogFloat,
        limits=(0.0, 10.0),
        first_step=1e-4,
    ),
    "shrink": Field(
        "Shrink",
        "Going on from a run: decoder and head are scaled by this and stirred a little, so that new labels count; 1 "
        "leaves them as they are.",
        LogFloat,
        limits=(1e-3, 1.0),
    ),
    "new_weight": Field(
        "New labels ×",
        "Going on from a run: pixels labelled since then count so many times as much as the others.",
        LogFloat,
        limits=(1.0, 100.0),
    ),
}
_NETWORK: Final = {
    "architecture": Field(
        "Architecture", "The decoder of the network; Unet keeps the finest edges.", _choice(get_args(Architecture))
    ),
    "encoder": Field(
        "Encoder",
        "The backbone that turns pixels into features; larger is slower and wants more labels.",
        _choice(ENCODERS),
    ),
}
_OPTIMISER: Final = {
    "iterations": Field("Iterations", "Optimiser steps of the run (of each fold).", _count(1, 1_000_000, 50)),
    "minutes": Field(
        "At most (min)",
        "Ends the run after this many minutes, keeping the best checkpoint.",
        LogFloat,
        10.0,
        limits=(0.1, 1e5),
    ),
    "learning_rate": Field(
        "Learning rate",
        "Step size of decoder and head; off: what measured best for the weights, or 1e-3. Arrows multiply; type 3e-4 "
        "freely.",
        LogFloat,
        1e-3,
        limits=(1e-8, 1.0),
    ),
    "encoder_learning_rate": Field(
        "… of the encoder",
        "Step size of the encoder's deepest stage; off: what measured best for the weights, or a tenth.",
        LogFloat,
        1e-4,
        limits=(1e-8, 1.0),
    ),
    "depth_decay": Field(
        "… per stage ×",
        "Each encoder stage learns so much slower than the next deeper one: shallow stages see edges and noise, which "
        "all micrographs share.",
        LogFloat,
        limits=(1e-3, 1.0),
    ),
    "schedule": Field(
        "Schedule", "How the rates fall to zero: half a cosine, or (1 − t)^0.9.", _choice(get_args(Schedule))
    ),
    "weight_decay": Field(
        "Weight decay",
        "Shrinks the weights a little at each step, not norms and biases; 0 turns it off.",
        LogFloat,
        limits=(0.0, 10.0),
        first_step=1e-4,
    ),
    "batch_size": Field("Batch size", "Crops per step; cut up by itself when memory runs out.", _count(1, 512)),
    "crop_px": Field(
        "Crop (px)",
        "Edge length of the training crops in working pixels, a multiple of 32: how far around a pixel is looked at.",
        _count(32, 4096, 32),
    ),
    "class_weights": Field(
        "Class weights",
        "balanced: pixels of a rare class count more, by one over the root of its share.",
        _choice(get_args(ClassWeights)),
    ),
    "label_smoothing": Field(
        "Smoothing",
        "Takes labels as right to 1 − this only, which keeps the network from being too sure; 0.05 is usual, 0 off.",
        LogFloat,
        limits=(0.0, 0.499),
        first_step=0.01,
    ),
    "average": Field(
        "Averaging",
        "What is measured and kept is a running mean of the weights; this share of it stays at each step.",
        LogFloat,
        limits=(0.0, 0.99999),
        first_step=0.5,
    ),
}
_AUGMENTATION: Final = {
    "augment": Field(
        "Preset",
        "What is done at random to the training crops. basic: flips, turns, brightness. extended: also scale, bending, "
        "blur. em-noise: also counting noise, drift, scan jitter.",
        _choice(get_args(AugmentPreset)),
    ),
}
_VALIDATION: Final = {
    "folds": Field(
        "Folds",
        "Trains one network for each fold of specimens: every specimen is held out once, and the networks vote in "
        "predictions. Takes that many times as long.",
        _choice(FOLDS),
    ),
    "validate_every": Field(
        "Validate every", "Iterations between two measurements on the held-out ground.", _count(1, 1_000_000, 10)
    ),
    "patience": Field(
        "Patience", "Ends the run after this many validations without a better IoU.", _count(1, 10_000), 5
    ),
}
_COMPUTING: Final = {
    "device": Field("Device", "auto, cpu, cuda, cuda:1 or mps.", LineEdit),
    "precision": Field(
        "Precision",
        "Number format of the computation; auto takes bf16 where the device has it.",
        _choice(get_args(Precision)),
    ),
    "threads": Field(
        "Threads", "Processor threads of the worker; off: one fewer than there are cores.", _count(1, 1024), 1
    ),
    "seed": Field("Seed", "Start of the random numbers; the same seed repeats the run.", _count(0, 2**31 - 1)),
}
SECTIONS: Final[dict[str, tuple[str, dict[str, Field]]]] = {
    "Strategy": ("What is transferred, and how much of it may change.", _STRATEGY),
    "Network": ("What is trained.", _NETWORK),
    "Optimiser": ("How it learns: steps, rates, what the loss counts.", _OPTIMISER),
    "Augmentation": ("What is done to the training crops, and what physics forbids.", _AUGMENTATION),
    "Validation": ("What is held out, and how often it is measured.", _VALIDATION),
    "Computing": ("Where, how fast, how repeatably.", _COMPUTING),
}
FIELDS: Final[dict[str, Field]] = {name: field for _, fields in SECTIONS.values() for name, field in fields.items()}
COMPUTE_FIELDS: Final = tuple(_COMPUTING)


def folds_shown(folds: int | str | None) -> str:
    """`TrainConfig.folds` as the form shows it."""
    return NO_FOLDS if folds is None else str(folds)


def folds_of(shown: str) -> int | str | None:
    """What the form shows → `TrainConfig.folds`."""
    return None if shown == NO_FOLDS else int(shown) if shown.isdigit() else shown
