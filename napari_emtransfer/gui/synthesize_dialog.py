"""The dialog of *Synthesise*: what is to be made, a look at four of them, and adding them to the project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import QSize, Qt, QTimer, Signal
from qtpy.QtWidgets import QDialog, QFrame, QHBoxLayout, QScrollArea, QVBoxLayout, QWidget

from napari_emtransfer.gui.synthesize_classes import ClassMap
from napari_emtransfer.gui.synthesize_form import SynthesizeForm
from napari_emtransfer.gui.synthesize_preview import SynthesizePreview
from napari_emtransfer.gui.widgets import button, wrapped_label

if TYPE_CHECKING:
    from napari_emtransfer.core.data.labels import LabelSchema
    from napari_emtransfer.session.generators import GeneratorEntry
    from napari_emtransfer.session.synthesis import SynthesisPreview

FORM_PX = 340
USUAL_SIZE = QSize(940, 680)
STILL_MS = 400
"""A preview is asked for when nothing has been changed for so long."""
PROMISE = (
    "They become specimens of their own in the domain “{domain}”. They are trained on; what is measured is real as "
    "soon as real micrographs are labelled."
)


class SynthesizeDialog(QDialog):
    """Emits `preview_requested()` and `add_requested()`; changes nothing in the project itself."""

    preview_requested = Signal()
    add_requested = Signal()

    def __init__(self, entries: Sequence[GeneratorEntry], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Synthesise micrographs")
        self.setObjectName("synthesize-dialog")
        self.setSizeGripEnabled(True)
        self._working_nm: float | None = None
        self._busy, self._shown = False, ""
        self._schema: tuple[LabelSchema, bool] | None = None
        self._classes: tuple[str, ...] = ()
        self._asked: GeneratorEntry | None = None
        self.form, self.class_map, self.preview = SynthesizeForm(entries), ClassMap(), SynthesizePreview()
        self.promise = wrapped_label(name="synthesize-promise")
        self.add_button = button(
            "Add to project",
            "Makes all of them in the background and adds them to the project with their exact labels.",
            self.add_requested.emit,
            name="synthesize-add",
        )
        self.preview_button = button(
            "Preview", "Makes four of these micrographs and shows them.", self.ask_preview, name="synthesize-preview"
        )
        self._still = QTimer(self)
        self._still.setSingleShot(True)
        self._still.setInterval(STILL_MS)
        self._still.timeout.connect(self.ask_preview)
        self._lay_out()
        self.form.changed.connect(self._on_form)
        self.class_map.changed.connect(self._on_classes)
        self.resize(USUAL_SIZE)

    # ---- what is shown

    def set_project(
        self, schema: LabelSchema, *, free: bool, working_pixel_size_nm: float | None, busy: bool = False
    ) -> None:
        """The project has these classes (`free`: none of its own yet) and this scale; `busy` while others are made."""
        self._schema, self._working_nm, self._busy = (schema, free), working_pixel_size_nm, busy
        self._show_classes()
        self._on_classes()
        self._on_scale()

    def set_busy(self, busy: bool) -> None:
        """While others are being made, no more can be added."""
        self._busy = busy
        self._on_classes()

    def ask_preview(self) -> None:
        """Have the preview made of what stands in the form."""
        self._still.stop()
        self._asked = self.form.entry
        self.preview.set_waiting(True)
        self.preview_requested.emit()

    def show_preview(self, made: SynthesisPreview) -> None:
        """Show micrographs, their classes, and what they leave out."""
        if self._is_late:
            return
        self._classes = made.classes
        self._show_classes()
        self.form.set_omits(made.omits)
        self.preview.show_preview(made, self.class_map.colors)
        self._on_classes()

    def show_fault(self, message: str, hint: str) -> None:
        """Why there is no preview; what cannot be shown cannot be added either."""
        if self._is_late:
            return
        self._classes = ()
        self.preview.show_fault(message, hint)
        self._on_classes()

    # ---- building

    def _lay_out(self) -> None:
        left = QWidget()
        column = QVBoxLayout(left)
        column.setContentsMargins(0, 0, 6, 0)
        column.addWidget(self.form)
        column.addWidget(self.class_map)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidget(left)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setFixedWidth(FORM_PX)
        middle = QHBoxLayout()
        middle.addWidget(scroll)
        middle.addWidget(self.preview, 1)
        bottom = QHBoxLayout()
        bottom.addWidget(self.preview_button)
        bottom.addWidget(self.add_button)
        bottom.addWidget(button("Close", "Closes this dialog; nothing is added.", self.close))
        layout = QVBoxLayout(self)
        layout.addLayout(middle, 1)
        layout.addWidget(self.promise)
        layout.addLayout(bottom)

    # ---- inside

    @property
    def _is_late(self) -> bool:
        """Whether the answer is about another structure than is chosen by now, which will be asked for in a moment."""
        return self._asked != self.form.entry

    def _on_form(self) -> None:
        if self._shown != self.form.entry.preset:  # whose classes are not known before its preview
            self._shown, self._classes = self.form.entry.preset, ()
            self._show_classes()
            self._on_classes()
        self.promise.setText(PROMISE.format(domain=self.form.spec.domain))
        self._on_scale()
        if self.isVisible():
            self._still.start()

    def _on_scale(self) -> None:
        """Say so where the network would see these at quite another scale."""
        size, working = self.form.pixel_size.value(), self._working_nm
        note = self.form.scale_note
        note.hide()
        if working is not None and not 0.25 <= size / working <= 4:
            how = "shrunk" if size < working else "enlarged"
            factor = max(size / working, working / size)
            note.setText(
                f"The network sees the project at {working:.4g} nm per px: these are {how} {factor:.3g} times."
            )
            note.show()

    def _show_classes(self) -> None:
        if self._schema is not None:
            schema, free = self._schema
            self.class_map.set_classes(self._classes, schema, free=free)

    def _on_classes(self) -> None:
        self.preview.set_colors(self.class_map.colors)
        self.add_button.setEnabled(bool(self._classes) and any(self.class_map.mapping.values()) and not self._busy)

    def showEvent(self, event) -> None:  # noqa: ANN001, N802, D102
        super().showEvent(event)
        self._on_form()
