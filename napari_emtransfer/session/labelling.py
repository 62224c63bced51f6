"""Annotations in memory, their way to disk, and the walk from tile to tile."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.data.tiles import Tile, TileGrid, Window
from napari_emtransfer.core.errors import ProjectError
from napari_emtransfer.session.annotation_memory import AnnotationMemory
from napari_emtransfer.session.autosave import AutoSaver
from napari_emtransfer.session.context import Context
from napari_emtransfer.session.messages import AnnotationRead, AnnotationWanted, Message, SaveFailed, StrokesSaved
from napari_emtransfer.session.state import SaveState
from napari_emtransfer.session.tile_book import TileBook
from napari_emtransfer.session.tile_walk import TileWalk

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project import Project
    from napari_emtransfer.core.data.project_records import TileState

SAVE_TIMEOUT = 5.0


class LabellingController:
    """What the user paints, and where. `load` belongs to the bridge's thread, all other methods to that of the views.

    Parameters
    ----------
    on_painted
        Told (stem, window) of every change of labels.
    on_look
        Told whether another micrograph is shown, after the signals of a new micrograph or tile.
    on_mark
        Told that the user has called a tile done, unsure or skipped, before the signal.
    proposed
        The tile that is best labelled next, where anybody knows better than the walk.
    """

    def __init__(
        self,
        context: Context,
        on_painted: Callable[[str, Window], None],
        on_look: Callable[[bool], None],
        on_mark: Callable[[Tile, TileState], None],
        proposed: Callable[[], Tile | None],
    ) -> None:
        self._context, self._on_painted, self._on_look = context, on_painted, on_look
        self._on_mark, self._proposed = on_mark, proposed
        self._annotations: AnnotationMemory | None = None
        self._saver: AutoSaver | None = None
        self._book: TileBook | None = None
        self._walk: TileWalk | None = None
        self.current: str | None = None
        self.tile: Tile | None = None
        self.save_state = SaveState()

    # ---- opening and closing, called by the session

    def open(self, project: Project) -> None:
        """Begin with a project that has just been opened."""
        self._saver = saver = AutoSaver(project, self._context.inbox.put)
        self._annotations = AnnotationMemory(project, lambda stem: stem == self.current or saver.is_unsaved(stem))
        self._book = TileBook(project, self._context.records, self._annotations.window)
        self._walk = TileWalk(self._book)

    def close(self, timeout: float = SAVE_TIMEOUT) -> bool:
        """Save and let go of the project; False when strokes could not be written."""
        saved = self._saver.close(timeout) if self._saver else True
        self._saver = self._book = self._walk = self._annotations = None
        self._set_save_state(SaveState())
        self.show(None)
        return saved

    def micrographs_changed(self, relabelled: tuple[str, ...] = ()) -> None:
        """Micrographs were added, removed or edited; labels of `relabelled` were written by somebody else."""
        if self._book is None or self._annotations is None:
            return
        self._book.update(self._context.records)
        self._book.forget_labels(relabelled)
        self._annotations.read_again(relabelled)
        if self.current in relabelled:
            self._context.signals.current_changed.emit(self.current)  # the same one, with other labels
        if self.current is not None and self.current not in {r.stem for r in self._context.records}:
            self.show(None)
        elif self.tile is not None and not self._book.knows(self.tile):
            self._look_at(self.current, None)  # another pixel size, another grid

    def forget(self, stem: str) -> None:
        """The micrograph leaves the project."""
        self.save_now()
        self._require_saver().forget(stem)
        self._require_annotations().forget(stem)

    # ---- the annotation

    def show(self, stem: str | None) -> None:
        """Make a micrograph the current one, with no tile chosen yet; None: show nothing."""
        if stem != self.current:
            self._look_at(stem, None)

    def annotation(self, stem: str) -> NDArray[np.uint8]:
        """The annotation (H, W) in native pixels, the one array that is painted on and saved."""
        return self._require_annotations().get(stem)

    def prefetch(self, stem: str) -> None:
        """Have the annotation of a micrograph that may be shown next read on the bridge's thread."""
        if self._require_annotations().expect(stem):
            self._context.inbox.put(AnnotationWanted(stem))

    def load(self, message: Message) -> Message:
        """On the bridge's thread: an annotation that is wanted → the same with its labels. Others pass through."""
        return memory.load(message) if (memory := self._annotations) else message

    def mark_dirty(self, window: Window | None = None, *, stem: str | None = None) -> None:
        """Say that labels have changed in `window` (native pixels; None: all) of a micrograph (None: the current).

        Cheap enough to be called at every step of a brush.
        """
        stem = stem or self.current
        if stem is None:
            raise ProjectError("No micrograph is shown.", "Choose one in the Project tab.")
        labels = self.annotation(stem)
        window = window or Window(y0=0, x0=0, y1=labels.shape[0], x1=labels.shape[1])
        self._require_saver().mark(stem, labels, window)
        begun = [t for t in self._require_book().painted(stem, window) if self.tile_state(t) == "unlabelled"]
        for tile in begun:
            self._write_state(tile, "started")
        if begun:
            self._context.signals.tile_states_changed.emit(stem)
        self._on_painted(stem, window)
        self._set_save_state(SaveState(True, self.save_state.failing, self.save_state.message, self.save_state.hint))

    def tick(self) -> None:
        """Call about four times a second: starts an autosave when one is due, and never waits for it."""
        if self._saver:
            self._saver.tick()

    def record(self, key: tuple[str, int], write: Callable[[], object]) -> None:
        """Have `write` called by the writer, after all strokes and states so far. As `AutoSaver.record`."""
        self._require_saver().record(key, write)

    def save_soon(self) -> int | None:
        """Have everything written at once, not after a pause; never waits. As `AutoSaver.hasten`."""
        return self._saver.hasten() if self._saver else None

    @property
    def unsaved(self) -> bool:
        """Whether any stroke is not on disk."""
        return self._saver is not None and self._saver.unsaved

    def save_now(self, timeout: float = SAVE_TIMEOUT) -> bool:
        """Write everything and wait for it; False when that failed or took longer than `timeout` seconds."""
        return self._saver.flush(timeout) if self._saver else True

    def apply(self, message: StrokesSaved | SaveFailed | AnnotationRead) -> None:
        """The writer's answer, or what was read ahead."""
        if isinstance(message, AnnotationRead):
            if self._annotations:
                self._annotations.take(message)
            return
        if isinstance(message, SaveFailed):
            first = not self.save_state.failing
            self._set_save_state(SaveState(True, True, message.message, message.hint))
            if first:
                self._context.signals.failed.emit(message.message, message.hint)
            return
        self._set_save_state(SaveState(self.unsaved))
        for stem in message.stems:
            self._context.signals.annotation_saved.emit(stem)

    # ---- tiles

    @property
    def n_tiles(self) -> int:
        """Number of tiles in the project."""
        return self._book.n_tiles if self._book else 0

    @property
    def n_tiles_done(self) -> int:
        """Number of tiles that the user has called done."""
        return self._book.n_done if self._book else 0

    @property
    def has_labels(self) -> bool:
        """Whether anything has been labelled yet."""
        return self._book is not None and self._book.has_labels

    def grid(self, stem: str) -> TileGrid:
        """The tile grid of a micrograph, in native pixels."""
        return self._require_book().grid(stem)

    def find_tile(self, stem: str, grid: str, row: int, column: int) -> Tile | None:
        """The tile of a cell, if the grid of that micrograph is still this one (`TileGrid.key`)."""
        return self._book.find(stem, grid, row, column) if self._book else None

    def tile_state(self, tile: Tile) -> TileState:
        """The state of one tile."""
        return self._require_book().state(tile)

    def tile_states(self, stem: str) -> dict[tuple[int, int], TileState]:
        """(row, column) → state for every tile of a micrograph."""
        return self._require_book().states(stem)

    def labelled_fraction(self, tile: Tile) -> float:
        """Labelled part of a tile, 0..1."""
        return self._require_book().labelled_fraction(tile)

    def next_tile(self) -> Tile | None:
        """Go to the next tile worth labelling and return it; None, and nowhere, when all are done.

        After `previous_tile` it first comes back through the history; then it goes where somebody proposes, and where
        nobody does, walks (`TileWalk.forward`).
        """
        tile = self._require_walk().forward(self.tile, self._proposed)
        return None if tile is None else self._go(tile)

    def previous_tile(self) -> Tile | None:
        """Go back to the tile before, done or not; None when there is none."""
        tile = self._require_walk().back()
        return None if tile is None else self._go(tile)

    def go_to(self, tile: Tile) -> Tile:
        """Make any tile the current one."""
        return self._go(self._require_walk().jump(tile))

    def go_to_point(self, stem: str, y: float, x: float) -> Tile:
        """Make the tile that holds the pixel (y, x) the current one."""
        return self.go_to(self.grid(stem).tile_at(y, x))

    def mark_done(self, tile: Tile | None = None) -> None:
        """Call a tile (None: the current) finished."""
        self._mark(tile, "done")

    def mark_unsure(self, tile: Tile | None = None) -> None:
        """Put a tile (None: the current) aside: it comes again after all others."""
        self._mark(tile, "unsure")

    def mark_skipped(self, tile: Tile | None = None) -> None:
        """Leave a tile (None: the current) out for good."""
        self._mark(tile, "skipped")

    # ---- inside

    def _go(self, tile: Tile) -> Tile:
        self._require_walk().visit(tile)
        self._look_at(tile.micrograph, tile)
        return tile

    def _look_at(self, stem: str | None, tile: Tile | None) -> None:
        """Both are set before either signal, `current_changed` first: no listener sees a tile of another micrograph."""
        if stem is not None:
            self.annotation(stem)
        before = self.current, self.tile
        self.current, self.tile = stem, tile
        if stem != before[0]:
            self._context.signals.current_changed.emit(stem)
        if tile != before[1]:
            self._context.signals.tile_changed.emit(tile)
        self._on_look(stem != before[0])

    def _mark(self, tile: Tile | None, state: TileState) -> None:
        tile = tile or self.tile
        if tile is None:
            raise ProjectError("No tile is chosen.", "Press Next, or click into a tile, first.")
        self._write_state(tile, state)
        self._on_mark(tile, state)
        self._context.signals.tile_states_changed.emit(tile.micrograph)

    def _write_state(self, tile: Tile, state: TileState) -> None:
        self._require_book().set_state(tile, state)
        self._require_saver().mark_state(tile.micrograph, tile.row, tile.column, state)

    def _set_save_state(self, state: SaveState) -> None:
        if state != self.save_state:
            self.save_state = state
            self._context.signals.save_state_changed.emit(state)

    def _require_saver(self) -> AutoSaver:
        self._context.require_project()
        assert self._saver is not None  # noqa: S101 - open() sets it together with the project
        return self._saver

    def _require_annotations(self) -> AnnotationMemory:
        self._context.require_project()
        assert self._annotations is not None  # noqa: S101 - as above
        return self._annotations

    def _require_book(self) -> TileBook:
        self._context.require_project()
        assert self._book is not None  # noqa: S101 - as above
        return self._book

    def _require_walk(self) -> TileWalk:
        self._context.require_project()
        assert self._walk is not None  # noqa: S101 - as above
        return self._walk
