"""Resolution tags of ordinary picture files: mostly a printer's or a screen's, sometimes a microscope's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from napari_emtransfer.core.data.readers.units import to_nm

# 2540 dpi. Printers and screens stay below, electron micrographs above.
_LARGEST_BELIEVABLE_NM: Final = 10_000.0


def believable(pixel_nm: float | None) -> float | None:
    """A pixel size out of a plain resolution tag, if it can be one of an electron micrograph."""
    return pixel_nm if pixel_nm is not None and pixel_nm <= _LARGEST_BELIEVABLE_NM else None


def from_dpi(dpi: Sequence[float] | None) -> float | None:
    """(x, y) in dots per inch → pixel size in nm, if believable."""
    if not dpi or not float(dpi[0]) > 0:
        return None
    return believable(to_nm(1 / float(dpi[0]), "inch"))
