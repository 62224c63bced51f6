"""What a project knows of itself and of its micrographs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from napari_emtransfer.core.config import Acquisition, Modality
from napari_emtransfer.core.data.tiles import TileGrid, Window
from napari_emtransfer.core.errors import ProjectError

MIN_TILE_PX: Final = 32
TileState = Literal["unlabelled", "started", "done", "unsure", "skipped"]


class LoopSettings(BaseModel):
    """How tiles are chosen for labelling, and what follows when they are done.

    `target_half_width` is the wanted half width of the interval of a phase fraction, 0..1. A training starts by itself
    after every `finetune_every` done tiles; `finetuned_at` of them were done when the last training started.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    acquisition: Acquisition = "default"
    target_half_width: float | None = Field(default=None, gt=0, lt=1)
    finetune_every: int | None = Field(default=None, ge=1)
    finetuned_at: int = Field(default=0, ge=0)


class ProjectSettings(BaseModel):
    """Settings of a whole project. Without a working pixel size every micrograph is used at its native one."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = ""
    modality: Modality = "sem"
    working_pixel_size_nm: float | None = Field(default=None, gt=0)
    tile_size_px: int = Field(default=256, ge=32)
    loop: LoopSettings = LoopSettings()


class MicrographRecord(BaseModel):
    """One micrograph of a project: where its pixels lie and what is known of them; sizes in native pixels.

    A `synthetic` one was computed, not measured: nothing is held out on it where real ones are labelled.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    stem: str
    path: Path
    checksum: str
    frame: int | None = None
    height: int
    width: int
    pixel_size_nm: float | None = Field(default=None, gt=0)
    specimen: str = Field(min_length=1)
    domain: str = Field(default="default", min_length=1)
    info_bar: Window | None = None
    synthetic: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.height, self.width


def scale_of(record: MicrographRecord, settings: ProjectSettings) -> float:
    """Pixel size of a micrograph over the working pixel size; 1 where either is unknown."""
    native, working = record.pixel_size_nm, settings.working_pixel_size_nm
    return native / working if native and working else 1.0


def grid_of(record: MicrographRecord, settings: ProjectSettings) -> TileGrid:
    """The grid of a micrograph in native pixels; a cell measures about `tile_size_px` working pixels."""
    tile_px = max(MIN_TILE_PX, round(settings.tile_size_px / scale_of(record, settings)))
    return TileGrid(record.stem, record.shape, tile_px)


def stored_path(path: Path, root: Path) -> str:
    """How the project keeps a path: relative where the file is in the project or beside it, else absolute."""
    near = path.is_relative_to(root.parent) and root.parent != Path(root.anchor)
    return PurePosixPath(Path(os.path.relpath(path, root)).as_posix()).as_posix() if near else str(path)


def absolute_path(stored: str, root: Path) -> Path:
    """The place that `stored_path` meant."""
    return Path(os.path.normpath(root / stored))


def record_from_row(row: Mapping[str, Any], root: Path) -> MicrographRecord:
    """A row of the table of micrographs → record."""
    values = {key: row[key] for key in MicrographRecord.model_fields}
    return MicrographRecord.model_validate(values | {"path": absolute_path(row["path"], root)})


def unique_stem(wanted: str, taken: Iterable[str]) -> str:
    """The stem, or "stem (2)", "stem (3)", … as file managers do; "A" and "a" count as one, as on Windows and macOS."""
    used = {stem.casefold() for stem in taken}
    stem, number = wanted, 2
    while stem.casefold() in used:
        stem, number = f"{wanted} ({number})", number + 1
    return stem


def find_moved(record: MicrographRecord, size_bytes: int | None, folders: Iterable[Path]) -> Iterator[Path]:
    """Files that could be the moved micrograph: same name, or same size and type; those of the same name first."""
    name, suffix = record.path.name, record.path.suffix.lower()
    renamed: list[Path] = []
    for folder in _with_subfolders(folders):
        for entry in _entries(folder):
            if entry.name == name:
                yield Path(entry.path)
            elif size_bytes is not None and Path(entry.name).suffix.lower() == suffix and _size(entry) == size_bytes:
                renamed.append(Path(entry.path))
    yield from renamed


def refuse_occupied(root: Path, database_name: str) -> None:
    """Raise `ProjectError` unless `root` is absent or an empty folder."""
    if (root / database_name).exists():
        raise ProjectError(f"The folder {str(root)!r} holds a project already.", "Open it, or choose another folder.")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ProjectError(
            f"The folder {str(root)!r} is not empty and no project.", "Choose a new or an empty folder for the project."
        )


def file_size(path: Path) -> int | None:
    """Bytes of a file; None for a folder."""
    return path.stat().st_size if path.is_file() else None


def _with_subfolders(folders: Iterable[Path]) -> Iterator[Path]:
    seen: set[Path] = set()
    for folder in folders:
        children = (Path(entry.path) for entry in _entries(folder) if entry.is_dir())
        for candidate in (folder, *children):
            if candidate not in seen:
                seen.add(candidate)
                yield candidate


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:  # gone or forbidden: nothing to find there
        return []


def _size(entry: os.DirEntry[str]) -> int | None:
    try:
        return entry.stat().st_size if entry.is_file() else None
    except OSError:
        return None
