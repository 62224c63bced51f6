"""What a stroke has changed, told by napari's own undo history: no comparison of whole arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from napari.layers import Labels

from napari_emtransfer.core.data.tiles import Window


class StrokeWatcher:
    """Calls `on_change(window)` for every change of a Labels layer: strokes, fills, polygons, undo and redo.

    Strokes in progress are told by `labels_update`, finished ones by `paint`. Undo and redo emit neither; they are
    seen when the layer is redrawn and its two history queues have passed an item between them.

    Parameters
    ----------
    on_stroke
        Told True when a drag of the mouse has begun to paint, and False after the last `on_change` of a stroke, fill,
        polygon, undo or redo; napari may write the pixels only after that call returns.
    """

    def __init__(
        self,
        layer: Labels,
        on_change: Callable[[Window], object],
        on_stroke: Callable[[bool], object] = lambda _begun: None,
    ) -> None:
        self._layer, self._on_change, self._on_stroke = layer, on_change, on_stroke
        self._lengths = self._history_lengths()
        layer.events.paint.connect(self._on_paint)
        layer.events.labels_update.connect(self._on_partial_update)
        layer.events.set_data.connect(self._on_redraw)

    def close(self) -> None:
        """Stop watching."""
        self._layer.events.paint.disconnect(self._on_paint)
        self._layer.events.labels_update.disconnect(self._on_partial_update)
        self._layer.events.set_data.disconnect(self._on_redraw)

    def _on_paint(self, event: Any) -> None:
        self._lengths = self._history_lengths()
        self._tell(item_window(event.value))
        self._on_stroke(False)

    def _on_partial_update(self, event: Any) -> None:
        y0, x0 = (int(v) for v in event.offset)
        height, width = event.data.shape[:2]
        if height and width:
            self._tell(Window(y0=y0, x0=x0, y1=y0 + height, x1=x0 + width))
            if self._layer._block_history:  # napari groups what one drag does
                self._on_stroke(True)

    def _on_redraw(self, _event: Any = None) -> None:
        before, self._lengths = self._lengths, self._history_lengths()
        undone, redone = self._lengths[1] > before[1], self._lengths[1] < before[1] and self._lengths[0] > before[0]
        if undone:
            self._tell(item_window(self._layer._redo_history[-1]))
        elif redone:
            self._tell(item_window(self._layer._undo_history[-1]))
        if undone or redone:
            self._on_stroke(False)

    def _history_lengths(self) -> tuple[int, int]:
        return len(self._layer._undo_history), len(self._layer._redo_history)

    def _tell(self, window: Window | None) -> None:
        if window is not None:
            self._on_change(window)


def item_window(item: Iterable[Any]) -> Window | None:
    """Smallest window around all edits of one item of napari's undo history; None for an empty item."""
    boxes = np.array([_box(atom) for atom in item if _box(atom) is not None])
    if not boxes.size:
        return None
    (y0, x0), (y1, x1) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    return Window(y0=int(y0), x0=int(x0), y1=int(y1), x1=int(x1))


def _box(atom: Any) -> tuple[int, int, int, int] | None:
    """(y0, x0, y1, x1) of one edit: a masked box (napari ≥ 0.7) or the older (indices, before, after)."""
    if hasattr(atom, "slice_key"):
        rows, columns = atom.slice_key[-2:]
        return rows.start, columns.start, rows.stop, columns.stop
    rows, columns = atom[0][-2:]
    if np.size(rows) == 0:
        return None
    return int(np.min(rows)), int(np.min(columns)), int(np.max(rows)) + 1, int(np.max(columns)) + 1
