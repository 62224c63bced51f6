"""Weights brought to this machine, and checked: whether they came whole, and whether they are still the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from napari_emtransfer.core.errors import WeightsError
from napari_emtransfer.core.nn.download import Progress, download
from napari_emtransfer.core.nn.registry import WeightsEntry
from napari_emtransfer.core.nn.store import all_entries, checksum_path, path_of, record_checksum, sha256_of


def ensure(entry: WeightsEntry, progress: Progress | None = None) -> Path:
    """The file of a row, fetched when it is not here yet. ImageNet's are fetched by `weights.imagenet_tensors`.

    Raises
    ------
    WeightsError
        When it cannot be fetched, or what came holds more than tensors; nothing is kept then. When a file that came
        with the program is not what it was.
    """
    path = path_of(entry)
    if path.is_file():
        if entry.family == "bundled" and entry.sha256 not in (None, sha256_of(path)):
            raise WeightsError(f"The bundled weights {str(path)!r} are damaged.", "Install the program again.")
        return path
    if entry.url is None:
        raise WeightsError(f"The weights {entry.name!r} are not on this machine.", f"Their place is {path}.")
    by_hand = f"run `emtransfer weights import FILE`, or put it at {path}."
    download(entry.url, path, sha256=entry.sha256, progress=progress, by_hand=by_hand)
    from napari_emtransfer.core.nn.tensors import read_tensors  # torch takes seconds, and a download fails sooner

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


def _verify(entry: WeightsEntry) -> Verified:
    from napari_emtransfer.core.nn.tensors import read_tensors

    path = path_of(entry)
    known = entry.sha256 or (checksum_path(path).read_text().strip() if checksum_path(path).is_file() else None)
    if known is not None and sha256_of(path) != known:
        return Verified(entry.name, path, False, "changed: not the checksum that it had; delete it and fetch it again")
    try:
        n_tensors = len(read_tensors(path))
    except WeightsError as error:
        return Verified(entry.name, path, False, error.message)
    return Verified(
        entry.name, path, True, f"{n_tensors} tensors, " + ("checksum right" if known else "no checksum known")
    )
