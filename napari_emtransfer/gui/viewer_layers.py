"""The session's layers on napari's canvas. Layers are known by their metadata, never by name: users rename layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from napari_emtransfer.core.data.labels import LabelSchema
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.gui.canvas_image import CanvasImage

if TYPE_CHECKING:
    from napari.components import ViewerModel

KEY: Final = "emtransfer"
MICROGRAPH, ENTROPY, PREDICTION, ANNOTATION = "micrograph", "entropy", "prediction", "annotation"
NAMES: Final = {
    MICROGRAPH: "micrograph",
    ENTROPY: "uncertainty",
    PREDICTION: "prediction",
    ANNOTATION: "labels",
}
CONTOUR_PX: Final = 2


class ViewerLayers:
    """Micrograph, uncertainty, prediction and annotation of the one that is shown, in that order from below."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self.on_annotation_layer: Callable[[Labels], object] = lambda _layer: None

    def find(self, role: str) -> Any:
        """The layer with this role, or None."""
        return next((layer for layer in self._viewer.layers if layer.metadata.get(KEY) == role), None)

    @property
    def annotation(self) -> Labels | None:
        """The layer that is painted on."""
        return self.find(ANNOTATION)

    @property
    def prediction(self) -> Labels | None:
        """The layer that shows the newest model's opinion."""
        return self.find(PREDICTION)

    def show(
        self,
        image: CanvasImage,
        annotation: NDArray[np.uint8],
        prediction: NDArray[np.uint8],
        entropy: NDArray[np.float16],
        schema: LabelSchema,
    ) -> None:
        """Put a micrograph with its annotation and overlays on the canvas, in place of the one before.

        `annotation` and `prediction` (H, W) are shown without a copy: strokes land in the session's own array.
        """
        place = _placement(image.pixel_size_nm)
        self._show_micrograph(image, place)
        self._show(ENTROPY, Image, entropy.astype(np.float32), place, **_entropy_look(len(schema)))
        self._show(PREDICTION, Labels, prediction, place, opacity=0.9)
        labels = self._show(ANNOTATION, Labels, annotation, place, opacity=0.55)
        self.set_schema(schema)
        if labels is not None:
            self.on_annotation_layer(labels)

    def activate_annotation(self) -> None:
        """Make the annotation the selected layer, so that napari's tools act on it."""
        layer = self.annotation
        if layer is not None and self._viewer.layers.selection.active is not layer:
            self._viewer.layers.selection.active = layer

    def set_schema(self, schema: LabelSchema) -> None:
        """Show classes in their colours."""
        colors: dict[int | None, str] = {None: "transparent", 0: "transparent"}
        colors |= {c.value: c.color for c in schema.classes}
        for role in (PREDICTION, ANNOTATION):
            layer = self.find(role)
            if layer is not None:
                layer.colormap = DirectLabelColormap(color_dict=colors)
        entropy = self.find(ENTROPY)
        if entropy is not None:
            entropy.contrast_limits = _entropy_look(len(schema))["contrast_limits"]

    def refresh_prediction(self, window: Window, entropy: NDArray[np.float16]) -> None:
        """`window` of the prediction array has new values; take over the same window of the entropy."""
        layer = self.prediction
        if layer is not None:
            refresh_window(layer, window)
        image = self.find(ENTROPY)
        if image is not None and image.data.shape == entropy.shape:
            image.data[window.slices] = entropy[window.slices]

    def refresh_entropy(self) -> None:
        """Redraw the uncertainty; a whole texture, so call it seldom."""
        image = self.find(ENTROPY)
        if image is not None and image.visible:
            image.refresh(thumbnail=False, extent=False)

    def set_prediction_style(self, style: str) -> None:
        """`style` is "contour", "fill" or "off"."""
        layer = self.prediction
        if layer is not None:
            layer.visible = style != "off"
            layer.contour = CONTOUR_PX if style == "contour" else 0
            layer.opacity = 0.9 if style == "contour" else 0.4

    def set_entropy_visible(self, visible: bool) -> None:
        """Show or hide the uncertainty."""
        image = self.find(ENTROPY)
        if image is not None:
            image.visible = visible
            self.refresh_entropy()

    def clear(self) -> None:
        """Take all layers of the session off the canvas."""
        for layer in [layer for layer in self._viewer.layers if KEY in layer.metadata]:
            self._viewer.layers.remove(layer)

    def _show_micrograph(self, image: CanvasImage, place: dict[str, Any]) -> None:
        layer = self.find(MICROGRAPH)
        if layer is not None and (image.multiscale or layer.multiscale or layer.data.dtype != image.dtype):
            self._viewer.layers.remove(layer)  # napari cannot change a flat layer into a pyramid, nor a texture's type
            layer = None
        if layer is None:
            look = {"multiscale": image.multiscale, "contrast_limits": image.contrast_limits, "colormap": "gray"}
            layer = Image(image.data, name=image.stem, metadata={KEY: MICROGRAPH}, **look, **place)
            self._viewer.layers.insert(self._index_below(MICROGRAPH), layer)
            return
        layer.data = image.data
        layer.contrast_limits_range = image.contrast_limits
        layer.contrast_limits = image.contrast_limits
        layer.name = image.stem
        _move(layer, place)

    def _show(self, role: str, kind: type[Layer], data: NDArray[Any], place: dict[str, Any], **look: Any) -> Any:
        layer = self.find(role)
        if layer is None:
            layer = kind(data, name=NAMES[role], metadata={KEY: role}, **look, **place)
            self._viewer.layers.insert(self._index_below(role), layer)
        else:
            layer.data = data
            _move(layer, place)
        return layer

    def _index_below(self, role: str) -> int:
        """Where a layer of this role belongs: right under the lowest of those that go above it."""
        order = list(NAMES)
        above = [
            i
            for i, layer in enumerate(self._viewer.layers)
            if layer.metadata.get(KEY) in order[order.index(role) + 1 :]
        ]
        marks = [i for i, layer in enumerate(self._viewer.layers) if layer.metadata.get(KEY) in ("grid", "tile")]
        return min([*above, *marks], default=len(self._viewer.layers))


def refresh_window(layer: Labels, window: Window) -> None:
    """Redraw one window of a Labels layer: a whole redraw of a large micrograph would hold up the strokes."""
    if not layer.visible:
        return  # napari redraws a layer when it is made visible
    try:
        layer._updated_slice = layer._expand_updated_slice_for_contour(window.slices)
        layer._partial_labels_refresh()
    except AttributeError:  # napari < 0.7
        layer.refresh()


def scale_of(pixel_size_nm: float | None) -> float:
    """World units per pixel: nanometres where the pixel size is known, pixels otherwise."""
    return pixel_size_nm or 1.0


def _placement(pixel_size_nm: float | None) -> dict[str, Any]:
    unit = "nm" if pixel_size_nm else "pixel"
    return {"scale": (scale_of(pixel_size_nm),) * 2, "units": (unit, unit)}


def _move(layer: Layer, place: dict[str, Any]) -> None:
    layer.scale = place["scale"]
    layer.units = place["units"]


def _entropy_look(n_classes: int) -> dict[str, Any]:
    """Entropy runs from 0 to ln K nats."""
    limits = (0.0, float(np.log(max(n_classes, 2))))
    return {
        "colormap": "magma",
        "contrast_limits": limits,
        "opacity": 0.6,
        "blending": "translucent",
        "visible": False,
    }
