"""The top line of the dock: which project, which device, and whether the engine answers."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QHBoxLayout, QLabel, QWidget

from napari_emtransfer.gui.widgets import ElidedLabel, swatch
from napari_emtransfer.session.state import EngineState

LIGHTS = {
    "off": ("#808080", "The prediction engine is off; it starts with a project."),
    "starting": ("#E69F00", "The prediction engine is starting."),
    "ready": ("#009E73", "The prediction engine is ready."),
    "busy": ("#56B4E9", "The prediction engine is working."),
    "dead": ("#D55E00", "The prediction engine has ended; it starts again with the next prediction."),
}


class Header(QWidget):
    """Project name on the left; engine light and device on the right."""

    def __init__(self) -> None:
        super().__init__()
        layout = QHBoxLayout(self)
        layout.setContentsMargins(2, 0, 2, 0)
        self.project_label = ElidedLabel("No project")
        self.light = QLabel()
        self.device_label = QLabel()
        layout.addWidget(self.project_label, 1)
        layout.addWidget(self.light)
        layout.addWidget(self.device_label)
        self.set_engine(EngineState())

    def set_project(self, name: str | None, root: Path | None) -> None:
        """Show the project's name; its folder is in the tooltip."""
        self.project_label.set_full_text(name or "No project")
        self.project_label.setToolTip(
            f"Project folder: {root}" if root else "Open or create a project in the Project tab."
        )

    def set_engine(self, engine: EngineState) -> None:
        """Show the light, the device and its free memory."""
        color, sentence = LIGHTS[engine.phase]
        self.light.setVisible(engine.phase != "off")
        self.light.setPixmap(swatch(color, 12).pixmap(12, 12))
        memory = "" if engine.memory_free_gb is None else f" · {engine.memory_free_gb:.0f} GB free"
        self.device_label.setText(f"{engine.device}{memory}" if engine.device else "")
        for widget in (self.light, self.device_label):
            widget.setToolTip(" ".join(filter(None, (sentence, engine.message, engine.hint))))
