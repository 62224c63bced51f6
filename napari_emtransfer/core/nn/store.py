"""Where weights lie on this machine: the cache, what came with the program, and whether they are still the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from napari_emtransfer.core.data.storage import write_text
from napari_emtransfer.core.errors import WeightsError
from napari_emtransfer.core.nn import registry
from napari_emtransfer.core.nn.download import Progress, download
from napari_emtransfer.core.nn.registry import WeightsEntry

PREPROCESSING_KEY: Final = "preprocessing"
ENCODER_KEY: Final = "encoder"
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
    if entry.file_name is None or path_of(entry).is_file():
        return True
    return entry.family == "imagenet" and _in_hub_cache(entry)


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


def ensure(entry: WeightsEntry, progress: Progress | None = None) -> Path:
    """The file of a row, fetched when it is not here yet. ImageNet's are fetched by `weights.imagenet_tensors`.

    Raises
    ------
    WeightsError
        When it cannot be fetched, or what came holds more than tensors; nothing is kept then.
    """
    path = path_of(entry)
    if path.is_file():
        return path
    if entry.url is None:
        raise WeightsError(f"The weights {entry.name!r} are not on this machine.", f"Their place is {path}.")
    by_hand = f"run `emtransfer weights import FILE`, or put it at {path}."
    download(entry.url, path, sha256=entry.sha256, progress=progress, by_hand=by_hand)
    from napari_emtransfer.core.nn.tensors import read_tensors

    try:
        read_tensors(path)
    except WeightsError:
        path.unlink()
        raise
    record_checksum(path)
    return path


@dataclass(frozen=True)
class Verified:
    """What `verify` found about one file. `ok` is False only where something is wrong."""

    name: str
    path: Path
    ok: bool
    finding: str


def verify() -> Iterator[Verified]:
    """Every file of weights on this machine (but the hub's own cache) against its checksum, and opened."""
    for entry in all_entries():
        if entry.file_name is not None and path_of(entry).is_file():
            yield _verify(entry)


def record_checksum(path: Path) -> str:
    """Write the SHA-256 of a file beside it, for `verify` to compare with."""
    digest = sha256_of(path)
    write_text(_checksum_path(path), digest)
    return digest


def sha256_of(path: Path) -> str:
    """Of the whole file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(entry: WeightsEntry) -> Verified:
    from napari_emtransfer.core.nn.tensors import read_tensors

    path = path_of(entry)
    known = entry.sha256 or (_checksum_path(path).read_text().strip() if _checksum_path(path).is_file() else None)
    if known is not None and sha256_of(path) != known:
        return Verified(entry.name, path, False, "changed: not the checksum that it had; delete it and fetch it again")
    try:
        n_tensors = len(read_tensors(path))
    except WeightsError as error:
        return Verified(entry.name, path, False, error.message)
    return Verified(
        entry.name, path, True, f"{n_tensors} tensors, " + ("checksum right" if known else "no checksum known")
    )


def _checksum_path(path: Path) -> Path:
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
        source="a file that was imported",
        licence="unknown to the program",
        file_name=path.name,
        verification="the checksum that it had at the import",
        encoder_learning_rate=_rate(said),
        notes=said.get(NOTES_KEY, ""),
    )


def _rate(said: dict[str, str]) -> float | None:
    """A recommended learning rate, from a file that anybody may have written."""
    try:
        rate = float(said[ENCODER_RATE_KEY])
    except (KeyError, ValueError):
        return None
    return rate if 0 < rate <= 1 else None


def _in_hub_cache(entry: WeightsEntry) -> bool:
    from huggingface_hub.constants import HF_HUB_CACHE

    repository = (entry.url or "").removeprefix("https://huggingface.co/").partition("/resolve/")[0]
    folder = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "snapshots"
    return bool(repository) and any(folder.glob("*/model.safetensors"))
