"""Micrographs of the project: the table, and everything that adds, corrects or removes them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QGridLayout, QGroupBox, QHBoxLayout, QLabel, QLineEdit, QVBoxLayout

from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.gui import dialogs
from napari_emtransfer.gui.job_bar import JobBar
from napari_emtransfer.gui.micrograph_table import MicrographTable
from napari_emtransfer.gui.synthesize_action import SynthesizeAction
from napari_emtransfer.gui.thumbnails import thumbnail
from napari_emtransfer.gui.widgets import button

if TYPE_CHECKING:
    from napari_emtransfer.core.data.import_dataset import ImportReport
    from napari_emtransfer.gui.viewer_session import ViewerSession
    from napari_emtransfer.session.state import AddReport, Failure

LABELLED_MS = 1500
SHOWN_SKIPS = 3


class MicrographBox(QGroupBox):
    """Slow steps run off the GUI thread behind a bar with time left and Cancel."""

    def __init__(self, owner: ViewerSession) -> None:
        super().__init__("Micrographs")
        self._session, self._bridge = owner.session, owner.bridge
        self.table, self.job_bar = MicrographTable(), JobBar()
        self.synthesis = SynthesizeAction(owner)
        self._worker: Any = None
        self._stop = threading.Event()
        self._lay_out()
        self._connect()
        self._labelled_timer = QTimer(self)
        self._labelled_timer.setSingleShot(True)
        self._labelled_timer.setInterval(LABELLED_MS)
        self._labelled_timer.timeout.connect(self._measure_labelled)

    # ---- what the user asks

    def ask_files(self) -> None:
        """Ask for image files and add them."""
        self.add_files(dialogs.ask_image_files(self))

    def add_files(self, paths: Sequence[Path], frame: int | None = None) -> None:
        """Add files one after the other; a bad one is reported and stops none of the others.

        Of a stack the user is asked for one image, unless `frame` says which.
        """
        paths = list(paths)
        if not paths:
            return
        self.job_bar.begin(f"Adding {len(paths)} files …")
        done = 0
        stacks: list[Failure] = []

        def steps() -> Iterator[AddReport]:
            for path in paths:
                yield self._session.add_micrographs([path], frame=frame)

        def progress(report: AddReport) -> None:
            nonlocal done
            done += 1
            self.job_bar.step(done, len(paths))
            stacks.extend(failure for failure in report.failures if failure.n_frames)
            self._report(report)

        self._worker = self._bridge.run_steps(
            steps(), progress, done=lambda _: (self.job_bar.end(), self._ask_frames(stacks))
        )

    def ask_dataset(self) -> None:
        """Ask for a labelled folder and import it."""
        folder = dialogs.ask_folder(self, "Import a folder with images, masks and dataset.json")
        if folder is not None:
            self.import_dataset(folder)

    def import_dataset(self, folder: Path) -> None:
        """Import images and masks of a folder."""
        self._stop.clear()
        self.job_bar.begin(f"Importing {folder.name} …")

        def step(done: int, total: int, _name: str) -> None:
            if self._stop.is_set():
                raise EMTransferError("The import was stopped.", "What is imported stays; import again to go on.")
            self._bridge.hand_over(lambda: self.job_bar.step(done, total))

        self._bridge.run(
            lambda: self._session.import_dataset(folder, progress=step),
            done=lambda report: (self.job_bar.end(), self._imported(report)),
            failed=lambda message, hint: (self.job_bar.end(), self._fail(message, hint)),
        )

    def remove_selected(self) -> None:
        """Take the selected micrographs out of the project, after asking."""
        stems = self.table.selected_stems()
        if stems and dialogs.confirm_removal(self, stems):
            for stem in stems:
                self._bridge.attempt(lambda stem=stem: self._session.remove_micrograph(stem))

    def edit(self, stem: str, field: str, value: object) -> None:
        """Correct one field of a micrograph; what is refused stands in the table as it was."""
        if not self._bridge.attempt(lambda: self._session.update_micrograph(stem, **{field: value})):
            self.refresh()

    # ---- building

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        self.table.setMinimumHeight(190)
        layout.addWidget(self.table, 1)
        self.domain_edit = QLineEdit()
        self.domain_edit.setPlaceholderText("of the selected rows, then Enter")
        self.domain_edit.setToolTip(
            "Imaging condition (instrument, voltage) of the selected micrographs; a column shows it where they differ."
        )
        domain = QHBoxLayout()
        domain.addWidget(QLabel("Domain"))
        domain.addWidget(self.domain_edit, 1)
        layout.addLayout(domain)
        layout.addLayout(self._build_buttons())
        layout.addWidget(self.job_bar)
        layout.addWidget(self.synthesis)

    def _build_buttons(self) -> QGridLayout:
        self.add_button = button(
            "Add files …", "Adds image files to the project; the files stay where they are.", self.ask_files
        )
        self.import_button = button(
            "Import …",
            "Adds images and their masks from a folder with images/, masks/ and dataset.json; masks become labels.",
            self.ask_dataset,
        )
        self.remove_button = button(
            "Remove",
            "Takes the selected micrographs and their labels out of the project; the image files stay.",
            self.remove_selected,
        )
        grid = QGridLayout()
        for index, widget in enumerate(
            (self.add_button, self.import_button, self.synthesis.button, self.remove_button)
        ):
            grid.addWidget(widget, index // 2, index % 2)
        return grid

    def _connect(self) -> None:
        self.table.show_requested.connect(lambda stem: self._bridge.attempt(lambda: self._session.show(stem)))
        self.table.edited.connect(self.edit)
        self.domain_edit.returnPressed.connect(self._set_domain)
        self.job_bar.cancel_requested.connect(self._cancel)
        signals, connect = self._session.signals, self._bridge.connect
        connect(signals.project_changed, lambda: self.table.set_records(()))
        connect(signals.micrographs_changed, self.refresh)
        connect(signals.current_changed, self.table.set_current)
        connect(signals.annotation_saved, lambda _stem: self._labelled_timer.start())

    # ---- inside

    def refresh(self) -> None:
        """Show what the session knows; pictures and labelled parts follow."""
        self.table.set_records(self._session.records)
        self.table.set_current(self._session.current)
        self._make_thumbnails()
        self._labelled_timer.start(50)

    def _set_domain(self) -> None:
        for stem in self.table.selected_stems():
            self.edit(stem, "domain", self.domain_edit.text().strip())

    def _cancel(self) -> None:
        self._stop.set()
        if self._worker is not None:
            self._worker.quit()

    def _ask_frames(self, stacks: list[Failure]) -> None:
        for stack in stacks:
            frame = dialogs.ask_frame(self, stack.path.name, stack.n_frames or 1)
            if frame is not None:
                self.add_files([stack.path], frame)

    def _report(self, report: AddReport) -> None:
        for failure in report.failures:
            if not failure.n_frames:
                self._fail(failure.message, failure.hint)
        for notice in report.notices:
            self._session.signals.notice_posted.emit(notice, "")

    def _imported(self, report: ImportReport) -> None:
        for name, reason in report.skipped[:SHOWN_SKIPS]:
            self._session.signals.notice_posted.emit(f"{name} was left out: {reason}", "")
        left = len(report.skipped) - SHOWN_SKIPS
        if left > 0:
            self._session.signals.notice_posted.emit(f"{left} more were left out.", "")

    def _fail(self, message: str, hint: str = "") -> None:
        self._session.signals.failed.emit(message, hint)

    def _make_thumbnails(self) -> None:
        stems = self.table.stems_without_thumbnail()

        def steps() -> Iterator[tuple[str, NDArray[np.uint8]]]:
            for stem in stems:
                yield stem, thumbnail(self._session.open_micrograph(stem))

        if stems:
            self._bridge.run_steps(steps(), lambda found: self.table.set_thumbnail(*found), failed=lambda *_: None)

    def _measure_labelled(self) -> None:
        project = self._session.project
        if project is not None:
            self._bridge.run(project.labelled, self._show_labelled, failed=lambda *_: None)

    def _show_labelled(self, fractions: dict[str, float]) -> None:
        for record in self._session.records:
            self.table.set_labelled(record.stem, fractions.get(record.stem, 0.0))
