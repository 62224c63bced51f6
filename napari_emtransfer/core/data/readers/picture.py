"""PNG and JPEG through Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.data.readers.image_data import ImageData, check_size, choose_frame, to_grey
from napari_emtransfer.core.data.readers.resolution import from_dpi

# Neither deflate (1:1032) nor JPEG packs an image tighter than this.
_MAX_COMPRESSION: Final = 4000


def read(path: Path, frame: int | None) -> ImageData:
    """A greyscale picture, or a colour one with equal channels."""
    # The classes are used directly: Image.open refuses more than 179 megapixels as a "bomb", a mosaic has more.
    from PIL import JpegImagePlugin, PngImagePlugin

    choose_frame(path, 1, frame)
    with path.open("rb") as file:
        is_png = file.read(4) == b"\x89PNG"
    image: Any = PngImagePlugin.PngImageFile(path) if is_png else JpegImagePlugin.JpegImageFile(path)
    with image:
        check_size(path, image.width * image.height, compression=_MAX_COMPRESSION)
        size = from_dpi(image.info.get("dpi"))
        values = np.asarray(image.convert("RGBA") if image.mode in ("P", "PA") else image)
    return ImageData(_grey(path, values), size)


def _grey(path: Path, values: NDArray[Any]) -> NDArray[Any]:
    return to_grey(path, values) if values.ndim == 3 else values
