"""The contrast transfer of an electron microscope: aberrations, envelopes, and the numbers that follow from them.

Lengths are in Å, angles in rad, spatial frequencies q in 1/Å, voltages in kV. A frequency is the complex number
q = q_x + i q_y (x along columns, y along rows), so that the angle of scattering with its azimuth is w = λq = α e^{iφ}
and an m-fold aberration is Re(wᵐ e^{−imφ_m}).

Signs are Krivanek's: χ(q) = (2π/λ) [½α²(C10 + C12 cos 2(φ−φ12)) + ⅓α³(C21 cos(φ−φ21) + C23 cos 3(φ−φ23)) + ¼α⁴C30
+ ⅙α⁶C50], and a wave is multiplied by e^{−iχ}. Underfocus is positive: Δf = −C10. A weak phase object then has the
intensity 1 + 2 F⁻¹{Φ sin χ · E}: with C30 > 0 atoms are dark at Scherzer's underfocus.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]
Frequencies = NDArray[np.complex128]

# CODATA 2018, SI.
_H: Final = 6.62607015e-34
_ELECTRON_MASS: Final = 9.1093837015e-31
_CHARGE: Final = 1.602176634e-19
_LIGHT: Final = 299792458.0


@dataclass(frozen=True)
class Aberrations:
    """Coefficients in Å and azimuths in rad: defocus −c10, astigmatism c12, coma c21, three-fold c23, spherical c30."""

    c10: float = 0.0
    c12: float = 0.0
    phi12: float = 0.0
    c21: float = 0.0
    phi21: float = 0.0
    c23: float = 0.0
    phi23: float = 0.0
    c30: float = 0.0
    c50: float = 0.0


@dataclass(frozen=True)
class Coherence:
    """What damps the transfer of a wave.

    Parameters
    ----------
    focal_spread
        1/e half-width of the spread of focus in Å: √2 times its standard deviation (abTEM's and Kirkland's habit).
    convergence
        1/e semi-angle of the illumination in rad.
    vibration
        Standard deviation of the image's position in Å.
    """

    focal_spread: float = 0.0
    convergence: float = 0.0
    vibration: float = 0.0


def wavelength(voltage_kv: float) -> float:
    """λ = h / √(2 m₀ e U (1 + eU / 2m₀c²)) in Å."""
    energy = _CHARGE * voltage_kv * 1e3
    return 1e10 * _H / float(np.sqrt(2 * _ELECTRON_MASS * energy * (1 + energy / (2 * _ELECTRON_MASS * _LIGHT**2))))


def interaction_constant(voltage_kv: float) -> float:
    """σ = 2π γ m₀ e λ / h² in rad/(V Å): phase per projected potential."""
    gamma = 1 + _CHARGE * voltage_kv * 1e3 / (_ELECTRON_MASS * _LIGHT**2)
    return 2 * np.pi * gamma * _ELECTRON_MASS * _CHARGE * wavelength(voltage_kv) / _H**2 * 1e-20


def frequencies(shape: tuple[int, int], pixel_size: float) -> Frequencies:
    """Frequencies q of the two-dimensional FFT of an image (H, W), in 1/Å, in NumPy's order."""
    y, x = (np.fft.fftfreq(n, pixel_size) for n in shape)
    return x[None, :] + 1j * y[:, None]


def chi(q: Frequencies, voltage_kv: float, aberrations: Aberrations) -> Real:
    """Phase shift χ(q) of the lens in rad."""
    lam, a = wavelength(voltage_kv), aberrations
    w = lam * q
    square = w.real**2 + w.imag**2
    path = square * (a.c10 / 2 + square * (a.c30 / 4 + square * a.c50 / 6))
    if a.c12:
        path = path + a.c12 / 2 * (w**2 * np.exp(-2j * a.phi12)).real
    if a.c21:
        path = path + a.c21 / 3 * square * (w * np.exp(-1j * a.phi21)).real
    if a.c23:
        path = path + a.c23 / 3 * (w**3 * np.exp(-3j * a.phi23)).real
    return 2 * np.pi / lam * path


def chi_slope(q: Frequencies, voltage_kv: float, aberrations: Aberrations) -> Real:
    """|∇χ|² with respect to the angle of scattering, dimensionless per rad²."""
    lam, a = wavelength(voltage_kv), aberrations
    w = lam * q
    square = w.real**2 + w.imag**2
    # The gradient of Re f as the complex number ∂/∂x + i ∂/∂y: of Re(wᵐ e^{−imφ}) it is m times the conjugate of
    # w^(m−1) e^{−imφ}.
    slope = w * (a.c10 + square * (a.c30 + square * a.c50))
    if a.c12:
        slope = slope + a.c12 * np.conj(w) * np.exp(2j * a.phi12)
    if a.c21:
        turn = np.exp(1j * a.phi21)
        slope = slope + a.c21 / 3 * (2 * w * (w / turn).real + square * turn)
    if a.c23:
        slope = slope + a.c23 * np.conj(w) ** 2 * np.exp(3j * a.phi23)
    return (2 * np.pi / lam) ** 2 * (slope.real**2 + slope.imag**2)


