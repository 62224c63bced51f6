"""MRC (and CCP4 maps, stacks), memory-mapped; the header through mrcfile."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from mrcfile.utils import data_dtype_from_header, data_shape_from_header

from napari_emtransfer.core.data.micrograph import Plane
from napari_emtransfer.core.data.readers.image_data import (
    ImageData,
    check_real,
    check_size,
    choose_frame,
    flatten_planes,
    truncated,
)
from napari_emtransfer.core.data.readers.units import pixel_size

_HEADER_BYTES = 1024


def read(path: Path, frame: int | None) -> ImageData:
    """One section of an MRC file; cell size over samples gives the pixel size, in ångström."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mrcfile warns of every liberty that microscopes take with the header
        with mrcfile.open(path, mode="r", permissive=True, header_only=True) as mrc:
            header = mrc.header.copy()
            scales = [float(mrc.voxel_size.y), float(mrc.voxel_size.x)]
            metadata = _metadata(mrc)
    dtype, shape = data_dtype_from_header(header), data_shape_from_header(header)
    check_real(path, dtype)
    offset = _HEADER_BYTES + int(header.nsymbt)
    if min(shape) < 1 or offset < _HEADER_BYTES:
        raise truncated(path, "its header makes no sense")
    # Whole numbers: the shape may be nonsense that would overflow.
    check_size(path, offset + int(np.prod(shape, dtype=object)) * dtype.itemsize)
    values = np.memmap(path, dtype, "r", offset, shape)
    n_frames = int(np.prod(shape[:-2]))
    plane = Plane(values, flatten_planes(values, choose_frame(path, n_frames, frame)))
    size, problems = pixel_size(scales, ["Å", "Å"]) if all(s > 0 for s in scales) else (None, ())
    return ImageData(plane, size, metadata, problems)


def _metadata(mrc: Any) -> dict[str, Any]:
    """Voltage and magnification of the extended header that FEI's software writes (FEI1, FEI2)."""
    if bytes(mrc.header.exttyp)[:3] != b"FEI":
        return {}
    try:
        first = mrc.indexed_extended_header[0]
        found = {
            "voltage_kv": float(first["HT"]) / 1e3,
            "magnification": float(first["Magnification"]),
            "instrument": bytes(first["Microscope type"]).decode("ascii", "ignore").strip("\0 "),
            "detector": bytes(first["STEM Detector name"]).decode("ascii", "ignore").strip("\0 "),
        }
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return {}  # the pixels do not depend on it
    return {key: value for key, value in found.items() if value}
