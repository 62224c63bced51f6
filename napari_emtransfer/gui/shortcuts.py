"""Keys of the plugin, bound in code (napari ignores those of a manifest) and unbound on closing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from napari.layers import Labels

if TYPE_CHECKING:
    from napari.components import ViewerModel

TABLE: Final = (
    ("1 – 9", "paint this class"),
    ("B", "brush"),
    ("E", "eraser"),
    ("P", "polygon"),
    ("F", "fill"),
    ("M", "move the canvas"),
    ("[ and ]", "smaller, larger brush"),
    ("Ctrl+Z, Ctrl+Shift+Z", "undo, redo"),
    ("N", "next tile"),
    ("D", "tile done, then next"),
    ("U", "unsure, then next"),
    ("S", "skip the tile, then next"),
    ("C", "centre the tile"),
    ("L", "live overlay on, off"),
    ("T", "fine-tune"),
    ("?", "this table"),
)


class Shortcuts:
    """Binds keys on the viewer, and on the annotation layer, whose own keys would otherwise win."""

    def __init__(self, viewer: ViewerModel, actions: Mapping[str, Callable[[], object]]) -> None:
        self._viewer = viewer
        self._actions = dict(actions)
        self._layer: Labels | None = None
        self._bind(viewer)

    def set_layer(self, layer: Labels | None) -> None:
        """Bind on this layer from now on."""
        if layer is self._layer:
            return
        if self._layer is not None:
            self._unbind(self._layer)
        self._layer = layer
        if layer is not None:
            self._bind(layer)

    def close(self) -> None:
        """Unbind everything."""
        self.set_layer(None)
        self._unbind(self._viewer)

    def _bind(self, target: Any) -> None:
        for key, action in self._actions.items():
            target.bind_key(key, lambda _target, action=action: (action(), None)[1], overwrite=True)

    def _unbind(self, target: Any) -> None:
        for key in self._actions:
            target.bind_key(key, None, overwrite=True)


def as_text() -> str:
    """The table as lines for a label."""
    rows = "".join(f"<tr><td><b>{key}</b>&nbsp;&nbsp;</td><td>{what}</td></tr>" for key, what in TABLE)
    return f"<table>{rows}</table><p>Keys act while the pointer's last click was on the canvas.</p>"
