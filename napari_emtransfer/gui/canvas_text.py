"""The readouts on the canvas: napari draws one line as it comes, so a long one is broken where the canvas ends."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from napari.components import ViewerModel

CHARACTER: Final = 0.95
"""Mean width of a character in pixels per point of font size, a little on the safe side."""
MARGIN_PX: Final = 24
FEWEST_CHARACTERS: Final = 24
_SEAMS: Final = re.compile(r" (?=[·—] )")


class CanvasText:
    """Shows a text at the edge of the canvas, in as many lines as its width asks for."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._text = ""
        self._shown: tuple[str, int] | None = None

    def show(self, text: str) -> None:
        """Show this text from now on; an empty one hides the overlay."""
        self._text = text
        self.fit()

    def fit(self) -> None:
        """Break the lines anew where the canvas has another width; cheap where nothing changed."""
        overlay = _overlay(self._viewer)
        width = int((self._canvas_width() - MARGIN_PX) / (CHARACTER * overlay.font_size))
        if self._shown == (self._text, width):
            return
        self._shown = self._text, width
        overlay.text = "\n".join(in_lines(self._text, width))
        overlay.visible = bool(self._text)

    def _canvas_width(self) -> float:
        canvas = getattr(self._viewer, "canvas", None)
        return float((canvas.size if canvas is not None else self._viewer._canvas_size)[1])


def in_lines(text: str, n_characters: int) -> list[str]:
    """Break a text before its dots and dashes, so that no line is longer than `n_characters` where that can be."""
    lines: list[str] = []
    for part in _SEAMS.split(text):
        if lines and len(lines[-1]) + 1 + len(part) <= max(n_characters, FEWEST_CHARACTERS):
            lines[-1] += f" {part}"
        else:
            lines.append(part)
    return [line.removeprefix("· ").removeprefix("— ") if i else line for i, line in enumerate(lines)]


def _overlay(viewer: ViewerModel) -> Any:
    """The overlay of napari, which has moved in 0.9."""
    canvas = getattr(viewer, "canvas", None)
    return canvas.overlays.text if canvas is not None else viewer.text_overlay
