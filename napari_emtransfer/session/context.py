"""What the controllers of one session share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_emtransfer.core.errors import ProjectError, StorageError
from napari_emtransfer.session.messages import Inbox
from napari_emtransfer.session.signals import SessionSignals

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project import Project
    from napari_emtransfer.core.data.project_records import MicrographRecord


@dataclass
class Context:
    """The open project and the way out of every controller: signals to the views, an inbox from the threads.

    `records` are the project's micrographs as last read, so that views need not ask the database at every repaint.
    """

    signals: SessionSignals = field(default_factory=SessionSignals)
    inbox: Inbox = field(default_factory=Inbox)
    project: Project | None = None
    records: tuple[MicrographRecord, ...] = ()

    def require_project(self) -> Project:
        """The open project; raises `ProjectError` when there is none."""
        if self.project is None:
            raise ProjectError("No project is open.", "Open a project, or create one, in the Project tab.")
        return self.project

    def refresh_records(self) -> None:
        """Read the list of micrographs again."""
        self.records = tuple(self.project.micrographs()) if self.project else ()


def require_saved(saved: bool, consequence: str) -> None:
    """Refuse to go on without the last strokes on disk; `consequence` says what does not happen.

    Raises
    ------
    StorageError
        Unless `saved`.
    """
    if not saved:
        raise StorageError(
            f"The last strokes could not be saved, so {consequence}.",
            "Free some disk space, or check that the project folder may be written to, then try again.",
        )
