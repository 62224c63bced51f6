"""Settings and classes of a project in its database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select

from napari_emtransfer.core.data import project_schema as tables
from napari_emtransfer.core.data.labels import LabelClass, LabelSchema
from napari_emtransfer.core.data.project_database import Database
from napari_emtransfer.core.data.project_records import LoopSettings, ProjectSettings, TileState
from napari_emtransfer.core.errors import LabelError, ProjectError


def read_settings(database: Database) -> ProjectSettings:
    """Settings of the whole project."""
    with database.reading() as connection:
        rows = connection.execute(select(tables.settings)).all()
    return ProjectSettings.model_validate({row.key: row.value for row in rows})


def write_settings(database: Database, settings: ProjectSettings, names: Iterable[str]) -> None:
    """Replace the settings of these names; others may be written by another thread or program meanwhile."""
    with database.writing() as connection:
        for key, value in settings.model_dump(include=set(names)).items():
            connection.execute(tables.settings.insert().prefix_with("OR REPLACE").values(key=key, value=value))


def read_schema(database: Database) -> LabelSchema:
    """The label classes in the order of their values."""
    with database.reading() as connection:
        rows = connection.execute(select(tables.label_classes).order_by(tables.label_classes.c.value)).mappings().all()
    return LabelSchema(classes=tuple(LabelClass.model_validate(dict(row)) for row in rows))


def write_schema(database: Database, schema: LabelSchema) -> None:
    """Replace the label classes."""
    with database.writing() as connection:
        connection.execute(tables.label_classes.delete())
        if schema.classes:
            connection.execute(tables.label_classes.insert(), [c.model_dump() for c in schema.classes])


def read_tile_states(database: Database, stem: str, grid: str) -> dict[tuple[int, int], TileState]:
    """States of the cells (row, column) of one micrograph's grid."""
    here = (tables.tiles.c.stem == stem) & (tables.tiles.c.grid == grid)
    with database.reading() as connection:
        return {(t.row, t.column): t.state for t in connection.execute(select(tables.tiles).where(here))}


def write_tile_state(database: Database, stem: str, grid: str, row: int, column: int, state: TileState) -> None:
    """Remember the state of one cell."""
    values = {"stem": stem, "grid": grid, "row": row, "column": column, "state": state}
    with database.writing() as connection:
        connection.execute(tables.tiles.insert().prefix_with("OR REPLACE").values(**values))


def read_named_splits(database: Database) -> dict[str, dict[str, list[str]]]:
    """Split name → part → stems."""
    table = tables.named_splits
    splits: dict[str, dict[str, list[str]]] = {}
    with database.reading() as connection:
        for row in connection.execute(select(table).order_by(table.c.name, table.c.part, table.c.stem)):
            splits.setdefault(row.name, {}).setdefault(row.part, []).append(row.stem)
    return splits


def write_named_splits(database: Database, splits: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    """Add splits, or replace those of the same name."""
    rows = [
        {"name": name, "part": part, "stem": stem}
        for name, parts in splits.items()
        for part, stems in parts.items()
        for stem in dict.fromkeys(stems)
    ]
    with database.writing() as connection:
        connection.execute(tables.named_splits.delete().where(tables.named_splits.c.name.in_(list(splits))))
        if rows:
            connection.execute(tables.named_splits.insert(), rows)


def checked_settings(**values: Any) -> ProjectSettings:
    """Values → settings; raises `ProjectError` naming the impossible one."""
    try:
        return ProjectSettings(**values)
    except ValidationError as error:
        raise ProjectError(f"Impossible project setting: {first_fault(error)}.", "Correct it and try again.") from error


def checked_loop(before: LoopSettings, **changes: Any) -> LoopSettings:
    """Settings of the labelling loop with changes; raises `ProjectError` naming the impossible one."""
    try:
        return LoopSettings(**(before.model_dump() | changes))
    except ValidationError as error:
        raise ProjectError(f"Impossible setting: {first_fault(error)}.", "Correct it and try again.") from error


def checked_schema(names: Sequence[str]) -> LabelSchema:
    """Class names → schema; raises `LabelError` where two are the same or one is empty."""
    try:
        return LabelSchema.from_names(names)
    except ValidationError as error:
        raise LabelError(f"Impossible classes: {first_fault(error)}.", "Give each class a name of its own.") from error


def first_fault(error: ValidationError) -> str:
    """The first thing that a model found wrong, in one line."""
    fault = error.errors()[0]
    where = ".".join(map(str, fault["loc"]))
    return f"{where} = {fault['input']!r}: {fault['msg']}" if where else fault["msg"].removeprefix("Value error, ")
