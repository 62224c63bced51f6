"""Splits of the labelled micrographs into training and held-out ground, as honest as the labels allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from napari_emtransfer.core.data.hold_out import SplitOptions, hold_out
from napari_emtransfer.core.data.project_records import MicrographRecord
from napari_emtransfer.core.data.split import Region, Split, check_no_leak, stems_of, whole
from napari_emtransfer.core.data.split_ground import LabelSource, survey
from napari_emtransfer.core.data.split_notes import OPTIMISM, count_micrographs, listed, specimen_note, synthetic_note
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


def split_by_specimen(
    records: Sequence[MicrographRecord],
    labelled: Mapping[str, float],
    annotations: LabelSource,
    options: SplitOptions | None = None,
) -> Split:
    """Hold out whole specimens; where there is one only, micrographs of it; where there is one only, a block of it.

    A coarser ground is left for a finer one also where training would lose a class. The same records, in whatever
    order, and the same seed give the same split. Synthetic micrographs are trained on: what is held out is real where
    real micrographs are labelled (see `hold_out`).

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
    return hold_out("by specimen", found, annotations, options)


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
    carved = None if validation else hold_out(name, found, annotations, options)
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
    validation = list(validation) or _others(train, records, labelled, real=True)
    parts = {"train": train} | ({"validation": validation} if validation else {})
    return split_from_names("by hand", parts, records, labelled, annotations, options)


def _described(split: Split, records: Sequence[MicrographRecord], remarks: Sequence[str]) -> Split:
    """Ground and note of a prescribed split, from what it really holds."""
    specimen_of = {record.stem: record.specimen for record in records}
    made = {record.stem for record in records if record.synthetic}
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
    validated_on = stems_of(split.validation)
    about = synthetic_note(len(validated_on & made), len(validated_on))
    remarks = [about, *remarks] if about and about not in note else remarks
    return split.model_copy(update={"ground": ground, "note": "; ".join([note, *remarks])})


def _left_out(named: Mapping[str, Sequence[str]], chosen: Mapping[str, Sequence[str]]) -> list[str]:
    return [
        f"{count_micrographs(len(named[part]) - len(stems))} of its part {part!r} left out, because without labels here"
        for part, stems in chosen.items()
        if len(stems) < len(named[part])
    ]


def _others(
    stems: Sequence[str],
    records: Sequence[MicrographRecord],
    labelled: Mapping[str, float],
    *,
    real: bool = False,
) -> list[str]:
    """Labelled micrographs of specimens that `stems` do not touch; where there are none, of the same ones.

    No synthetic ones as validation ground (`real`), unless nothing real is labelled.
    """
    known = [r for r in records if labelled.get(r.stem, 0.0) > 0]
    if real:
        known = [r for r in known if not r.synthetic] or known
    free = [r for r in known if r.stem not in stems]
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
