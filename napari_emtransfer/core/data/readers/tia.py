"""FEI's TIA: .ser holds the pixels, .emi what the microscope says about them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

from napari_emtransfer.core.data.readers.image_data import ImageData, truncated
from napari_emtransfer.core.data.readers.rosetta import Signal, load, to_image
from napari_emtransfer.core.errors import UnreadableFileError

_OBJECT_INFO: Final = re.compile(rb"<ObjectInfo>.*?</ObjectInfo>", re.DOTALL)
_FACTS: Final = {
    "High tension": "voltage_kv",
    "Microscope": "instrument",
    "Magnification": "magnification",
    "Mode": "mode",
    "Stage A": "tilt_alpha_deg",
}


def read(path: Path, frame: int | None) -> ImageData:
    """The image of a .ser, or of the .ser files (NAME_1.ser, …) that belong to an .emi."""
    if path.open("rb").read(2) == b"II":
        return to_image(path, _load_ser(path), frame)
    metadata = _emi_metadata(path)
    signals: list[Signal] = [signal for ser in _ser_files(path) for signal in _load_ser(ser)]
    data = to_image(path, signals, frame)
    return ImageData(data.pixels, data.pixel_size_nm, {**data.metadata, **metadata}, data.problems)


def _load_ser(path: Path) -> list[Signal]:
    return load(path, "tia", lazy=True)


def _ser_files(emi: Path) -> list[Path]:
    pattern = re.compile(re.escape(emi.stem) + r"_(\d+)\.ser", re.IGNORECASE)
    numbered = [(int(m.group(1)), p) for p in emi.parent.iterdir() if (m := pattern.fullmatch(p.name))]
    if not numbered:
        raise UnreadableFileError(
            f"{emi.name!r} only describes an image; its pixels are in {emi.stem}_1.ser, which is not beside it.",
            "Copy the .ser file into the same folder, or open it directly.",
        )
    return [path for _, path in sorted(numbered)]


def _emi_metadata(path: Path) -> dict[str, Any]:
    found = _OBJECT_INFO.search(path.read_bytes())
    if found is None:
        raise truncated(path, "the description of the image is missing")
    root = ET.fromstring(found.group())  # noqa: S314 - the file of a microscope; expat bounds expansion
    metadata: dict[str, Any] = {}
    for entry in root.iter("Data"):
        label, value = entry.findtext("Label") or "", entry.findtext("Value") or ""
        if label in _FACTS and value:
            metadata[_FACTS[label]] = _number(value)
    acquired = root.findtext("AcquireDate")
    return metadata | ({"acquired": acquired} if acquired else {})


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
