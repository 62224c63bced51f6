"""The tile grid, and the current tile outlined with the rest of the micrograph dimmed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from napari.layers import Shapes
from numpy.typing import NDArray

from napari_emtransfer.core.data.tiles import Tile, TileGrid, Window
from napari_emtransfer.gui.viewer_layers import KEY

if TYPE_CHECKING:
    from napari.components import ViewerModel

GRID, TILE = "grid", "tile"
STATE_COLORS: Final = {"done": "#009E73", "unsure": "#E69F00", "skipped": "#999999"}
LINE_COLOR: Final = "#FFFFFF"
MAX_MARKS: Final = 300
DIM: Final = "#00000073"


class TileLayers:
    """Two Shapes layers above the others; the annotation below them stays the selected layer, so it is painted on."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._grid_visible = True

    def find(self, role: str) -> Any:
        """The layer with this role, or None."""
        return next((layer for layer in self._viewer.layers if layer.metadata.get(KEY) == role), None)

    def show_grid(self, grid: TileGrid, states: Mapping[tuple[int, int], str], scale: float, units: str) -> None:
        """Draw the grid's lines, and a coloured frame around tiles that are done, unsure or skipped."""
        self._remove(GRID)
        lines = _lines(grid)
        marked = [tile for tile in grid if states.get((tile.row, tile.column)) in STATE_COLORS][:MAX_MARKS]
        frames = [_corners(_inset(tile.window)) for tile in marked]
        shapes = [*lines, *frames]
        if not shapes:
            return
        colors = [LINE_COLOR] * len(lines) + [STATE_COLORS[states[t.row, t.column]] for t in marked]
        self._add(
            GRID,
            shapes,
            scale,
            units,
            name="tiles",
            shape_type=["line"] * len(lines) + ["rectangle"] * len(frames),
            edge_color=colors,
            edge_width=[1.0] * len(lines) + [3.0] * len(frames),
            face_color="transparent",
            opacity=0.35,
            visible=self._grid_visible,
        )

    def show_tile(self, tile: Tile | None, shape: tuple[int, int], scale: float, units: str) -> None:
        """Outline a tile and dim what lies around it; None takes both away."""
        selected = self._viewer.layers.selection.active
        self._remove(TILE)
        if tile is None:
            return
        around = [_corners(w) for w in _surrounding(tile.window, shape)]
        frame = _corners(tile.window)
        width = max(1.0, max(tile.window.shape) / 256)
        self._add(
            TILE,
            [*around, frame],
            scale,
            units,
            name="current tile",
            shape_type="rectangle",
            face_color=[DIM] * len(around) + ["transparent"],
            edge_color=["transparent"] * len(around) + [LINE_COLOR],
            edge_width=[0.0] * len(around) + [width],
            opacity=1.0,
        )
        if selected is not None and selected in self._viewer.layers:
            self._viewer.layers.selection.active = selected

    def set_grid_visible(self, visible: bool) -> None:
        """Show or hide the lines between the tiles."""
        self._grid_visible = visible
        layer = self.find(GRID)
        if layer is not None:
            layer.visible = visible

    def _add(self, role: str, shapes: list[NDArray[Any]], scale: float, units: str, **look: Any) -> None:
        selected = self._viewer.layers.selection.active
        place = {"scale": (scale, scale), "units": (units, units), "metadata": {KEY: role}}
        layer = Shapes(shapes, **place, **look)
        index = len(self._viewer.layers)
        tile_layer = self.find(TILE)
        if role == GRID and tile_layer is not None:
            index = self._viewer.layers.index(tile_layer)
        self._viewer.layers.insert(index, layer)
        if selected is not None:
            self._viewer.layers.selection.active = selected

    def _remove(self, role: str) -> None:
        layer = self.find(role)
        if layer is not None:
            self._viewer.layers.remove(layer)


def focus_on(viewer: ViewerModel, window: Window, scale: float, margin: float = 0.2) -> None:
    """Centre a window (pixels) on the canvas with a margin, in world units of `scale` per pixel."""
    height, width = (edge * scale * (1 + margin) for edge in window.shape)
    canvas = getattr(viewer, "canvas", None)
    canvas_height, canvas_width = canvas.size if canvas is not None else viewer._canvas_size
    center = ((window.y0 + window.y1 - 1) / 2 * scale, (window.x0 + window.x1 - 1) / 2 * scale)
    viewer.camera.center = (0.0, *center)
    viewer.camera.zoom = min(canvas_height / height, canvas_width / width)


def _lines(grid: TileGrid) -> list[NDArray[Any]]:
    last = grid.tile(grid.n_rows - 1, grid.n_columns - 1).window
    rows = [grid.tile(row, 0).window.y0 - 0.5 for row in range(1, grid.n_rows)]
    columns = [grid.tile(0, column).window.x0 - 0.5 for column in range(1, grid.n_columns)]
    across = [np.array([[y, -0.5], [y, last.x1 - 0.5]]) for y in rows]
    return across + [np.array([[-0.5, x], [last.y1 - 0.5, x]]) for x in columns]


def _corners(window: Window) -> NDArray[Any]:
    """Corners (4, 2) of a window; pixel centres lie on integers, so edges lie half a pixel before."""
    y0, x0, y1, x1 = window.y0 - 0.5, window.x0 - 0.5, window.y1 - 0.5, window.x1 - 0.5
    return np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]])


def _inset(window: Window, by: int = 4) -> Window:
    return Window(y0=window.y0 + by, x0=window.x0 + by, y1=window.y1 - by, x1=window.x1 - by)


def _surrounding(window: Window, shape: tuple[int, int]) -> list[Window]:
    """The four rectangles around a window that fill the image."""
    height, width = shape
    boxes = (
        (0, 0, window.y0, width),
        (window.y1, 0, height, width),
        (window.y0, 0, window.y1, window.x0),
        (window.y0, window.x1, window.y1, width),
    )
    return [Window(y0=a, x0=b, y1=c, x1=d) for a, b, c, d in boxes if c > a and d > b]
