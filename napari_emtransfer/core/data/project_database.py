"""project.sqlite: how it is opened, shared among processes, and read where it cannot be written."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError
from sqlalchemy.pool import QueuePool

from napari_emtransfer.core.data.project_schema import MIGRATIONS, check_version, migrate, read_version
from napari_emtransfer.core.errors import ProjectError, StorageError

BUSY_SECONDS = 10.0


class Database:
    """A connection pool to one project.sqlite that any number of threads and processes may share.

    Parameters
    ----------
    path
        The file. A file that cannot be written (read-only folder, full disk) is opened for reading.
    create
        Make the file and its tables.

    Raises
    ------
    ProjectError
        When the file is no project database, damaged, or newer than this program.
    StorageError
        When a new file cannot be written.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        self.read_only = ""
        self._engine = _engine(path.as_uri() + f"?mode={'rwc' if create else 'rw'}")
        try:
            if not create and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
                raise StorageError(f"Cannot write {str(path)!r}: permission is denied or the disk is read-only.")
            _choose_journal(path)
            self._prepare()
        except StorageError as error:
            self._engine.dispose()
            if create:
                raise
            self._open_for_reading(error)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A short transaction that sees one state of the project."""
        with _plain_faults(self.path), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A short transaction that waits for other writers and is kept whole or not at all."""
        if self.read_only:
            raise StorageError(
                f"Cannot write {str(self.path)!r}: {self.read_only}.", "Copy the project and go on there."
            )
        with _plain_faults(self.path), self._engine.connect() as connection:
            # IMMEDIATE takes the write lock at the start: a reader that turned writer could not wait for others.
            connection.execution_options(begin="BEGIN IMMEDIATE")
            with connection.begin():
                yield connection

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _prepare(self) -> None:
        with self.reading() as connection:
            version = read_version(connection)
        check_version(version, self.path.parent.name)
        if version < len(MIGRATIONS):
            with self.writing() as connection:
                migrate(connection)

    def _open_for_reading(self, cause: StorageError) -> None:
        self.read_only = cause.message.partition(": ")[2].rstrip(".") or "the folder is read-only"
        self._engine = _engine(_readable_uri(self, self.path))
        with self.reading() as connection:
            version = read_version(connection)
        check_version(version, self.path.parent.name)
        if version < len(MIGRATIONS):
            raise ProjectError(
                f"The project {self.path.parent.name!r} is of an older version (schema {version}) and cannot be "
                f"brought up to date, because {self.read_only}.",
                "Copy the project folder to a disk that you may write to.",
            )


def _engine(uri: str) -> Engine:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool)
    # Python's sqlite3 would begin transactions on its own, late and without IMMEDIATE.
    event.listen(engine, "begin", _begin)
    return engine


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _choose_journal(path: Path) -> None:
    """Write-ahead log where the file system can (readers and a writer at once), else a plain rollback journal."""
    with _plain_faults(path), closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "full" in str(error):
                raise
            mode = ""
        if mode.lower() != "wal":
            connection.execute("PRAGMA journal_mode = DELETE")


def _readable_uri(owner: Database, path: Path) -> str:
    """URI that opens the file without writing beside it."""
    log = path.with_name(path.name + "-wal")
    if not log.is_file() or log.stat().st_size == 0:
        return path.as_uri() + "?mode=ro&immutable=1"
    # Transactions still in the log can be read only where SQLite may write next to the file.
    folder = Path(tempfile.mkdtemp(prefix="emtransfer-"))
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    for source in (path, log):
        shutil.copyfile(source, folder / source.name)
    return (folder / path.name).as_uri() + "?mode=rw"


@contextmanager
def _plain_faults(path: Path) -> Iterator[None]:
    try:
        yield
    except (OperationalError, sqlite3.OperationalError) as error:
        raise _storage_fault(path, str(getattr(error, "orig", error))) from error
    except IntegrityError:
        raise
    except (DatabaseError, sqlite3.DatabaseError) as error:
        reason = str(getattr(error, "orig", error))
        raise ProjectError(
            f"{str(path)!r} is no readable project database ({reason}).",
            "Restore it from a backup; the labels in annotations.zarr are not affected.",
        ) from error


_REASONS = (
    ("full", "the disk is full", "Free some space; everything saved before is still there."),
    ("readonly", "the folder is read-only", "Ask for write permission, or copy the project to your own disk."),
    ("unable to open", "the folder is gone or read-only", "Open the project at its present place, or copy it."),
    ("locked", "another program has been writing for too long", "Close the other program and try again."),
)


def _storage_fault(path: Path, reason: str) -> StorageError:
    for word, meaning, hint in _REASONS:
        if word in reason:
            return StorageError(f"Cannot write {str(path)!r}: {meaning}.", hint)
    return StorageError(f"Cannot write {str(path)!r}: {reason}.", "Check the disk and try again.")
