"""Small pictures of micrographs, made off the GUI thread."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from qtpy.QtGui import QIcon, QImage, QPixmap

from napari_emtransfer.core.data.micrograph import Micrograph
from napari_emtransfer.gui.canvas_image import contrast_limits

EDGE: Final = 36


def thumbnail(micrograph: Micrograph, edge: int = EDGE) -> NDArray[np.uint8]:
    """A square picture (edge, edge) of the micrograph's middle; reads few pixels. For a background thread."""
    height, width = micrograph.shape
    side = min(height, width)
    top, left, step = (height - side) // 2, (width - side) // 2, max(1, side // edge)
    rows = [_row(micrograph.pixels, y, left, side)[::step][:edge] for y in range(top, top + side, step)[:edge]]
    picture = np.stack(rows).astype(np.float32)
    low, high = contrast_limits(picture)
    return np.clip((np.nan_to_num(picture, nan=low) - low) / (high - low) * 255, 0, 255).astype(np.uint8)


def icon(picture: NDArray[np.uint8]) -> QIcon:
    """Grey picture (h, w) → icon. For the GUI thread."""
    picture = np.ascontiguousarray(picture)
    height, width = picture.shape
    image = QImage(picture.data, width, height, width, QImage.Format.Format_Grayscale8).copy()
    found = QIcon(QPixmap.fromImage(image))
    found.addPixmap(QPixmap.fromImage(image), QIcon.Mode.Selected)  # no tint in a selected row
    return found


def _row(pixels: Any, y: int, left: int, side: int) -> NDArray[Any]:
    return np.asarray(pixels[y : y + 1, left : left + side])[0]
