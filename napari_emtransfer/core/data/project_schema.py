"""Tables of project.sqlite and the steps from one schema version to the next."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    inspect,
    select,
    text,
)

from napari_emtransfer.core.errors import ProjectError

METADATA = MetaData()

schema_version = Table("schema_version", METADATA, Column("version", Integer, primary_key=True))

settings = Table("settings", METADATA, Column("key", String, primary_key=True), Column("value", JSON))

label_classes = Table(
    "label_classes",
    METADATA,
    Column("value", Integer, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("color", String, nullable=False),
)

micrographs = Table(
    "micrographs",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("stem", String, nullable=False, unique=True),
    Column("path", String, nullable=False),  # relative to the project where near it, with forward slashes
    Column("checksum", String, nullable=False),
    Column("size_bytes", Integer),  # None: a folder, such as a zarr
    Column("frame", Integer),
    Column("height", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("pixel_size_nm", Float),
    Column("specimen", String, nullable=False),
    Column("domain", String, nullable=False),
    Column("info_bar", JSON),
    Column("synthetic", Boolean, nullable=False, server_default=text("0")),
)

tiles = Table(
    "tiles",
    METADATA,
    Column("stem", ForeignKey("micrographs.stem", ondelete="CASCADE"), primary_key=True),
    Column("grid", String, primary_key=True),  # "rows x columns": states of another grid say nothing about this one
    Column("row", Integer, primary_key=True),
    Column("column", Integer, primary_key=True),
    Column("state", String, nullable=False),
)

named_splits = Table(
    "named_splits",
    METADATA,
    Column("name", String, primary_key=True),
    Column("part", String, primary_key=True),
    Column("stem", ForeignKey("micrographs.stem", ondelete="CASCADE"), primary_key=True),
)

runs = Table(
    "runs",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("kind", String, nullable=False),
    Column("status", String, nullable=False),
    Column("created", String, nullable=False),  # ISO 8601, UTC
    Column("parent", String),
    Column("mean_iou", Float),
    Column("iterations", Integer, nullable=False, default=0),
    Column("seconds", Float, nullable=False, default=0.0),
    Column("device", String, nullable=False, default=""),
    Column("message", String, nullable=False, default=""),
    Column("host", String, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process_started", String, nullable=False),
)


# What a model says of each tile, and where it lies among the others. A row is of one `model` (weights and head) and
# one state of the `grid` of its micrograph; older ones are overwritten.
tile_scores = Table(
    "tile_scores",
    METADATA,
    Column("stem", ForeignKey("micrographs.stem", ondelete="CASCADE"), primary_key=True),
    Column("row", Integer, primary_key=True),
    Column("column", Integer, primary_key=True),
    Column("grid", String, nullable=False),
    Column("model", String, nullable=False),
    Column("entropy", Float),
    Column("margin", Float),
    Column("bald", Float),
    Column("novelty", Float),
    Column("shares", LargeBinary, nullable=False),  # float16 (K,): predicted area of each class
    Column("class_entropy", LargeBinary, nullable=False),  # float16 (K,): mean entropy where the class is predicted
    Column("embedding", LargeBinary, nullable=False),  # float16 (E,), of length 1
)

# Tiles that were proposed, in the order of proposing; a proposal is never deleted once somebody acted on it, which
# includes that its tile is on the screen: `seconds` is a number from then on. A number is never given out again, so
# that a window that still holds a proposal which a ranking has replaced cannot end another one.
queue = Table(
    "queue",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("query_round", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    Column("stem", ForeignKey("micrographs.stem", ondelete="CASCADE"), nullable=False),
    Column("grid", String, nullable=False),
    Column("row", Integer, nullable=False),
    Column("column", Integer, nullable=False),
    Column("score", Float),
    Column("reason", String, nullable=False),
    Column("class_name", String, nullable=False, server_default=""),
    Column("control", Boolean, nullable=False),
    Column("probability", Float),  # of being drawn when it was; None where nothing was drawn
    Column("acquisition", String, nullable=False),
    Column("model", String, nullable=False),
    Column("state", String, nullable=False),  # waiting, done, skipped, deferred
    Column("seconds", Float),
    Column("clicks", Integer),
    Column("queued", String, nullable=False),  # ISO 8601, UTC
    Column("ended", String),
    sqlite_autoincrement=True,
)

# What was known after each ranking: numbers for the learning curve and for the advice to stop.
query_rounds = Table(
    "query_rounds",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("created", String, nullable=False),
    Column("facts", JSON, nullable=False),
    Column("stop_set", LargeBinary),  # uint8 class indices predicted on the tiles that stability is judged by
)


def _first_tables(connection: Connection) -> None:
    METADATA.create_all(connection)


def _mark_synthetic(connection: Connection) -> None:
    present = {column["name"] for column in inspect(connection).get_columns(micrographs.name)}
    if "synthetic" not in present:  # a new database has it from the first step
        connection.execute(text("ALTER TABLE micrographs ADD COLUMN synthetic BOOLEAN NOT NULL DEFAULT 0"))


def _add_active_tables(connection: Connection) -> None:
    METADATA.create_all(connection, tables=[tile_scores, queue, query_rounds])


# Step i leads from version i to version i + 1; an empty file is version 0. Steps are only ever appended.
MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_first_tables, _mark_synthetic, _add_active_tables)


def read_version(connection: Connection) -> int:
    """Schema version of an open database; 0 where it is empty."""
    if not inspect(connection).has_table(schema_version.name):
        return 0
    return max(connection.execute(select(schema_version.c.version)).scalars(), default=0)


def check_version(version: int, name: str) -> None:
    """Refuse a database that is newer than this program.

    Raises
    ------
    ProjectError
        Naming both versions.
    """
    if version > len(MIGRATIONS):
        raise ProjectError(
            f"The project {name!r} was written by a newer version of napari-emtransfer "
            f"(schema {version}; this version knows up to {len(MIGRATIONS)}).",
            "Update napari-emtransfer: pip install -U napari-emtransfer.",
        )


def migrate(connection: Connection) -> None:
    """Bring the schema to the newest version, inside the caller's transaction."""
    for version in range(read_version(connection), len(MIGRATIONS)):
        MIGRATIONS[version](connection)
        connection.execute(schema_version.insert().values(version=version + 1))
