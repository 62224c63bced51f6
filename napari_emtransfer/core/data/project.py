"""The project folder: micrographs, classes, labels, tile states, splits and runs of one piece of work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.data import project_settings as store
from napari_emtransfer.core.data.active_store import ActiveStore
from napari_emtransfer.core.data.annotation import AnnotationStore
from napari_emtransfer.core.data.intensity import Standardization
from napari_emtransfer.core.data.labels import LabelClass, LabelSchema
from napari_emtransfer.core.data.micrograph import Micrograph
from napari_emtransfer.core.data.prediction_store import PredictionStore
from napari_emtransfer.core.data.project_database import Database
from napari_emtransfer.core.data.project_micrographs import MicrographTable
from napari_emtransfer.core.data.project_records import (
    MicrographRecord,
    ProjectSettings,
    TileState,
    grid_of,
    refuse_occupied,
    scale_of,
)
from napari_emtransfer.core.data.readers import checksum, read_micrograph
from napari_emtransfer.core.data.resample import WorkingView
from napari_emtransfer.core.data.run import Run, RunRecord, choose_run, create_run, mark_interrupted, read_runs
from napari_emtransfer.core.data.storage import storage_faults
from napari_emtransfer.core.data.tiles import TileGrid
from napari_emtransfer.core.errors import LabelError, ProjectError

DATABASE_NAME = "project.sqlite"


class Project:
    """An open project. Window, worker and command line may have one project open at the same time.

    Made by `create` or `open`; a context manager that closes itself. Where the folder cannot be written, reading
    works, `read_only` says why, and whatever writes raises `StorageError`.
    """

    def __init__(self, root: Path, database: Database) -> None:
        self.root = root
        self._database = database
        self._table = MicrographTable(database, root)
        self.annotations = AnnotationStore(root / "annotations.zarr", read_only=database.read_only)
        self.predictions = PredictionStore(root / "predictions.zarr", read_only=database.read_only)
        self.active = ActiveStore(database, lambda: {stem: grid.key for stem, grid in self.tile_grids().items()})

    @classmethod
    def create(
        cls,
        root: Path | str,
        *,
        classes: Sequence[str] = (),
        modality: str = "sem",
        pixel_size_nm: float | None = None,
        tile_size_px: int = 256,
    ) -> Self:
        """Make a project in a new or empty folder.

        Raises
        ------
        ProjectError
            When the folder holds something already, or a setting is impossible.
        StorageError
            When it cannot be written.
        """
        root = Path(root).expanduser().resolve()
        settings = store.checked_settings(
            name=root.name, modality=modality, working_pixel_size_nm=pixel_size_nm, tile_size_px=tile_size_px
        )
        schema = store.checked_schema(classes)
        refuse_occupied(root, DATABASE_NAME)
        with storage_faults(root):
            root.mkdir(parents=True, exist_ok=True)
        project = cls(root, Database(root / DATABASE_NAME, create=True))
        project.update_settings(**settings.model_dump())
        project.set_schema(schema)
        return project

    @classmethod
    def open(cls, root: Path | str) -> Self:
        """Open a project; runs whose process is gone become "interrupted".

        Raises
        ------
        ProjectError
            When the folder is missing, no project, damaged, or from a newer version.
        """
        root = Path(root).expanduser().resolve()
        if not (root / DATABASE_NAME).is_file():
            what = "is no project: it has no project.sqlite" if root.is_dir() else "does not exist"
            raise ProjectError(
                f"The folder {str(root)!r} {what}.", f"Make a project with: emtransfer init {root.name}."
            )
        database = Database(root / DATABASE_NAME)
        if not database.read_only:
            mark_interrupted(database, root / "runs")
        return cls(root, database)

    def close(self) -> None:
        """Close the database; the object is of no use afterwards."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def read_only(self) -> str:
        """Why the project cannot be written; "" where it can."""
        return self._database.read_only

    @property
    def settings(self) -> ProjectSettings:
        """Settings of the whole project."""
        return store.read_settings(self._database)

    def update_settings(self, **changes: Any) -> ProjectSettings:
        """Change settings by name; returns all of them."""
        changed = store.checked_settings(**(self.settings.model_dump() | changes))
        store.write_settings(self._database, changed, changes)
        return changed

    @property
    def schema(self) -> LabelSchema:
        """The label classes."""
        return store.read_schema(self._database)

    def set_schema(self, schema: LabelSchema) -> None:
        """Replace the label classes; painted labels keep their values.

        Raises
        ------
        LabelError
            When that would leave painted pixels without a class, or give them the name of another class.
        """
        for old in self.schema.classes:
            moved = any(c.name == old.name and c.value != old.value for c in schema.classes)
            if old.value > len(schema) or moved:
                self._refuse_painted(old)
        store.write_schema(self._database, schema)

    def _refuse_painted(self, old: LabelClass) -> None:
        painted = [r.stem for r in self.micrographs() if self._counts_of(r.stem, 255)[old.value]]
        if painted:
            raise LabelError(
                f"The class {old.name!r} is painted in {', '.join(painted[:5])} and cannot be removed or moved.",
                "Erase or repaint its labels first, rename it, or add new classes at the end.",
            )

    # --- micrographs

    def add_micrograph(
        self,
        path: Path | str,
        *,
        specimen: str | None = None,
        domain: str = "default",
        pixel_size_nm: float | None = None,
        frame: int | None = None,
    ) -> MicrographRecord:
        """Register a file; its pixels stay where they are.

        Raises
        ------
        UnreadableFileError, NotAMicrographError
            When the file is no micrograph.
        ProjectError
            When the same file is registered already.
        """
        micrograph = read_micrograph(Path(path).expanduser().resolve(), frame=frame)
        return self.register(micrograph, specimen=specimen, domain=domain, pixel_size_nm=pixel_size_nm, frame=frame)

    def register(
        self,
        micrograph: Micrograph,
        *,
        specimen: str | None = None,
        domain: str = "default",
        pixel_size_nm: float | None = None,
        frame: int | None = None,
        synthetic: bool = False,
    ) -> MicrographRecord:
        """As `add_micrograph`, for a file that has been read already; `synthetic` says that it was not measured."""
        known: dict[str, Any] = {"specimen": specimen, "domain": domain, "pixel_size_nm": pixel_size_nm, "frame": frame}
        return self._table.add(micrograph, **known, synthetic=synthetic, prepare=self.annotations.create)

    def micrographs(self) -> list[MicrographRecord]:
        """Every micrograph, in the order in which they were added."""
        return self._table.all()

    def record(self, stem: str) -> MicrographRecord:
        """What is known of one micrograph; raises `ProjectError` for an unknown stem."""
        return self._table.get(stem)

    def find_micrograph(self, path: Path | str, frame: int | None = None) -> MicrographRecord | None:
        """The record of this very file (by checksum), if it is in the project."""
        return self._table.find(checksum(Path(path)), frame)

    def update_micrograph(self, stem: str, **changes: Any) -> MicrographRecord:
        """Change specimen, domain, pixel_size_nm or info_bar of a micrograph."""
        return self._table.change(stem, **changes)

    def remove_micrograph(self, stem: str) -> None:
        """Forget a micrograph and delete its labels and predictions; the image file stays."""
        self._table.remove(stem)
        self.annotations.remove(stem)
        self.predictions.forget(stem)

    def open_micrograph(self, stem: str) -> Micrograph:
        """Open the pixels of a micrograph; a moved file is found again by its checksum."""
        return read_micrograph(self._table.locate(stem), frame=self.record(stem).frame)

    def relocate(self, stem: str, path: Path | str) -> MicrographRecord:
        """Point to the new place of a moved file, which must be unchanged."""
        return self._table.relocate(stem, Path(path).expanduser())

    def scale(self, stem: str) -> float:
        """Pixel size of a micrograph over the working pixel size: below 1 it is shrunk for the network."""
        return scale_of(self.record(stem), self.settings)

    def working_view(self, stem: str, standardization: Standardization | None = None) -> WorkingView:
        """A micrograph at working pixel size and standardised intensity."""
        micrograph = self.open_micrograph(stem)
        intensity = (standardization or Standardization()).fit(micrograph)
        return WorkingView(micrograph, scale=self.scale(stem), intensity=intensity)

    # --- labels and tiles

    def class_counts(self, stem: str) -> NDArray[np.int64]:
        """Pixels per label value (K + 1,), unlabelled first."""
        return self._counts_of(stem, len(self.schema))

    def labelled(self) -> dict[str, float]:
        """Labelled share, 0..1, of every micrograph."""
        return {r.stem: self.annotations.labelled_fraction(r.stem) for r in self.micrographs()}

    def _counts_of(self, stem: str, n_classes: int) -> NDArray[np.int64]:
        return self.annotations.class_counts(stem, n_classes)

    def tile_grid(self, stem: str) -> TileGrid:
        """The grid of a micrograph in native pixels; a cell measures about `tile_size_px` working pixels."""
        return grid_of(self.record(stem), self.settings)

    def tile_grids(self) -> dict[str, TileGrid]:
        """The grid of every micrograph, by stem."""
        settings = self.settings
        return {record.stem: grid_of(record, settings) for record in self.micrographs()}

    def tile_states(self, stem: str) -> dict[tuple[int, int], TileState]:
        """State of each cell (row, column) that has one; all others are "unlabelled"."""
        return store.read_tile_states(self._database, stem, self.tile_grid(stem).key)

    def set_tile_state(self, stem: str, row: int, col: int, state: TileState) -> None:
        """Remember the state of one cell."""
        store.write_tile_state(self._database, stem, self.tile_grid(stem).key, row, col, state)

    # --- splits and runs

    def named_splits(self) -> dict[str, dict[str, list[str]]]:
        """Splits that came with data sets: split name → part → stems."""
        return store.read_named_splits(self._database)

    def set_named_splits(self, splits: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Add or replace splits by name; stems must be micrographs of the project."""
        known = {r.stem for r in self.micrographs()}
        for stem in (stem for parts in splits.values() for stems in parts.values() for stem in stems):
            if stem not in known:
                self.record(stem)  # raises, naming it
        store.write_named_splits(self._database, splits)

    def create_run(self, kind: str, config: dict[str, Any], *, parent: str | None = None) -> Run:
        """Register a run with status "starting", owned by this process until another takes it over."""
        return self._run(create_run(self._database, self.root / "runs", kind, config, parent))

    def runs(self) -> list[RunRecord]:
        """All runs, oldest first."""
        return read_runs(self._database)

    def run(self, ref: str) -> Run:
        """A run by id, unique prefix, "latest" or "best" (of those that have a checkpoint)."""
        records = self.runs()
        with_model = [r.id for r in records if self._run(r.id).has_checkpoint]
        return self._run(choose_run(ref, records, with_model))

    def _run(self, run_id: str) -> Run:
        return Run(run_id, self.root / "runs" / run_id, self._database, self.annotations)
