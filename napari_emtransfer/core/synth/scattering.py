"""Electron scattering factors, and the projected potential of atoms on a grid.

Sources: L.-M. Peng, G. Ren, S. L. Dudarev, M. J. Whelan, Acta Cryst. A52, 257 (1996), neutral atoms for s ≤ 6 1/Å;
conversion to volts h²/(2π m₀ e) = 47.878 V Å².
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]
VOLT_SQUARE_ANGSTROM: Final = 47.878
# Of the highest frequency that the grid holds: products of two waves may not fold back below it.
BAND_LIMIT: Final = 2 / 3


@dataclass(frozen=True)
class Element:
    """Atomic number, mass in u, and f_e(q) = Σ aᵢ exp(−bᵢ q²/4) in Å."""

    z: int
    mass: float
    a: tuple[float, ...]
    b: tuple[float, ...]

    def factor(self, q_squared: NDArray[Any], b_factor: float = 0.0) -> NDArray[Any]:
        """f_e in Å at q² in 1/Å², times the Debye–Waller factor exp(−B q²/4) with B in Å²."""
        quarter = q_squared / 4
        total: NDArray[Any] = sum(
            (a * np.exp(-(b + b_factor) * quarter) for a, b in zip(self.a, self.b, strict=True)),
            np.zeros_like(quarter),
        )
        return total


ELEMENTS: Final[Mapping[str, Element]] = {
    "C": Element(6, 12.011, (0.0489, 0.2091, 0.7537, 1.142, 0.3555), (0.114, 1.0825, 5.4281, 17.8811, 51.1341)),
    "O": Element(8, 15.999, (0.0365, 0.1729, 0.5805, 0.8814, 0.3121), (0.0652, 0.6184, 2.9449, 9.6298, 28.2194)),
    "Mg": Element(12, 24.305, (0.113, 0.5575, 0.9046, 2.158, 1.4735), (0.1356, 1.3579, 6.9255, 32.3165, 92.1138)),
    "Si": Element(14, 28.085, (0.0567, 0.3365, 0.8104, 2.496, 2.1186), (0.0582, 0.6155, 3.2522, 16.7929, 57.6767)),
    "S": Element(16, 32.06, (0.0915, 0.4312, 1.0847, 2.4671, 1.0852), (0.0838, 0.7788, 4.3462, 15.5846, 44.6365)),
    "Fe": Element(26, 55.845, (0.1929, 0.8239, 1.8689, 2.3694, 1.906), (0.1087, 1.0806, 4.7637, 22.85, 76.7309)),
    "Co": Element(27, 58.933, (0.2186, 0.9861, 1.854, 2.3258, 1.4685), (0.1182, 1.23, 5.4177, 25.7602, 80.8542)),
    "Ni": Element(28, 58.693, (0.2313, 1.0657, 1.8229, 2.2609, 1.1883), (0.121, 1.2691, 5.687, 27.0917, 83.0285)),
    "Cu": Element(29, 63.546, (0.3501, 1.6558, 1.9582, 0.2134, 1.4109), (0.1867, 1.9917, 11.3396, 53.2619, 63.252)),
    "Zn": Element(30, 65.38, (0.178, 0.8096, 1.6744, 1.9499, 1.4495), (0.0876, 0.865, 3.8612, 18.8726, 64.7016)),
    "Se": Element(34, 78.971, (0.1574, 0.7614, 1.4834, 3.0016, 1.7978), (0.0686, 0.6808, 3.1163, 14.3458, 44.0455)),
    "Pd": Element(46, 106.42, (0.2003, 0.8779, 2.6135, 2.8594, 1.0258), (0.0659, 0.6111, 3.5563, 12.7638, 44.4283)),
    "Ag": Element(47, 107.87, (0.2739, 1.0503, 3.1564, 2.7543, 1.4328), (0.0881, 0.8028, 4.4451, 18.7011, 79.2633)),
    "Cd": Element(48, 112.41, (0.3072, 1.1303, 3.2046, 2.9329, 1.656), (0.0966, 0.8856, 4.6273, 20.6789, 73.4723)),
    "W": Element(74, 183.84, (0.3661, 1.6191, 3.2455, 4.0856, 3.2064), (0.0761, 0.7543, 4.0952, 18.2886, 68.0967)),
    "Pt": Element(78, 195.08, (0.3083, 1.4158, 2.9662, 3.9349, 2.1709), (0.0609, 0.5993, 3.1921, 12.5285, 49.7675)),
    "Au": Element(79, 196.97, (0.3055, 1.3945, 2.9617, 3.899, 2.0026), (0.0596, 0.5827, 3.1035, 11.9693, 47.9106)),
    "Pb": Element(82, 207.2, (0.354, 1.5453, 3.5975, 4.3152, 2.7743), (0.0668, 0.6465, 3.6968, 16.2056, 61.4909)),
}


@dataclass(frozen=True)
class Grid:
    """Pixels (H, W) of a size in Å, and what a real FFT of it needs; made once per micrograph."""

    shape: tuple[int, int]
    pixel_size: float

    def q_squared(self) -> NDArray[np.float32]:
        """q² of the real FFT's elements (H, W // 2 + 1) in 1/Å²."""
        y = np.fft.fftfreq(self.shape[0], self.pixel_size)
        x = np.fft.rfftfreq(self.shape[1], self.pixel_size)
        return (y[:, None] ** 2 + x[None, :] ** 2).astype(np.float32)

    def band(self, q_squared: NDArray[Any]) -> NDArray[Any]:
        """1 below two thirds of Nyquist's frequency, 0 above, with a soft edge."""
        limit = BAND_LIMIT / (2 * self.pixel_size)
        return np.clip((1 - np.sqrt(q_squared) / limit) / 0.06, 0, 1)

    def undo_deposit(self) -> NDArray[np.float32]:
        """What `deposit` has taken from each element of the real FFT: 1 / sinc⁴ in both directions."""
        y = np.sinc(np.fft.fftfreq(self.shape[0])) ** 4
        x = np.sinc(np.fft.rfftfreq(self.shape[1])) ** 4
        return (1 / (y[:, None] * x[None, :])).astype(np.float32)


def deposit(yx: Real, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Count atoms at (n, 2) in px on a grid (H, W); what lies outside is lost.

    Each is shared by 4 × 4 pixels as a cubic B-spline: shared by 2 × 2, an atom's fine detail would depend on where
    between the pixels it lies.
    """
    height, width = shape
    yx = yx[((yx >= 1) & (yx < [height - 2, width - 2])).all(axis=1)]
    corner = yx.astype(np.intp)
    of_y, of_x = (_shares(f) for f in (yx - corner).T)
    first = (corner[:, 0] - 1) * width + corner[:, 1] - 1
    offsets = (np.arange(4) * width)[:, None] + np.arange(4)
    places = (first[:, None, None] + offsets).ravel()
    weights = (of_y[:, :, None] * of_x[:, None, :]).ravel()
    return np.bincount(places, weights, minlength=height * width).reshape(shape).astype(np.float32)


def _shares(f: Real) -> Real:
    """Cubic B-spline at the four pixels around a place (n,) between the middle two → (n, 4)."""
    g = 1 - f
    return np.stack([g**3, 4 - 6 * f**2 + 3 * f**3, 4 - 6 * g**2 + 3 * g**3, f**3], axis=1) / 6
