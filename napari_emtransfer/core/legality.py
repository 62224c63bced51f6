"""Which augmentations are true to which kind of micrograph, and why: the rows of legality.toml, looked up."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import product
from typing import Any, Final, get_args

from napari_emtransfer.core.config import AugmentPreset, Modality
from napari_emtransfer.core.errors import AugmentationError

_BASIC: Final = (
    "horizontal-flip",
    "vertical-flip",
    "quarter-turn",
    "brightness",
    "contrast",
    "gamma",
    "gaussian-noise",
)

PRESETS: Final[Mapping[AugmentPreset, tuple[str, ...]]] = {
    "none": (),
    "basic": _BASIC,
    "extended": (*_BASIC, "rotation", "scale", "elastic", "blur"),
    "em-noise": (
        *_BASIC[:-1],
        "polarity",
        "blur",
        "drift",
        "scan-jitter",
        "poisson-gaussian-noise",
    ),
}


@dataclass(frozen=True)
class Entry:
    """A modality or a transform: its name in files, the name the user reads, and a sentence that explains it."""

    id: str
    name: str
    what: str


@dataclass(frozen=True)
class Verdict:
    """Whether a transform leaves a possible micrograph, the physical reason in one sentence, and who says so."""

    legal: bool
    reason: str
    source: str


def _table() -> dict[str, Any]:
    return tomllib.loads(files("napari_emtransfer.core").joinpath("legality.toml").read_text(encoding="utf-8"))


MODALITIES: Final = tuple(Entry(**row) for row in _table()["modality"])
_TRANSFORMS: Final = tuple(Entry(**row) for row in _table()["transform"])
TRANSFORMS: Final = tuple(entry.id for entry in _TRANSFORMS)
ALL: Final = frozenset(TRANSFORMS)


def transform_entry(transform: str) -> Entry:
    """Name and explanation of a transform; raises `AugmentationError` where there is none of that name."""
    check_transforms([transform])
    return _TRANSFORMS[TRANSFORMS.index(transform)]


def check_transforms(names: Iterable[str]) -> None:
    """Raise `AugmentationError` for the first name that is no transform."""
    for name in names:
        if name not in ALL:
            raise AugmentationError(f"There is no augmentation {name!r}.", f"There are {', '.join(TRANSFORMS)}.")


def verdict(modality: Modality, transform: str) -> Verdict:
    """Whether micrographs of this modality may be transformed so; raises `AugmentationError` on an unknown name."""
    check_transforms([transform])
    return _verdicts()[modality, transform]


def allowed_transforms(modality: Modality, illegal: Iterable[str] = ()) -> frozenset[str]:
    """The legal transforms of a modality, and those that the user wants although they are `illegal`.

    Raises
    ------
    AugmentationError
        When `illegal` names no transform.
    """
    wanted = frozenset(illegal)
    check_transforms(sorted(wanted))
    return wanted | {name for name in TRANSFORMS if _verdicts()[modality, name].legal}


def left_out(modality: Modality, preset: AugmentPreset, illegal: Iterable[str] = ()) -> dict[str, str]:
    """Transforms of the preset that are not done, with the reason."""
    allowed = allowed_transforms(modality, illegal)
    return {name: verdict(modality, name).reason for name in PRESETS[preset] if name not in allowed}


def legal_symmetries(modality: Modality, illegal: Iterable[str] = ()) -> tuple[int, ...]:
    """The elements of `core.nn.augment.dihedral` that keep a micrograph of this modality possible; 0 is among them."""
    return symmetries(allowed_transforms(modality, illegal))


def symmetries(allowed: frozenset[str]) -> tuple[int, ...]:
    """The subgroup of `core.nn.augment.dihedral` that the allowed flips and quarter turns generate.

    A quarter turn together with one flip gives all 8; flips alone give each other's half turn; neither, the identity.
    """
    horizontal, vertical = "horizontal-flip" in allowed, "vertical-flip" in allowed
    if "quarter-turn" in allowed:
        return tuple(range(8)) if horizontal or vertical else (0, 1, 2, 3)
    return (0, *(2,) * (horizontal and vertical), *(4,) * horizontal, *(6,) * vertical)


@cache
def _verdicts() -> dict[tuple[str, str], Verdict]:
    """Every pair of modality and transform; raises `ValueError` on a pair that the file has twice or not at all."""
    rows: dict[tuple[str, str], Verdict] = {}
    for rule in _table()["rule"]:
        for pair in product(rule["modalities"], rule["transforms"]):
            if pair in rows:
                raise ValueError(f"legality.toml has two rules for {pair}")
            rows[pair] = Verdict(rule["legal"], rule["reason"], rule["source"])
    if rows.keys() != set(product(get_args(Modality), TRANSFORMS)):
        raise ValueError(f"legality.toml: {sorted(rows.keys() ^ set(product(get_args(Modality), TRANSFORMS)))}")
    return rows
