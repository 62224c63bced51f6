"""The common part of the formats that rosettasciio reads.

It is GPL-3 and an extra: imported only here, at the moment of use.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from napari_emtransfer.core.data.micrograph import MAX_INSPECTED_PIXELS, Pixels, Plane
from napari_emtransfer.core.data.readers.image_data import (
    ImageData,
    check_real,
    choose_frame,
    flatten_planes,
    four_dimensional,
    looks_coloured,
    one_line,
    spectrum,
    to_grey,
    truncated,
)
from napari_emtransfer.core.data.readers.units import is_reciprocal, pixel_size
from napari_emtransfer.core.errors import NotAMicrographError, UnreadableFileError

Signal = Mapping[str, Any]
_ENERGY_UNITS: Final = frozenset({"ev", "kev", "mev"})
# Leaves of rosettasciio's metadata tree → our words.
_NAMES: Final = {
    "beam_energy": "voltage_kv",
    "magnification": "magnification",
    "camera_length": "camera_length_mm",
    "microscope": "instrument",
    "detector_type": "detector",
    "working_distance": "working_distance_mm",
    "acquisition_mode": "mode",
    "tilt_alpha": "tilt_alpha_deg",
    "exposure": "exposure_s",
    "title": "title",
}


@dataclass(frozen=True)
class _Stack:
    """The images (…, H, W) of one signal."""

    signal: Signal
    n_frames: int

    @property
    def title(self) -> str:
        return str(self.signal.get("metadata", {}).get("General", {}).get("title", ""))


def load(path: Path, module: str, **options: Any) -> list[Signal]:
    """All signals of a file, lazily.

    Raises
    ------
    UnreadableFileError
        When the extra is not installed, or the parser gives up.
    """
    try:
        reader = importlib.import_module(f"rsciio.{module}")
        importlib.import_module("h5py")
    except ImportError as error:
        raise UnreadableFileError(
            f"Reading {path.name!r} needs the package {error.name!r}, which is not installed.",
            'Install it with: pip install "napari-emtransfer[formats]"',
        ) from error
    log = logging.getLogger("rsciio")
    level = log.level
    log.setLevel(logging.CRITICAL)  # what it logs for damaged files is said by the error instead
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            signals: list[Signal] = reader.file_reader(str(path), **options)
    except Exception as error:  # the parsers raise anything on damaged files
        raise truncated(path, one_line(error)) from error
    finally:
        log.setLevel(level)
    return signals


def to_image(path: Path, signals: Sequence[Signal], frame: int | None) -> ImageData:
    """Choose one image out of a file's signals.

    Raises
    ------
    NotAMicrographError
        When there are only spectra or 4D-STEM sets; StackError when one of several images must be chosen.
    """
    stacks, refusals = [], []
    for signal in map(_oriented, signals):
        try:
            stacks.append(_as_stack(path, signal))
        except NotAMicrographError as error:
            refusals.append(error)
    if not stacks:
        raise refusals[0] if refusals else UnreadableFileError(f"{path.name!r} holds no image.", "Open another file.")
    names = [stack.title for stack in stacks for _ in range(stack.n_frames)]
    chosen = choose_frame(path, len(names), frame, names=names if len(stacks) > 1 else ())
    for stack in stacks:
        if chosen < stack.n_frames:
            break
        chosen -= stack.n_frames
    return _image(path, stack.signal, chosen)


def _oriented(signal: Signal) -> Signal:
    """The signal with its axes in the order (frames, y, x) or (y, x, energy).

    rosettasciio transposes every EMD of Berkeley's kind, as HyperSpy writes them transposed; microscopes do not.
    """
    axes = signal["axes"]
    names = [str(axis.get("name", "")).casefold() for axis in axes]
    units = [str(axis.get("units", "")) for axis in axes]
    is_mirrored = names[:1] == ["x"] and "y" in names
    starts_with_signal = len(axes) > 2 and (_is_energy(axes[0]) or (is_reciprocal(units[0]) > is_reciprocal(units[-1])))
    if not (is_mirrored or starts_with_signal):
        return signal
    return {**signal, "data": signal["data"].transpose(), "axes": axes[::-1]}


def _as_stack(path: Path, signal: Signal) -> _Stack:
    data, axes = signal["data"], signal["axes"]
    if data.dtype.names:  # DigitalMicrograph's RGB
        raise NotAMicrographError(f"{path.name!r} is a colour image.", "Export the grey signal instead.")
    check_real(path, data.dtype)
    shape = tuple(int(n) for n in data.shape if n > 1) if data.size > 1 else data.shape
    energy = [int(n) for n, axis in zip(data.shape, axes, strict=True) if _is_energy(axis)]
    if energy:
        raise spectrum(path, energy[0], shape=tuple(n for n in shape if n != energy[0]))
    n_navigation = sum(1 for axis in axes if axis.get("navigate") and axis["size"] > 1)
    n_signal = sum(1 for axis in axes if not axis.get("navigate"))
    if len(shape) < 2 or n_signal == 1:
        raise spectrum(path, shape[-1] if shape else 1, shape=shape[:-1])
    if len(shape) >= 4 and n_navigation != 1:
        raise four_dimensional(path, shape)
    if looks_coloured(shape) and n_navigation == 0:
        return _Stack(signal, 1)
    return _Stack(signal, int(np.prod(shape[:-2])))


def _is_energy(axis: Mapping[str, Any]) -> bool:
    return str(axis.get("units", "")).casefold() in _ENERGY_UNITS


def _image(path: Path, signal: Signal, frame: int) -> ImageData:
    kept = [i for i, n in enumerate(signal["data"].shape) if n > 1] if signal["data"].size > 1 else [0, 1]
    values = signal["data"].reshape([signal["data"].shape[i] for i in kept])
    axes = [signal["axes"][i] for i in kept]
    if looks_coloured(values.shape) and not any(axis.get("navigate") for axis in axes):
        return ImageData(to_grey(path, np.asarray(values)), metadata=_metadata(signal))
    size, problems = pixel_size([a.get("scale", 1) for a in axes[-2:]], [str(a.get("units") or "") for a in axes[-2:]])
    plane = Plane(values, flatten_planes(values, frame))
    # In memory as a whole: parsers notice a file that ends too early only when its pixels are fetched.
    small = int(np.prod(plane.shape, dtype=object)) <= MAX_INSPECTED_PIXELS
    pixels: Pixels = np.asarray(plane[:, :]) if small else plane
    return ImageData(pixels, size, _metadata(signal), problems)


def _metadata(signal: Signal) -> dict[str, Any]:
    """What the file states, under our names.

    Parsers leave part of it in the original tree, with a table of where to find it.
    """
    tree = dict(signal.get("metadata", {}))
    leaves = {
        key: value for name in ("Acquisition_instrument", "General") for key, value in _leaves(tree.get(name, {}))
    }
    for source, (target, convert) in dict(signal.get("mapping") or {}).items():
        value = _lookup(signal.get("original_metadata", {}), source)
        if value is not None:
            leaves.setdefault(target.rsplit(".", 1)[-1], _converted(value, convert))
    found = {ours: _plain(leaves[theirs]) for theirs, ours in _NAMES.items() if leaves.get(theirs) not in (None, "")}
    when = f"{leaves.get('date', '')} {leaves.get('time', '')}".strip()
    return found | ({"acquired": when} if when else {})


def _leaves(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield key, value


def _lookup(tree: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        if not isinstance(tree, Mapping) or key not in tree:
            return None
        tree = tree[key]
    return tree


def _converted(value: Any, convert: Any) -> Any:
    try:
        return convert(value) if callable(convert) else value
    except (TypeError, ValueError, KeyError, ZeroDivisionError):
        return None  # an odd entry must not keep the image from opening


def _plain(value: Any) -> str | float | int:
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, str | int | float) else str(value)
