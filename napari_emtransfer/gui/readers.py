"""Readers for plain napari: drop a .dm4 or a .ser on the viewer, and it lies there in nanometres."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Nothing heavy here: napari imports this module to ask whether a file is ours.
if TYPE_CHECKING:
    from napari_emtransfer.core.data.micrograph import Micrograph

LayerData = tuple[Any, dict[str, Any], str]
Reader = Callable[[str | Sequence[str]], list[Any]]

# npe2's way to say "this file was mine, but it gives no layer".
_NO_LAYER: list[Any] = [(None,)]
_CHUNK_PX = 2048


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """Whether we read `path` (or all of several paths), as napari asks it: a reader, or None."""
    from napari_emtransfer.core.data.readers.sniff import SUFFIXES

    paths = _as_list(path)
    return read_layers if paths and all(p.suffix.lower() in SUFFIXES for p in paths) else None


def read_layers(path: str | Sequence[str]) -> list[Any]:
    """One image layer per file, with its scale in nm; a stack becomes one layer with a slider.

    A file that cannot be opened is reported in napari's own notification, the others are still opened.
    """
    from napari_emtransfer.core.errors import EMTransferError

    layers: list[Any] = []
    for one in _as_list(path):
        try:
            layers += _read_file(one)
        except EMTransferError as error:
            from napari.utils.notifications import show_error

            show_error(str(error))
    return layers or _NO_LAYER


def _read_file(path: Path) -> list[LayerData]:
    from napari_emtransfer.core.data.readers import StackError, read_micrograph

    try:
        return [_layer(read_micrograph(path))]
    except StackError as error:
        first, last = (read_micrograph(path, frame=i) for i in (0, error.n_frames - 1))
        if first.shape == last.shape:
            return [_stack_layer(path, first, error.n_frames)]
        # Several detectors rather than a series: their images differ in size.
        return [_layer(read_micrograph(path, frame=i), suffix=f" [{i}]") for i in range(error.n_frames)]


def _layer(micrograph: Micrograph, suffix: str = "") -> LayerData:
    return _pixels(micrograph), _attributes(micrograph, 2) | {"name": micrograph.name + suffix}, "image"


def _stack_layer(path: Path, first: Micrograph, n_frames: int) -> LayerData:
    import dask.array as da
    from dask.delayed import delayed

    frame = delayed(_read_frame, pure=True)
    dtype = first.pixels.dtype.newbyteorder("=")
    frames = [da.from_delayed(frame(path, i), first.shape, dtype) for i in range(n_frames)]  # type: ignore[no-untyped-call]
    return da.stack(frames), _attributes(first, 3), "image"  # type: ignore[no-untyped-call]


def _read_frame(path: Path, index: int) -> Any:
    from napari_emtransfer.core.data.readers import read_micrograph

    return _pixels(read_micrograph(path, frame=index))


def _pixels(micrograph: Micrograph) -> Any:
    import numpy as np

    pixels = micrograph.pixels
    if micrograph.is_small:
        values = np.asarray(pixels[:, :])
        return values.astype(values.dtype.newbyteorder("="), copy=False)  # OpenGL takes this machine's order only
    import dask.array as da

    return da.from_array(pixels, chunks=_CHUNK_PX)  # type: ignore[no-untyped-call]


def _attributes(micrograph: Micrograph, ndim: int) -> dict[str, Any]:
    facts = {
        **micrograph.metadata,
        "pixel_size_nm": micrograph.pixel_size_nm,
        "path": str(micrograph.path),
        "problems": [problem.message for problem in micrograph.problems],
    }
    attributes: dict[str, Any] = {"name": micrograph.name, "metadata": {"micrograph": facts}, "colormap": "gray"}
    if micrograph.pixel_size_nm is not None:
        leading = ndim - 2
        size = micrograph.pixel_size_nm
        attributes["scale"] = (1.0,) * leading + (size, size)
        attributes["units"] = ("pixel",) * leading + ("nm", "nm")
    return attributes


def _as_list(path: str | Sequence[str]) -> list[Path]:
    return [Path(path)] if isinstance(path, str) else [Path(p) for p in path]
