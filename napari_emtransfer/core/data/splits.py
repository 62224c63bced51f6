"""Splits of the labelled micrographs into training and held-out ground, as honest as the labels allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from napari_emtransfer.core.data.project_records import MicrographRecord
from napari_emtransfer.core.data.split import Ground, Region, Split, check_no_leak, stems_of, whole
from napari_emtransfer.core.data.split_ground import Labelled, LabelSource, choose_groups, cut_blocks, name_of, survey
from napari_emtransfer.core.data.split_notes import (
    OPTIMISM,
    block_note,
    count_micrographs,
    listed,
    micrograph_note,
    specimen_note,
)
from napari_emtransfer.core.errors import LabelError, SplitError

__all__ = [
    "Region",
    "Split",
    "SplitOptions",
    "check_no_leak",
    "part_name",
    "split_by_specimen",
    "split_from_names",
    "split_from_stems",
]

_PART_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def part_name(name: str) -> str:
    """The program's name of a part of a data set's split: "val" → "validation"; unknown ones keep theirs."""
    return _PART_NAMES.get(name.lower(), name)


class SplitOptions(BaseModel):
    """How held-out ground is chosen; `gap_px` in native pixels, at least half a training crop."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    validation_fraction: float = Field(default=0.25, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)
    gap_px: int = Field(default=64, ge=0)
    class_names: tuple[str, ...] = ()


def split_by_specimen(
    records: Sequence[MicrographRecord],
    labelled: Mapping[str, float],
    annotations: LabelSource,
    options: SplitOptions | None = None,
) -> Split:
    """Hold out whole specimens; where there is one only, micrographs of it; where there is one only, a block of it.

    A coarser ground is left for a finer one also where training would lose a class. The same records, in whatever
    order, and the same seed give the same split.

    Parameters
    ----------
    labelled
        Labelled share of each micrograph; those without labels take no part.
    annotations
        The labels themselves.

    Raises
    ------
    LabelError
        When nothing or one class only is labelled.
    SplitError
        When no part can be held out.
    """
    options = options or SplitOptions()
    found = survey(records, labelled, annotations, options.class_names)
    return _hold_out("by specimen", found, annotations, options)


def split_from_names(
    name: str,
    parts: Mapping[str, Sequence[str]],
    records: Sequence[MicrographRecord],
    labelled: Mapping[str, float],
    annotations: LabelSource,
    options: SplitOptions | None = None,
) -> Split:
    """The split that a data set prescribes. Without a validation part whole specimens of the training part become it.

    Micrographs that are not in the project or not labelled are left out, and one that is held out is never trained
    on; the note says so, and also where a specimen is on both sides.

    Raises
    ------
    LabelError
        When the training part has no labels, or one class only.
    SplitError
        When the split has no training part.
    """
    options = options or SplitOptions()
    known = {record.stem for record in records if labelled.get(record.stem, 0.0) > 0}
    named = {part_name(part): list(dict.fromkeys(stems)) for part, stems in parts.items()}
    chosen = {part: [stem for stem in stems if stem in known] for part, stems in named.items()}
    remarks = _left_out(named, chosen)
    held_out = {*chosen.get("validation", ()), *chosen.get("test", ())}
    doubled = held_out & set(chosen.get("train", ()))
    if doubled:
        remarks.append(
            f"{count_micrographs(len(doubled))} of its training part left out, because they are held out as well"
        )
    train = set(chosen.pop("train", ())) - doubled
    if not train:
        raise SplitError(
            f"The split {name!r} has no labelled training micrographs.",
            f"Its parts are {', '.join(parts)}; one of them must be called 'train' and name labelled micrographs.",
        )
    found = survey([r for r in records if r.stem in train], labelled, annotations, options.class_names)
    validation, test = chosen.pop("validation", []), chosen.pop("test", [])
    carved = None if validation else _hold_out(name, found, annotations, options)
    split = Split(
        name=name,
        train=carved.train if carved else whole(sorted(train)),
        validation=carved.validation if carved else whole(validation),
        test=whole(test),
        other={part: whole(stems) for part, stems in chosen.items() if stems},
        ground=carved.ground if carved else "specimen",
        note=carved.note if carved else "",
        gap_px=carved.gap_px if carved else 0,
    )
    return _described(split, records, remarks)


