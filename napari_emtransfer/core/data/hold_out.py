"""The search for held-out ground among labelled micrographs: as coarse, and as real, as the labels allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from napari_emtransfer.core.data.split import Ground, Region, Split, whole
from napari_emtransfer.core.data.split_ground import Labelled, LabelSource, choose_groups, cut_blocks, name_of
from napari_emtransfer.core.data.split_notes import (
    ONLY_SYNTHETIC,
    REAL_ALL_TRAINED,
    block_note,
    micrograph_note,
    specimen_note,
    trained_on_note,
)
from napari_emtransfer.core.errors import SplitError


class SplitOptions(BaseModel):
    """How held-out ground is chosen; `gap_px` in native pixels, at least half a training crop."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    validation_fraction: float = Field(default=0.25, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)
    gap_px: int = Field(default=64, ge=0)
    class_names: tuple[str, ...] = ()


def hold_out(name: str, found: Labelled, annotations: LabelSource, options: SplitOptions) -> Split:
    """Held-out ground out of `found`; the rest is trained on. Synthetic micrographs are trained on.

    Where nothing real is labelled, or so little that no part of it can be held out, synthetic specimens are held out
    after all, and the note says so.

    Raises
    ------
    SplitError
        When no part can be held out.
    """
    made = found.only({r.stem for r in found.records if r.synthetic})
    real = found.only({r.stem for r in found.records if not r.synthetic})
    if not made.records:
        return _coarsest(name, found, annotations, options)
    if not real.records:
        return _noted(_coarsest(name, found, annotations, options), ONLY_SYNTHETIC)
    try:
        split = _measured_on_real(name, real, made, annotations, options)
    except SplitError:
        split = _noted(_coarsest(name, made, annotations, options, also=real), REAL_ALL_TRAINED)
        return _with_training(split, real)
    return _noted(_with_training(split, made), trained_on_note(len(made.records)))


def _measured_on_real(
    name: str, real: Labelled, made: Labelled, annotations: LabelSource, options: SplitOptions
) -> Split:
    if np.count_nonzero(_total(real)) < 2:
        # All of one class: whoever predicts nothing else would be perfect.
        raise SplitError("Of the real micrographs only one class is labelled.", "Paint a second class there.")
    return _coarsest(name, real, annotations, options, also=made)


def _with_training(split: Split, more: Labelled) -> Split:
    return split.model_copy(update={"train": (*split.train, *whole(r.stem for r in more.records))})


def _noted(split: Split, remark: str) -> Split:
    return split.model_copy(update={"note": f"{split.note}; {remark}"})


def _total(found: Labelled) -> NDArray[np.int64]:
    """Pixels per class over all micrographs, (C,)."""
    none = np.zeros(len(found.classes), np.int64)
    return np.sum([none, *(found.pixels[r.stem] for r in found.records)], axis=0, dtype=np.int64)


def _coarsest(
    name: str, found: Labelled, annotations: LabelSource, options: SplitOptions, also: Labelled | None = None
) -> Split:
    """The coarsest ground that keeps every class in training, which sees `also` besides; else what loses fewest."""
    besides = _total(also or found.only(set()))
    attempts: list[tuple[int, Split]] = []
    grounds: tuple[Callable[[], tuple[int, Split] | None], ...] = (
        lambda: _by_group(name, found, options, {r.stem: r.specimen for r in found.records}, "specimen", besides),
        lambda: _by_group(name, found, options, {r.stem: r.stem for r in found.records}, "micrograph", besides),
        lambda: _by_block(name, found, annotations, options, besides),
    )
    for make in grounds:
        attempt = make()
        if attempt is not None:
            attempts.append(attempt)
            if attempt[0] == 0:
                break
    if not attempts:
        raise SplitError(
            f"The labels of {found.records[0].stem!r} lie too close together to hold a part of them out.",
            f"Paint a second place at least {options.gap_px} pixels away, or another micrograph.",
        )
    missing, split = min(attempts, key=lambda attempt: attempt[0])
    if len(found.classes) - missing < 2:
        names = ", ".join(repr(name_of(value, options.class_names)) for value in found.classes)
        raise SplitError(
            f"Each of {names} is labelled in one place only, so training would be left with one class.",
            "Paint every class in at least two places, better in two micrographs.",
        )
    return split


def _by_group(
    name: str,
    found: Labelled,
    options: SplitOptions,
    group_of: Mapping[str, str],
    ground: Ground,
    besides: NDArray[np.int64],
) -> tuple[int, Split] | None:
    """Hold out whole groups; returns the number of classes that training loses, and the split."""
    groups = {g: np.zeros(len(found.classes), np.int64) for g in group_of.values()}
    if len(groups) < 2:
        return None
    for stem, group in group_of.items():
        groups[group] = groups[group] + found.pixels[stem]
    held = choose_groups(groups, options.validation_fraction, np.random.default_rng(options.seed))
    validation = [stem for stem, group in group_of.items() if group in held]
    train = [stem for stem, group in group_of.items() if group not in held]
    kept = besides + sum(found.pixels[stem] for stem in train)
    n_specimens = len({r.specimen for r in found.records})
    note = specimen_note(held, len(validation)) if ground == "specimen" else micrograph_note(n_specimens)
    split = Split(name=name, train=whole(train), validation=whole(validation), ground=ground, note=note)
    return int(np.sum(kept == 0)), split


def _by_block(
    name: str, found: Labelled, annotations: LabelSource, options: SplitOptions, besides: NDArray[np.int64]
) -> tuple[int, Split] | None:
    """Cut every micrograph in two where its labels allow; the others are trained on."""
    rng = np.random.default_rng(options.seed)
    kept = besides.copy()
    train: list[Region] = []
    validation: list[Region] = []
    for record in found.records:
        cut = cut_blocks(
            record.stem,
            annotations,
            found.classes,
            gap_px=options.gap_px,
            fraction=options.validation_fraction,
            rng=rng,
        )
        kept += cut.train_pixels if cut else found.pixels[record.stem]
        train.append(Region(micrograph=record.stem, window=cut.train if cut else None))
        validation += [Region(micrograph=record.stem, window=cut.held_out)] if cut else []
    if not validation:
        return None
    note = block_note(len(train), options.gap_px)
    split = Split(
        name=name,
        train=tuple(train),
        validation=tuple(validation),
        ground="block",
        note=note,
        gap_px=options.gap_px,
    )
    return int((kept == 0).sum()), split
