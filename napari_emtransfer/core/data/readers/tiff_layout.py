"""Whether a TIFF file is complete: every tag and every strip of every page must lie within the file."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Final

import tifffile

from napari_emtransfer.core.data.readers.image_data import truncated

_MAX_CHECKED_PAGES: Final = 64
_UNCOMPRESSED: Final = 1
_MAX_COMPRESSION: Final = 4000  # deflate reaches 1:1032; LZW and JPEG stay below 4000
_TYPE_BYTES: Final = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)


def check_complete(path: Path, tif: tifffile.TiffFile) -> None:
    """Raise UnreadableFileError for a file that ends before its tags or pixels do.

    tifffile skips broken tags and fills missing strips with zeros: a micrograph with a black lower half
    and no pixel size would look honest.
    """
    size = path.stat().st_size
    _check_directories(path, tif, size)
    for number, page in enumerate(tif.pages[:_MAX_CHECKED_PAGES]):
        _check_page(path, page, number, size)


def _check_directories(path: Path, tif: tifffile.TiffFile, size: int) -> None:
    layout: Any = tif.tiff
    with path.open("rb") as file:
        file.seek(8 if layout.is_bigtiff else 4)
        offset = _number(file.read(layout.offsetsize), layout.offsetformat)
        for number in range(_MAX_CHECKED_PAGES):
            if offset is None or not 0 < offset < size:
                raise truncated(path, f"the directory of page {number} lies beyond its end")
            file.seek(offset)
            n_tags = _number(file.read(layout.tagnosize), layout.tagnoformat) or 0
            entries = file.read(min(n_tags * layout.tagsize, size))
            offset = _number(file.read(layout.offsetsize), layout.offsetformat)
            if len(entries) < n_tags * layout.tagsize or offset is None:
                raise truncated(path, f"the directory of page {number} is cut off")
            for start in range(0, len(entries), layout.tagsize):
                _check_tag(path, layout, entries[start : start + layout.tagsize], size)
            if offset == 0:
                return


def _check_tag(path: Path, layout: Any, entry: bytes, size: int) -> None:
    code, kind = struct.unpack_from(layout.byteorder + "HH", entry)
    count, value = struct.unpack_from(layout.byteorder + ("QQ" if layout.is_bigtiff else "II"), entry, 4)
    n_bytes = count * (_TYPE_BYTES[kind] if kind < len(_TYPE_BYTES) else 0)
    if n_bytes > layout.offsetsize and value + n_bytes > size:
        raise truncated(path, f"tag {code} lies beyond its end")


def _check_page(path: Path, page: Any, number: int, size: int) -> None:
    ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if not ends or max(ends) > size:
        raise truncated(path, f"the pixels of page {number} lie beyond its end")
    factor = 1 if page.compression == _UNCOMPRESSED else _MAX_COMPRESSION
    wanted = page.imagewidth * page.imagelength * page.samplesperpixel * page.bitspersample // 8
    if wanted > sum(page.databytecounts) * factor:
        raise truncated(path, f"page {number} announces {wanted:,} bytes of pixels and holds fewer")


def _number(data: bytes, layout: str) -> int | None:
    return int(struct.unpack(layout, data)[0]) if len(data) == struct.calcsize(layout) else None
