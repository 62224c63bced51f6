"""Zarr arrays and OME-Zarr images, lazily; of a pyramid the full resolution."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from napari_emtransfer.core.data.micrograph import Plane, Problem
from napari_emtransfer.core.data.readers.image_data import (
    ImageData,
    check_real,
    choose_frame,
    flatten_planes,
    looks_coloured,
    spectrum,
    to_grey,
)
from napari_emtransfer.core.data.readers.units import pixel_size
from napari_emtransfer.core.errors import NotAMicrographError


def read(path: Path, frame: int | None) -> ImageData:
    """A plain array, the only array of a group, or level 0 of an OME-Zarr image."""
    node = zarr.open(str(path), mode="r")
    if isinstance(node, zarr.Array):
        return _image(path, node, frame, None, ())
    multiscales = _multiscales(node.attrs.asdict())
    if multiscales is None:
        return _image(path, _only_array(path, node), frame, None, ())
    level: Any = node[str(multiscales["datasets"][0]["path"])]
    return _image(path, level, frame, *_ome_pixel_size(multiscales))


def _image(path: Path, array: Any, frame: int | None, size: float | None, problems: tuple[Problem, ...]) -> ImageData:
    check_real(path, array.dtype)
    if array.ndim < 2:
        raise spectrum(path, array.size)
    if looks_coloured(array.shape):
        return ImageData(to_grey(path, np.asarray(array[:])), size, problems=problems)
    chosen = choose_frame(path, int(np.prod(array.shape[:-2])), frame)
    return ImageData(Plane(array, flatten_planes(array, chosen)), size, problems=problems)


def _only_array(path: Path, group: zarr.Group) -> Any:
    arrays = dict(group.arrays())
    if len(arrays) != 1:
        names = ", ".join(sorted(arrays)) or "none"
        raise NotAMicrographError(
            f"{path.name!r} is a Zarr group with {len(arrays)} arrays ({names}) and no OME-Zarr image.",
            "Open one of its arrays: the folder inside it.",
        )
    return next(iter(arrays.values()))


def _multiscales(attributes: Mapping[str, Any]) -> Mapping[str, Any] | None:
    # Version 0.5 moved the key below "ome".
    found = attributes.get("ome", attributes).get("multiscales")
    return found[0] if found else None


def _ome_pixel_size(multiscales: Mapping[str, Any]) -> tuple[float | None, tuple[Problem, ...]]:
    units = [str(axis.get("unit", "")) if isinstance(axis, dict) else "" for axis in multiscales.get("axes", [])]
    scale = np.ones(len(units))
    for holder in (multiscales, multiscales["datasets"][0]):
        for transformation in holder.get("coordinateTransformations", []):
            if transformation.get("type") == "scale":
                scale = scale * np.asarray(transformation["scale"], float)
    return pixel_size(list(scale[-2:]), units[-2:]) if len(units) >= 2 else (None, ())
