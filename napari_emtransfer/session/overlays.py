"""What lies over a micrograph: mask and entropy, whose they are, and the pixels' way from the store into memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.session.context import Context
from napari_emtransfer.session.messages import RegionLoaded

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project import Project

KEPT_OVERLAYS = 2


@dataclass
class Overlay:
    """Prediction of one micrograph in native pixels: mask (H, W) uint8, 0 where none yet; entropy (H, W) float16.

    All pixels come from the model of `run`; `complete_for` is that run once it has predicted all of them.
    """

    mask: NDArray[np.uint8]
    entropy: NDArray[np.float16]
    run: str | None = None
    complete_for: str | None = None

    @property
    def whole(self) -> Window:
        """All of it."""
        height, width = self.mask.shape
        return Window(y0=0, x0=0, y1=height, x1=width)

    def begin(self, run: str | None) -> None:
        """Blank everything for another model: two side by side would look, and be measured, like one."""
        self.run, self.complete_for = run, None
        self.mask.fill(0)
        self.entropy.fill(0)

    def blank(self, window: Window) -> None:
        """Take back what was predicted there."""
        self.mask[window.slices] = 0
        self.entropy[window.slices] = 0


class Overlays:
    """The overlays of the micrographs seen last. The arrays of one are the same ones for as long as it is kept.

    Parameters
    ----------
    on_change
        Told (stem, window) of every change, before the signal.
    """

    def __init__(self, context: Context, on_change: Callable[[str, Window], None]) -> None:
        self._context, self._on_change = context, on_change
        self._kept: OrderedDict[str, Overlay] = OrderedDict()

    def of(self, stem: str) -> Overlay:
        """The overlay of a micrograph, empty at first."""
        if stem not in self._kept:
            shape = self._context.require_project().record(stem).shape
            self._kept[stem] = Overlay(np.zeros(shape, np.uint8), np.zeros(shape, np.float16))
            while len(self._kept) > KEPT_OVERLAYS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(stem)
        return self._kept[stem]

    def paste(self, loaded: RegionLoaded) -> None:
        """Take loaded pixels over; those of another model go."""
        overlay, changed = self.of(loaded.stem), loaded.window
        if overlay.run not in (None, loaded.run):
            overlay.begin(loaded.run)
            changed = overlay.whole
        overlay.run = loaded.run
        overlay.mask[loaded.window.slices] = loaded.mask
        overlay.entropy[loaded.window.slices] = loaded.entropy
        if loaded.window == overlay.whole:
            overlay.complete_for = loaded.run
        self.tell(loaded.stem, changed)

    def withdraw(self, run: str, *, but: str | None = None) -> None:
        """Blank every overlay of this model, except that of the micrograph `but`."""
        for stem, overlay in self._kept.items():
            if overlay.run == run and stem != but:
                overlay.begin(None)
                self.tell(stem, overlay.whole)

    def tell(self, stem: str, window: Window) -> None:
        """Say that pixels of an overlay have changed."""
        self._on_change(stem, window)
        self._context.signals.prediction_changed.emit(stem, window)

    def clear(self) -> None:
        """Let go of all."""
        self._kept.clear()


def read_region(project: Project, run: str, stem: str, window: Window, generation: int) -> RegionLoaded | None:
    """Pixels of a window from the project's store, on whatever thread; None where they are gone."""
    store = project.predictions
    try:
        mask = np.asarray(store.read(run, stem, "mask", window), np.uint8)
        entropy = np.asarray(store.read(run, stem, "entropy", window), np.float16)
    except (EMTransferError, OSError, LookupError, ValueError):  # a cache that is deleted while it is read
        return None
    return RegionLoaded(generation, run, stem, window, mask, entropy)
