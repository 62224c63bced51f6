"""Pretrained weights into a model, by name or from a file: strictly, and saying what fits and what does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor

from napari_emtransfer.core.errors import WeightsError
from napari_emtransfer.core.nn import store
from napari_emtransfer.core.nn.fetching import ensure
from napari_emtransfer.core.nn.first_layer import Constant, adapt_first_layers
from napari_emtransfer.core.nn.model import SegmentationModel, resolve_encoder
from napari_emtransfer.core.nn.naming import PARTS, is_classifier, named_like
from napari_emtransfer.core.nn.registry import Preprocessing, WeightsEntry
from napari_emtransfer.core.nn.tensors import SUFFIXES, read_metadata, read_tensors

__all__ = ["WeightsReport", "initialise", "inspect_weights", "load_weights", "read_tensors"]

_HEAD = PARTS[2]
_COUNTER = ".num_batches_tracked"  # absent in old files; nothing depends on it


@dataclass(frozen=True)
class WeightsReport:
    """What a file has for a model, tensor by tensor, under the model's names.

    `loaded` and `new` are parts (encoder, decoder, segmentation_head): from the file, and as they were. `ignored` are
    tensors of classifiers, of heads for other classes, and of no part. `constant` says where the constant of a folded
    per-channel normalisation went.
    """

    loaded: tuple[str, ...]
    new: tuple[str, ...]
    matched: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    constant: Constant = "none"

    @property
    def problems(self) -> tuple[str, ...]:
        """One clause each; empty where the file fits."""
        if not self.loaded:
            return ("no tensor of an encoder, decoder or head",)
        missing = tuple(f"{k} is missing" for k in self.missing)
        return missing + tuple(f"{k} is unknown" for k in self.unexpected) + self.reshaped

    def __str__(self) -> str:
        counts = {
            "matched": self.matched,
            "missing": self.missing,
            "unexpected": self.unexpected,
            "of another shape": self.reshaped,
            "ignored": self.ignored,
        }
        return ", ".join(f"{len(names)} {what}" for what, names in counts.items())


def initialise(
    model: SegmentationModel, weights: str, progress: Callable[[int, int | None], None] | None = None
) -> WeightsReport:
    """Fill `model` in place with `weights`: a name of the registry, a family for the model's encoder, or a path.

    Weights that are not on this machine yet are fetched; `progress` gets bytes done and in all.

    Raises
    ------
    WeightsError
        When there are no such weights, they cannot be fetched, or do not fit; the model is unchanged then.
    """
    if _is_path(weights):
        return load_weights(model, weights)
    entry = store.find(weights, model.config.encoder)
    _check_encoder(entry, model)
    if entry.family == "imagenet":
        return _fill(model, imagenet_tensors(entry), _timm_preprocessing(entry), entry.name)
    return load_weights(model, ensure(entry, progress), entry.preprocessing)


def load_weights(
    model: SegmentationModel, path: str | Path, preprocessing: Preprocessing | None = None
) -> WeightsReport:
    """Fill `model` from a safetensors or a pickled state dict, in place.

    A part (encoder, decoder, head) is taken whole or, where the file has none of it, left as it is. A head for
    another number of classes is left as it is too, and a classifier's layers are left out. Prefixes of wrappers
    ("module.", "model.", "backbone.", "encoder.") are understood. Three input channels become one as `first_layer`
    says, with `preprocessing`, or with that which an imported file carries. A file that says that its decoder is of
    another architecture gives its encoder alone: the decoder is among the parts that are `new` then.

    Raises
    ------
    WeightsError
        When the file is missing, unsafe, or a part does not fit tensor by tensor; nothing is changed then.
    """
    tensors = read_tensors(path)
    said = read_metadata(path)
    foreign = said.get(store.ARCHITECTURE_KEY, model.config.architecture) != model.config.architecture
    left_out = (PARTS[1],) if foreign else ()
    return _fill(model, tensors, preprocessing or _stated_preprocessing(said), str(path), left_out)


def inspect_weights(
    model: SegmentationModel,
    state: Mapping[str, Tensor],
    preprocessing: Preprocessing | None = None,
    left_out: tuple[str, ...] = (),
) -> tuple[dict[str, Tensor], WeightsReport]:
    """The tensors of `state` that fit `model`, under its names and with its one input channel, and the report.

    Those of the parts `left_out` are not looked at.
    """
    own = model.state_dict()
    named = named_like(state, {k: tuple(v.shape) for k, v in own.items()})
    adapted, constant = adapt_first_layers(named, model, preprocessing)
    ignored = {k for k in adapted if k not in own and (not k.startswith(PARTS) or is_classifier(k))}
    ignored |= {k for k in adapted if k.startswith(left_out)}
    ignored |= _other_head(adapted, own)
    wanted_state = {k: v for k, v in adapted.items() if k not in ignored}
    present = [p for p in PARTS if any(k.startswith(p) and k in own for k in wanted_state)]
    fitting = {k: v for k, v in wanted_state.items() if k in own and v.shape == own[k].shape}
    report = WeightsReport(
        loaded=tuple(p.rstrip(".") for p in present),
        new=tuple(p.rstrip(".") for p in PARTS if p not in present),
        matched=tuple(fitting),
        missing=tuple(k for k in own if k.startswith(tuple(present)) and k not in adapted and not k.endswith(_COUNTER)),
        unexpected=tuple(k for k in wanted_state if k not in own),
        reshaped=tuple(_reshaped(k, v, own[k]) for k, v in wanted_state.items() if k in own and k not in fitting),
        ignored=tuple(k for k in adapted if k in ignored),
        constant=constant,
    )
    return fitting, report


def imagenet_tensors(entry: WeightsEntry) -> dict[str, Tensor]:
    """Three-channel ImageNet tensors of an encoder: an imported file, else from the hub or its cache.

    Raises
    ------
    WeightsError
        When they cannot be had; the hint says which file to bring and how.
    """
    local = store.path_of(entry)
    if local.is_file():
        return read_tensors(local)
    encoder = resolve_encoder(entry.encoder or "")
    try:
        with torch.random.fork_rng(devices=[]):
            colour = smp.encoders.get_encoder(encoder, in_channels=3, weights=_hub_tag(encoder))
    except Exception as error:
        # Downloads fail in many ways (OSError, KeyError, RuntimeError, hub errors).
        raise _not_fetched(entry, error) from error
    return dict(colour.state_dict())


def _hub_tag(encoder: str) -> str | bool:
    if encoder.startswith("tu-"):
        return True  # timm's own default
    settings = smp.encoders.encoders[encoder]["pretrained_settings"]
    return next((tag for tag in ("imagenet", "imagenet+5k") if tag in settings), "imagenet")


def _not_fetched(entry: WeightsEntry, error: Exception) -> WeightsError:
    reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
    return WeightsError(
        f"The ImageNet weights of the encoder {entry.encoder!r} could not be fetched: {reason}",
        f"Without a way to the internet: download {_address(entry)} on another computer, bring the safetensors file "
        f'and run `emtransfer weights import FILE --as {entry.name}`; or train from scratch with the weights "none".',
    )


def _address(entry: WeightsEntry) -> str:
    if entry.url is not None:
        return entry.url
    config = timm.get_pretrained_cfg(entry.encoder or "")
    if config is not None and config.hf_hub_id:
        return f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors"
    return str(config.url) if config is not None and config.url else "them"


def _timm_preprocessing(entry: WeightsEntry) -> Preprocessing | None:
    if entry.preprocessing is not None:
        return entry.preprocessing
    config = timm.get_pretrained_cfg(entry.encoder or "")
    return None if config is None or len(config.mean) != 3 else Preprocessing(mean=config.mean, std=config.std)


def _stated_preprocessing(said: Mapping[str, str]) -> Preprocessing | None:
    stated = said.get(store.PREPROCESSING_KEY)
    return Preprocessing.model_validate(json.loads(stated)) if stated else None


def _is_path(weights: str) -> bool:
    path = Path(weights)
    return path.suffix.lower() in SUFFIXES or path.parent != Path()


def _check_encoder(entry: WeightsEntry, model: SegmentationModel) -> None:
    wanted = model.config.encoder
    if entry.encoder is not None and resolve_encoder(entry.encoder) != resolve_encoder(wanted):
        raise WeightsError(
            f"The weights {entry.name!r} are of the encoder {entry.encoder!r}, not {wanted!r}.",
            f"Choose the encoder {entry.encoder}.",
        )


def _fill(
    model: SegmentationModel,
    state: Mapping[str, Tensor],
    preprocessing: Preprocessing | None,
    source: str,
    left_out: tuple[str, ...] = (),
) -> WeightsReport:
    fitting, report = inspect_weights(model, state, preprocessing, left_out)
    if report.problems:
        raise _does_not_fit(source, model, report)
    model.load_state_dict(model.state_dict() | fitting)
    model.new_parts = frozenset(report.new)
    return report


def _other_head(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> set[str]:
    """Tensors of a segmentation head for another number of classes."""
    head = {k for k in state if k.startswith(_HEAD)}
    fits = all(k not in own or own[k].shape == state[k].shape for k in head)
    return set() if fits else head


def _reshaped(key: str, tensor: Tensor, own: Tensor) -> str:
    return f"{key} is {tuple(tensor.shape)}, not {tuple(own.shape)}"


def _does_not_fit(source: str, model: SegmentationModel, report: WeightsReport) -> WeightsError:
    problems = report.problems
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    return WeightsError(
        f"The weights {source!r} do not fit {model.config.architecture} with the encoder {model.config.encoder!r}: "
        f"{'; '.join(problems[:3])}{more} ({report}).",
        "Choose the architecture and encoder that the weights were trained with.",
    )
