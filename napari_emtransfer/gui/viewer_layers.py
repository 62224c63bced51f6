"""The session's layers on napari's canvas. Layers are known by their metadata, never by name: users rename layers."""

from __future__ import annotations

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
TILE_MARKS: Final = ("grid", "queue", "tile")
NAMES: Final = {
    MICROGRAPH: "micrograph",
    ENTROPY: "uncertainty",
    PREDICTION: "prediction",
    ANNOTATION: "labels",
}
CONTOUR_PX: Final = 2
MAX_CONTOUR_PIXELS: Final = 16_000_000
LONG_UNITS: Final = {"nm": "nanometer", "pixel": "pixel"}


class ViewerLayers:
    """Micrograph, uncertainty, prediction and annotation of the one that is shown, in that order from below."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._colors: dict[str, tuple[Labels, dict[int | None, str]]] = {}

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

        `annotation` and `prediction` (H, W) are shown without a copy: strokes land in the session's own array. The
        prediction stays hidden until `set_prediction_style`: each of napari's redraws would compute its outlines anew.
        """
        place = (scale_of(image.pixel_size_nm), "nm" if image.pixel_size_nm else "pixel")
        self._show_micrograph(image, place)
        self._show(ENTROPY, Image, entropy.astype(np.float32), place, **_entropy_look(len(schema)))
        self._show(PREDICTION, Labels, prediction, place, visible=False)
        self._show(ANNOTATION, Labels, annotation, place, opacity=0.55)
        self.set_schema(schema)

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
            if layer is not None and self._colors.get(role) != (layer, colors):
                layer.colormap = DirectLabelColormap(color_dict=colors)
                self._colors[role] = (layer, colors)
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
        """Show "contour", "fill" or "off"; areas for outlines where a very large micrograph makes those too slow."""
        layer = self.prediction
        if layer is None:
            return
        outlined = style == "contour" and layer.data.size <= MAX_CONTOUR_PIXELS
        _set(layer, visible=False)  # until all is set: each step would redraw
        _set(layer, contour=CONTOUR_PX if outlined else 0, opacity=0.9 if outlined else 0.4)
        _set(layer, visible=style != "off")

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

    def _show_micrograph(self, image: CanvasImage, place: tuple[float, str]) -> None:
        layer = self.find(MICROGRAPH)
        if layer is not None and not _fits(image, layer):
            self._viewer.layers.remove(layer)
            layer = None
        if layer is None:
            look = {"multiscale": image.multiscale, "contrast_limits": image.contrast_limits, "colormap": "gray"}
            layer = Image(image.data, name=image.stem, metadata={KEY: MICROGRAPH}, **look, **_placement(place))
            self._viewer.layers.insert(self._index_below(MICROGRAPH), layer)
            return
        layer.data = np.asarray(image.data).astype(layer.data.dtype, copy=False)
        layer.contrast_limits_range = image.contrast_limits
        layer.contrast_limits = image.contrast_limits
        layer.name = image.stem
        place_layer(layer, *place)

    def _show(self, role: str, kind: type[Layer], data: NDArray[Any], place: tuple[float, str], **look: Any) -> None:
        layer = self.find(role)
        if layer is None:
            layer = kind(data, name=NAMES[role], metadata={KEY: role}, **(look | _placement(place)))
            self._viewer.layers.insert(self._index_below(role), layer)
            return
        if role == PREDICTION:
            _set(layer, visible=False)
        layer.data = data
        place_layer(layer, *place)

    def _index_below(self, role: str) -> int:
        """Where a layer of this role belongs: right under the lowest of those that go above it."""
        order = list(NAMES)
        above = [
            i
            for i, layer in enumerate(self._viewer.layers)
            if layer.metadata.get(KEY) in order[order.index(role) + 1 :]
        ]
        marks = [i for i, layer in enumerate(self._viewer.layers) if layer.metadata.get(KEY) in TILE_MARKS]
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


def place_layer(layer: Layer, scale: float, unit: str) -> None:
    """Pixels of `scale` `unit`; nothing is redrawn where nothing changes."""
    if tuple(layer.scale) != (scale, scale):
        layer.scale = (scale, scale)
    if {str(u) for u in layer.units} != {LONG_UNITS[unit]}:
        layer.units = (unit, unit)


def _fits(image: CanvasImage, layer: Layer) -> bool:
    """Whether a layer can show an image: napari cannot change a flat layer into a pyramid, nor a texture's type.

    A wider type holds the same values; to take a layer away costs a third of a second.
    """
    return not (image.multiscale or layer.multiscale) and np.can_cast(image.dtype, layer.data.dtype, "safe")


def _placement(place: tuple[float, str]) -> dict[str, Any]:
    return {"scale": (place[0],) * 2, "units": (place[1],) * 2}


def _set(layer: Layer, **values: Any) -> None:
    """Set what differs: napari redraws at every assignment."""
    for name, value in values.items():
        if getattr(layer, name) != value:
            setattr(layer, name, value)


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
