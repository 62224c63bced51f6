"""How much is labelled in a project: what a proposal counts, and what a strategy is chosen by."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project import Project


@dataclass(frozen=True)
class LabelSurvey:
    """What is labelled in a project: number of tiles with labels, the micrographs they lie on, and their specimens."""

    n_tiles: int
    stems: tuple[str, ...]
    specimens: tuple[str, ...]


def survey(project: Project, without: Collection[str] = ()) -> LabelSurvey:
    """Count what is labelled on the micrographs of a project, as it is on disk, but for those `without`."""
    n_tiles, stems, specimens = 0, [], set()
    for record in project.micrographs():
        if record.stem in without or not project.class_counts(record.stem)[1:].any():
            continue
        labels = project.annotations.read(record.stem)
        n_tiles += sum(bool(labels[tile.window.slices].any()) for tile in project.tile_grid(record.stem))
        stems.append(record.stem)
        specimens.add(record.specimen)
    return LabelSurvey(n_tiles, tuple(stems), tuple(sorted(specimens)))
