"""Naming the classes of a project."""

from __future__ import annotations

from collections.abc import Sequence

from napari_emtransfer.core.data.labels import LabelSchema
from napari_emtransfer.core.data.project_settings import checked_schema


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
