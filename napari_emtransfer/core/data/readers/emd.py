"""EMD in both flavours, Berkeley's (NCEM) and Thermo Fisher's Velox; and a word about other HDF5 files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from napari_emtransfer.core.data.readers.image_data import ImageData
from napari_emtransfer.core.data.readers.rosetta import Signal, load, to_image
from napari_emtransfer.core.errors import UnreadableFileError

# NCEM names entries of the group "microscope" freely; these are the ones in use. Volts and metres.
_FACTS: Final = {
    "high tension": ("voltage_kv", 1e-3),
    "voltage": ("voltage_kv", 1e-3),
    "magnification": ("magnification", 1.0),
    "camera length": ("camera_length_mm", 1e3),
}


def read(path: Path, frame: int | None) -> ImageData:
    """An image of an EMD file."""
    try:
        signals = load(path, "emd", lazy=True)
    except UnreadableFileError as error:
        if "not a supported" in str(error) or "is not" in str(error.__cause__):
            raise _other_hdf5(path) from error
        raise
    if not signals:
        raise _other_hdf5(path)
    data = to_image(path, signals, frame)
    return ImageData(data.pixels, data.pixel_size_nm, {**_facts(signals[0]), **data.metadata}, data.problems)


def _facts(signal: Signal) -> dict[str, Any]:
    microscope = signal.get("original_metadata", {}).get("microscope", {})
    found: dict[str, Any] = {}
    for theirs, (ours, factor) in _FACTS.items():
        try:
            found[ours] = float(microscope[theirs]) * factor
        except (KeyError, TypeError, ValueError):
            continue
    name = microscope.get("name") if hasattr(microscope, "get") else None
    return found | ({"instrument": str(name)} if name else {})


def _other_hdf5(path: Path) -> UnreadableFileError:
    return UnreadableFileError(
        f"{path.name!r} is an HDF5 file, but neither EMD (Berkeley or Velox) nor HyperSpy.",
        "Export the image as TIFF from the program that wrote it.",
    )
