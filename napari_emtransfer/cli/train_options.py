"""The settings of a training as options of the command line: one row each, named as in `TrainConfig`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, get_type_hints

import typer

from napari_emtransfer.cli.output import Outcome
from napari_emtransfer.core.config import (
    DEFAULT_ENCODER,
    Architecture,
    AugmentPreset,
    ClassWeights,
    Freeze,
    NormPolicy,
    Schedule,
    StrategyName,
    TrainConfig,
)
from napari_emtransfer.core.errors import SplitError
from napari_emtransfer.core.legality import check_transforms


@dataclass(frozen=True)
class _Option:
    """One setting: the field of `TrainConfig`, its type on the command line, its help, its name where it differs."""

    field: str
    type: Any
    help: str
    panel: str | None = None
    name: str | None = None
    metavar: str | None = None
    convert: Callable[[Any], Any] = lambda value: value

    @property
    def parameter(self) -> inspect.Parameter:
        """As a parameter of a verb; its default is that of the field, or nothing for what may be repeated."""
        names = () if self.name is None else (self.name,)
        option = typer.Option(*names, help=self.help, metavar=self.metavar, rich_help_panel=self.panel)
        default = TrainConfig.model_fields[self.field].default
        return inspect.Parameter(
            f"option_{self.field}",
            inspect.Parameter.KEYWORD_ONLY,
            default=None if default == () else default,
            annotation=Annotated[self.type, option if names else _named(option, self.field)],
        )


def _named(option: Any, field: str) -> Any:
    option.param_decls = (f"--{field.replace('_', '-')}",)
    return option


def _folds(text: str | None) -> str | int | None:
    if text is None or text in ("leave-one-out", "dataset"):
        return text
    if not text.isdecimal() or int(text) < 2:
        raise SplitError(
            f"--folds is {text!r}: it must be 2 or more, leave-one-out, or dataset.", "Try --folds leave-one-out."
        )
    return int(text)


def _transforms(names: Sequence[str] | None) -> tuple[str, ...]:
    check_transforms(names or ())
    return tuple(names or ())


def _tuple(values: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(values or ())


_GROUND, _TRANSFER, _COURSE, _AUGMENT = "Ground", "Transfer", "Course and loss", "Augmentation"
_Repeated = list[str] | None

_OPTIONS: Final = (
    _Option("iterations", int, "Optimiser steps; of each fold where there are folds."),
    _Option("minutes", float | None, "Stop after so long, whatever comes first; folds share it."),
    _Option("batch_size", int, "Crops per step."),
    _Option("crop_px", int, "Edge of a crop in working pixels.", name="--crop"),
    _Option("split", str | None, "A split that came with the data set. Default: by specimen.", _GROUND),
    _Option("train", _Repeated, "Train on this micrograph; repeat it.", _GROUND, convert=_tuple),
    _Option("validation", _Repeated, "Validate on this micrograph; repeat it.", _GROUND, convert=_tuple),
    _Option(
        "folds",
        str | None,
        "Cross-validate by specimen: a number of folds, leave-one-out, or dataset for the folds that came with it. "
        "One network per fold (as many times the work); their mean is the run's model, and the score is out of fold.",
        _GROUND,
        metavar="K|leave-one-out|dataset",
        convert=_folds,
    ),
    _Option("strategy", StrategyName, "How to transfer; auto follows rules and says which.", _TRANSFER),
    _Option(
        "weights",
        str,
        "auto, none, a name of `weights list`, a file, or run:ID. auto: what comes with the program where --encoder is "
        f"its own ({DEFAULT_ENCODER}), random numbers for any other encoder and with --strategy scratch.",
        _TRANSFER,
    ),
    _Option("encoder", str, "Any encoder of segmentation-models-pytorch or timm.", _TRANSFER),
    _Option("architecture", Architecture, "The network.", _TRANSFER),
    _Option("freeze", Freeze, "Keep this part as it was loaded.", _TRANSFER),
    _Option(
        "normalization",
        NormPolicy,
        "Whose statistics the encoder's batch norms use: the weights' own (source), each batch's (train), those of "
        "this project's micrographs, measured once (adabn), or half of both (mix).",
        _TRANSFER,
    ),
    _Option(
        "learning_rate",
        float | None,
        "Of decoder and head. Default: what measured best for the weights, or 1e-3.",
        _TRANSFER,
    ),
    _Option(
        "encoder_learning_rate",
        float | None,
        "Of the encoder's deepest stage. Default: what measured best for the weights, or a tenth of --learning-rate.",
        _TRANSFER,
    ),
    _Option(
        "confirm_uniform_rate",
        bool,
        "Train a pretrained encoder as fast as the decoder, which mostly destroys what it knows.",
        _TRANSFER,
        name="--confirm-uniform-rate",
    ),
    _Option(
        "l2_sp", float, "Pull pretrained parameters back to where they began; 1e-3 is common, 0 is off.", _TRANSFER
    ),
    _Option("shrink", float, "Going on from a run, scale decoder and head first; 1 leaves them.", _TRANSFER),
    _Option("plateau", int, "Gradual strategy: this many validations without a better IoU end a stage.", _TRANSFER),
    _Option("depth_decay", float, "Rate of each encoder stage, relative to the next deeper one.", _TRANSFER),
    _Option("new_weight", float, "Going on from a run, how many times pixels labelled since then count.", _TRANSFER),
    _Option("schedule", Schedule, "Decay of the rates, after a warm-up.", _COURSE),
    _Option(
        "patience", int | None, "End after so many validations without a better IoU. Default: all iterations.", _COURSE
    ),
    _Option("class_weights", ClassWeights, "balanced: rare classes weigh more, by 1/sqrt(share).", _COURSE),
    _Option("label_smoothing", float, "Part of the target given to all classes alike, below 0.5.", _COURSE),
    _Option("augment", AugmentPreset, "Augmentation preset; what the modality forbids is left out.", _AUGMENT),
    _Option(
        "illegal_augment",
        _Repeated,
        "Augment so although the modality forbids it; recorded in the run. Repeat it.",
        _AUGMENT,
        name="--allow-illegal",
        metavar="TRANSFORM",
        convert=_transforms,
    ),
)


def taking_train_options(verb: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """`verb`, whose parameter `settings` (field of `TrainConfig` → value) becomes an option for each field."""

    @functools.wraps(verb)
    def with_options(*args: Any, **kwargs: Any) -> Outcome:
        settings: Mapping[str, Any] = {o.field: o.convert(kwargs.pop(o.parameter.name)) for o in _OPTIONS}
        return verb(*args, settings=settings, **kwargs)

    hints = get_type_hints(verb, include_extras=True)
    own = [p.replace(annotation=hints[p.name]) for p in inspect.signature(verb).parameters.values()]
    first, last = [p for p in own if p.default is p.empty], [p for p in own if p.default is not p.empty]
    added = [o.parameter for o in _OPTIONS]
    kept = [p.replace(kind=p.KEYWORD_ONLY) for p in last]
    parameters = [*(p for p in first if p.name != "settings"), *added, *kept]
    with_options.__signature__ = inspect.Signature(parameters, return_annotation=Outcome)  # type: ignore[attr-defined]
    with_options.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": Outcome}
    return with_options
