"""The tile grid, the queued tiles, and the current tile outlined with the rest of the micrograph dimmed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from napari.layers import Shapes
from numpy.typing import NDArray

from napari_emtransfer.core.data.tiles import Tile, TileGrid, Window
from napari_emtransfer.gui.viewer_layers import KEY, place_layer

if TYPE_CHECKING:
    from napari.components import Camera, ViewerModel

GRID, QUEUE, TILE = "grid", "queue", "tile"
STATE_COLORS: Final = {"done": "#009E73", "unsure": "#E69F00", "skipped": "#999999"}
LINE_COLOR: Final = "#FFFFFF"
CHOSEN_COLOR: Final = "#F0E442"
CONTROL_COLOR: Final = "#56B4E9"
MAX_MARKS: Final = 300
DIM: Final = "#00000073"


@dataclass(frozen=True)
class QueueMark:
    """A tile that waits in the queue: chosen, or a random control."""

    window: Window
    is_control: bool


@dataclass(frozen=True)
class _Drawing:
    """Shapes with their looks, and where they lie: `scale` in world units per pixel."""

    shapes: list[NDArray[Any]]
    types: list[str]
    edge_colors: list[str]
    edge_widths: list[float]
    face_colors: list[str]
    scale: float
    units: str

    @property
    def look(self) -> object:
        """All but where the shapes lie."""
        return self.types, self.edge_colors, self.edge_widths, self.face_colors


class TileLayers:
    """Shapes layers above the others; the annotation below them stays the selected layer, so it is painted on.

    The layers are changed in place: taking a layer away costs napari a third of a second.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._grid_visible = True
        self._drawn: dict[str, object] = {}
        self._looks: dict[str, object] = {}

    def find(self, role: str) -> Any:
        """The layer with this role, or None."""
        return next((layer for layer in self._viewer.layers if layer.metadata.get(KEY) == role), None)

    def show_grid(self, grid: TileGrid, states: Mapping[tuple[int, int], str], scale: float, units: str) -> None:
        """Draw the grid's lines, and a coloured frame around tiles that are done, unsure or skipped."""
        marked = [tile for tile in grid if states.get((tile.row, tile.column)) in STATE_COLORS][:MAX_MARKS]
        colors = [STATE_COLORS[states[tile.row, tile.column]] for tile in marked]
        wanted = (_size(grid), grid.n_rows, grid.n_columns, tuple(marked), tuple(colors), scale, units)
        if self._is_drawn(GRID, wanted):
            return
        lines, frames = _lines(grid), [_corners(_inset(tile.window)) for tile in marked]
        drawing = _Drawing(
            [*lines, *frames],
            ["line"] * len(lines) + ["rectangle"] * len(frames),
            [LINE_COLOR] * len(lines) + colors,
            [1.0] * len(lines) + [2.0] * len(frames),
            ["transparent"] * (len(lines) + len(frames)),
            scale,
            units,
        )
        self._draw(GRID, drawing, name="tiles", opacity=0.35)
        self.set_grid_visible(self._grid_visible)

    def show_tile(self, tile: Tile | None, shape: tuple[int, int], scale: float, units: str) -> None:
        """Outline a tile and dim what lies around it; None hides both."""
        if tile is None:
            self._hide(TILE, scale, units)
            return
        if self._is_drawn(TILE, (tile.window, shape, scale, units)):
            self._reveal(TILE)
            return
        around = [_corners(window) for window in _surrounding(tile.window, shape)]
        n = len(around)
        width = max(1.0, max(tile.window.shape) / 256)
        drawing = _Drawing(
            [*around, _corners(tile.window)],
            ["rectangle"] * (n + 1),
            ["transparent"] * n + [LINE_COLOR],
            [0.0] * n + [width],
            [DIM] * n + ["transparent"],
            scale,
            units,
        )
        self._draw(TILE, drawing, name="current tile", opacity=1.0)

    def show_queue(self, marks: Sequence[QueueMark], scale: float, units: str) -> None:
        """Outline the queued tiles of the micrograph, inside the frames of their states; none hides the layer."""
        if not marks:
            self._hide(QUEUE, scale, units)
            return
        if self._is_drawn(QUEUE, (tuple(marks), scale, units)):
            self._reveal(QUEUE)
            return
        n = len(marks)
        drawing = _Drawing(
            [_corners(_inset(mark.window, 6)) for mark in marks],
            ["rectangle"] * n,
            [CONTROL_COLOR if mark.is_control else CHOSEN_COLOR for mark in marks],
            [max(2.0, max(mark.window.shape) / 160) for mark in marks],
            ["transparent"] * n,
            scale,
            units,
        )
        self._draw(QUEUE, drawing, name="queued tiles", opacity=0.8)

    def set_grid_visible(self, visible: bool) -> None:
        """Show or hide the lines between the tiles."""
        self._grid_visible = visible
        layer = self.find(GRID)
        if layer is not None and layer.visible != visible:
            layer.visible = visible

    def _draw(self, role: str, drawing: _Drawing, **look: Any) -> None:
        layer = self.find(role)
        if layer is None:
            self._insert(role, drawing, look)
            return
        place_layer(layer, drawing.scale, drawing.units)
        layer.data = list(zip(drawing.shapes, drawing.types, strict=True))
        if self._looks.get(role) != drawing.look:  # napari keeps the look, and takes its time over each change
            layer.edge_width = drawing.edge_widths
            layer.edge_color = drawing.edge_colors
            layer.face_color = drawing.face_colors
        self._looks[role] = drawing.look
        self._reveal(role)

    def _insert(self, role: str, drawing: _Drawing, look: dict[str, Any]) -> None:
        layer = Shapes(
            drawing.shapes,
            shape_type=drawing.types,
            edge_color=drawing.edge_colors,
            edge_width=drawing.edge_widths,
            face_color=drawing.face_colors,
            scale=(drawing.scale,) * 2,
            units=(drawing.units,) * 2,
            metadata={KEY: role},
            **look,
        )
        self._looks[role] = drawing.look
        selected = self._viewer.layers.selection.active
        tile_layer = self.find(TILE)
        at = self._viewer.layers.index(tile_layer) if tile_layer is not None else len(self._viewer.layers)
        self._viewer.layers.insert(at, layer)
        if selected is not None:
            self._viewer.layers.selection.active = selected

    def _is_drawn(self, role: str, wanted: object) -> bool:
        """Whether that is drawn already; else it will be."""
        before, self._drawn[role] = self._drawn.get(role), wanted
        return before == wanted and self.find(role) is not None

    def _reveal(self, role: str) -> None:
        layer = self.find(role)
        if not layer.visible:
            layer.visible = True

    def _hide(self, role: str, scale: float, units: str) -> None:
        """Out of sight, but of the scale and units of what is shown: napari wants one unit for all layers."""
        layer = self.find(role)
        if layer is None:
            return
        if layer.visible:
            layer.visible = False
        place_layer(layer, scale, units)
        self._drawn.pop(role, None)


