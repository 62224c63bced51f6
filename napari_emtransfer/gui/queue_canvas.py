"""The queue on the canvas: its tiles outlined, its next micrographs read ahead, and the clicks that labelling takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import QObject

from napari_emtransfer.gui.tile_layers import QueueMark

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_emtransfer.core.data.queue_records import QueueEntry
    from napari_emtransfer.core.data.tiles import Tile
    from napari_emtransfer.gui.bridge import Bridge
    from napari_emtransfer.gui.canvas import Canvas
    from napari_emtransfer.session.queue_state import QueueState
    from napari_emtransfer.session.session import Session

READ_AHEAD: Final = 6
"""Entries whose micrographs are fetched before all others; clicks into the list go further than Next does."""


class QueueOnCanvas(QObject):
    """Follows `session.queue`; lives as long as the canvas, with or without a dock."""

    def __init__(
        self, viewer: ViewerModel, session: Session, canvas: Canvas, bridge: Bridge, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._viewer, self._session, self._canvas, self._bridge = viewer, session, canvas, bridge
        self._visible = True
        self._ahead: tuple[str, ...] = ()
        bridge.connect(session.signals.queue_changed, self._on_queue)
        canvas.shown_changed.connect(lambda _stem: self._draw())
        viewer.mouse_drag_callbacks.append(self._on_press)

    def set_visible(self, visible: bool) -> None:
        """Show or hide the outlines."""
        self._visible = visible
        self._draw()

    def expect(self, stem: str) -> None:
        """A micrograph may be asked for next: read its pixels and labels ahead."""
        self._canvas.images.prefetch((stem, *self._ahead))
        self._session.labelling.prefetch(stem)

    def close(self) -> None:
        """Count no more clicks."""
        if self._on_press in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._on_press)

    def _on_queue(self, state: QueueState) -> None:
        ahead = tuple(dict.fromkeys(entry.stem for entry in state.entries[:READ_AHEAD]))
        if ahead != self._ahead:
            self._ahead = ahead
            self._canvas.images.prefetch(ahead)
        self._draw()

    def _draw(self) -> None:
        shown = self._canvas.shown
        marks = []
        if self._visible and shown is not None:
            state = self._session.queue.state  # the current tile has its white frame: one is enough to paint beside
            entries = [entry for entry in state.entries if entry.stem == shown and entry != state.current]
            marks = [QueueMark(tile.window, entry.control) for entry, tile in tiles_of(self._session, entries)]
        self._canvas.tiles.show_queue(marks, *self._canvas.place)

    def _on_press(self, _viewer: object, _event: Any) -> None:
        self._bridge.attempt(self._session.queue.count_click)


def tiles_of(session: Session, entries: Sequence[QueueEntry]) -> Iterator[tuple[QueueEntry, Tile]]:
    """Each entry with its tile; without those whose grid is gone."""
    for entry in entries:
        tile = session.labelling.find_tile(entry.stem, entry.grid, entry.row, entry.column)
        if tile is not None:
            yield entry, tile
