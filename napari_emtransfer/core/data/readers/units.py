"""Lengths in the units that microscopes write, in nm."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final

from napari_emtransfer.core.data.micrograph import Problem

_NM: Final = {
    "m": 1e9, "meter": 1e9, "metre": 1e9,
    "cm": 1e7, "centimeter": 1e7, "mm": 1e6, "millimeter": 1e6, "inch": 2.54e7, "in": 2.54e7,
    "um": 1e3, "micron": 1e3, "microns": 1e3, "micrometer": 1e3, "micrometre": 1e3,
    "nm": 1.0, "nanometer": 1.0, "nanometre": 1.0,
    "a": 0.1, "å": 0.1, "angstrom": 0.1, "ångström": 0.1, "pm": 1e-3, "picometer": 1e-3,
}  # fmt: skip
_RECIPROCAL: Final = re.compile(r"^1/|\^-1$|-1$|^m?rad|⁻¹$")
# A field of view from under one atom to a metre: whatever lies outside was written in another unit than it says.
_SMALLEST_NM: Final = 1e-4
_LARGEST_NM: Final = 1e6
_ANISOTROPY: Final = 0.01

DIFFRACTION: Final = Problem(
    "diffraction",
    "The axes are in reciprocal units: this is a diffraction pattern or a Fourier transform.",
    "It has no pixel size in nm; label it only among its like.",
)


def to_nm(value: float, unit: str) -> float | None:
    """A length in `unit` → nm; None for an unknown unit or a value that no microscope has."""
    factor = _NM.get(_normalise(unit))
    if factor is None or not math.isfinite(value):
        return None
    length = abs(value) * factor
    return length if _SMALLEST_NM <= length <= _LARGEST_NM else None


def is_reciprocal(unit: str) -> bool:
    """Whether `unit` is an inverse length or an angle: the sign of a diffraction pattern."""
    return bool(_RECIPROCAL.search(_normalise(unit)))


def pixel_size(scales: Sequence[float], units: Sequence[str]) -> tuple[float | None, tuple[Problem, ...]]:
    """Scales and units of the axes (y, x) → pixel size in nm, or None, and what is odd about it."""
    if any(map(is_reciprocal, units)):
        return None, (DIFFRACTION,)
    lengths = [to_nm(float(s), u) for s, u in zip(scales, units, strict=True)]
    known = [length for length in lengths if length is not None]
    if len(known) < len(lengths):
        return None, _doubtful(scales, units)
    if max(known) - min(known) > _ANISOTROPY * max(known):
        size = math.sqrt(known[0] * known[1])
        text = f"Pixels measure {known[0]:.4g} nm by {known[1]:.4g} nm; {size:.4g} nm is used."
        return size, (Problem("anisotropic", text, "Lengths along the axes differ; resample the image if it matters."),)
    return known[-1], ()


def _doubtful(scales: Sequence[float], units: Sequence[str]) -> tuple[Problem, ...]:
    if not all(_normalise(u) in _NM for u in units):
        return ()  # no unit, no claim
    text = f"The file states a pixel of {scales[-1]:.4g} {units[-1]}, which no electron microscope has; it is ignored."
    return (Problem("doubtful_pixel_size", text, "Enter the pixel size in nm by hand."),)


def _normalise(unit: str) -> str:
    # EMD writes [n_m]; ImageJ escapes µ; there are two µ in Unicode.
    text = "".join(unit.split()).strip("[]").replace("_", "")
    text = text.replace("\\u00B5", "u").replace("µ", "u").replace("μ", "u")
    return text.casefold() if text not in ("Å", "Å") else "å"
