"""A sheet of samples: small images with the outlines of their labels, in a window that can be resized."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QRect, Qt, Signal
from qtpy.QtGui import QColor, QImage, QPainter
from qtpy.QtWidgets import QCheckBox, QDialog, QGridLayout, QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_emtransfer.gui.widgets import button

COLUMNS = 3
SMALLEST_PX = 96
USUAL_PX = 230


def outlined(image: NDArray[np.uint8], mask: NDArray[np.uint8], colors: Sequence[str]) -> NDArray[np.uint8]:
    """Grey image (h, w) and label values (h, w) → RGB (h, w, 3); each labelled region has a rim of its class's colour.

    The rim lies inside the region, two pixels wide; what is unlabelled has none.
    """
    rgb = np.repeat(image[..., None], 3, axis=2)
    palette = np.array([(0, 0, 0), *(QColor(color).getRgb()[:3] for color in colors)], np.uint8)
    rim = _rim(mask) & (mask > 0)
    rgb[rim] = palette[mask[rim]]
    return rgb


def _rim(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels within two rows or columns of another value."""
    differs = np.zeros(mask.shape, bool)
    for distance in (1, 2):
        for axis in (0, 1):
            head, tail = (
                tuple(part if a == axis else slice(None) for a in (0, 1))
                for part in (slice(None, -distance), slice(distance, None))
            )
            unequal = mask[head] != mask[tail]
            differs[head] |= unequal
            differs[tail] |= unequal
    return differs


class SampleView(QWidget):
    """One sample, as large as its place allows, square pixels kept."""

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumSize(SMALLEST_PX, SMALLEST_PX)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self._image = QImage()
        self.pixels = np.zeros((0, 0, 3), np.uint8)

    def set_pixels(self, rgb: NDArray[np.uint8]) -> None:
        """Show an RGB image (h, w, 3)."""
        # Kept, because the image points into it.
        self.pixels = np.ascontiguousarray(rgb)
        height, width, _ = self.pixels.shape
        self._image = QImage(self.pixels.data, width, height, 3 * width, QImage.Format.Format_RGB888)
        self.update()

    def clear(self) -> None:
        """Show nothing."""
        self._image, self.pixels = QImage(), np.zeros((0, 0, 3), np.uint8)
        self.update()

    def paintEvent(self, _event) -> None:  # noqa: ANN001, N802, D102
        if self._image.isNull():
            return
        size = self._image.size().scaled(self.size(), Qt.AspectRatioMode.KeepAspectRatio)
        place = QRect(0, 0, size.width(), size.height())
        place.moveCenter(self.rect().center())
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.drawImage(place, self._image)
        painter.end()


class PreviewSheet(QDialog):
    """Samples in rows of three; New sample asks for others, Labels shows or hides the outlines."""

    again_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Augmentation")
        self.setObjectName("augment-sheet")
        self._samples: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = []
        self._colors: Sequence[str] = ()
        self.views = [SampleView() for _ in range(COLUMNS * COLUMNS)]
        self.title = QLabel()
        self.outlines = QCheckBox("Labels")
        self.outlines.setChecked(True)
        self.outlines.setToolTip(
            "Draws a rim around each labelled region, in the colour of its class; what has no rim is unlabelled."
        )
        self.outlines.toggled.connect(lambda _on: self._draw())
        self.again_button = button(
            "New sample", "Draws nine other crops; nothing is changed by looking.", self.again_requested.emit
        )
        self._lay_out()
        self.resize(COLUMNS * USUAL_PX, COLUMNS * USUAL_PX + 70)

    def set_samples(
        self, images: NDArray[np.uint8], masks: NDArray[np.uint8], colors: Sequence[str], title: str = ""
    ) -> None:
        """Show images (n, h, w) and their label values (n, h, w), n at most 9."""
        self._samples = list(zip(images, masks, strict=True))
        self._colors = colors
        self.title.setText(f"Training crops of {title}" if title else "Training crops")
        self._draw()

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        top = QHBoxLayout()
        top.addWidget(self.title, 1)
        top.addWidget(self.outlines)
        layout.addLayout(top)
        grid = QGridLayout()
        grid.setSpacing(6)
        for index, view in enumerate(self.views):
            grid.addWidget(view, index // COLUMNS, index % COLUMNS)
        layout.addLayout(grid, 1)
        bottom = QHBoxLayout()
        bottom.addWidget(self.again_button)
        bottom.addWidget(button("Close", "Closes this sheet.", self.close))
        layout.addLayout(bottom)

    def _draw(self) -> None:
        for view, (image, mask) in zip(self.views, self._samples, strict=False):
            shown = mask if self.outlines.isChecked() else np.zeros_like(mask)
            view.set_pixels(outlined(image, shown, self._colors))