def split_from_stems(
    train: Sequence[str],
    validation: Sequence[str],
    records: Sequence[MicrographRecord],
    labelled: Mapping[str, float],
    annotations: LabelSource,
    options: SplitOptions | None = None,
) -> Split:
    """A split by hand. An empty side is filled from the labelled micrographs of other specimens.

    Where every labelled micrograph is named, validation ground is taken out of `train` as `split_by_specimen` would.

    Raises
    ------
    SplitError
        For a stem that is unknown or on both sides.
    LabelError
        For a stem without labels.
    """
    _check_stems(train, validation, records, labelled)
    train = list(train) or _others(validation, records, labelled)
    validation = list(validation) or _others(train, records, labelled)
    parts = {"train": train} | ({"validation": validation} if validation else {})
    return split_from_names("by hand", parts, records, labelled, annotations, options)


def _hold_out(name: str, found: Labelled, annotations: LabelSource, options: SplitOptions) -> Split:
    """The coarsest ground that keeps every class in training; else the one that loses fewest."""
    attempts: list[tuple[int, Split]] = []
    grounds: tuple[Callable[[], tuple[int, Split] | None], ...] = (
        lambda: _by_group(name, found, options, {r.stem: r.specimen for r in found.records}, "specimen"),
        lambda: _by_group(name, found, options, {r.stem: r.stem for r in found.records}, "micrograph"),
        lambda: _by_block(name, found, annotations, options),
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
    name: str, found: Labelled, options: SplitOptions, group_of: Mapping[str, str], ground: Ground
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
    kept = sum(found.pixels[stem] for stem in train)
    n_specimens = len({r.specimen for r in found.records})
    note = specimen_note(held, len(validation)) if ground == "specimen" else micrograph_note(n_specimens)
    split = Split(name=name, train=whole(train), validation=whole(validation), ground=ground, note=note)
    return int(np.sum(np.asarray(kept) == 0)), split


def _by_block(name: str, found: Labelled, annotations: LabelSource, options: SplitOptions) -> tuple[int, Split] | None:
    """Cut every micrograph in two where its labels allow; the others are trained on."""
    rng = np.random.default_rng(options.seed)
    kept = np.zeros(len(found.classes), np.int64)
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


def _described(split: Split, records: Sequence[MicrographRecord], remarks: Sequence[str]) -> Split:
    """Ground and note of a prescribed split, from what it really holds."""
    specimen_of = {record.stem: record.specimen for record in records}
    held_out = stems_of((*split.validation, *split.test))
    held = {specimen_of[stem] for stem in held_out}
    shared = held & {specimen_of[stem] for stem in stems_of(split.train)}
    ground, note = split.ground, split.note
    if split.ground == "specimen" and shared:
        ground = "micrograph"
        note = f"held out: other micrographs of {listed(shared)}, which training sees as well – {OPTIMISM}"
    elif not note:
        validated = {specimen_of[stem] for stem in stems_of(split.validation)}
        note = specimen_note(validated, len(split.validation))
    note = f"{note}, as prescribed by the split {split.name!r}" if split.name != "by hand" else note
    return split.model_copy(update={"ground": ground, "note": "; ".join([note, *remarks])})


def _left_out(named: Mapping[str, Sequence[str]], chosen: Mapping[str, Sequence[str]]) -> list[str]:
    return [
        f"{count_micrographs(len(named[part]) - len(stems))} of its part {part!r} left out, because without labels here"
        for part, stems in chosen.items()
        if len(stems) < len(named[part])
    ]


def _others(stems: Sequence[str], records: Sequence[MicrographRecord], labelled: Mapping[str, float]) -> list[str]:
    """Labelled micrographs of specimens that `stems` do not touch; where there are none, of the same ones."""
    free = [r for r in records if labelled.get(r.stem, 0.0) > 0 and r.stem not in stems]
    used = {r.specimen for r in records if r.stem in stems}
    return [r.stem for r in free if r.specimen not in used] or [r.stem for r in free]


def _check_stems(
    train: Sequence[str],
    validation: Sequence[str],
    records: Sequence[MicrographRecord],
    labelled: Mapping[str, float],
) -> None:
    known = {record.stem for record in records}
    for stem in (*train, *validation):
        if stem not in known:
            shown = ", ".join(sorted(known)[:5])
            raise SplitError(f"There is no micrograph {stem!r} in the project.", f"Known are {shown}.")
        if labelled.get(stem, 0.0) == 0:
            raise LabelError(f"The micrograph {stem!r} has no labels.", "Paint some, or leave it out of the split.")
    both = set(train) & set(validation)
    if both:
        raise SplitError(f"{', '.join(sorted(both))} cannot be in training and in validation.", "Choose one side.")
