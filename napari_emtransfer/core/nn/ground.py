"""Ground to train and to measure on: views of micrographs and their labelled parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_emtransfer.core.data.labels import IGNORE_INDEX
from napari_emtransfer.core.data.tiles import Window


class View(Protocol):
    """Standardised pixels at the working size, read window by window."""

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in working pixels."""
        ...

    def read(self, window: Window) -> NDArray[np.float32]:
        """Pixels of `window`, (h, w)."""
        ...


class ArrayView:
    """An array (H, W) in memory as a `View`."""

    def __init__(self, array: NDArray[np.floating]) -> None:
        self._array = array

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self._array.shape[0], self._array.shape[1]

    def read(self, window: Window) -> NDArray[np.float32]:
        """Pixels of `window`, (h, w)."""
        return np.asarray(self._array[window.slices], np.float32)


@dataclass(frozen=True, eq=False)
class TrainingImage:
    """A standardised image (H, W), or a part of one, and its targets (H, W): class indices, 255 = unlabelled.

    `fresh` (H, W) marks the pixels labelled since the run that this one goes on from; None where there are none.
    """

    image: NDArray[np.floating]
    targets: NDArray[np.uint8]
    fresh: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class HeldOutRegion:
    """Held-out ground: `window` of `view` is predicted and compared with `targets` (h, w), 255 = unlabelled."""

    view: View
    window: Window
    targets: NDArray[np.uint8]


def training_images(
    view: View, targets: NDArray[np.uint8], *, crop_px: int, fresh: NDArray[np.bool_] | None = None
) -> list[TrainingImage]:
    """The labelled parts of a micrograph, each with half a crop of context around it.

    A few labelled tiles of a 16k micrograph cost the memory of those tiles. `targets` and `fresh` (H, W) as in
    `TrainingImage`; pixels are kept as float16, whose error is far below the noise of a standardised image.
    """
    parts = []
    for window in labelled_windows(targets, cell_px=crop_px):
        wide = _widened(window, crop_px // 2, view.shape)
        image = view.read(wide).astype(np.float16)
        new = None if fresh is None else fresh[wide.slices].copy()
        parts.append(TrainingImage(image, targets[wide.slices].copy(), new))
    return parts


def held_out_regions(view: View, targets: NDArray[np.uint8], *, cell_px: int = 256) -> list[HeldOutRegion]:
    """The labelled parts of a held-out micrograph, so that no time is spent on the rest of it."""
    return [HeldOutRegion(view, w, targets[w.slices].copy()) for w in labelled_windows(targets, cell_px=cell_px)]


def labelled_windows(targets: NDArray[np.uint8], *, cell_px: int) -> list[Window]:
    """Bounding boxes of the labelled groups of `targets` (H, W); groups less than a cell apart are one."""
    height, width = targets.shape
    rows, columns = np.arange(0, height, cell_px), np.arange(0, width, cell_px)
    labelled = (targets != IGNORE_INDEX).astype(np.uint8)
    cells = np.maximum.reduceat(np.maximum.reduceat(labelled, rows, axis=0), columns, axis=1)
    groups, _ = ndimage.label(cells, structure=np.ones((3, 3)))
    return [
        Window(
            y0=rs.start * cell_px,
            x0=cs.start * cell_px,
            y1=min(rs.stop * cell_px, height),
            x1=min(cs.stop * cell_px, width),
        )
        for rs, cs in ndimage.find_objects(groups)
    ]


def _widened(window: Window, margin: int, shape: tuple[int, int]) -> Window:
    return Window(
        y0=max(0, window.y0 - margin),
        x0=max(0, window.x0 - margin),
        y1=min(shape[0], window.y1 + margin),
        x1=min(shape[1], window.x1 + margin),
    )
