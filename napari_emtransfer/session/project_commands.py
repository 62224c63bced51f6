"""Commands that open a project, close it, and name its classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from napari_emtransfer.core.data.project import Project
from napari_emtransfer.session.classes import renamed
from napari_emtransfer.session.context import Context, require_saved
from napari_emtransfer.session.importing import make_sample_project
from napari_emtransfer.session.labelling import LabellingController
from napari_emtransfer.session.live import LiveController
from napari_emtransfer.session.measuring import MeasuringController
from napari_emtransfer.session.queue import QueueController


class ProjectCommands(ABC):
    """The part of a session that decides which project is open."""

    _context: Context
    labelling: LabellingController
    live: LiveController
    measuring: MeasuringController
    queue: QueueController

    def create_project(self, root: Path | str, classes: Sequence[str] = (), **settings: Any) -> None:
        """Create a project folder and open it; settings as in `Project.create`."""
        self._open(lambda: Project.create(Path(root), classes=classes, **settings))

    def open_project(self, root: Path | str) -> None:
        """Open a project folder; the one that was open is closed first, but only if the new one opens."""
        self._open(lambda: Project.open(Path(root)))

    def create_sample_project(self, root: Path | str) -> None:
        """Make a project of synthetic micrographs, ready to be labelled, and open it."""
        self._open(lambda: make_sample_project(Path(root)))

    def close_project(self) -> None:
        """Save the strokes, bank a running training, and let go of the project.

        Raises
        ------
        StorageError
            When strokes cannot be saved; the project stays open then, with the strokes in memory.
        """
        require_saved(self.labelling.save_now(), "the project stays open")
        self._let_go()

    def set_classes(self, names: Sequence[str], colors: Sequence[str] | None = None) -> None:
        """Name the classes 1..K, in order; colours as #RRGGBB, by default those the classes have or the palette's."""
        project = self._context.require_project()
        self.labelling.save_now()  # a class that is painted is not to be taken away
        project.set_schema(renamed(project.schema, names, colors))
        self._context.signals.schema_changed.emit()
        self.live.labels_changed()
        self.measuring.refresh()
        self.queue.outdated()

    @abstractmethod
    def _open(self, make: Callable[[], Project]) -> None:
        """Open what `make` answers, in place of what is open."""

    @abstractmethod
    def _let_go(self) -> None:
        """Close what is open."""
