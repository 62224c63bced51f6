"""Naming the classes of a project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from napari_emtransfer.core.data.labels import LabelSchema
from napari_emtransfer.core.data.project_settings import checked_schema

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project import Project

PLACEHOLDER_CLASSES: Final = ("phase 1", "phase 2")
"""Of a new project, until somebody names its own."""


def has_classes_of_its_own(project: Project) -> bool:
    """Whether classes were named, or those of a new project have been painted with."""
    names = project.schema.names
    return bool(names) and (names != PLACEHOLDER_CLASSES or any(share > 0 for share in project.labelled().values()))


def renamed(schema: LabelSchema, names: Sequence[str], colors: Sequence[str] | None) -> LabelSchema:
    """Classes 1..K with these names; without colours a name keeps the one it has in `schema`, or takes the palette's.

    Raises
    ------
    LabelError
        When two names are the same or one is empty.
    """
    known = {c.name: c.color for c in schema.classes}
    fresh = checked_schema(names).classes
    chosen = colors or [known.get(c.name, c.color) for c in fresh]
    classes = tuple(c.model_copy(update={"color": color}) for c, color in zip(fresh, chosen, strict=True))
    return LabelSchema(classes=classes)
