"""Files into the project: slow work, on whatever thread the view chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.session.state import AddReport, Failure

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project import Project

DEFAULT_DOMAIN = "default"
Progress = Callable[[int, int], None]


def add_files(
    project: Project,
    paths: Sequence[Path],
    *,
    specimen: str | None = None,
    domain: str = DEFAULT_DOMAIN,
    pixel_size_nm: float | None = None,
    progress: Progress | None = None,
) -> AddReport:
    """Add every file that can be added; a bad one is reported and stops none of the others."""
    added: list[str] = []
    failures: list[Failure] = []
    for done, path in enumerate(paths, start=1):
        try:
            record = project.add_micrograph(path, specimen=specimen, domain=domain, pixel_size_nm=pixel_size_nm)
            added.append(record.stem)
        except EMTransferError as error:
            failures.append(Failure(path, error.message, error.hint))
        except OSError as error:
            failures.append(Failure(path, f"{path.name} cannot be read: {error.strerror or error}.", "Check the file."))
        if progress:
            progress(done, len(paths))
    return AddReport(tuple(added), tuple(failures))
