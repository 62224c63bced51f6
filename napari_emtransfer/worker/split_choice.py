"""Which labelled micrographs a training run learns from, and which it is judged on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.annotation import AnnotationStore
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.splits import (
    Split,
    SplitOptions,
    check_no_leak,
    split_by_specimen,
    split_from_names,
    split_from_stems,
)
from napari_emtransfer.core.errors import SplitError

_MIN_GAP_PX: Final = 64


def choose_split(project: Project, labels: AnnotationStore, labelled: Sequence[str], config: TrainConfig) -> Split:
    """Micrographs named by hand win over a named split, and that over whole specimens.

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
    if config.train or config.validation:
        split = split_from_stems(config.train, config.validation, records, fractions, labels, options)
    elif config.split is not None:
        parts = _named(project, config.split)
        split = split_from_names(config.split, parts, records, fractions, labels, options)
    else:
        split = split_by_specimen(records, fractions, labels, options)
    check_no_leak(split, records)
    return split


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
