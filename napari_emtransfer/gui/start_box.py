"""What the Project tab offers while no project is open: the first minute of a new user."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QGroupBox, QVBoxLayout, QWidget

from napari_emtransfer.gui.widgets import ElidedLabel, button, wrapped_label


class StartBox(QGroupBox):
    """Sample project, new project from the images that are open, new, open, and the recent ones."""

    sample_requested = Signal()
    from_images_requested = Signal()
    new_requested = Signal()
    open_requested = Signal()
    recent_requested = Signal(object)

    def __init__(self) -> None:
        super().__init__("Start")
        layout = QVBoxLayout(self)
        layout.addWidget(
            wrapped_label(
                "A project is a folder that holds labels, classes and trained models. Your images stay where they are."
            )
        )
        self.sample_button = button(
            "Open the sample project",
            "Makes a small project with synthetic micrographs of three specimens, ready to paint.",
            self.sample_requested.emit,
            name="sample",
        )
        self.from_images_button = button(
            "New project from these images",
            "Makes a project in a folder of your choice and adds the image files that are open in napari.",
            self.from_images_requested.emit,
            name="from-images",
        )
        self.new_button = button(
            "New project …", "Makes an empty project in a folder of your choice.", self.new_requested.emit
        )
        self.open_button = button("Open project …", "Opens an existing project folder.", self.open_requested.emit)
        for widget in (self.sample_button, self.from_images_button, self.new_button, self.open_button):
            layout.addWidget(widget)
        self._recent = QWidget()
        self._recent_layout = QVBoxLayout(self._recent)
        self._recent_layout.setContentsMargins(0, 4, 0, 0)
        layout.addWidget(self._recent)
        layout.addStretch(1)

    def set_open_images(self, count: int) -> None:
        """How many images with a file are open in napari."""
        self.from_images_button.setEnabled(count > 0)
        plural = "image" if count == 1 else "images"
        text = f"New project from these {count} {plural}" if count else "New project from open images"
        self.from_images_button.setText("New project from this image" if count == 1 else text)

    def set_recent(self, roots: Sequence[Path]) -> None:
        """List the projects opened lately."""
        while (item := self._recent_layout.takeAt(0)) is not None:
            item.widget().deleteLater()
        if roots:
            self._recent_layout.addWidget(ElidedLabel("Recent projects"))
        for root in roots:
            text = self.fontMetrics().elidedText(f"{root.name}  in  {root.parent}", Qt.TextElideMode.ElideMiddle, 300)
            widget = button(text, f"Open {root}", lambda root=root: self.recent_requested.emit(root))
            self._recent_layout.addWidget(widget)
