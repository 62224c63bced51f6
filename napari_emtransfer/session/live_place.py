"""Which window of which micrograph the live head predicts: the tile that is being labelled, or the one in view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from napari_emtransfer.core.data.tiles import Tile, Window

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project import Project
    from napari_emtransfer.session.labelling import LabellingController

LARGEST_PX: Final = 512
"""Longest edge of a live window in working pixels; of a larger tile, the part around what is in view."""
SNAP: Final = 4
"""Such a part moves in steps of 1/SNAP of its edge, so that a small move of the view asks for nothing."""


@dataclass(frozen=True)
class Place:
    """A window of a micrograph, in native pixels."""

    stem: str
    window: Window


def place_in_view(project: Project, labelling: LabellingController, visible: Window | None) -> Place | None:
    """The current tile as long as any of it is in view; else the tile in the middle of the view.

    Parameters
    ----------
    visible
        What the view shows, in native pixels; None where that is unknown.
    """
    stem = labelling.current
    if stem is None:
        return None
    tile = labelling.tile
    if tile is None or not _meet(tile, visible):
        tile = _tile_in_middle(labelling, stem, visible)
    window = tile.window
    if max(window.shape) > LARGEST_PX:
        window = _part(window, visible, round(LARGEST_PX / project.scale(stem)))
    return Place(stem, window)


def _meet(tile: Tile, visible: Window | None) -> bool:
    return visible is None or tile.window.intersection(visible) is not None


def _tile_in_middle(labelling: LabellingController, stem: str, visible: Window | None) -> Tile:
    grid = labelling.grid(stem)
    if visible is None:
        return grid.tile(grid.n_rows // 2, grid.n_columns // 2)
    return grid.tile_at((visible.y0 + visible.y1) / 2, (visible.x0 + visible.x1) / 2)


def _part(window: Window, visible: Window | None, edge: int) -> Window:
    """At most `edge` pixels of a window along each axis, around what is in view of it."""
    seen = (visible and window.intersection(visible)) or window
    y0, y1 = _span(window.y0, window.y1, (seen.y0 + seen.y1) // 2, edge)
    x0, x1 = _span(window.x0, window.x1, (seen.x0 + seen.x1) // 2, edge)
    return Window(y0=y0, x0=x0, y1=y1, x1=x1)


def _span(first: int, last: int, middle: int, edge: int) -> tuple[int, int]:
    if last - first <= edge:
        return first, last
    step = max(1, edge // SNAP)
    start = first + round((middle - edge / 2 - first) / step) * step
    start = min(max(first, start), last - edge)
    return start, start + edge
