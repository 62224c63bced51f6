"""Cross-validation by specimen: k folds, leave-one-specimen-out, or the folds that a data set prescribes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.config import Folds
from napari_emtransfer.core.data.project_records import MicrographRecord
from napari_emtransfer.core.data.split import Fold, Split, check_no_leak, whole
from napari_emtransfer.core.data.split_ground import Labelled, LabelSource, choose_groups, name_of, survey
from napari_emtransfer.core.data.split_notes import folds_note, synthetic_note, trained_on_note
from napari_emtransfer.core.data.splits import SplitOptions
from napari_emtransfer.core.errors import SplitError

__all__ = ["DATASET_FOLD", "MIN_TRAINING_SPECIMENS", "split_into_folds"]

# Named splits of this prefix are the folds that came with a data set.
DATASET_FOLD: Final = "fold "
# A specimen is spared for choosing the checkpoint only where training keeps this many.
MIN_TRAINING_SPECIMENS: Final = 3
_SELECTION_FRACTION: Final = 0.15
_MAX_CANDIDATES: Final = 500


def split_into_folds(
    folds: Folds,
    records: Sequence[MicrographRecord],
    labelled: Mapping[str, float],
    annotations: LabelSource,
    options: SplitOptions | None = None,
    *,
    prescribed: Mapping[str, Sequence[str]] | None = None,
    before: Sequence[Set[str]] = (),
) -> Split:
    """Divide the labelled micrographs such that each specimen is held out by exactly one fold.

    Synthetic micrographs are trained on by every fold and held out by none, unless nothing else is labelled.
    Specimens are dealt out such that training loses as few classes as possible, every fold holds out as many as
    possible, and the folds have about as many labels; the seed decides among equals. Inside each fold a specimen of the
    training side is spared for choosing the checkpoint, where `MIN_TRAINING_SPECIMENS` and every class remain in all
    of them.

    Parameters
    ----------
    folds
        How many, "leave-one-out", or "dataset" for those in `prescribed`.
    labelled
        Labelled share of each micrograph; those without labels take no part.
    prescribed
        Name of a fold → stems that it holds out.
    before
        Specimens that the folds of an earlier run held out: as many folds hold out the same ones again, and new
        specimens besides, so that a network which goes on has never seen what it is measured on.

    Raises
    ------
    LabelError
        When nothing or one class only is labelled.
    SplitError
        For more folds than specimens, for a single specimen, and where a fold would train on a single class.
    """
    options = options or SplitOptions()
    found = survey(records, labelled, annotations, options.class_names)
    everything = {r.stem for r in found.records}
    real = {r.stem for r in found.records if not r.synthetic} or everything
    if folds == "dataset":
        held_sets = _prescribed(prescribed or {}, found)
    else:
        held_sets = _by_whole_specimens(folds, found.only(real), options.seed, before)
    pairs = [(found.only(everything - stems), found.only(stems)) for stems in held_sets]
    for train, held_out in pairs:
        _check_classes(train, held_out, options.class_names)
    split = _as_split(found, pairs, _selections(pairs, real, options.seed), prescribed=folds == "dataset")
    check_no_leak(split, records)
    return split


def _by_whole_specimens(
    folds: int | Literal["leave-one-out"], found: Labelled, seed: int, before: Sequence[Set[str]]
) -> list[set[str]]:
    """Stems that each fold holds out."""
    specimens = sorted({r.specimen for r in found.records})
    n_folds = len(specimens) if folds == "leave-one-out" else folds
    _check_number(n_folds, specimens)
    again = _dealt_again(specimens, before) if len(before) == n_folds else []
    held = again or _deal(_by_specimen(found), n_folds, np.random.default_rng(seed))
    return [{r.stem for r in found.records if r.specimen in some} for some in held]


def _as_split(
    found: Labelled, pairs: Sequence[tuple[Labelled, Labelled]], selections: Sequence[set[str]], *, prescribed: bool
) -> Split:
    made = tuple(
        _fold(train, held_out, selections[i] if selections else set()) for i, (train, held_out) in enumerate(pairs)
    )
    by_specimen = not any(_specimens(train) & _specimens(held_out) for train, held_out in pairs)
    held = set[str]().union(*(_specimens(held_out) for _, held_out in pairs))
    note = folds_note(len(made), len(held), by_specimen=by_specimen, clean=bool(selections))
    return Split(
        name="folds of the data set" if prescribed else f"{len(made)} folds by specimen",
        train=whole(r.stem for r in found.records),
        validation=(),
        ground="specimen" if by_specimen else "micrograph",
        note="; ".join([note, *_about_synthetic(found, pairs)]),
        folds=made,
    )


def _about_synthetic(found: Labelled, pairs: Sequence[tuple[Labelled, Labelled]]) -> list[str]:
    """What is to be said where any of the micrographs are synthetic."""
    made = {r.stem for r in found.records if r.synthetic}
    held = {r.stem for _, held_out in pairs for r in held_out.records}
    if not made:
        return []
    return [synthetic_note(len(made & held), len(held)) or trained_on_note(len(made))]


def _check_number(n_folds: int, specimens: Sequence[str]) -> None:
    if len(specimens) < 2:
        raise SplitError(
            f"Folds need at least two labelled specimens, but there is one only: {specimens[0]!r}.",
            "Label a second one, no synthetic one, state which micrographs belong to which, or train without folds.",
        )
    if n_folds > len(specimens):
        raise SplitError(
            f"{n_folds} folds need as many labelled specimens, but there are {len(specimens)}.",
            f'Use "leave-one-out": one fold for each of the {len(specimens)} specimens.',
        )


def _by_specimen(found: Labelled) -> dict[str, NDArray[np.int64]]:
    """Specimen → pixels per class (C,)."""
    groups: dict[str, NDArray[np.int64]] = {}
    for record in found.records:
        groups[record.specimen] = groups.get(record.specimen, np.int64(0)) + found.pixels[record.stem]
    return groups


def _deal(groups: Mapping[str, NDArray[np.int64]], n_folds: int, rng: np.random.Generator) -> list[set[str]]:
    """Specimens (name → pixels per class (C,)) into `n_folds` sets of about equal number."""
    names = sorted(groups)
    pixels = np.array([groups[name] for name in names])  # (G, C)
    n_candidates = 1 if n_folds == len(names) else _MAX_CANDIDATES
    even = np.arange(len(names)) % n_folds
    candidates = np.array([rng.permutation(even) if i else even for i in range(n_candidates)])  # (N, G)
    held = np.stack([(candidates == fold) @ pixels for fold in range(n_folds)], axis=1)  # (N, folds, C)
    total = pixels.sum(axis=0)
    sizes = held.sum(axis=2) / total.sum()
    lost = (held == total).sum(axis=(1, 2))
    absent = (held == 0).sum(axis=(1, 2))
    # Rounded: small differences in size must not overrule the seed.
    order = np.lexsort((rng.random(n_candidates), sizes.std(axis=1).round(2), absent, lost))
    best = candidates[order[0]]
    return [{name for name, fold in zip(names, best, strict=True) if fold == k} for k in range(n_folds)]


def _dealt_again(specimens: Sequence[str], before: Sequence[Set[str]]) -> list[set[str]]:
    """The same folds for specimens that were there before; a new one goes to the smallest. None if one fell empty."""
    held = [set(some) & set(specimens) for some in before]
    for name in sorted(set(specimens).difference(*held)):
        min(held, key=len).add(name)
    return held if all(held) else []


def _prescribed(folds: Mapping[str, Sequence[str]], found: Labelled) -> list[set[str]]:
    """Held-out stems of each fold of a data set, those without labels left out."""
    known = {r.stem for r in found.records}
    taken: set[str] = set()
    sets = []
    for name in folds:
        sets.append((set(folds[name]) & known) - taken)
        taken |= sets[-1]
    sets = [stems for stems in sets if stems and stems != known]
    if len(sets) < 2:
        raise SplitError(
            f"Of the {len(folds)} folds of the data set {len(sets)} hold out labelled micrographs; two are needed.",
            'Use "leave-one-out", or a number of folds.',
        )
    return sets


def _check_classes(train: Labelled, held_out: Labelled, class_names: Sequence[str]) -> None:
    present = [value for value, n in zip(train.classes, _total(train), strict=True) if n]
    if len(present) < 2:
        left = f"only {name_of(present[0], class_names)!r}" if present else "nothing"
        names = ", ".join(sorted(_specimens(held_out)))
        raise SplitError(
            f"Without {names} {left} is labelled, so the network of that fold would have nothing to tell apart.",
            "Paint every class in at least two specimens, or train without folds.",
        )


def _selections(pairs: Sequence[tuple[Labelled, Labelled]], real: Set[str], seed: int) -> list[set[str]]:
    """Stems among `real` that each fold spares for choosing its checkpoint; none at all unless every fold can."""
    selections = []
    for i, (train, _) in enumerate(pairs):
        groups = _by_specimen(train.only(set(real)))
        if len(groups) <= MIN_TRAINING_SPECIMENS:
            return []
        spared = choose_groups(groups, _SELECTION_FRACTION, np.random.default_rng((seed, i)))
        stems = {r.stem for r in train.records if r.specimen in spared and r.stem in real}
        rest = train.only({r.stem for r in train.records} - stems)
        if len(groups) - len(spared) < MIN_TRAINING_SPECIMENS or np.any((_total(rest) == 0) & (_total(train) > 0)):
            return []
        selections.append(stems)
    return selections


def _fold(train: Labelled, held_out: Labelled, selection: Set[str]) -> Fold:
    return Fold(
        train=whole(r.stem for r in train.records if r.stem not in selection),
        held_out=whole(r.stem for r in held_out.records),
        selection=whole(sorted(selection)),
    )


def _total(found: Labelled) -> NDArray[np.int64]:
    """Pixels per class over all micrographs, (C,)."""
    return np.sum([found.pixels[r.stem] for r in found.records], axis=0, dtype=np.int64)


def _specimens(found: Labelled) -> set[str]:
    return {r.specimen for r in found.records}
