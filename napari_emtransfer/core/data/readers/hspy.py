"""HyperSpy's HDF5 files."""

from __future__ import annotations

from pathlib import Path

from napari_emtransfer.core.data.readers.image_data import ImageData
from napari_emtransfer.core.data.readers.rosetta import load, to_image


def read(path: Path, frame: int | None) -> ImageData:
    """An image signal of a HyperSpy file."""
    return to_image(path, load(path, "hspy", lazy=True), frame)
