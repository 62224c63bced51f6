"""A micrograph: one image of one specimen, read lazily, with its pixel size and what its file says about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_emtransfer.core.data.info_bar import find_info_bar
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import NotAMicrographError, UnreadableFileError

# Above this the pixels are looked at in a few samples only: opening must not read the whole file.
MAX_INSPECTED_PIXELS: Final = 64_000_000
_SAMPLE_EDGE: Final = 256


class Pixels(Protocol):
    """Anything two-dimensional that can be sliced: ndarray, memmap, zarr or dask array, one plane of a stack."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W)."""

    @property
    def dtype(self) -> Any:
        """Type of a pixel."""

    def __getitem__(self, index: tuple[slice, slice], /) -> ArrayLike: ...


class StackError(NotAMicrographError):
    """The file holds several images, and none was chosen."""

    kind = "stack"

    def __init__(self, message: str, hint: str = "", *, n_frames: int) -> None:
        super().__init__(message, hint)
        self.n_frames = n_frames


@dataclass(frozen=True)
class Problem:
    """Something that hinders nothing, but that the user should know: a code, a sentence, a way out."""

    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Micrograph:
    """One grey image (H, W) in native pixels.

    Parameters
    ----------
    name
        The stem under which projects know it.
    pixels
        Native pixels, lazy where the format allows.
    pixel_size_nm
        Edge length of a pixel in nm; None where the file does not say it.
    metadata
        What the file states (voltage_kv, magnification, detector, instrument, acquired, …): flat, JSON-able.
    info_bar
        The data bar that SEM software burns into an image, in native pixels.
    problems
        What the user should know about it.
    """

    name: str
    pixels: Pixels
    pixel_size_nm: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    info_bar: Window | None = None
    problems: tuple[Problem, ...] = ()

    @classmethod
    def inspected(
        cls,
        name: str,
        pixels: Pixels,
        pixel_size_nm: float | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        path: Path | None = None,
        info_bar: Window | None = None,
        problems: tuple[Problem, ...] = (),
    ) -> Micrograph:
        """Make a micrograph and look at its pixels: info bar, non-finite values, constant image."""
        bare = cls(name, pixels, pixel_size_nm, metadata or {}, path, info_bar)
        bar = info_bar or (bare.find_info_bar() if bare.is_small else None)
        found = (*problems, *bare.find_problems(bar, sizeless=any(p.code == "diffraction" for p in problems)))
        return cls(name, pixels, pixel_size_nm, metadata or {}, path, bar, found)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in native pixels."""
        height, width = self.pixels.shape
        return int(height), int(width)

    @property
    def is_small(self) -> bool:
        """Whether the whole image may be looked at when it is opened."""
        return self.shape[0] * self.shape[1] <= MAX_INSPECTED_PIXELS

    def read(self, window: Window | None = None) -> NDArray[np.float32]:
        """Pixels of `window` (everything when None) → float32 (h, w); non-finite ones become the image's median.

        Raises
        ------
        UnreadableFileError
            When the file broke off or vanished after it was opened.
        """
        slices = (slice(None), slice(None)) if window is None else window.slices
        values = self._load(slices)
        finite = np.isfinite(values)
        return values if finite.all() else np.where(finite, values, np.float32(self.fill_value))

    def sample(self, max_pixels: int) -> tuple[NDArray[np.float32], int]:
        """Every n-th row and column such that at most about `max_pixels` remain → (float32 (h, w), n)."""
        height, width = self.shape
        step = max(1, int(np.ceil(np.sqrt(height * width / max_pixels))))
        values = self._load((slice(None, None, step), slice(None, None, step)))
        finite = np.isfinite(values)
        return (values if finite.all() else np.where(finite, values, np.float32(self.fill_value))), step

    @cached_property
    def fill_value(self) -> float:
        """Median of the finite pixels, from a sample on large images: what stands in for non-finite pixels."""
        values = self._inspected_values()
        finite = values[np.isfinite(values)]
        return float(np.median(finite)) if finite.size else 0.0

    def find_info_bar(self) -> Window | None:
        """Look for a data bar at the bottom or the top; reads at most half of the image."""
        return find_info_bar(self.shape, lambda rows: self._load((rows, slice(None))))

    def find_problems(self, bar: Window | None, *, sizeless: bool) -> tuple[Problem, ...]:
        """Look at the pixels (a sample on large images) and name what the user should know."""
        values = self._inspected_values()
        finite = np.isfinite(values)
        found = [] if self.pixel_size_nm is not None or sizeless else [_NO_PIXEL_SIZE]
        if not finite.all():
            n = int(values.size - finite.sum())
            found.append(Problem("nonfinite", f"{n} pixels of {self.name!r} are NaN or infinite.", _NONFINITE_HINT))
        kept = np.where(finite, values, np.nan)
        if not finite.any() or np.nanmin(kept) == np.nanmax(kept):
            found.append(Problem("constant", f"All pixels of {self.name!r} have the same value.", _CONSTANT_HINT))
        if bar is not None:
            found.append(Problem("info_bar", f"Rows {bar.y0} to {bar.y1} are an info bar.", _INFO_BAR_HINT))
        return tuple(found)

    def _inspected_values(self) -> NDArray[np.float32]:
        if self.is_small:
            return self._load((slice(None), slice(None)))
        starts = [np.linspace(0, length - _SAMPLE_EDGE, 3).astype(int) for length in self.shape]
        blocks = [
            self._load((slice(y, y + _SAMPLE_EDGE), slice(x, x + _SAMPLE_EDGE)))
            for y in map(int, np.maximum(starts[0], 0))
            for x in map(int, np.maximum(starts[1], 0))
        ]
        return np.concatenate([block.ravel() for block in blocks])

    def _load(self, slices: tuple[slice, slice]) -> NDArray[np.float32]:
        try:
            # 64-bit values beyond the range of float32 become infinite, and infinite pixels are filled.
            with np.errstate(over="ignore", invalid="ignore"):
                return np.asarray(self.pixels[slices]).astype(np.float32)
        except Exception as error:  # whatever the storage library raises on a chunk that is broken or gone
            raise UnreadableFileError(
                f"The pixels of {self.name!r} cannot be read: {error}.",
                "The file is damaged or was moved while it was open; copy it again from the microscope.",
            ) from error


@dataclass(frozen=True)
class Plane:
    """One plane of an array of more than two dimensions, as lazy as the array itself."""

    stack: Any
    index: tuple[int, ...]
    ndim = 2

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.stack.shape[-2:]
        return int(height), int(width)

    @property
    def dtype(self) -> Any:
        """Type of a pixel."""
        return self.stack.dtype

    def __getitem__(self, index: tuple[slice, slice], /) -> ArrayLike:
        plane: ArrayLike = self.stack[(*self.index, *index)]
        return plane


_NO_PIXEL_SIZE: Final = Problem(
    "no_pixel_size",
    "The file does not state a believable pixel size.",
    "Enter it in nm (from the scale bar), or results stay in pixels and scales cannot be matched.",
)
_NONFINITE_HINT: Final = "They are read as the median of the others; leave them unlabelled."
_CONSTANT_HINT: Final = "Nothing can be learnt from it; check the detector's brightness and contrast, or remove it."
_INFO_BAR_HINT: Final = "They are left out of the intensities; leave them unlabelled, too."
