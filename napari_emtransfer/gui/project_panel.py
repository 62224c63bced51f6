"""The Project tab: open or create, micrographs, classes, and what should be mended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QGroupBox, QHBoxLayout, QLabel, QLineEdit, QProgressBar, QVBoxLayout, QWidget

from napari_emtransfer.gui import dialogs
from napari_emtransfer.gui.class_table import ClassTable
from napari_emtransfer.gui.micrograph_table import MicrographTable
from napari_emtransfer.gui.notice_list import NoticeList
from napari_emtransfer.gui.recent import recent_projects, remember_project
from napari_emtransfer.gui.sample import ensure_sample_project
from napari_emtransfer.gui.start_box import StartBox
from napari_emtransfer.gui.stopwatch import Stopwatch
from napari_emtransfer.gui.thumbnails import thumbnail
from napari_emtransfer.gui.widgets import button

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_emtransfer.gui.viewer_session import ViewerSession
    from napari_emtransfer.session.state import AddReport

FIRST_CLASSES = ("phase 1", "phase 2")


class ProjectPanel(QWidget):
    """Everything about the project as a whole. Slow steps run off the GUI thread behind a progress bar with Cancel."""

    def __init__(self, owner: ViewerSession, viewer: ViewerModel) -> None:
        super().__init__()
        self._owner, self._session, self._bridge, self._viewer = owner, owner.session, owner.bridge, viewer
        self.setAcceptDrops(True)
        self.start_box = StartBox()
        self.table = MicrographTable()
        self.classes = ClassTable()
        self.notices = NoticeList()
        self.progress, self.cancel_button = (
            QProgressBar(),
            button("Cancel", "Stop after the file in work; what is added stays."),
        )
        self._job = None
        self._lay_out()
        self._connect_widgets()
        self._connect_session()
        self._labelled_timer = QTimer(self)
        self._labelled_timer.setSingleShot(True)
        self._labelled_timer.setInterval(1500)
        self._labelled_timer.timeout.connect(self._measure_labelled)
        self._on_project()

    # ---- building

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 6, 4, 4)
        layout.addWidget(self.start_box)
        layout.addWidget(self.notices)
        self.micrograph_box = QGroupBox("Micrographs")
        inside = QVBoxLayout(self.micrograph_box)
        self.table.setMinimumHeight(190)
        inside.addWidget(self.table, 1)
        inside.addLayout(self._build_domain_row())
        row = QHBoxLayout()
        self.add_button = button(
            "Add files …", "Adds image files to the project; the files stay where they are.", self.ask_files
        )
        self.import_button = button(
            "Import labelled …",
            "Adds images and their masks from a folder with images/, masks/ and dataset.json; masks become labels.",
            self.ask_dataset,
        )
        self.remove_button = button(
            "Remove",
            "Takes the selected micrographs and their labels out of the project; the image files stay.",
            self.remove_selected,
        )
        for widget in (self.add_button, self.import_button, self.remove_button):
            row.addWidget(widget)
        inside.addLayout(row)
        bar = QHBoxLayout()
        bar.addWidget(self.progress, 1)
        bar.addWidget(self.cancel_button)
        inside.addLayout(bar)
        layout.addWidget(self.micrograph_box, 1)
        self.class_box = QGroupBox("Classes")
        QVBoxLayout(self.class_box).addWidget(self.classes)
        layout.addWidget(self.class_box)
        self.close_button = button(
            "Close project", "Saves the strokes, banks a running fine-tune, and lets go of the project."
        )
        layout.addWidget(self.close_button)
        self._set_progress(None)

    def _build_domain_row(self) -> QHBoxLayout:
        self.domain_edit = QLineEdit()
        self.domain_edit.setPlaceholderText("of the selected rows, then Enter")
        self.domain_edit.setToolTip(
            "Imaging condition (instrument, voltage) of the selected micrographs; a column shows it where they differ."
        )
        self.domain_edit.returnPressed.connect(self._set_domain)
        row = QHBoxLayout()
        row.addWidget(QLabel("Domain"))
        row.addWidget(self.domain_edit, 1)
        return row

    def _set_domain(self) -> None:
        for stem in self.table.selected_stems():
            self._edit_micrograph(stem, "domain", self.domain_edit.text().strip())

    def _connect_widgets(self) -> None:
        box = self.start_box
        box.sample_requested.connect(self.open_sample)
        box.from_images_requested.connect(self.new_from_images)
        box.new_requested.connect(self.new_project)
        box.open_requested.connect(self.ask_open)
        box.recent_requested.connect(self.open_project)
        self.table.show_requested.connect(lambda stem: self._bridge.attempt(lambda: self._session.show(stem)))
        self.table.edited.connect(self._edit_micrograph)
        self.classes.added.connect(lambda name: self._set_classes([*self._names(), name]))
        self.classes.renamed.connect(self._rename_class)
        self.classes.recolored.connect(self._recolor_class)
        self.classes.removed.connect(self._remove_class)
        self.notices.mend_requested.connect(self._mend)
        self.cancel_button.clicked.connect(lambda _checked=False: self._job and self._job.quit())
        self.close_button.clicked.connect(lambda _checked=False: self._bridge.attempt(self._session.close_project))
        for event in (self._viewer.layers.events.inserted, self._viewer.layers.events.removed):
            event.connect(self._on_layers)

    def _connect_session(self) -> None:
        signals, connect = self._session.signals, self._bridge.connect
        connect(signals.project_changed, self._on_project)
        connect(signals.micrographs_changed, self._on_micrographs)
        connect(signals.schema_changed, self._on_schema)
        connect(signals.current_changed, self.table.set_current)
        connect(signals.annotation_saved, lambda _stem: self._labelled_timer.start())

    # ---- project

    def open_sample(self) -> None:
        """Make the sample project, or open the one made earlier, and show its first micrograph."""
        self._set_progress("Making the sample project …")
        self._bridge.run(
            ensure_sample_project,
            done=self._sample_made,
            failed=lambda *words: (self._set_progress(None), self._fail(*words)),
        )

    def new_project(self) -> None:
        """Ask for a folder and make an empty project in it."""
        root = dialogs.ask_new_folder(self)
        if root is not None:
            self._create(root)

    def new_from_images(self) -> None:
        """Ask for a folder, make a project in it, and add the images that are open in the viewer."""
        paths = self.open_image_paths()
        root = dialogs.ask_new_folder(self)
        if root is None or not self._create(root):
            return
        for layer in self._viewer.layers:
            if layer.source.path in {str(path) for path in paths}:
                layer.visible = False  # the project shows its own copy
        self.add_files(paths)

    def ask_open(self) -> None:
        """Ask for a project folder and open it."""
        root = dialogs.ask_folder(self, "Open a project folder")
        if root is not None:
            self.open_project(root)

    def open_project(self, root: Path) -> None:
        """Open a project folder and show its first micrograph."""
        if self._bridge.attempt(lambda: self._session.open_project(root)):
            self._show_first()

    def open_image_paths(self) -> list[Path]:
        """Files of the image layers that are open in the viewer."""
        paths = [
            Path(layer.source.path)
            for layer in self._viewer.layers
            if layer.source.path and layer._type_string == "image"
        ]
        return list(dict.fromkeys(paths))

    # ---- micrographs

    def ask_files(self) -> None:
        """Ask for image files and add them."""
        self.add_files(dialogs.ask_image_files(self))

    def add_files(self, paths: Sequence[Path]) -> None:
        """Add files one after the other off the GUI thread; a bad one is reported and stops none of the others."""
        paths = list(paths)
        if not paths:
            return
        watch = Stopwatch(len(paths))
        self._set_progress(f"Adding {len(paths)} files …", len(paths))

        def steps() -> Iterator[AddReport]:
            for path in paths:
                yield self._session.add_micrographs([path])

        def progress(report: AddReport) -> None:
            self.progress.setValue(self.progress.value() + 1)
            self.progress.setFormat(watch.step())
            for failure in report.failures:
                self._fail(failure.message, failure.hint)
            for notice in report.notices:
                self._session.signals.notice_posted.emit(notice, "")

        self._job = self._bridge.run_steps(steps(), progress, done=lambda _: self._set_progress(None))

    def ask_dataset(self) -> None:
        """Ask for a labelled folder and import it."""
        folder = dialogs.ask_folder(self, "Import a folder with images, masks and dataset.json")
        if folder is not None:
            self.import_dataset(folder)

    def import_dataset(self, folder: Path) -> None:
        """Import images and masks of a folder off the GUI thread."""
        self._set_progress("Importing …")
        self._bridge.run(
            lambda: self._session.import_dataset(folder),
            done=lambda report: (self._set_progress(None), self._imported(report)),
            failed=lambda *words: (self._set_progress(None), self._fail(*words)),
        )

    def remove_selected(self) -> None:
        """Take the selected micrographs out of the project, after asking."""
        stems = self.table.selected_stems()
        if stems and dialogs.confirm_removal(self, stems):
            for stem in stems:
                self._bridge.attempt(lambda stem=stem: self._session.remove_micrograph(stem))

    def dragEnterEvent(self, event) -> None:  # noqa: ANN001, N802, D102
        if event.mimeData().hasUrls() and self._session.project is not None:
            event.acceptProposedAction()

    def dropEvent(self, event) -> None:  # noqa: ANN001, N802, D102
        self.add_files([Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()])

    # ---- the session says

    def _on_project(self) -> None:
        project = self._session.project
        is_open = project is not None
        self.start_box.setVisible(not is_open)
        for widget in (self.micrograph_box, self.class_box, self.close_button):
            widget.setVisible(is_open)
        if is_open:
            remember_project(project.root)
        self.start_box.set_recent(recent_projects())
        self._on_layers()
        self.table.set_records(())
        self._on_schema()
        self._on_micrographs()

    def _on_micrographs(self) -> None:
        records = self._session.records
        self.table.set_records(records)
        self.table.set_current(self._session.current)
        self.notices.set_notices(self._session.notices())
        self._make_thumbnails()
        self._labelled_timer.start(50)
        if records and self._session.current is None:
            self._show_first()

    def _on_schema(self) -> None:
        self.classes.set_schema(self._session.schema)
        self.notices.set_notices(self._session.notices())

    def _on_layers(self, _event: object = None) -> None:
        self.start_box.set_open_images(len(self.open_image_paths()))

    # ---- inside

    def _create(self, root: Path) -> bool:
        return self._bridge.attempt(lambda: self._session.create_project(root, FIRST_CLASSES))

    def _sample_made(self, root: Path) -> None:
        self._set_progress(None)
        self.open_project(root)

    def _show_first(self) -> None:
        if self._session.records and self._session.current is None:
            self._bridge.attempt(lambda: self._session.labelling.next_tile())
            if self._session.current is None:
                self._bridge.attempt(lambda: self._session.show(self._session.records[0].stem))

    def _imported(self, report: object) -> None:
        skipped = list(getattr(report, "skipped", ()))
        for stem, reason in skipped[:3]:
            self._session.signals.notice_posted.emit(f"{stem} was left out: {reason}", "")

    def _edit_micrograph(self, stem: str, field: str, value: object) -> None:
        if not self._bridge.attempt(lambda: self._session.update_micrograph(stem, **{field: value})):
            self._on_micrographs()

    def _names(self) -> list[str]:
        return list(self._session.schema.names)

    def _set_classes(self, names: list[str], colors: list[str] | None = None) -> None:
        if not self._bridge.attempt(lambda: self._session.set_classes(names, colors)):
            self._on_schema()

    def _rename_class(self, value: int, name: str) -> None:
        colors = [c.color for c in self._session.schema.classes]
        self._set_classes([name if i == value else old for i, old in enumerate(self._names(), 1)], colors)

    def _recolor_class(self, value: int, color: str) -> None:
        self._set_classes(self._names(), [color if c.value == value else c.color for c in self._session.schema.classes])

    def _remove_class(self, value: int) -> None:
        self._set_classes([name for i, name in enumerate(self._names(), 1) if i != value])

    def _make_thumbnails(self) -> None:
        stems = self.table.stems_without_thumbnail()

        def steps() -> Iterator[tuple]:
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

    def _mend(self, code: str, stems: tuple[str, ...]) -> None:
        match code:
            case "no_classes":
                self.classes.new_name.setFocus()
            case "no_pixel_size":
                size = dialogs.ask_pixel_size(self, stems)
                for stem in stems if size else ():
                    self._edit_micrograph(stem, "pixel_size_nm", size)
            case "missing_file":
                path = dialogs.ask_moved_file(self, stems[0])
                if path is not None:
                    self._bridge.attempt(lambda: self._session.relocate(stems[0], path))
            case "one_specimen":
                self.ask_files()

    def _fail(self, message: str, hint: str = "") -> None:
        self._session.signals.failed.emit(message, hint)

    def _set_progress(self, text: str | None, total: int = 0) -> None:
        self.progress.setVisible(text is not None)
        self.cancel_button.setVisible(text is not None and total > 0)
        self.progress.setRange(0, total)
        self.progress.setValue(0)
        self.progress.setFormat(text or "")
