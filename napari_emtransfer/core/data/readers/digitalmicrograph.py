"""Gatan's DM3 and DM4."""

from __future__ import annotations

import struct
from pathlib import Path

from napari_emtransfer.core.data.readers.image_data import ImageData, truncated
from napari_emtransfer.core.data.readers.rosetta import load, to_image


def read(path: Path, frame: int | None) -> ImageData:
    """The image of a DigitalMicrograph file; its thumbnail is passed over."""
    _check_length(path)
    return to_image(path, load(path, "digitalmicrograph", lazy=True), frame)


def _check_length(path: Path) -> None:
    """The header states the length of what follows it; before that stand 8 bytes in DM3, 12 in DM4, after it 8."""
    with path.open("rb") as file:
        head = file.read(12)
    if len(head) < 12:
        raise truncated(path, f"it has only {len(head)} bytes")
    is_dm4 = head[3] == 4
    stated = struct.unpack_from(">Q" if is_dm4 else ">I", head, 4)[0] + (20 if is_dm4 else 16)
    size = path.stat().st_size
    if size < stated:
        raise truncated(path, f"it announces {stated:,} bytes but measures {size:,} bytes")
