"""What a reader hands over, and the rules that turn arrays of any shape into one grey image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.data.micrograph import Pixels, Problem, StackError
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import NotAMicrographError, UnreadableFileError

_COLOUR_HINT: Final = (
    "Export the grey signal from the microscope's software, or convert the image to 8- or 16-bit grey."
)
_SPECTRUM_HINT: Final = "Open an image: for example the survey image or a map exported as an image."
# Neutral grey after JPEG may be a few levels off; below this no eye sees a colour.
_COLOUR_TOLERANCE: Final = 0.012


@dataclass(frozen=True)
class ImageData:
    """One grey image (H, W) out of a file, before anybody looked at its pixels."""

    pixels: Pixels
    pixel_size_nm: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    info_bar: Window | None = None


def choose_frame(path: Path, n_frames: int, frame: int | None, *, names: Sequence[str] = ()) -> int:
    """Index of the image to open; raises StackError when there are several and none, or a missing one, is asked for."""
    if frame is None and n_frames == 1:
        return 0
    if frame is not None and 0 <= frame < n_frames:
        return frame
    listed = f" ({', '.join(names)})" if any(names) and len(names) == n_frames <= 8 else ""
    last = n_frames - 1
    asked = "" if frame is None else f", so there is no frame {frame}"
    hint = f"Choose one: frame 0 to {last}." if n_frames > 1 else "Leave the frame out, or ask for frame 0."
    raise StackError(f"{path.name!r} holds {n_frames} image(s){listed}{asked}.", hint, n_frames=n_frames)


def to_grey(path: Path, values: NDArray[Any]) -> NDArray[Any]:
    """Channels last (H, W, 1..4) → grey (H, W): alpha is dropped, three equal channels are one.

    Raises
    ------
    NotAMicrographError
        When the channels differ: a photograph, a coloured map, an overlay.
    """
    colours = values[..., :3] if values.shape[-1] >= 3 else values[..., :1]
    limit = _COLOUR_TOLERANCE * (np.iinfo(values.dtype).max if values.dtype.kind in "ui" else float(values.max()))
    if colours.shape[-1] == 3 and float(np.ptp(colours, axis=-1).max()) > limit:
        raise NotAMicrographError(
            f"{path.name!r} is a colour image: its red, green and blue channels differ.", _COLOUR_HINT
        )
    return np.ascontiguousarray(colours[..., colours.shape[-1] // 2])


def looks_coloured(shape: tuple[int, ...]) -> bool:
    """Whether an array's shape is that of an image with channels last, not of a stack."""
    return len(shape) == 3 and shape[-1] in (3, 4) and min(shape[:2]) > 4


def spectrum(path: Path, n_channels: int, *, shape: tuple[int, ...] = ()) -> NotAMicrographError:
    """The refusal of one spectrum, a line of spectra (n,) or a spectrum image (h, w)."""
    if not shape:
        what = f"a spectrum with {n_channels} channels"
    elif len(shape) == 1:
        what = f"a line scan of {shape[0]} spectra with {n_channels} channels each"
    else:
        what = f"a spectrum image ({' × '.join(map(str, shape))} spectra with {n_channels} channels each)"
    return NotAMicrographError(f"{path.name!r} is {what}, not an image.", _SPECTRUM_HINT)


def four_dimensional(path: Path, shape: tuple[int, ...]) -> NotAMicrographError:
    """The refusal of a 4D-STEM set (scan rows, scan columns, detector rows, detector columns)."""
    scan, detector = f"{shape[-4]} × {shape[-3]}", f"{shape[-2]} × {shape[-1]}"
    return NotAMicrographError(
        f"{path.name!r} is a 4D-STEM set: {scan} scan positions with diffraction patterns of {detector} pixels.",
        "Compute a virtual image (bright field, annular dark field) first and open that.",
    )


def check_real(path: Path, dtype: np.dtype[Any]) -> None:
    """Refuse pixels that are no plain numbers: complex waves, records, text."""
    if dtype.kind == "c":
        raise NotAMicrographError(
            f"{path.name!r} holds complex numbers: a wave function, a hologram's side band or a Fourier transform.",
            "Export its amplitude or phase as an image.",
        )
    if dtype.kind not in "buif":
        raise NotAMicrographError(
            f"{path.name!r} holds {dtype} values, which are no grey values.", "Export a greyscale image."
        )


def check_size(path: Path, n_bytes: int, *, compression: float = 1.0) -> None:
    """Refuse a file that is smaller than the pixels it announces, before anybody allocates memory for them."""
    size = path.stat().st_size
    if n_bytes > size * compression:
        raise truncated(path, f"it announces {n_bytes:,} bytes of pixels but measures {size:,} bytes")


def truncated(path: Path, why: str) -> UnreadableFileError:
    """The error for a file that ends too early."""
    return UnreadableFileError(f"{path.name!r} is truncated or damaged: {why}.", "Copy it again from its source.")


def flatten_planes(values: Any, index: int) -> tuple[int, ...]:
    """Flat frame number → index into the leading axes of `values` (…, H, W)."""
    return tuple(int(i) for i in np.unravel_index(index, values.shape[:-2]))


def one_line(error: BaseException) -> str:
    """An exception's text as half a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.rstrip(".")[:200]
