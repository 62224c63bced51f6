"""Bruker's BCF: only its electron image; the X-ray maps stay where they are."""

from __future__ import annotations

from pathlib import Path

from napari_emtransfer.core.data.readers.image_data import ImageData
from napari_emtransfer.core.data.readers.rosetta import load, to_image


def read(path: Path, frame: int | None) -> ImageData:
    """The SEM or STEM image that was taken with an X-ray map."""
    return to_image(path, load(path, "bruker", select_type="image"), frame)
