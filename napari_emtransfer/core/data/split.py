"""What a model trains on and what it is judged on, and the check that the two never touch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from napari_emtransfer.core.data.project_records import MicrographRecord
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import SplitError

Ground = Literal["specimen", "micrograph", "block"]


class Region(BaseModel):
    """A whole micrograph, or one window of it in native pixels."""

    model_config = ConfigDict(frozen=True)
    micrograph: str
    window: Window | None = None


class Fold(BaseModel):
    """One fold: a network trains on `train`, its checkpoint is chosen on `selection`, and it is judged on `held_out`.

    Where there are too few specimens for a selection of its own, `selection` is empty and the checkpoint is chosen on
    `held_out`, which makes the figure a little too good.
    """

    model_config = ConfigDict(frozen=True)
    train: tuple[Region, ...]
    held_out: tuple[Region, ...]
    selection: tuple[Region, ...] = ()

    @property
    def chosen_on(self) -> tuple[Region, ...]:
        """Regions that the best checkpoint is chosen on."""
        return self.selection or self.held_out


class Split(BaseModel):
    """Training and held-out ground.

    `ground` says how far apart they lie: other specimens, other micrographs of the same specimen, or other blocks of
    the same micrograph. `note` is the sentence that stands beside an IoU measured on it. With `folds` every micrograph
    is trained on by some of the networks: `train` holds them all, `validation` none.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    train: tuple[Region, ...]
    validation: tuple[Region, ...]
    test: tuple[Region, ...] = ()
    other: dict[str, tuple[Region, ...]] = {}
    ground: Ground
    note: str
    gap_px: int = 0
    folds: tuple[Fold, ...] = ()

    def part(self, name: str) -> tuple[Region, ...]:
        """Regions of "train", "validation", "test" or a part that the data set names; `SplitError` for others.

        With folds the validation part is what one fold after another holds out.
        """
        validation = self.validation or tuple(region for fold in self.folds for region in fold.held_out)
        parts = {"train": self.train, "validation": validation, "test": self.test, **self.other}
        if not parts.get(name):
            known = ", ".join(key for key, regions in parts.items() if regions)
            raise SplitError(f"The split {self.name!r} has no part {name!r}.", f"It has: {known}.")
        return parts[name]


def whole(stems: Iterable[str]) -> tuple[Region, ...]:
    """Whole micrographs as regions."""
    return tuple(Region(micrograph=stem) for stem in stems)


def stems_of(regions: Iterable[Region]) -> set[str]:
    """Micrographs that the regions lie in."""
    return {region.micrograph for region in regions}


def check_no_leak(split: Split, records: Sequence[MicrographRecord]) -> None:
    """Refuse a split whose held-out ground touches its training ground more closely than `ground` claims.

    Raises
    ------
    SplitError
        Naming what is on both sides.
    """
    specimens = {record.stem: record.specimen for record in records}
    held_out = (*split.validation, *split.test)
    if split.ground == "block":
        _check_windows(split, held_out)
        return
    # The test part of a split with folds may come from the data set, which its evaluation says where it matters.
    pairs = [(split.train, held_out)] if not split.folds else []
    pairs += [((*fold.train, *fold.selection), fold.held_out) for fold in split.folds]
    pairs += [(fold.train, fold.selection) for fold in split.folds]
    both: set[str] = set()
    for train, held in pairs:
        both |= stems_of(train) & stems_of(held)
        if split.ground == "specimen":
            both |= _specimens(train, specimens) & _specimens(held, specimens)
    if both:
        raise SplitError(
            f"The split {split.name!r} has {', '.join(sorted(both)[:5])} both in training and held out.",
            "Give every specimen to one side only.",
        )


def _specimens(regions: Iterable[Region], specimens: Mapping[str, str]) -> set[str]:
    return {specimens[region.micrograph] for region in regions}


def _check_windows(split: Split, held_out: Iterable[Region]) -> None:
    for region in held_out:
        for other in split.train:
            if region.micrograph == other.micrograph and distance_px(region.window, other.window) < split.gap_px:
                raise SplitError(
                    f"The split {split.name!r} trains on {region.micrograph!r} closer than {split.gap_px} px to the "
                    "block that it is judged on.",
                    "Leave a gap between the blocks.",
                )


def distance_px(first: Window | None, second: Window | None) -> int:
    """Pixels between two windows along the axis that parts them; −1 where they overlap (None is everything)."""
    if first is None or second is None or first.intersection(second) is not None:
        return -1
    dy = max(first.y0 - second.y1, second.y0 - first.y1)
    dx = max(first.x0 - second.x1, second.x0 - first.x1)
    return max(dy, dx)
