"""Multislice by abTEM where it is installed; a plain refusal where it is not."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from napari_emtransfer.core.errors import SynthesisError
from napari_emtransfer.core.synth import hrtem, multislice
from napari_emtransfer.core.synth.hrtem import HrtemSettings, Imaging, Particles, Support

SETTINGS = HrtemSettings(
    particles=Particles(
        lattices=("CdSe",), radius_nm=(1.2, 1.2), per_100_nm2=(0.1, 0.1), zone_axis_share=0, fault_share=0
    ),
    support=Support(kind="vacuum"),
    imaging=Imaging(defocus_nm=-8.0, convergence_mrad=0, vibration_pm=0),
    slab_nm=0.5,
    absorption=0.03,
)


def test_without_abtem_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "abtem", None)
    with pytest.raises(SynthesisError, match="abTEM") as caught:
        multislice.prepare((96, 96), seed=0, settings=SETTINGS)
    assert "napari-emtransfer[multislice]" in caught.value.hint


def test_the_program_does_not_import_abtem():
    assert "abtem" not in multislice.__dict__


def test_a_finer_wave_is_the_same_on_a_coarser_grid():
    y, x = np.mgrid[:48, :60] / np.array([48, 60])[:, None, None] * 2 * np.pi
    fine = np.exp(1j * (0.3 * np.cos(2 * y) + 0.2 * np.sin(3 * x)))
    coarse = np.fft.ifft2(multislice._cropped(fine, (24, 30)))
    np.testing.assert_allclose(coarse, fine[::2, ::2], atol=1e-4)


@pytest.mark.slow
def test_slabs_come_close_to_multislice_with_moving_atoms():
    pytest.importorskip("abtem", reason="abTEM is not installed: pip install 'napari-emtransfer[multislice]'")
    accuracy = multislice.Multislice(n_phonons=4, displacement_angstrom=0.1)
    faithful = multislice.prepare((160, 160), seed=3, settings=SETTINGS, accuracy=accuracy)
    fast = hrtem.prepare((160, 160), seed=3, settings=SETTINGS)
    np.testing.assert_array_equal(faithful.instances, fast.instances)
    for defocus in (-8.0, 8.0):
        imaging = SETTINGS.imaging.model_copy(update={"defocus_nm": defocus})
        theirs, ours = faithful.wave.intensity(imaging), fast.wave.intensity(imaging)
        assert np.corrcoef(theirs.ravel(), ours.ravel())[0, 1] > 0.95
        assert ours.std() / theirs.std() == pytest.approx(1, abs=0.12)
    assert hrtem.minimum_contrast_defocus(faithful.wave, SETTINGS.imaging, (-5, 5)) == pytest.approx(0, abs=0.5)
    made = hrtem.micrograph(faithful)
    assert made.recipe["generator"] == "hrtem.multislice"
