"""Files into the project: slow work, on whatever thread the view chooses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_emtransfer.core.data.import_dataset import Progress
from napari_emtransfer.core.data.micrograph import StackError
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.core.synth.sample import CLASSES, PIXEL_SIZE_NM, write_sample_dataset
from napari_emtransfer.session.state import AddReport, Failure


def add_files(project: Project, paths: Sequence[Path], progress: Progress | None = None, **stated: Any) -> AddReport:
    """Add every file that can be added; a bad one is reported and stops none of the others."""
    added: list[str] = []
    failures: list[Failure] = []
    notices: list[str] = []
    for done, path in enumerate(paths, start=1):
        try:
            record = project.add_micrograph(path, **stated)
            added.append(record.stem)
            notices += _remarks(project, record.stem)
        except EMTransferError as error:
            n_frames = error.n_frames if isinstance(error, StackError) else None
            failures.append(Failure(path, error.message, error.hint, n_frames))
        except OSError as error:
            failures.append(Failure(path, f"{path.name} cannot be read: {error.strerror or error}.", "Check the file."))
        if progress:
            progress(done, len(paths), path.name)
    return AddReport(tuple(added), tuple(failures), tuple(notices))


def make_sample_project(root: Path) -> Project:
    """A project of synthetic micrographs on three specimens, with classes but without labels: ready to be labelled.

    The micrographs lie in `root`/sample/images, their exact masks beside them in `root`/sample/masks.
    """
    project = Project.create(root, classes=tuple(CLASSES.values()), modality="sem", pixel_size_nm=PIXEL_SIZE_NM)
    folder = write_sample_dataset(project.root / "sample")
    specimens = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["groups"]
    for path in sorted((folder / "images").iterdir()):
        project.add_micrograph(path, specimen=specimens[path.stem])
    return project


def _remarks(project: Project, stem: str) -> list[str]:
    """What the reader noticed about a file and the notices about the project do not repeat."""
    problems = project.open_micrograph(stem).problems
    return [f"{stem}: {problem.message}" for problem in problems if problem.code not in ("no_pixel_size", "info_bar")]
