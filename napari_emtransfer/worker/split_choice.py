"""Which labelled micrographs a training run learns from, and which it is judged on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from typing import Final

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.annotation import AnnotationStore
from napari_emtransfer.core.data.folds import DATASET_FOLD, split_into_folds
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.split import stems_of, whole
from napari_emtransfer.core.data.splits import (
    Split,
    SplitOptions,
    check_no_leak,
    part_name,
    split_by_specimen,
    split_from_names,
    split_from_stems,
)
from napari_emtransfer.core.errors import SplitError

_MIN_GAP_PX: Final = 64
# Parts of a named split that folds divide anew.
_POOLED: Final = ("train", "validation")


def choose_split(project: Project, labels: AnnotationStore, labelled: Sequence[str], config: TrainConfig) -> Split:
    """Micrographs named by hand win over a named split, and that over whole specimens.

    With folds, these divide what would otherwise be the training and the validation part; the test part is theirs.

    Raises
    ------
    SplitError
        When the named split does not exist, or no honest split is possible.
    LabelError
        When there is too little to learn from.
    """
    records = project.micrographs()
    fractions = {stem: labels.labelled_fraction(stem) for stem in labelled}
    options = SplitOptions(
        seed=config.compute.seed, gap_px=_gap_px(project, labelled, config), class_names=project.schema.names
    )
    if config.folds is not None:
        return _into_folds(project, labels, fractions, config, options)
    if config.train or config.validation:
        split = split_from_stems(config.train, config.validation, records, fractions, labels, options)
    elif config.split is not None:
        parts = _named(project, config.split)
        split = split_from_names(config.split, parts, records, fractions, labels, options)
    else:
        split = split_by_specimen(records, fractions, labels, options)
    check_no_leak(split, records)
    return split


def _into_folds(
    project: Project,
    labels: AnnotationStore,
    fractions: Mapping[str, float],
    config: TrainConfig,
    options: SplitOptions,
) -> Split:
    records = project.micrographs()
    _check_named_with_folds(config, {record.stem for record in records})
    named = project.named_splits()
    parts = {part_name(part): stems for part, stems in _named(project, config.split).items()} if config.split else {}
    apart = {part: stems for part, stems in parts.items() if part not in _POOLED}
    pool = set(config.train) or {stem for part in _POOLED for stem in parts.get(part, ())} or {r.stem for r in records}
    pool -= {stem for stems in apart.values() for stem in stems}
    prescribed = {
        name: stems["test"] for name, stems in named.items() if name.startswith(DATASET_FOLD) and "test" in stems
    }
    chosen = [record for record in records if record.stem in pool]
    assert config.folds is not None  # noqa: S101  (asked for by the caller)
    before = _folds_before(project, config)
    split = split_into_folds(config.folds, chosen, fractions, labels, options, prescribed=prescribed, before=before)
    kept = {part: whole(s for s in stems if fractions.get(s, 0.0) > 0) for part, stems in apart.items()}
    test = kept.pop("test", ())
    return split.model_copy(
        update={"test": test, "other": {part: regions for part, regions in kept.items() if regions}}
    )


def _folds_before(project: Project, config: TrainConfig) -> list[set[str]]:
    """Specimens that the folds of the run to go on from held out; none where it had no folds."""
    if not config.weights.startswith("run:"):
        return []
    specimens = {record.stem: record.specimen for record in project.micrographs()}
    folds = project.run(config.weights.removeprefix("run:")).split().folds
    return [{specimens[s] for s in stems_of(fold.held_out) if s in specimens} for fold in folds]


def _check_named_with_folds(config: TrainConfig, known: Set[str]) -> None:
    if config.validation:
        raise SplitError(
            f"Folds hold out each specimen in turn, so {config.validation[0]!r} cannot be validated on besides.",
            "Leave --validation out, or train without --folds.",
        )
    unknown = sorted(set(config.train) - known)
    if unknown:
        raise SplitError(f"There is no micrograph {unknown[0]!r} in the project.", "Name micrographs of the project.")


def _gap_px(project: Project, labelled: Sequence[str], config: TrainConfig) -> int:
    """Half a training crop, in native pixels of the finest micrograph."""
    return max(_MIN_GAP_PX, *(math.ceil(config.crop_px / 2 / project.scale(stem)) for stem in labelled))


def _named(project: Project, name: str) -> dict[str, list[str]]:
    known = project.named_splits()
    if name not in known:
        hint = (
            f"Known: {', '.join(known)}."
            if known
            else "No split came with the data; leave it out to split by specimen."
        )
        raise SplitError(f"The project has no split {name!r}.", hint)
    return known[name]
