"""A run: one training (or other long computation), its configuration, its frozen labels, its events and its outcome."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import func, select

from napari_emtransfer.core.data import project_schema as tables
from napari_emtransfer.core.data.annotation import AnnotationStore
from napari_emtransfer.core.data.project_database import Database
from napari_emtransfer.core.data.project_process import host_name, is_alive, this_process
from napari_emtransfer.core.data.splits import Split
from napari_emtransfer.core.data.storage import storage_faults, write_text
from napari_emtransfer.core.errors import ProjectError
from napari_emtransfer.core.events import Event, from_line, to_line

RunStatus = Literal["starting", "running", "finished", "cancelled", "failed", "interrupted"]
CheckpointName = Literal["last", "best"]
_ACTIVE = ("starting", "running")
# A run on another machine cannot be asked whether it lives; its files tell after this long a silence.
_SILENT_SECONDS = 15 * 60


class RunRecord(BaseModel):
    """What the project knows of a run without opening its folder."""

    model_config = ConfigDict(frozen=True)
    id: str
    kind: str
    status: RunStatus
    created: datetime
    parent: str | None = None
    mean_iou: float | None = None
    iterations: int = 0
    seconds: float = 0.0
    device: str = ""
    message: str = ""


class Run:
    """One run and its folder `runs/<id>/`.

    The folder holds `config.json`, `labels.zarr` (the labels as they were at the start), `split.json`,
    `events.jsonl`, `last.safetensors`, `best.safetensors` and `result.json`; a run with folds has the checkpoints of
    each, and its result, in `fold-<k>/`.
    """

    def __init__(self, run_id: str, root: Path, database: Database, annotations: AnnotationStore) -> None:
        self.id = run_id
        self.root = root
        self._database = database
        self._annotations = annotations
        self.labels = AnnotationStore(root / "labels.zarr", read_only=database.read_only)

    @property
    def record(self) -> RunRecord:
        """The run's present state, fresh from the project."""
        return next(r for r in read_runs(self._database) if r.id == self.id)

    def update(
        self,
        status: RunStatus | None = None,
        *,
        mean_iou: float | None = None,
        iterations: int | None = None,
        seconds: float | None = None,
        device: str | None = None,
        message: str | None = None,
    ) -> None:
        """Change what is given. Whoever sets "starting" or "running" owns the run: its end interrupts it."""
        given = {
            "status": status,
            "mean_iou": mean_iou,
            "iterations": iterations,
            "seconds": seconds,
            "device": device,
            "message": message,
        }
        values: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        if status in _ACTIVE:
            values |= _this_process()
        if values:
            with self._database.writing() as connection:
                connection.execute(tables.runs.update().where(tables.runs.c.id == self.id).values(**values))

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that the run was created with."""
        return _read_json(self.root / "config.json")

    def snapshot_labels(self, stems: Sequence[str]) -> None:
        """Freeze the labels of these micrographs as they are now; `labels` reads them from then on."""
        for stem in stems:
            self._annotations.copy_to(self.labels, stem)

    def append_event(self, event: Event) -> None:
        """Add one line to `events.jsonl` and sync it."""
        path = self.root / "events.jsonl"
        with storage_faults(path), path.open("ab+") as file:
            # A kill may have left half a line: it must not swallow this one.
            torn = file.seek(0, os.SEEK_END) > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
            file.write(b"\n" * torn + to_line(event).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def events(self) -> list[Event]:
        """All events so far; a line torn by a kill is left out."""
        path = self.root / "events.jsonl"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        return [event for line in lines if (event := _parse(line)) is not None]

    def checkpoint_path(self, which: CheckpointName) -> Path:
        """Where the last or best checkpoint lies, or will lie."""
        return self.root / f"{which}.safetensors"

    def fold_folder(self, fold: int) -> Path:
        """Folder of the network of fold `fold`, counted from 0."""
        return self.root / f"fold-{fold}"

    def fold_folders(self) -> dict[int, Path]:
        """Folders of the folds that have been begun."""
        found = {int(p.name.removeprefix("fold-")): p for p in self.root.glob("fold-[0-9]*")}
        return dict(sorted(found.items()))

    def model_paths(self) -> list[Path]:
        """Checkpoints that together are the run's model: the best one, the last where there is no best yet.

        Of a run with folds those of the finished folds, of all that have begun until one is; of an untrained run none.
        """
        begun = [*self.fold_folders().values()] or [self.root]
        folders = [folder for folder in begun if (folder / "result.json").is_file()] or begun
        return [path for folder in folders if (path := _model_in(folder)) is not None]

    def starting_point(self) -> Path | None:
        """The best checkpoint, for another run to go on from; of a run with folds that of the fold that scored best."""
        folders = self.fold_folders()
        scores = {k: _score(folder) for k, folder in folders.items() if (folder / "best.safetensors").is_file()}
        folder = folders[max(scores, key=lambda k: scores[k])] if scores else self.root
        path = folder / "best.safetensors"
        return path if path.is_file() else None

    @property
    def has_checkpoint(self) -> bool:
        """Whether a model can be loaded from this run."""
        return bool(self.model_paths())

    @property
    def is_resumable(self) -> bool:
        """Whether a training can go on where it was interrupted: some of its work is banked."""
        return self.checkpoint_path("last").is_file() or any(
            (folder / "last.safetensors").is_file() for folder in self.fold_folders().values()
        )

    def write_split(self, split: Split) -> None:
        """Keep the split that the run uses."""
        write_text(self.root / "split.json", split.model_dump_json(indent=1))

    def split(self) -> Split:
        """The split that the run used; raises `ProjectError` where it never got that far."""
        return Split.model_validate(_read_json(self.root / "split.json"))

    def write_result(self, result: dict[str, Any]) -> None:
        """Keep the outcome (JSON-able)."""
        write_text(self.root / "result.json", json.dumps(result, indent=1))

    def result(self) -> dict[str, Any]:
        """The outcome; raises `ProjectError` where the run has none yet."""
        return _read_json(self.root / "result.json")


def _model_in(folder: Path) -> Path | None:
    paths = (folder / f"{which}.safetensors" for which in ("best", "last"))
    return next((path for path in paths if path.is_file()), None)


def _score(folder: Path) -> float:
    path = folder / "result.json"
    return (_read_json(path).get("mean_iou") or 0.0) if path.is_file() else 0.0


def create_run(database: Database, folder: Path, kind: str, config: dict[str, Any], parent: str | None) -> str:
    """Register a run and make its folder under `folder`; returns its id such as "0007-train"."""
    with database.writing() as connection:
        number = connection.execute(select(func.coalesce(func.max(tables.runs.c.number), 0))).scalar_one() + 1
        while (folder / (run_id := f"{number:04d}-{kind}")).exists():
            number += 1
        with storage_faults(folder / run_id):
            (folder / run_id).mkdir(parents=True)
        write_text(folder / run_id / "config.json", json.dumps(config, indent=1))
        connection.execute(
            tables.runs.insert().values(
                number=number,
                id=run_id,
                kind=kind,
                status="starting",
                created=datetime.now(UTC).isoformat(),
                parent=parent,
                **_this_process(),
            )
        )
    return run_id


def read_runs(database: Database) -> list[RunRecord]:
    """All runs, oldest first."""
    with database.reading() as connection:
        rows = connection.execute(select(tables.runs).order_by(tables.runs.c.number)).mappings().all()
    fields = RunRecord.model_fields
    return [RunRecord.model_validate({key: row[key] for key in fields}) for row in rows]


def mark_interrupted(database: Database, folder: Path) -> None:
    """Runs whose process is gone without a terminal event become "interrupted"."""
    query = select(tables.runs).where(tables.runs.c.status.in_(_ACTIVE))
    with database.reading() as connection:
        rows = connection.execute(query).mappings().all()
    gone = [(row["id"], row["pid"], row["process_started"]) for row in rows if not _is_at_work(dict(row), folder)]
    if not gone:
        return
    with database.writing() as connection:
        for run_id, pid, started in gone:
            same = (
                (tables.runs.c.id == run_id) & (tables.runs.c.pid == pid) & (tables.runs.c.process_started == started)
            )
            still = tables.runs.c.status.in_(_ACTIVE)  # it may have ended, or been taken over, meanwhile
            connection.execute(tables.runs.update().where(same & still).values(status="interrupted"))


def choose_run(ref: str, records: Sequence[RunRecord], with_model: Sequence[str]) -> str:
    """An id, a unique prefix of one, "latest" or "best" → the id.

    Parameters
    ----------
    with_model
        Ids of the runs that have a checkpoint: only these can be latest or best.

    Raises
    ------
    ProjectError
        When nothing, or more than one run, is meant.
    """
    if ref in ("latest", "best"):
        return _choose_model(ref, [r for r in records if r.id in with_model])
    matches = [r.id for r in records if r.id == ref] or [r.id for r in records if r.id.startswith(ref)]
    if len(matches) == 1:
        return matches[0]
    known = ", ".join(r.id for r in records[-5:]) or "none yet"
    if matches:
        raise ProjectError(
            f"The run {ref!r} is ambiguous: it could be {', '.join(matches[:5])}.", "Give more of its id."
        )
    raise ProjectError(f"There is no run {ref!r}.", f"Runs of this project: {known}; or use 'latest' or 'best'.")


def _choose_model(ref: str, records: Sequence[RunRecord]) -> str:
    if not records:
        raise ProjectError("This project has no trained model yet.", "Train one first: emtransfer train PROJECT.")
    rated = [r for r in records if r.mean_iou is not None]
    if ref == "best" and rated:
        return max(rated, key=lambda r: r.mean_iou or 0.0).id
    return records[-1].id


def _is_at_work(row: dict[str, Any], folder: Path) -> bool:
    if row["host"] == host_name():
        return is_alive(row["pid"], row["process_started"])
    files = [path.stat().st_mtime for path in (folder / row["id"]).glob("*")]
    return time.time() - max(files, default=0.0) < _SILENT_SECONDS


def _this_process() -> dict[str, Any]:
    pid, started = this_process()
    return {"host": host_name(), "pid": pid, "process_started": started}


def _parse(line: str) -> Event | None:
    try:
        return from_line(line)
    except ValidationError:
        return None


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ProjectError(f"The run {path.parent.name!r} has no {path.name}.", "It was stopped before it got there.")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
