"""Four synthetic micrographs with the outlines of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtWidgets import QCheckBox, QGridLayout, QHBoxLayout, QProgressBar, QVBoxLayout, QWidget

from napari_emtransfer.gui.augment_sheet import SampleView, outlined
from napari_emtransfer.gui.widgets import wrapped_label

if TYPE_CHECKING:
    from napari_emtransfer.session.synthesis import SynthesisPreview

COLUMNS = 2


class SynthesizePreview(QWidget):
    """Shows what it is given; `set_waiting` while others are being made."""

    def __init__(self) -> None:
        super().__init__()
        self._preview: SynthesisPreview | None = None
        self._colors: Sequence[str | None] = ()
        self._ground = 1
        self.views = [SampleView() for _ in range(COLUMNS * COLUMNS)]
        self.outlines = QCheckBox("Outlines of the labels")
        self.outlines.setChecked(True)
        self.outlines.setToolTip(
            "Draws a rim around each labelled region in the colour of its class; the class that covers most has none."
        )
        self.outlines.toggled.connect(lambda _on: self._draw())
        self.busy = QProgressBar()
        self.busy.setRange(0, 0)
        self.note = wrapped_label(name="synthesize-note")
        self._lay_out()
        self.set_waiting(False)

    def set_waiting(self, waiting: bool) -> None:
        """Others are being made."""
        self.busy.setVisible(waiting)
        if waiting:
            self.note.setText("Making a few of them …")

    def show_preview(self, preview: SynthesisPreview, colors: Sequence[str | None]) -> None:
        """Show these, each class in its colour; None has no rim."""
        self._preview, self._colors = preview, colors
        self._ground = 1 + int(np.argmax(np.bincount(preview.masks.ravel(), minlength=2)[1:]))
        self.set_waiting(False)
        self.note.setText(_words(preview))
        self._draw()

    def set_colors(self, colors: Sequence[str | None]) -> None:
        """The same ones in other colours."""
        self._colors = colors
        self._draw()

    def show_fault(self, message: str, hint: str) -> None:
        """Why there is nothing to see."""
        self._preview = None
        self.set_waiting(False)
        self.note.setText(f"{message} {hint}".strip())
        self._draw()

    # ---- inside

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        grid = QGridLayout()
        grid.setSpacing(6)
        for index, view in enumerate(self.views):
            grid.addWidget(view, index // COLUMNS, index % COLUMNS)
        layout.addLayout(grid, 1)
        row = QHBoxLayout()
        row.addWidget(self.outlines)
        row.addWidget(self.busy, 1)
        layout.addLayout(row)
        layout.addWidget(self.note)

    def _draw(self) -> None:
        pairs = [] if self._preview is None else list(zip(self._preview.images, self._preview.masks, strict=True))
        for index, view in enumerate(self.views):
            if index < len(pairs):
                image, mask = pairs[index]
                view.set_pixels(outlined(image, self._shown(mask), [color or "#000000" for color in self._colors]))
            else:
                view.clear()

    def _shown(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The mask without what is not to be outlined, such as the class all around: its rim would say nothing."""
        if not self.outlines.isChecked():
            return np.zeros_like(mask)
        table = np.zeros(256, np.uint8)
        for value, color in enumerate(self._colors, start=1):
            table[value] = value if color else 0
        table[self._ground] = 0
        return table[mask]


def _words(preview: SynthesisPreview) -> str:
    took = f"{preview.seconds:.1f} s each to make." if preview.seconds >= 0.1 else ""
    return " ".join(filter(None, (took, preview.detector)))
