"""The files of a synthetic data set: images and instances as TIFF with their pixel size, labels as PNG."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from napari_emtransfer.core.data.storage import storage_error, storage_faults, write_atomic
from napari_emtransfer.core.errors import StorageError
from napari_emtransfer.core.synth.micrograph import SyntheticMicrograph

_NM_PER_CM: Final = 1e7
# Two bytes each for image and instances, and labels, which PNG makes small.
_BYTES_PER_PIXEL: Final = 4.3
_GB: Final = 1e9


def write_micrograph(folder: Path, stem: str, made: SyntheticMicrograph, values: NDArray[np.uint8]) -> Path:
    """Write image and labels below `folder`; `values` maps its class numbers to mask values. → the image.

    Raises
    ------
    OSError
        When the disk refuses.
    """
    image = folder / "images" / f"{stem}.tif"
    _write_tiff(image, _digits(made), made.pixel_size_nm)
    _write_png(folder / "masks" / f"{stem}.png", values[made.mask])
    if made.boundaries is not None:
        _write_png(folder / "boundaries" / f"{stem}.png", made.boundaries * np.uint8(255))
    if made.instances is not None:
        _write_tiff(folder / "instances" / f"{stem}.tif", _smallest(made.instances), made.pixel_size_nm)
    return image


@contextmanager
def all_or_nothing(path: Path) -> Iterator[None]:
    """Turn every `OSError` inside the block into a `StorageError` which says that nothing is left behind."""
    try:
        yield
    except OSError as error:
        message = storage_error(error, path).message
        hint = "Nothing was left behind; free some space, or make fewer or smaller micrographs."
        raise StorageError(message, hint) from error


def check_space(folder: Path, n: int, shape: tuple[int, int]) -> None:
    """Raise `StorageError` where the disk of `folder` has too little room for `n` micrographs (H, W)."""
    parent = next(place for place in (folder, *folder.parents) if place.exists())
    with storage_faults(folder):
        free = shutil.disk_usage(parent).free
    needed = n * shape[0] * shape[1] * _BYTES_PER_PIXEL
    if needed > free:
        raise StorageError(
            f"{n} micrographs of {shape[0]} × {shape[1]} pixels need about {needed / _GB:.1f} GB, and {free / _GB:.1f} "
            f"GB are free for {str(folder)!r}.",
            "Make fewer or smaller ones, or write to another disk.",
        )


def _digits(made: SyntheticMicrograph) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The image in the depth of its detector; 16 bits where it says none."""
    detector = made.recipe.get("detector") or {}
    if detector.get("bits") == 8:
        return np.round(made.image * 255).astype(np.uint8)
    return np.round(made.image * 65535).astype(np.uint16)


def _smallest(instances: NDArray[np.int32]) -> NDArray[np.uint16] | NDArray[np.uint32]:
    return instances.astype(np.uint16) if instances.max(initial=0) < 2**16 else instances.astype(np.uint32)


def _write_tiff(path: Path, pixels: NDArray[Any], pixel_size_nm: float) -> None:
    per_cm = _NM_PER_CM / pixel_size_nm
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, resolution=(per_cm, per_cm), resolutionunit="CENTIMETER", metadata=None)
    write_atomic(path, file.getvalue())


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="png")
    write_atomic(path, file.getvalue())