def temporal_envelope(q: Frequencies, voltage_kv: float, focal_spread: float) -> Real:
    """exp[−(½πλΔ)² q⁴] with the 1/e focal spread Δ in Å."""
    return np.exp(-((0.5 * np.pi * wavelength(voltage_kv) * focal_spread) ** 2) * _power(q) ** 2)


def spatial_envelope(q: Frequencies, voltage_kv: float, aberrations: Aberrations, convergence: float) -> Real:
    """exp[−(β/2)² |∇χ|²] with the 1/e semi-angle β in rad."""
    return np.exp(-((convergence / 2) ** 2) * chi_slope(q, voltage_kv, aberrations))


def vibration_envelope(q: Frequencies, vibration: float) -> Real:
    """exp(−2π² σ² q²) with the standard deviation σ of the image's position in Å."""
    return np.exp(-2 * (np.pi * vibration) ** 2 * _power(q))


def envelope(q: Frequencies, voltage_kv: float, aberrations: Aberrations, coherence: Coherence) -> Real:
    """Product of the three envelopes, 0..1."""
    damping = np.ones(q.shape)
    if coherence.focal_spread:
        damping *= temporal_envelope(q, voltage_kv, coherence.focal_spread)
    if coherence.convergence:
        damping *= spatial_envelope(q, voltage_kv, aberrations, coherence.convergence)
    if coherence.vibration:
        damping *= vibration_envelope(q, coherence.vibration)
    return damping


def wave_transfer(
    q: Frequencies, voltage_kv: float, aberrations: Aberrations, coherence: Coherence | None = None
) -> NDArray[np.complex128]:
    """t(q) = e^{−iχ} times the envelopes: what an exit wave's Fourier coefficients are multiplied by.

    Envelopes on the wave are the quasi-coherent approximation: exact for the linear part of the image only.
    """
    transfer = np.exp(-1j * chi(q, voltage_kv, aberrations))
    return transfer if coherence is None else transfer * envelope(q, voltage_kv, aberrations, coherence)


def contrast_transfer(
    q: Frequencies, voltage_kv: float, aberrations: Aberrations, coherence: Coherence | None = None
) -> Real:
    """T(q) = sin χ times the envelopes: the linear transfer of phase; −1 gives the strongest dark atoms."""
    transfer = np.sin(chi(q, voltage_kv, aberrations))
    return transfer if coherence is None else transfer * envelope(q, voltage_kv, aberrations, coherence)


def information_limit(voltage_kv: float, focal_spread: float) -> float:
    """Spacing d = √(πλσ/2) in Å where the temporal envelope falls to e⁻², with the standard deviation σ = Δ/√2."""
    return float(np.sqrt(np.pi * wavelength(voltage_kv) * focal_spread / np.sqrt(2) / 2))


def scherzer_defocus(voltage_kv: float, c30: float) -> float:
    """Underfocus √(1.5 C30 λ) in Å: a broad band of equal transfer."""
    return float(np.sqrt(1.5 * c30 * wavelength(voltage_kv)))


def point_resolution(voltage_kv: float, c30: float) -> float:
    """First zero (C30 λ³ / 6)^¼ in Å at Scherzer's underfocus."""
    return float((c30 * wavelength(voltage_kv) ** 3 / 6) ** 0.25)


def first_zero_defocus(voltage_kv: float, spacing: float) -> float:
    """Defocus d²/λ in Å at which the first zero falls on a spacing in Å, where C30 may be neglected."""
    return spacing**2 / wavelength(voltage_kv)


def focal_spread(
    voltage_kv: float, *, cc_mm: float, energy_spread_ev: float, voltage_ppm: float = 0.0, current_ppm: float = 0.0
) -> float:
    """1/e focal spread in Å, out of the standard deviations of the energy (eV), the voltage and the lens current (ppm).

    σ = Cc √[(σ_E/U*)² + (σ_U/U)² + (2σ_I/I)²], with the relativistic U* = U (1 + eU/2m₀c²) / (1 + eU/m₀c²).
    """
    ratio = _CHARGE * voltage_kv * 1e3 / (_ELECTRON_MASS * _LIGHT**2)
    effective = voltage_kv * 1e3 * (1 + ratio / 2) / (1 + ratio)
    parts = energy_spread_ev / effective, voltage_ppm * 1e-6, 2 * current_ppm * 1e-6
    return float(np.sqrt(2) * cc_mm * 1e7 * np.hypot(np.hypot(*parts[:2]), parts[2]))


def _power(q: Frequencies) -> Real:
    return q.real**2 + q.imag**2
