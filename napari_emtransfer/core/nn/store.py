"""Where weights lie on this machine, and what they say of themselves; no torch here, so that a window may ask."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final, get_args

from napari_emtransfer.core.config import Architecture
from napari_emtransfer.core.data.storage import write_text
from napari_emtransfer.core.errors import WeightsError
from napari_emtransfer.core.nn import registry
from napari_emtransfer.core.nn.registry import WeightsEntry

PREPROCESSING_KEY: Final = "preprocessing"
ENCODER_KEY: Final = "encoder"
ARCHITECTURE_KEY: Final = "architecture"
ENCODER_RATE_KEY: Final = "encoder_learning_rate"
NOTES_KEY: Final = "notes"


def cache_dir() -> Path:
    """$EMTRANSFER_CACHE, or the platform's place for caches of programs."""
    import pooch

    stated = os.environ.get("EMTRANSFER_CACHE")
    return Path(stated).expanduser() if stated else Path(pooch.os_cache("napari-emtransfer"))


def path_of(entry: WeightsEntry) -> Path:
    """Where the file of a row lies, or would lie. ImageNet's lies there only when it was brought by hand."""
    if entry.file_name is None:
        raise WeightsError(f"The weights {entry.name!r} have no file.", "Choose weights of `emtransfer weights list`.")
    if entry.family == "bundled":
        return registry.BUNDLED_DIR / entry.file_name
    folder = "micronet" if entry.family == "image-micronet" else entry.family
    return cache_dir() / folder / entry.file_name


def is_here(entry: WeightsEntry) -> bool:
    """Whether the weights can be used without a network."""
    return entry.file_name is None or file_of(entry) is not None


def file_of(entry: WeightsEntry) -> Path | None:
    """The file of a row on this machine, be it in the hub's own cache; None where there is none (yet)."""
    if entry.file_name is None:
        return None
    path = path_of(entry)
    if path.is_file():
        return path
    return _in_hub_cache(entry) if entry.family == "imagenet" else None


def imported_entries() -> list[WeightsEntry]:
    """Rows of the files that the user imported, each under its name."""
    return [_imported_entry(path) for path in sorted((cache_dir() / "imported").glob("*.safetensors"))]


def all_entries() -> list[WeightsEntry]:
    """The table, and what was imported."""
    return [*registry.entries(), *imported_entries()]


def find(name: str, encoder: str | None = None) -> WeightsEntry:
    """`registry.find` that knows the imported files too."""
    return registry.find(name, encoder, imported=imported_entries())


def stated_encoder_rate(weights: str, encoder: str) -> float | None:
    """The encoder's learning rate that weights recommend: their row's, or what their file says; None without either.

    `weights` as of `TrainConfig`; those that do not exist recommend nothing.
    """
    if weights == "none" or weights.startswith("run:"):
        return None
    path = Path(weights)
    if path.suffix == ".safetensors":
        return _rate(stated(path))
    try:
        return find(weights, encoder).encoder_learning_rate
    except WeightsError:
        return None


def stated_learning_rate(weights: str, encoder: str) -> float | None:
    """The learning rate of decoder and head that weights of the table recommend; None where they recommend none."""
    if weights == "none" or weights.startswith("run:") or Path(weights).suffix:
        return None
    try:
        return find(weights, encoder).learning_rate
    except WeightsError:
        return None


def stated_architecture(weights: str, encoder: str) -> str | None:
    """The architecture that the decoder of weights belongs to; None where they hold none, or do not say."""
    path = Path(weights)
    if path.suffix == ".safetensors":
        return stated(path).get(ARCHITECTURE_KEY)
    try:
        return find(weights, encoder).architecture
    except WeightsError:
        return None


def bundled_for(encoder: str) -> WeightsEntry | None:
    """The weights that came with the program for an encoder, named as by segmentation-models-pytorch or timm.

    None where there are none, or their card cannot be read: a form may ask at every keystroke.
    """
    wanted = encoder.removeprefix("tu-")
    try:
        rows = registry.bundled_entries()
    except WeightsError:
        return None
    return next((row for row in rows if row.encoder is not None and row.encoder.removeprefix("tu-") == wanted), None)


def record_checksum(path: Path) -> str:
    """Write the SHA-256 of a file beside it, for `verify` to compare with."""
    digest = sha256_of(path)
    write_text(checksum_path(path), digest)
    return digest


def sha256_of(path: Path) -> str:
    """Of the whole file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum_path(path: Path) -> Path:
    """Where the SHA-256 of a file is written."""
    return path.with_name(path.name + ".sha256")


def stated(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself; empty where it cannot be read, of which `verify` tells."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def _imported_entry(path: Path) -> WeightsEntry:
    said = stated(path)
    return WeightsEntry(
        name=path.stem,
        family="imported",
        encoder=said.get(ENCODER_KEY),
        architecture=_architecture(said),
        source="a file that was imported",
        licence="unknown to the program",
        file_name=path.name,
        verification="the checksum that it had at the import",
        encoder_learning_rate=_rate(said),
        notes=said.get(NOTES_KEY, ""),
    )


def _architecture(said: dict[str, str]) -> Architecture | None:
    """A known architecture, from a file that anybody may have written."""
    return next((name for name in get_args(Architecture) if name == said.get(ARCHITECTURE_KEY)), None)


def _rate(said: dict[str, str]) -> float | None:
    """A recommended learning rate, from a file that anybody may have written."""
    try:
        rate = float(said[ENCODER_RATE_KEY])
    except (KeyError, ValueError):
        return None
    return rate if 0 < rate <= 1 else None


def _in_hub_cache(entry: WeightsEntry) -> Path | None:
    from huggingface_hub.constants import HF_HUB_CACHE

    repository = (entry.url or "").removeprefix("https://huggingface.co/").partition("/resolve/")[0]
    folder = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "snapshots"
    return next(folder.glob("*/model.safetensors"), None) if repository else None
