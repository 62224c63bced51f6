"""Contrast transfer: against an independent program, against tables, and against what is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from napari_emtransfer.core.synth import ctf
from napari_emtransfer.core.synth.ctf import Aberrations, Coherence

# |q| in 1/Å and azimuth in rad of the reference points.
Q = np.array([0.05, 0.2, 0.37, 0.55, 0.8]) * np.exp(1j * np.array([0.0, 0.9, -2.0, 3.0, 1.5]))
# Settings, and the transfer of the wave that abTEM 1.0.11 gives for them at Q in double precision: CTF(energy, defocus,
# C12, phi12, C21, phi21, C23, phi23, C30, C50, focal_spread, angular_spread), aberrations and both envelopes together.
REFERENCE = {
    "corrected": (
        300.0,
        Aberrations(-85.0, 21.0, 0.6, 310.0, -1.1, 270.0, 0.35, -1.3e4, 2.1e7),
        Coherence(14.0, 0.3e-3),
        [
            0.999913479 + 0.011939124j,
            0.985349342 + 0.167754979j,
            0.808590293 + 0.581230318j,
            -0.024683849 + 0.980609523j,
            -0.718162726 - 0.576042703j,
        ],
    ),
    "uncorrected": (
        200.0,
        Aberrations(-640.0, 35.0, 2.2, 900.0, 0.9, 450.0, -0.7, 1.2e7, 5e7),
        Coherence(48.0, 0.15e-3),
        [
            0.991796386 + 0.125902171j,
            -0.054644119 + 0.991621926j,
            -0.032239588 + 0.930836643j,
            0.45611121 + 0.392825919j,
            -0.017029356 - 0.006473423j,
        ],
    ),
    "low voltage": (
        80.0,
        Aberrations(60.0, 8.0, -0.2, 120.0, 2.5, 90.0, 1.4, -1e5, 1e7),
        Coherence(9.0, 0.5e-3),
        [
            0.99972929 - 0.021956264j,
            0.962471633 - 0.268452075j,
            0.745919946 - 0.6558053j,
            -0.177647517 - 0.951872558j,
            0.816797843 - 0.283439883j,
        ],
    ),
    "round": (
        60.0,
        Aberrations(c10=-100.0, c30=1e6),
        Coherence(20.0, 1e-3),
        [
            0.999079553 + 0.037069629j,
            0.945083652 + 0.315189716j,
            0.239908875 - 0.861541585j,
            0.210081175 + 0.152887119j,
            6.5e-08 - 1.224e-06j,
        ],
    ),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_wave_transfer_agrees_with_frozen_values_of_abtem(name):
    voltage, aberrations, coherence, expected = REFERENCE[name]
    np.testing.assert_allclose(ctf.wave_transfer(Q, voltage, aberrations, coherence), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", REFERENCE)
def test_wave_transfer_agrees_with_abtem_on_a_whole_grid(name):
    abtem = pytest.importorskip("abtem", reason="abTEM is not installed: pip install 'napari-emtransfer[multislice]'")
    voltage, a, coherence, _ = REFERENCE[name]
    q = ctf.frequencies((256, 240), 0.3)
    with abtem.config.set({"precision": "float64"}):
        other = abtem.CTF(
            energy=1e3 * voltage,
            semiangle_cutoff=200,
            soft=False,
            defocus=-a.c10,
            focal_spread=coherence.focal_spread,
            angular_spread=1e3 * coherence.convergence,
            **{
                name: getattr(a, name.lower())
                for name in ("C12", "phi12", "C21", "phi21", "C23", "phi23", "C30", "C50")
            },
        )
        theirs = np.asarray(other._evaluate_from_angular_grid(np.abs(q) * other.wavelength, np.angle(q)))
    inside = np.abs(q) * ctf.wavelength(voltage) < 0.199
    mine = ctf.wave_transfer(q, voltage, a, coherence)
    np.testing.assert_allclose(mine[inside], theirs[inside], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("voltage", "wavelength", "sigma"),
    [(60, 0.048661, 1.13569e-3), (80, 0.041757, 1.00871e-3), (200, 0.025079, 7.28840e-4), (300, 0.019687, 6.52616e-4)],
)
def test_wavelengths_and_interaction_constants_are_those_of_the_tables(voltage, wavelength, sigma):
    assert ctf.wavelength(voltage) == pytest.approx(wavelength, abs=1e-6)
    assert ctf.interaction_constant(voltage) == pytest.approx(sigma, rel=1e-5)


def test_underfocus_with_positive_cs_gives_dark_atoms_at_scherzer():
    c30 = 1.2e7
    scherzer = ctf.scherzer_defocus(300, c30)
    limit = ctf.point_resolution(300, c30)
    assert scherzer == pytest.approx(595, abs=1)
    assert limit == pytest.approx(1.98, abs=0.01)
    q = np.linspace(0.02, 0.98 / limit, 200) + 0j
    passband = ctf.contrast_transfer(q, 300, Aberrations(c10=-scherzer, c30=c30))
    assert (passband < 0).all()
    assert passband.min() < -0.99


def test_first_zero_at_scherzer_is_the_point_resolution():
    c30 = 1.2e7
    # Underfocus √(1.5 Cs λ) and πλΔf q² = ½πCsλ³q⁴ give q² = 2Δf/(Csλ²) = √6/√(Csλ³).
    q = np.array([1 / ctf.point_resolution(300, c30)]) + 0j
    assert ctf.contrast_transfer(q, 300, Aberrations(c10=-ctf.scherzer_defocus(300, c30), c30=c30)) == pytest.approx(
        0, abs=1e-9
    )


@pytest.mark.parametrize(("spacing", "defocus"), [(1.0, 51), (2.0, 203), (2.5, 317)])
def test_first_zero_of_a_spacing_without_cs(spacing, defocus):
    found = ctf.first_zero_defocus(300, spacing)
    assert found == pytest.approx(defocus, abs=1)
    q = np.array([1 / spacing]) + 0j
    assert ctf.contrast_transfer(q, 300, Aberrations(c10=-found)) == pytest.approx(0, abs=1e-9)
    assert abs(ctf.contrast_transfer(q, 300, Aberrations(c10=-found / 2))[0]) == pytest.approx(1)


def test_temporal_envelope_is_e_to_the_minus_two_at_the_information_limit():
    # 10 Å as 1/e width are 7.07 Å of standard deviation.
    limit = ctf.information_limit(300, 10.0)
    assert limit == pytest.approx(np.sqrt(np.pi * 0.019687 * 10 / np.sqrt(2) / 2), rel=1e-4)
    assert ctf.temporal_envelope(np.array([1 / limit]) + 0j, 300, 10.0)[0] == pytest.approx(np.exp(-2))


def test_slope_of_chi_is_its_numerical_gradient():
    a = Aberrations(-85.0, 21.0, 0.6, 310.0, -1.1, 270.0, 0.35, -1.3e6, 2.1e8)
    step = 1e-6
    along_x = (ctf.chi(Q + step, 300, a) - ctf.chi(Q - step, 300, a)) / (2 * step * ctf.wavelength(300))
    along_y = (ctf.chi(Q + 1j * step, 300, a) - ctf.chi(Q - 1j * step, 300, a)) / (2 * step * ctf.wavelength(300))
    np.testing.assert_allclose(ctf.chi_slope(Q, 300, a), along_x**2 + along_y**2, rtol=1e-6)


def test_astigmatism_changes_focus_with_direction():
    a = Aberrations(c10=-100.0, c12=100.0, phi12=0.0)
    along_x, along_y = ctf.chi(np.array([0.3, 0.3j]), 300, a)
    assert along_x == pytest.approx(0)
    assert along_y == pytest.approx(2 * ctf.chi(np.array([0.3 + 0j]), 300, Aberrations(c10=-100.0))[0])


def test_focal_spread_of_a_schottky_gun():
    # 0.8 eV FWHM, Cc 1.6 mm at 300 kV: σ = Cc σ_E/U*, with U* = 300 kV · 1.2936 / 1.5871.
    sigma_e = 0.8 / 2.3548
    expected = np.sqrt(2) * 1.6e7 * sigma_e / (300e3 * 1.29354 / 1.58708)
    assert ctf.focal_spread(300, cc_mm=1.6, energy_spread_ev=sigma_e) == pytest.approx(expected, rel=1e-4)


def test_vibration_damps_by_its_variance():
    q = np.array([0.5 + 0j])
    assert ctf.vibration_envelope(q, 0.3)[0] == pytest.approx(np.exp(-2 * np.pi**2 * 0.09 * 0.25))
