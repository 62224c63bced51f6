"""The Project tab: open or create, micrographs, classes, and what should be mended."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtWidgets import QGroupBox, QVBoxLayout, QWidget

from napari_emtransfer.gui import dialogs
from napari_emtransfer.gui.class_table import ClassTable
from napari_emtransfer.gui.job_bar import JobBar
from napari_emtransfer.gui.micrograph_box import MicrographBox
from napari_emtransfer.gui.notice_list import NoticeList
from napari_emtransfer.gui.recent import recent_projects, remember_project
from napari_emtransfer.gui.sample import ensure_sample_project
from napari_emtransfer.gui.settings_box import SettingsBox
from napari_emtransfer.gui.start_box import StartBox
from napari_emtransfer.gui.widgets import button
from napari_emtransfer.session.classes import PLACEHOLDER_CLASSES

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_emtransfer.gui.viewer_session import ViewerSession


class ProjectPanel(QWidget):
    """Everything about the project as a whole."""

    def __init__(self, owner: ViewerSession, viewer: ViewerModel) -> None:
        super().__init__()
        self._session, self._bridge, self._viewer = owner.session, owner.bridge, viewer
        self.setAcceptDrops(True)
        self.start_box, self.job_bar, self.notices = StartBox(), JobBar(), NoticeList()
        self.micrographs, self.classes, self.settings = MicrographBox(owner), ClassTable(), SettingsBox()
        self.close_button = button(
            "Close project",
            "Saves the strokes, banks a running fine-tune, and lets go of the project.",
            lambda: self._bridge.attempt(self._session.close_project),
        )
        self._lay_out()
        self._connect()
        self._on_project()

    # ---- what the user asks

    def open_sample(self) -> None:
        """Make the sample project, or open the one made earlier, and show its first micrograph."""
        self.job_bar.begin("Making the sample project …", can_cancel=False)
        self._bridge.run(
            ensure_sample_project,
            done=lambda root: (self.job_bar.end(), self.open_project(root)),
            failed=lambda message, hint: (self.job_bar.end(), self._session.signals.failed.emit(message, hint)),
        )

    def new_project(self) -> None:
        """Ask for a folder and make an empty project in it."""
        root = dialogs.ask_new_folder(self)
        if root is not None:
            self._create(root)

    def new_from_images(self) -> None:
        """Ask for a folder, make a project in it, and add the images that are open in the viewer."""
        layers = self._open_images()
        root = dialogs.ask_new_folder(self)
        if root is None or not self._create(root):
            return
        for layer in layers:
            layer.visible = False  # the project shows its own copy
        self.micrographs.add_files(list(dict.fromkeys(Path(layer.source.path) for layer in layers)))

    def ask_open(self) -> None:
        """Ask for a project folder and open it."""
        root = dialogs.ask_folder(self, "Open a project folder")
        if root is not None:
            self.open_project(root)

    def open_project(self, root: Path) -> None:
        """Open a project folder and show its first micrograph."""
        if self._bridge.attempt(lambda: self._session.open_project(root)):
            self._show_first()

    def dragEnterEvent(self, event: Any) -> None:  # noqa: N802, D102
        if event.mimeData().hasUrls() and self._session.project is not None:
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:  # noqa: N802, D102
        self.micrographs.add_files([Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()])

    # ---- building

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 6, 4, 4)
        layout.addWidget(self.start_box)
        layout.addWidget(self.job_bar)
        layout.addWidget(self.notices)
        layout.addWidget(self.micrographs, 1)
        self.class_box = QGroupBox("Classes")
        QVBoxLayout(self.class_box).addWidget(self.classes)
        layout.addWidget(self.class_box)
        layout.addWidget(self.settings)
        layout.addWidget(self.close_button)

    def _connect(self) -> None:
        box = self.start_box
        box.sample_requested.connect(self.open_sample)
        box.from_images_requested.connect(self.new_from_images)
        box.new_requested.connect(self.new_project)
        box.open_requested.connect(self.ask_open)
        box.recent_requested.connect(self.open_project)
        self.classes.added.connect(lambda name: self._set_classes([*self._names(), name]))
        self.classes.renamed.connect(self._rename_class)
        self.classes.recolored.connect(self._recolor_class)
        self.classes.removed.connect(self._remove_class)
        self.settings.changed.connect(lambda field, value: self._set_settings(**{field: value}))
        self.notices.mend_requested.connect(self._mend)
        for event in (self._viewer.layers.events.inserted, self._viewer.layers.events.removed):
            event.connect(self._on_layers)
        signals, connect = self._session.signals, self._bridge.connect
        connect(signals.project_changed, self._on_project)
        connect(signals.micrographs_changed, self._on_micrographs)
        connect(signals.schema_changed, self._on_schema)

    # ---- the session says

    def _on_project(self) -> None:
        project = self._session.project
        self.start_box.setVisible(project is None)
        for widget in (self.micrographs, self.class_box, self.settings, self.close_button):
            widget.setVisible(project is not None)
        if project is not None:
            remember_project(project.root)
            self.settings.set_settings(project.settings)
        self.start_box.set_recent(recent_projects())
        self._on_layers()
        self._on_schema()
        self.micrographs.refresh()
        self._on_micrographs()

    def _on_micrographs(self) -> None:
        self.notices.set_notices(self._session.notices())
        self._show_first()

    def _on_schema(self) -> None:
        self.classes.set_schema(self._session.schema)
        self.notices.set_notices(self._session.notices())

    def _on_layers(self, _event: object = None) -> None:
        self.start_box.set_open_images(len(self._open_images()))

    # ---- inside

    def _open_images(self) -> list[Image]:
        """Image layers that napari has read from a file."""
        return [layer for layer in self._viewer.layers if isinstance(layer, Image) and layer.source.path]

    def _create(self, root: Path) -> bool:
        return self._bridge.attempt(lambda: self._session.create_project(root, PLACEHOLDER_CLASSES))

    def _show_first(self) -> None:
        """Show a tile where nothing is shown yet; all tiles may be done, then a micrograph."""
        if not self._session.records or self._session.current is not None:
            return
        self._bridge.attempt(self._session.labelling.next_tile)
        if self._session.current is None:
            self._bridge.attempt(lambda: self._session.show(self._session.records[0].stem))

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

    def _set_settings(self, **changes: Any) -> None:
        """Change settings of the project; tiles follow, and what is refused stands in the box as it was."""
        project = self._session.project
        if project is None:
            return
        if self._bridge.attempt(lambda: project.update_settings(**changes)):
            self._session.labelling.micrographs_changed()
            self._session.signals.micrographs_changed.emit()
        self.settings.set_settings(project.settings)

    def _mend(self, code: str, stems: tuple[str, ...]) -> None:
        match code:
            case "no_classes":
                self.classes.new_name.setFocus()
            case "no_pixel_size":
                size = dialogs.ask_pixel_size(self, stems)
                for stem in stems if size else ():
                    self.micrographs.edit(stem, "pixel_size_nm", size)
            case "mixed_pixel_sizes":
                sizes = [r.pixel_size_nm for r in self._session.records if r.pixel_size_nm is not None]
                self._set_settings(working_pixel_size_nm=median(sizes))
            case "missing_file":
                path = dialogs.ask_moved_file(self, stems[0])
                if path is not None:
                    self._bridge.attempt(lambda: self._session.relocate(stems[0], path))
            case "one_specimen":
                self.micrographs.ask_files()
