"""Data sets of synthetic micrographs on disk: whole, or not there.

They are written to a folder of another name beside, which has no dataset.json before its end, and renamed when they
are complete: a killed run leaves nothing that could be taken for a data set, a failed one leaves nothing at all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Unpack

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer import __version__
from napari_emtransfer.core.data.labels import MAX_CLASSES
from napari_emtransfer.core.data.storage import file_lock, storage_faults, write_atomic
from napari_emtransfer.core.errors import StorageError, SynthesisError
from napari_emtransfer.core.synth.dataset_files import all_or_nothing, write_micrograph
from napari_emtransfer.core.synth.micrograph import SyntheticMicrograph
from napari_emtransfer.core.synth.recipe import Drawn, Kind, Recipe, child_seed, draw_recipe, same_specimen

_PARTIAL: Final = ".partial"
_LOCK: Final = ".lock"
_LOCK_SECONDS: Final = 0.2


@dataclass(frozen=True)
class Planned:
    """One micrograph of a data set to be."""

    stem: str
    specimen: str
    recipe: Recipe


def plan(
    kind: Kind,
    presets: Sequence[str] = (),
    *,
    n: int,
    seed: int = 0,
    per_specimen: int = 4,
    **given: Unpack[Drawn],
) -> Iterator[Planned]:
    """Recipes of `n` micrographs; `per_specimen` of them share a material and, but for a touch, a microscope.

    Specimens take the presets in turn; without presets each draws its own. A longer plan begins like a shorter one.

    Raises
    ------
    SynthesisError
        When there is no such preset, or the shape is out of range.
    """
    first: Recipe | None = None
    for number in range(n):
        specimen, place = divmod(number, per_specimen)
        if place == 0 or first is None:
            preset = presets[specimen % len(presets)] if presets else None
            first = recipe = draw_recipe(kind, preset, seed=child_seed(seed, number), **given)
        else:
            recipe = same_specimen(first, child_seed(seed, number))
        name = f"{recipe.preset.replace(':', '_')}-{specimen + 1:03d}"  # no file may have a colon on Windows
        yield Planned(f"{name}_{place + 1}", name, recipe)


class DatasetWriter:
    """Takes micrographs one by one; `close` makes the data set of them.

    Parameters
    ----------
    folder
        Where the data set will be.
    kind
        The generator.
    seed
        Of the series, for the record.
    found_partial
        Whether an earlier run left an unfinished data set, which was removed.
    """

    def __init__(self, folder: Path, kind: Kind, seed: int) -> None:
        self.folder = folder
        self.found_partial = False
        self.images: list[str] = []
        self.classes: dict[str, int] = {}
        self._kind, self._seed = kind, seed
        self._partial = folder.with_name(folder.name + _PARTIAL)
        self._groups: dict[str, str] = {}
        self._presets: dict[str, str] = {}
        self._pixel_sizes: dict[str, float] = {}
        self._recipes: dict[str, dict[str, Any]] = {}
        self._omits: dict[str, list[str]] = {}

    @property
    def specimens(self) -> list[str]:
        """Names of the specimens, in order."""
        return list(dict.fromkeys(self._groups.values()))

    @property
    def presets(self) -> list[str]:
        """Presets that were used, in order."""
        return list(self._omits)

    def add(self, planned: Planned, made: SyntheticMicrograph) -> None:
        """Write one micrograph and its labels.

        Raises
        ------
        StorageError
            When the disk refuses.
        SynthesisError
            When the data set would have more classes than a mask can tell apart.
        """
        stem = planned.stem
        values = self._values_of(made.classes)
        with all_or_nothing(self.folder):
            image = write_micrograph(self._partial, stem, made, values)
        self.images.append(str(self.folder / image.relative_to(self._partial)))
        self._groups[stem] = planned.specimen
        self._presets[planned.specimen] = planned.recipe.preset
        self._pixel_sizes[stem] = made.pixel_size_nm
        self._recipes[stem] = made.recipe
        self._omits[planned.recipe.preset] = list(made.omits)

    def _values_of(self, names: Sequence[str]) -> NDArray[np.uint8]:
        """Class number of the micrograph → value in the data set, where equal names are one class."""
        for name in names:
            self.classes.setdefault(name, len(self.classes) + 1)
        if len(self.classes) > MAX_CLASSES:
            raise SynthesisError(f"These presets have more than {MAX_CLASSES} classes together.", "Name fewer of them.")
        return np.array([0, *(self.classes[name] for name in names)], np.uint8)

    def _close(self) -> None:
        description = {
            "source": f"made by napari-emtransfer {__version__}: synthesize {self._kind}, seed {self._seed}",
            "licence": "CC0-1.0",
            "synthetic": True,
            "domain": f"synthetic {self._kind}",
            "classes": {str(value): name for name, value in self.classes.items()},
            "unlabelled": 0,
            "groups": self._groups,
            "splits": _splits(self._groups, self._presets),
            "pixel_size_nm": self._pixel_sizes,
            "omits": self._omits,
            "recipes": self._recipes,
        }
        write_atomic(self._partial / "dataset.json", (json.dumps(description, indent=1) + "\n").encode())
        (self._partial / _LOCK).unlink(missing_ok=True)
        self._partial.rename(self.folder)


@contextmanager
def new_dataset(folder: Path, kind: Kind, seed: int) -> Iterator[DatasetWriter]:
    """A data set under way; it stands in `folder` when the block is left with at least one micrograph.

    Raises
    ------
    SynthesisError
        When `folder` exists and is not empty.
    StorageError
        When the disk refuses, or another program writes the same data set.
    """
    folder = folder.expanduser().resolve()
    writer = DatasetWriter(folder, kind, seed)
    partial = writer._partial
    check_target(folder)
    was_there = folder.exists()
    with all_or_nothing(folder):
        partial.mkdir(parents=True, exist_ok=True)
    try:
        with _alone(partial):
            _make_way(folder)
            writer.found_partial = any(child.name != _LOCK for child in partial.iterdir())
            _clear(partial)
            yield writer
        if writer.images:
            with all_or_nothing(folder):
                writer._close()
            return
    except _BusyError as busy:
        raise StorageError(
            f"Another program is writing a data set to {str(folder)!r}.", "Wait for it, or choose another folder."
        ) from busy
    except BaseException:
        _take_back(partial, folder, was_there=was_there)
        raise
    _take_back(partial, folder, was_there=was_there)


def _make_way(folder: Path) -> None:
    """Remove an empty folder now: one that cannot be replaced, a mounted disk, would be found out after hours."""
    check_target(folder)
    try:
        if folder.exists():
            folder.rmdir()
    except OSError as error:
        raise StorageError(
            f"The folder {str(folder)!r} cannot be replaced: {error.strerror}.", "Name one below it."
        ) from error


def _take_back(partial: Path, folder: Path, *, was_there: bool) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    if was_there:
        with suppress(OSError):
            folder.mkdir(exist_ok=True)


class _BusyError(Exception):
    """The folder belongs to another program."""


@contextmanager
def _alone(partial: Path) -> Iterator[None]:
    lock = file_lock(partial / _LOCK, seconds=_LOCK_SECONDS)
    try:
        lock.__enter__()
    except StorageError as error:
        raise _BusyError from error
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def check_target(folder: Path) -> None:
    """Raise `SynthesisError` where a data set would mix with what is there."""
    with storage_faults(folder):
        if folder.exists() and not folder.is_dir():
            raise SynthesisError(f"{str(folder)!r} is a file.", "Name a folder that does not exist yet.")
        if folder.exists() and any(folder.iterdir()):
            raise SynthesisError(
                f"The folder {str(folder)!r} is not empty.", "Name one that does not exist yet, or empty this one."
            )


def _clear(folder: Path) -> None:
    for child in folder.iterdir():
        if child.name == _LOCK:
            continue
        shutil.rmtree(child) if child.is_dir() else child.unlink()


def _splits(groups: Mapping[str, str], presets: Mapping[str, str]) -> dict[str, dict[str, list[str]]]:
    """Training, validation and test by specimen, of each preset about 6 : 2 : 2; the first specimen is trained on.

    `groups` maps stems to specimens, `presets` specimens to presets. Nothing where no preset has two specimens.
    """
    part_of: dict[str, str] = {}
    for preset in dict.fromkeys(presets.values()):
        specimens = [specimen for specimen, of in presets.items() if of == preset]
        n_test = max(1, round(0.2 * len(specimens))) if len(specimens) > 1 else 0
        n_val = n_test if len(specimens) > 2 else 0
        n_train = len(specimens) - n_test - n_val
        part_of |= dict(zip(specimens, ["train"] * n_train + ["val"] * n_val + ["test"] * n_test, strict=True))
    if "test" not in part_of.values():
        return {}
    parts = [part for part in ("train", "val", "test") if part in part_of.values()]
    return {"synthetic": {part: [stem for stem, of in groups.items() if part_of[of] == part] for part in parts}}
