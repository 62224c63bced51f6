"""Masks of foreign data sets: every usual way of writing one becomes label values 0..K."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from napari_emtransfer.core.errors import LabelError

MASK_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".bmp", ".gif", ".npy", ".jpg", ".jpeg", ".webp"})
_MAX_VALUE = 65535


def read_mask(path: Path) -> NDArray[np.integer[Any]]:
    """Mask file → whole numbers (H, W): 1-bit, 8-bit, 16-bit, with a palette (its indices), or grey stored as colour.

    Raises
    ------
    LabelError
        When it cannot be read, is a stack, or is coloured.
    """
    try:
        values = _load(path)
    except Exception as error:  # image libraries raise anything on damaged files: this is the border
        raise LabelError(
            f"The mask {path.name!r} cannot be read: {' '.join(str(error).split())[:200]}.",
            "Save it again as an 8-bit PNG or TIFF.",
        ) from error
    values = _one_channel(path, np.squeeze(values))
    if not np.issubdtype(values.dtype, np.integer) and values.dtype != bool:
        if not np.array_equal(values, np.round(values)):
            raise LabelError(f"The mask {path.name!r} holds fractions.", "A mask holds one whole number per class.")
        values = values.astype(np.int64)
    return values.astype(np.uint8) if values.dtype == bool else values


def to_labels(mask: NDArray[np.integer[Any]], mapping: Mapping[int, int], *, name: str, hint: str) -> NDArray[np.uint8]:
    """Values of a mask (H, W) → label values by `mapping` (value → label; 0 = unlabelled).

    Raises
    ------
    LabelError
        Naming each value that has no meaning, and its share.
    """
    if mask.size and (mask.min() < 0 or mask.max() > _MAX_VALUE):
        unknown = f"{mask.min()} to {mask.max()}"
        raise LabelError(f"The mask of {name!r} holds values from {unknown}; known are {_known(mapping)}.", hint)
    counts = np.bincount(mask.ravel(), minlength=1)
    unknown_values = [int(value) for value in np.flatnonzero(counts) if int(value) not in mapping]
    if unknown_values:
        shown = ", ".join(f"{value} ({counts[value] / mask.size:.2%})" for value in unknown_values[:5])
        more = f" and {len(unknown_values) - 5} more" if len(unknown_values) > 5 else ""
        raise LabelError(f"The mask of {name!r} holds {shown}{more}; known values are {_known(mapping)}.", hint)
    table = np.zeros(counts.size, np.uint8)
    for value, label in mapping.items():
        if 0 <= value < table.size:
            table[value] = label
    return table[mask]


def _known(mapping: Mapping[int, int]) -> str:
    return ", ".join(map(str, sorted(mapping)))


def _load(path: Path) -> NDArray[Any]:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return np.asarray(np.load(path, allow_pickle=False))
    if suffix in (".tif", ".tiff"):
        try:
            return np.asarray(tifffile.imread(path))
        except ValueError:  # a compression that tifffile leaves to imagecodecs: Pillow knows LZW and the like
            pass
    # Image.open refuses more than 179 megapixels as a "bomb"; a mosaic's mask has more.
    with PngImagePlugin.PngImageFile(path) if suffix == ".png" else Image.open(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise ValueError("it holds several images")
        return np.asarray(image)


def _one_channel(path: Path, values: NDArray[Any]) -> NDArray[Any]:
    if values.ndim == 2:
        return values
    if values.ndim == 3 and values.shape[-1] in (2, 3, 4):
        colours = values[..., : 3 if values.shape[-1] > 2 else 1]  # without alpha
        if (colours == colours[..., :1]).all():
            return np.asarray(colours[..., 0])
        n = len(np.unique(colours.reshape(-1, colours.shape[-1]), axis=0))
        raise LabelError(
            f"The mask {path.name!r} is a colour image with {n} colours.",
            "Save one grey value per class: 0 (unlabelled), 1, 2, …",
        )
    raise LabelError(
        f"The mask {path.name!r} has shape {values.shape}, but a mask is one 2-D image.", "Save one plane."
    )
