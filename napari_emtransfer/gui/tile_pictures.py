"""Small pictures of tiles, made off the GUI thread."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal
from qtpy.QtGui import QImage, QPixmap

from napari_emtransfer.core.data.tiles import Tile, Window
from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.gui.bridge import Bridge
from napari_emtransfer.gui.canvas_image import CanvasImage, contrast_limits

if TYPE_CHECKING:
    from napari_emtransfer.gui.image_cache import ImageCache
    from napari_emtransfer.session.session import Session

EDGE: Final = 64
"""Longest edge on the screen; twice as many pixels are kept for screens of high density."""
KEPT: Final = 200
SAMPLED_ROWS: Final = 24


class TilePictures(QObject):
    """Makes what is asked for, one after the other, and keeps the last ones. `ready` follows each of them.

    Grey values are those of the whole micrograph, so that noise looks like noise.
    """

    ready = Signal()

    def __init__(self, session: Session, bridge: Bridge, images: ImageCache, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._session, self._bridge, self._images = session, bridge, images
        self._pictures: OrderedDict[Tile, QPixmap | None] = OrderedDict()
        self._wanted: tuple[Tile, ...] = ()
        self._worker: Any = None
        self._project = 0

    def get(self, tile: Tile) -> QPixmap | None:
        """The picture of a tile, if there is one yet."""
        return self._pictures.get(tile)

    def want(self, tiles: Sequence[Tile]) -> None:
        """Make pictures of these, the first ones first; what was wanted before and has not begun is forgotten."""
        for tile in tiles:
            if tile in self._pictures:
                self._pictures.move_to_end(tile)
        self._wanted = tuple(tile for tile in tiles[:KEPT] if tile not in self._pictures)
        self._go_on()

    def clear(self) -> None:
        """Drop everything, what is still being made too: another project may have micrographs of the same names."""
        self._project += 1
        self._wanted = ()
        self._pictures.clear()
        if self._worker is not None:
            self._worker.quit()
            self._worker = None

    def keep_only(self, stems: Collection[str]) -> None:
        """Drop pictures of micrographs that have left the project, and try again what could not be read."""
        for tile, picture in list(self._pictures.items()):
            if picture is None or tile.micrograph not in stems:
                del self._pictures[tile]

    def _go_on(self) -> None:
        """One micrograph at a time: its tiles together, so that its file is opened once."""
        if self._worker is not None or not self._wanted:
            return
        stem = self._wanted[0].micrograph
        tiles = [tile for tile in self._wanted if tile.micrograph == stem]
        self._wanted = tuple(tile for tile in self._wanted if tile.micrograph != stem)
        steps = self._steps(stem, tiles, self._images.get(stem))
        keep, end = partial(self._keep, self._project), partial(self._ended, self._project)
        self._worker = self._bridge.run_steps(steps, keep, end, end)

    def _steps(
        self, stem: str, tiles: Sequence[Tile], image: CanvasImage | None
    ) -> Iterator[tuple[Tile, NDArray[np.uint8] | None]]:
        """For a background thread."""
        try:
            pixels, limits = _pixels_of(image) if image is not None else self._read(stem)
            for tile in tiles:
                yield tile, tile_picture(pixels, tile.window, limits)
        except EMTransferError:  # it is reported when the micrograph is shown; without a picture the row stays
            for tile in tiles:
                yield tile, None

    def _read(self, stem: str) -> tuple[Any, tuple[float, float]]:
        micrograph = self._session.open_micrograph(stem)
        return micrograph.pixels, sampled_limits(micrograph.pixels)

    def _keep(self, project: int, made: tuple[Tile, NDArray[np.uint8] | None]) -> None:
        if project != self._project:
            return
        tile, picture = made
        self._pictures[tile] = None if picture is None else pixmap(picture)
        while len(self._pictures) > KEPT:
            self._pictures.popitem(last=False)
        self.ready.emit()

    def _ended(self, project: int, *_: object) -> None:
        if project != self._project:
            return
        self._worker = None
        self._go_on()


def tile_picture(pixels: Any, window: Window, limits: tuple[float, float], edge: int = 2 * EDGE) -> NDArray[np.uint8]:
    """The window (native pixels) of an image as a grey picture (h, w), max(h, w) ≤ `edge`, by the mean of blocks."""
    part = np.nan_to_num(np.asarray(pixels[window.slices], dtype=np.float32), nan=limits[0])
    step = -(-max(part.shape) // edge)
    height, width = (max(1, length // step) for length in part.shape)
    blocks = part[: height * step, : width * step]
    blocks = blocks.reshape(height, len(blocks) // height, width, blocks.shape[1] // width).mean(axis=(1, 3))
    low, high = limits
    return np.clip((blocks - low) / (high - low) * 255, 0, 255).astype(np.uint8)


def sampled_limits(pixels: Any) -> tuple[float, float]:
    """Contrast limits of an image by a few of its rows: one that is lazy is not read as a whole."""
    height = pixels.shape[0]
    rows = np.linspace(0, height - 1, min(height, SAMPLED_ROWS)).astype(int)
    return contrast_limits(np.concatenate([np.asarray(pixels[y : y + 1, :]) for y in rows]))


def pixmap(picture: NDArray[np.uint8]) -> QPixmap:
    """Grey picture (h, w) → pixmap. For the GUI thread."""
    picture = np.ascontiguousarray(picture)
    height, width = picture.shape
    return QPixmap.fromImage(QImage(picture.data, width, height, width, QImage.Format.Format_Grayscale8).copy())


def _pixels_of(image: CanvasImage) -> tuple[Any, tuple[float, float]]:
    data: Any = image.data[0] if image.multiscale else image.data
    return data, image.contrast_limits
