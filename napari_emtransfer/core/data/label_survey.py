"""How much is labelled in a project: what a proposal counts, and what a strategy is chosen by."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project import Project
    from napari_emtransfer.core.data.project_records import MicrographRecord


@dataclass(frozen=True)
class LabelSurvey:
    """What is labelled in a project: number of tiles with labels, the micrographs they lie on, and their specimens.

    `real_stems` and `real_specimens` are those of them that are not synthetic.
    """

    n_tiles: int
    stems: tuple[str, ...]
    specimens: tuple[str, ...]
    real_stems: tuple[str, ...] = ()
    real_specimens: tuple[str, ...] = ()


def survey(project: Project, without: Collection[str] = ()) -> LabelSurvey:
    """Count what is labelled on the micrographs of a project, as it is on disk, but for those `without`."""
    n_tiles, found = 0, []
    for record in project.micrographs():
        if record.stem in without or not project.class_counts(record.stem)[1:].any():
            continue
        labels = project.annotations.read(record.stem)
        n_tiles += sum(bool(labels[tile.window.slices].any()) for tile in project.tile_grid(record.stem))
        found.append(record)
    return LabelSurvey(n_tiles, *_names(found), *_names([record for record in found if not record.synthetic]))


def _names(records: Sequence[MicrographRecord]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Stems and specimens."""
    return tuple(record.stem for record in records), tuple(sorted({record.specimen for record in records}))
