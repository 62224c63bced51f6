"""Commands about the micrographs of the open project."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_emtransfer.core.data.import_dataset import ImportReport, Progress, import_dataset
from napari_emtransfer.core.data.micrograph import Micrograph
from napari_emtransfer.session.context import Context
from napari_emtransfer.session.importing import add_files
from napari_emtransfer.session.labelling import LabellingController
from napari_emtransfer.session.messages import MicrographsChanged
from napari_emtransfer.session.queue import QueueController
from napari_emtransfer.session.state import AddReport


class MicrographCommands:
    """The part of a session that adds, opens, corrects and removes micrographs."""

    _context: Context
    labelling: LabellingController
    queue: QueueController

    def add_micrographs(
        self,
        paths: Sequence[Path | str],
        *,
        progress: Progress | None = None,
        **stated: Any,
    ) -> AddReport:
        """Add files to the project, on any thread; `progress(done, total, name)` is called there too.

        `stated` holds for all of them: specimen, domain, pixel_size_nm, frame, as of `Project.add_micrograph`.
        """
        report = add_files(self._context.require_project(), [Path(path) for path in paths], progress, **stated)
        self._context.inbox.put(MicrographsChanged(report.added))
        return report

    def import_dataset(self, folder: Path | str, *, progress: Progress | None = None) -> ImportReport:
        """Import images, masks and classes of a labelled folder, on any thread; `progress` is called there too."""
        self.labelling.save_now()  # what is painted is kept: the import leaves it alone
        report = import_dataset(self._context.require_project(), Path(folder), progress=progress)
        self._context.inbox.put(MicrographsChanged(report.labelled, labels=True))
        return report

    def open_micrograph(self, stem: str) -> Micrograph:
        """The micrograph itself, for showing it; a moved file is found again where possible."""
        return self._context.require_project().open_micrograph(stem)

    def update_micrograph(self, stem: str, **changes: Any) -> None:
        """Correct specimen, domain or pixel size of a micrograph."""
        self._context.require_project().update_micrograph(stem, **changes)
        self._micrographs_changed()

    def remove_micrograph(self, stem: str) -> None:
        """Take a micrograph and its labels out of the project; the image file stays."""
        self.labelling.forget(stem)
        self._context.require_project().remove_micrograph(stem)
        self._micrographs_changed()

    def relocate(self, stem: str, path: Path | str) -> None:
        """Say where a moved file is now."""
        self._context.require_project().relocate(stem, Path(path))
        self._micrographs_changed()

    def _micrographs_changed(self, relabelled: tuple[str, ...] = (), *, classes: bool = False) -> None:
        self._context.refresh_records()
        if classes:
            self._context.signals.schema_changed.emit()
        self.labelling.micrographs_changed(relabelled)
        self._context.signals.micrographs_changed.emit()
        self.queue.outdated()