def camera_of(viewer: ViewerModel) -> Camera:
    """The camera; from napari 0.9 on it belongs to the scene, and whoever asks the viewer for it is warned."""
    camera: Camera = getattr(viewer, "scene", viewer).camera
    return camera


def focus_on(viewer: ViewerModel, window: Window, scale: float, margin: float = 0.2) -> None:
    """Centre a window (pixels) on the canvas with a margin, in world units of `scale` per pixel."""
    height, width = (edge * scale * (1 + margin) for edge in window.shape)
    canvas = getattr(viewer, "canvas", None)
    canvas_height, canvas_width = canvas.size if canvas is not None else viewer._canvas_size
    center = ((window.y0 + window.y1 - 1) / 2 * scale, (window.x0 + window.x1 - 1) / 2 * scale)
    camera = camera_of(viewer)
    camera.center = (0.0, *center)
    camera.zoom = min(canvas_height / height, canvas_width / width)


def _size(grid: TileGrid) -> tuple[int, int]:
    last = grid.tile(grid.n_rows - 1, grid.n_columns - 1).window
    return last.y1, last.x1


def _lines(grid: TileGrid) -> list[NDArray[Any]]:
    height, width = _size(grid)
    rows = [grid.tile(row, 0).window.y0 - 0.5 for row in range(1, grid.n_rows)]
    columns = [grid.tile(0, column).window.x0 - 0.5 for column in range(1, grid.n_columns)]
    across = [np.array([[y, -0.5], [y, width - 0.5]]) for y in rows]
    return across + [np.array([[-0.5, x], [height - 0.5, x]]) for x in columns]


def _corners(window: Window) -> NDArray[Any]:
    """Corners (4, 2) of a window; pixel centres lie on integers, so edges lie half a pixel before."""
    y0, x0, y1, x1 = window.y0 - 0.5, window.x0 - 0.5, window.y1 - 0.5, window.x1 - 0.5
    return np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]])


def _inset(window: Window, by: int = 3) -> Window:
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
