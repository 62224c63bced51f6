"""NumPy's .npy, memory-mapped."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_emtransfer.core.data.micrograph import Plane
from napari_emtransfer.core.data.readers.image_data import (
    ImageData,
    check_real,
    choose_frame,
    flatten_planes,
    looks_coloured,
    spectrum,
    to_grey,
)


def read(path: Path, frame: int | None) -> ImageData:
    """An array (H, W), one plane of (…, H, W), or grey with channels (H, W, 3)."""
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    check_real(path, values.dtype)
    if values.ndim < 2:
        raise spectrum(path, values.size)
    if looks_coloured(values.shape):
        return ImageData(to_grey(path, values))
    if values.ndim == 2:
        choose_frame(path, 1, frame)
        return ImageData(values)
    chosen = choose_frame(path, int(np.prod(values.shape[:-2])), frame)
    return ImageData(Plane(values, flatten_planes(values, chosen)))
