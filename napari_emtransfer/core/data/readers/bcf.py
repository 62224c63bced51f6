"""Bruker's BCF: only its electron image; the X-ray maps stay where they are."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

from napari_emtransfer.core.data.readers.image_data import ImageData, truncated
from napari_emtransfer.core.data.readers.rosetta import load, to_image

_CHUNK_SIZE_AT: Final = 0x128
_N_CHUNKS_AT: Final = 0x148
_FIRST_CHUNK_AT: Final = 0x118


def read(path: Path, frame: int | None) -> ImageData:
    """The SEM or STEM image that was taken with an X-ray map."""
    _check_length(path)
    return to_image(path, load(path, "bruker", select_type="image"), frame)


def _check_length(path: Path) -> None:
    """The container is a small file system: a header, then chunks of one size, whose number the header states."""
    with path.open("rb") as file:
        head = file.read(0x200)
    if len(head) < 0x200:
        raise truncated(path, f"it has only {len(head)} bytes")
    (chunk_size,), (n_chunks,) = (
        struct.unpack_from("<I", head, _CHUNK_SIZE_AT),
        struct.unpack_from("<I", head, _N_CHUNKS_AT),
    )
    stated, size = _FIRST_CHUNK_AT + chunk_size * n_chunks, path.stat().st_size
    if size < stated:
        raise truncated(path, f"it announces {stated:,} bytes but measures {size:,} bytes")
