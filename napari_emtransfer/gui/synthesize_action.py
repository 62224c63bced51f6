"""*Synthesise …* in the Project tab: opens the dialog, and shows how far the micrographs are that were asked for."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_emtransfer.gui.job_bar import JobBar
from napari_emtransfer.gui.synthesize_dialog import SynthesizeDialog
from napari_emtransfer.gui.widgets import button
from napari_emtransfer.session.classes import has_classes_of_its_own
from napari_emtransfer.session.generators import catalogue

if TYPE_CHECKING:
    from napari_emtransfer.gui.viewer_session import ViewerSession
    from napari_emtransfer.session.state import SynthesisState

WORDS = {"making": "Making micrographs …", "adding": "Adding them …", "cancelling": "Cancelling …"}


class SynthesizeAction(QWidget):
    """The bar; hidden unless micrographs are being made. `button` opens the dialog."""

    def __init__(self, owner: ViewerSession) -> None:
        super().__init__()
        self._session, self._bridge = owner.session, owner.bridge
        self._phase = "idle"
        self.dialog: SynthesizeDialog | None = None
        self.button = button(
            "Synthesise …",
            "Makes micrographs with exact labels to train on: you choose the structure, look at four, and add them.",
            self.open,
        )
        self.job_bar = JobBar("Stops; none of them are added.")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.job_bar)
        self.job_bar.cancel_requested.connect(self._session.synthesis.cancel)
        signals, connect = self._session.signals, self._bridge.connect
        connect(signals.synthesis_changed, self._on_state)
        connect(signals.project_changed, self._on_project)
        connect(signals.schema_changed, self._tell_dialog)
        self.hide()

    def open(self) -> None:
        """Show the dialog, as it was left."""
        project = self._session.project
        if project is None:
            return
        if self.dialog is None:
            self.dialog = SynthesizeDialog(catalogue(), self.window())
            self.dialog.preview_requested.connect(self._preview)
            self.dialog.add_requested.connect(self._add)
            self.dialog.finished.connect(lambda _result: self._session.synthesis.stop_preview())
            kind = "hrtem" if project.settings.modality in ("hrtem", "tem") else "voronoi"
            self.dialog.form.suggest(kind, self._project_scale())
        self._tell_dialog()
        self.dialog.show()
        self.dialog.raise_()

    # ---- inside

    def _preview(self) -> None:
        dialog = self.dialog
        if dialog is not None:
            synthesis, spec = self._session.synthesis, dialog.form.spec
            self._bridge.attempt(lambda: synthesis.preview(spec, dialog.show_preview, dialog.show_fault))

    def _add(self) -> None:
        dialog = self.dialog
        if dialog is not None and self._bridge.attempt(
            lambda: self._session.synthesis.add(dialog.form.spec, dialog.class_map.mapping)
        ):
            dialog.close()

    def _tell_dialog(self) -> None:
        project = self._session.project
        if self.dialog is not None and project is not None:
            self.dialog.set_project(
                self._session.schema,
                free=not has_classes_of_its_own(project),
                working_pixel_size_nm=self._project_scale(),
                busy=self._session.synthesis.state.is_active,
            )

    def _project_scale(self) -> float | None:
        """Pixel size in nm at which the network sees the project; where none is set, that of its micrographs."""
        project = self._session.project
        sizes = [r.pixel_size_nm for r in self._session.records if r.pixel_size_nm and not r.synthetic]
        working = project.settings.working_pixel_size_nm if project else None
        return working or (median(sizes) if sizes else None)

    def _on_project(self) -> None:
        if self.dialog is not None:
            self.dialog.close()
            self.dialog.deleteLater()
            self.dialog = None

    def _on_state(self, state: SynthesisState) -> None:
        self.setVisible(state.is_active)
        if state.phase != self._phase:
            self._phase = state.phase
            self.job_bar.begin(WORDS.get(state.phase, ""), can_cancel=state.phase in ("making", "adding"))
            self.job_bar.progress.setRange(0, max(1, state.total))
            self.job_bar.progress.setValue(0)
            if self.dialog is not None:
                self.dialog.set_busy(state.is_active)
        if not state.is_active:
            self.job_bar.end()
        elif state.done and state.phase != "cancelling":
            self.job_bar.step(state.done, state.total)
