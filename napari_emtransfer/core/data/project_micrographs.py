"""The project's table of micrographs: registering them, changing what is known, finding moved files again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, select

from napari_emtransfer.core.data import project_schema as tables
from napari_emtransfer.core.data.micrograph import Micrograph
from napari_emtransfer.core.data.project_database import Database
from napari_emtransfer.core.data.project_records import (
    MicrographRecord,
    file_size,
    find_moved,
    record_from_row,
    stored_path,
    unique_stem,
)
from napari_emtransfer.core.data.project_settings import first_fault
from napari_emtransfer.core.data.readers import checksum
from napari_emtransfer.core.errors import EMTransferError, ProjectError

_TABLE = tables.micrographs


class MicrographTable:
    """Records of the micrographs of the project in `root`."""

    def __init__(self, database: Database, root: Path) -> None:
        self._database = database
        self._root = root

    def all(self) -> list[MicrographRecord]:
        """Every record, in the order in which they were added."""
        with self._database.reading() as connection:
            return self._read(connection)

    def get(self, stem: str) -> MicrographRecord:
        """The record of `stem`; raises `ProjectError` where there is none."""
        with self._database.reading() as connection:
            row = connection.execute(select(_TABLE).where(_TABLE.c.stem == stem)).mappings().first()
        if row is None:
            known = ", ".join(r.stem for r in self.all()[:5]) or "none yet"
            raise ProjectError(
                f"The project {self._root.name!r} has no micrograph {stem!r}.",
                f"Micrographs are named by their file name without suffix; known: {known}.",
            )
        return record_from_row(dict(row), self._root)

    def find(self, digest: str, frame: int | None) -> MicrographRecord | None:
        """The record of a file with this checksum (and frame of a stack), under whatever name."""
        return next((r for r in self.all() if r.checksum == digest and r.frame == frame), None)

    def add(
        self,
        micrograph: Micrograph,
        *,
        specimen: str | None,
        domain: str,
        pixel_size_nm: float | None,
        frame: int | None,
        synthetic: bool,
        prepare: Callable[[str, tuple[int, int]], object],
    ) -> MicrographRecord:
        """Register a file under its stem, or "stem (2)" where another file has it; that is its specimen by default.

        `prepare` makes what belongs to its stem and shape (H, W) before anybody else can read the record.

        Raises
        ------
        ProjectError
            When the very same file is registered already.
        """
        if micrograph.path is None:
            raise ValueError("a micrograph without a file cannot be registered")
        digest = checksum(micrograph.path)
        with self._database.writing() as connection:
            present = self._read(connection)
            _refuse_twin(micrograph.path, digest, frame, present)
            wanted = micrograph.path.stem if frame is None else f"{micrograph.path.stem}_frame{frame}"
            stem = unique_stem(wanted, (other.stem for other in present))
            record = MicrographRecord(
                stem=stem,
                path=micrograph.path,
                checksum=digest,
                frame=frame,
                height=micrograph.shape[0],
                width=micrograph.shape[1],
                pixel_size_nm=pixel_size_nm or micrograph.pixel_size_nm,
                specimen=specimen or stem,
                domain=domain,
                info_bar=micrograph.info_bar,
                synthetic=synthetic,
            )
            connection.execute(_TABLE.insert().values(**self._row(record)))
            prepare(record.stem, record.shape)
        return record

    def update(self, stem: str, **changes: Any) -> MicrographRecord:
        """Change fields of a record; values are checked as those of `MicrographRecord`."""
        record = self.get(stem)
        changed = MicrographRecord.model_validate(record.model_dump() | changes)
        with self._database.writing() as connection:
            connection.execute(_TABLE.update().where(_TABLE.c.stem == stem).values(**self._row(changed)))
        return changed

    def change(self, stem: str, **changes: Any) -> MicrographRecord:
        """As `update`, for what a user may change: specimen, domain, pixel_size_nm and info_bar.

        Raises
        ------
        ProjectError
            For any other field, or an impossible value.
        """
        fixed = set(changes) - {"specimen", "domain", "pixel_size_nm", "info_bar"}
        if fixed:
            raise ProjectError(f"{', '.join(sorted(fixed))} of a micrograph cannot be changed.", "Add it anew instead.")
        try:
            return self.update(stem, **changes)
        except ValidationError as error:
            raise ProjectError(f"{stem!r}: {first_fault(error)}.", "Give names, and sizes above 0 nm.") from error

    def remove(self, stem: str) -> None:
        """Forget a micrograph, its tiles and its places in splits; its file stays."""
        self.get(stem)
        with self._database.writing() as connection:
            connection.execute(_TABLE.delete().where(_TABLE.c.stem == stem))

    def locate(self, stem: str) -> Path:
        """Where the file of `stem` lies now; a moved one is looked for and recognised by its checksum.

        Raises
        ------
        ProjectError
            Naming the old place, when it cannot be found.
        """
        record = self.get(stem)
        if record.path.exists():
            return record.path
        with self._database.reading() as connection:
            size = connection.execute(select(_TABLE.c.size_bytes).where(_TABLE.c.stem == stem)).scalar_one()
        for path in find_moved(record, size, self._likely_folders(record)):
            if _is_same(path, record.checksum):
                if not self._database.read_only:
                    self.update(stem, path=path)
                return path
        raise ProjectError(
            f"The file of the micrograph {stem!r} is no longer at {str(record.path)!r}.",
            "Put it back, move it beside the project, or point to it with 'Locate file…' in the Project tab.",
        )

    def relocate(self, stem: str, path: Path) -> MicrographRecord:
        """Point to the new place of a file.

        Raises
        ------
        ProjectError
            When the file there is another one.
        """
        record = self.get(stem)
        if not path.exists():
            raise ProjectError(f"There is no file {str(path)!r}.", f"Choose the file that was {str(record.path)!r}.")
        if checksum(path) != record.checksum:
            raise ProjectError(
                f"{str(path)!r} is not the file that {stem!r} was labelled on: its content differs.",
                "Choose the unchanged original, or add this file as a new micrograph.",
            )
        return self.update(stem, path=path.resolve())

    def _likely_folders(self, record: MicrographRecord) -> Iterator[Path]:
        yield self._root
        yield record.path.parent
        # What was moved together is found together: where do the old neighbours lie now?
        for other in self.all():
            if other.stem != record.stem and other.path.exists():
                yield other.path.parent
        yield self._root.parent

    def _read(self, connection: Connection) -> list[MicrographRecord]:
        rows = connection.execute(select(_TABLE).order_by(_TABLE.c.number)).mappings().all()
        return [record_from_row(dict(row), self._root) for row in rows]

    def _row(self, record: MicrographRecord) -> dict[str, Any]:
        values = record.model_dump(exclude={"path"})
        size = file_size(record.path) if record.path.exists() else None
        return values | {"path": stored_path(record.path, self._root)} | ({"size_bytes": size} if size else {})


def _refuse_twin(path: Path, digest: str, frame: int | None, present: list[MicrographRecord]) -> None:
    for other in present:
        if (other.checksum, other.frame) == (digest, frame):
            raise ProjectError(
                f"The file {str(path)!r} is in the project already, as {other.stem!r}.",
                "A micrograph can be added once; a copy of it could end up in training and in validation.",
            )


def _is_same(path: Path, digest: str) -> bool:
    try:
        return checksum(path) == digest
    except (OSError, EMTransferError):
        return False
