"""TIFF: memory-mapped where it is stored plainly, tile by tile where it is large, in memory otherwise."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_emtransfer.core.data.micrograph import MAX_INSPECTED_PIXELS, Pixels, Plane
from napari_emtransfer.core.data.readers.image_data import (
    ImageData,
    check_real,
    choose_frame,
    flatten_planes,
    to_grey,
    truncated,
)
from napari_emtransfer.core.data.readers.tiff_layout import check_complete
from napari_emtransfer.core.data.readers.tiff_metadata import describe
from napari_emtransfer.core.errors import NotAMicrographError

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it logs for odd files is checked or harmless

_MINISWHITE: Final = 0
_PALETTE: Final = 3


def read(path: Path, frame: int | None) -> ImageData:
    """One image of a TIFF file; previews of another size are passed over."""
    with tifffile.TiffFile(path) as tif:
        check_complete(path, tif)
        series = _image_series(path, tif)
        frames = [(s, i) for s in series for i in range(_n_frames(s))]
        chosen, index = frames[choose_frame(path, len(frames), frame)]
        facts = describe(tif, chosen)
        return ImageData(
            _pixels(path, tif, chosen, index), facts.pixel_size_nm, facts.metadata, facts.problems, facts.info_bar
        )


def _image_series(path: Path, tif: tifffile.TiffFile) -> list[Any]:
    """Series that hold images: Olympus puts a coloured preview first, others a thumbnail last."""
    series = [s for s in tif.series if s.ndim >= 2 and not s.keyframe.is_reduced]
    if not series:
        raise truncated(path, "it holds no image")
    own = [s for s in series if s.keyframe.is_sis]
    largest = max(own or series, key=lambda s: s.keyframe.imagewidth * s.keyframe.imagelength)
    return [s for s in own or series if s.keyframe.shape[:2] == largest.keyframe.shape[:2]]


def _n_frames(series: Any) -> int:
    return int(np.prod([n for n, axis in zip(series.shape, series.axes, strict=True) if axis not in "YXS"]))


def _pixels(path: Path, tif: tifffile.TiffFile, series: Any, index: int) -> Pixels:
    page = series.keyframe
    check_real(path, np.dtype(series.dtype))
    if page.photometric == _PALETTE and not _is_grey_ramp(page.colormap):
        return _through_colormap(path, _load(path, series, index), page.colormap)
    if "S" in series.axes or page.photometric == _MINISWHITE or page.samplesperpixel > 1:
        return _as_grey(path, page, _load(path, series, index))
    if series.dataoffset is not None and not series.is_multifile:
        values = tifffile.memmap(path, series=tif.series.index(series), mode="r")
        return Plane(values, flatten_planes(values, index))
    if page.imagewidth * page.imagelength > MAX_INSPECTED_PIXELS:
        lazy = _lazy(path, tif.series.index(series), index)
        if lazy is not None:
            return lazy
    return _load(path, series, index)


def _lazy(path: Path, series_index: int, index: int) -> Pixels | None:
    """The plane through Zarr, chunk by chunk; None where its compression needs a package that is not installed."""
    import zarr

    values: Any = zarr.open(tifffile.imread(path, aszarr=True, series=series_index, level=0), mode="r")
    plane = Plane(values, flatten_planes(values, index))
    try:
        np.asarray(plane[0:1, 0:1])
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        return None
    return plane


def _load(path: Path, series: Any, index: int) -> NDArray[Any]:
    """The pixels of one frame, (H, W) or with channels last (H, W, S), read into memory."""
    try:
        if len(series.pages) == _n_frames(series):
            page = series.pages[index]
            values, axes = page.asarray(), page.axes
        else:
            values, axes = series.asarray(), series.axes
            values = _drop_leading(values, axes, index)
            axes = "".join(a for a in axes if a in "YXS")
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        return _load_with_pillow(path, series.pages[index].index)
    return np.moveaxis(values, axes.index("S"), -1) if "S" in axes else values


def _drop_leading(values: NDArray[Any], axes: str, index: int) -> NDArray[Any]:
    kept = [i for i, axis in enumerate(axes) if axis in "YXS"]
    leading = [i for i in range(values.ndim) if i not in kept]
    ordered = np.transpose(values, leading + kept)
    return ordered.reshape(-1, *(values.shape[i] for i in kept))[index]


def _load_with_pillow(path: Path, page_index: int) -> NDArray[Any]:
    # LZW and JPEG need the package imagecodecs in tifffile; Pillow brings its own decoders.
    from PIL import TiffImagePlugin

    with TiffImagePlugin.TiffImageFile(path) as image:
        image.seek(page_index)
        return np.asarray(image)


def _as_grey(path: Path, page: Any, values: NDArray[Any]) -> NDArray[Any]:
    grey = to_grey(path, values) if values.ndim == 3 else values
    if page.photometric == _MINISWHITE and grey.dtype.kind in "ub":
        return np.invert(grey)
    return grey


def _is_grey_ramp(colormap: Any) -> bool:
    return bool(
        (colormap[0] == colormap[1]).all()
        and (colormap[1] == colormap[2]).all()
        and np.all(np.diff(colormap[0].astype(int)) >= 0)
    )


def _through_colormap(path: Path, values: NDArray[Any], colormap: Any) -> NDArray[Any]:
    if values.ndim != 2:
        raise NotAMicrographError(f"{path.name!r} has a palette and {values.ndim} axes.", "Save it as plain grey.")
    return to_grey(path, np.moveaxis(colormap[:, values], 0, -1))
