"""Bring a file of weights into the cache by hand: opened safely, compared with its encoder, kept as safetensors."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Final

from safetensors.torch import save
from torch import Tensor

from napari_emtransfer.core.config import AUTO_WEIGHTS, ModelConfig
from napari_emtransfer.core.data.storage import storage_faults, write_atomic
from napari_emtransfer.core.errors import WeightsError
from napari_emtransfer.core.nn import registry, store
from napari_emtransfer.core.nn.model import build_model
from napari_emtransfer.core.nn.registry import Preprocessing, WeightsEntry
from napari_emtransfer.core.nn.tensors import read_metadata, read_tensors
from napari_emtransfer.core.nn.weights import WeightsReport, inspect_weights

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


def import_weights(
    path: Path, *, name: str | None = None, encoder: str | None = None, preprocessing: Preprocessing | None = None
) -> tuple[WeightsEntry, WeightsReport | None]:
    """Copy `path` into the cache; it is then known by name.

    A MicroNet file by its published name, or any file with `name` of the table ("imagenet:resnet18"), takes the place
    of that download. Others become weights of their own, called `name` or by the file's stem. With an encoder given
    here or stated in the file the tensors are compared with it, and the report returned.

    Raises
    ------
    WeightsError
        When the file is unsafe or damaged, does not fit its encoder, or the name is taken; nothing is kept then.
    """
    tensors = read_tensors(path)
    entry = _known_entry(path, name)
    own = "" if entry is not None else _own_name(path, name)
    if encoder is None and path.suffix.lower() == ".safetensors":
        encoder = store.stated(path).get(store.ENCODER_KEY)
    expected = encoder if entry is None else entry.encoder
    report = None if expected is None else check_encoder(expected, tensors, str(path))
    if entry is not None:
        _keep(path, store.path_of(entry), tensors, {})
        return entry, report
    _keep(path, store.cache_dir() / "imported" / f"{own}.safetensors", tensors, _statements(encoder, preprocessing))
    return store.find(own), report


def check_encoder(encoder: str, tensors: dict[str, Tensor], source: str) -> WeightsReport:
    """Compare tensors with an encoder; raises `WeightsError` when they do not fit it."""
    _, report = inspect_weights(build_model(ModelConfig(encoder=encoder, n_classes=1)), tensors)
    if report.problems:
        raise WeightsError(
            f"The weights {source!r} do not fit the encoder {encoder!r}: {'; '.join(report.problems[:3])} ({report}).",
            "Name the encoder that they were trained with.",
        )
    return report


def _known_entry(path: Path, name: str | None) -> WeightsEntry | None:
    if name is not None:
        return store.find(name) if ":" in name else None
    return next((e for e in registry.entries() if e.family.endswith("micronet") and e.file_name == path.name), None)


def _own_name(path: Path, name: str | None) -> str:
    own = name or re.sub(r"(\.(pth|pt|tar|bin|ckpt|safetensors))+$", "", path.name, flags=re.IGNORECASE)
    if not _NAME.fullmatch(own):
        raise WeightsError(f"{own!r} cannot be a name of weights.", "Use letters, digits, - and _ with --as NAME.")
    if own in {e.name for e in registry.entries()} | {AUTO_WEIGHTS, "imagenet", "micronet", "image-micronet"}:
        raise WeightsError(f"The name {own!r} is taken.", "Give another with --as NAME.")
    return own


def _statements(encoder: str | None, preprocessing: Preprocessing | None) -> dict[str, str]:
    stated = {} if encoder is None else {store.ENCODER_KEY: encoder}
    if preprocessing is not None:
        stated[store.PREPROCESSING_KEY] = json.dumps(preprocessing.model_dump())
    return stated


def _keep(source: Path, target: Path, tensors: dict[str, Tensor], statements: dict[str, str]) -> None:
    with storage_faults(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix != ".safetensors":
            shutil.copyfile(source, target)
        else:
            # A copy of each: safetensors refuses tensors that share memory.
            own = {k: v.detach().clone().contiguous() for k, v in tensors.items()}
            write_atomic(target, save(own, metadata=read_metadata(source) | statements))
    store.record_checksum(target)
