"""What a data set says of itself in dataset.json."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from napari_emtransfer.core.data.project_settings import first_fault
from napari_emtransfer.core.errors import LabelError

UNLABELLED_NAMES = frozenset({"unlabelled", "unlabeled", "ignore", "ignored", "void"})


def _numbered(value: Any) -> Any:
    return dict(enumerate(value, start=1)) if isinstance(value, list) else value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, int) else value


_Name = Annotated[str, BeforeValidator(str)]


class DatasetDescription(BaseModel):
    """Content of dataset.json; everything but `classes` may be absent, unknown keys are not looked at.

    `classes` maps mask values to names; `groups` stems to specimens; `splits` names to parts to stems; `folds` names
    to held-out stems; `pixel_size_nm` is one size, or stem → size; `unlabelled` lists values that mean "no label".
    `domain` is the imaging condition of all of them; `synthetic` says that they were computed, not measured.
    """

    model_config = ConfigDict(frozen=True)
    classes: Annotated[dict[int, str], BeforeValidator(_numbered)] = Field(min_length=1)
    unlabelled: Annotated[tuple[int, ...], BeforeValidator(_listed)] = (0,)
    groups: dict[str, _Name] = {}
    splits: dict[str, dict[str, tuple[_Name, ...]]] = {}
    folds: dict[str, tuple[_Name, ...]] = {}
    pixel_size_nm: dict[str, float | None] | float | None = None
    domain: str = Field(default="default", min_length=1)
    synthetic: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of their values, without those that mean "no label"."""
        named = (name.strip() for _, name in sorted(self.classes.items()))
        return tuple(dict.fromkeys(name for name in named if name.casefold() not in UNLABELLED_NAMES))

    def specimen(self, names: Iterable[str]) -> str | None:
        """Specimen of a micrograph that goes by these names; None where nothing is said."""
        return next((self.groups[name] for name in names if name in self.groups), None)

    def pixel_size(self, names: Iterable[str]) -> float | None:
        """Pixel size in nm of a micrograph that goes by these names."""
        if not isinstance(self.pixel_size_nm, dict):
            return self.pixel_size_nm
        sizes = self.pixel_size_nm
        return next((sizes[name] for name in names if name in sizes), None)

    def all_splits(self, stems: Iterable[str]) -> dict[str, dict[str, list[str]]]:
        """Splits, and folds as splits "fold NAME" whose training part are all other stems."""
        everything = list(stems)
        splits = {name: {part: list(s) for part, s in parts.items()} for name, parts in self.splits.items()}
        for name, held in self.folds.items():
            splits[f"fold {name}"] = {"train": [s for s in everything if s not in held], "test": list(held)}
        return splits


def read_description(path: Path) -> DatasetDescription:
    """dataset.json → description.

    Raises
    ------
    LabelError
        When it is missing or wrong; the hint shows what it must hold.
    """
    example = 'It must hold at least {"classes": {"1": "matrix", "2": "pore"}}.'
    if not path.is_file():
        raise LabelError(
            f"There is no {path.name} in {str(path.parent)!r}, so the mask values have no names.",
            "Add one, or import with --images DIR --masks DIR --map 1=matrix,2=pore.",
        )
    try:
        return DatasetDescription.model_validate(json.loads(path.read_text(encoding="utf-8-sig")))
    except ValidationError as error:
        raise LabelError(f"{str(path)!r} is wrong at {first_fault(error)[:300]}.", example) from error
    except ValueError as error:  # no JSON, or no text
        raise LabelError(f"{str(path)!r} is no JSON: {error}.", example) from error
