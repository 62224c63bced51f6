"""STEM-HAADF: the probe, Z-contrast, and labels that move with the scan."""

from __future__ import annotations

import numpy as np
import pytest

from napari_emtransfer.core.synth import ctf, haadf
from napari_emtransfer.core.synth.haadf import HaadfImaging, HaadfSettings
from napari_emtransfer.core.synth.hrtem_specimen import Particles, build
from napari_emtransfer.core.synth.hrtem_support import Support
from napari_emtransfer.core.synth.scan import ScanSettings

SHAPE = (160, 160)
VACUUM = Support(kind="vacuum")


def particles(name: str) -> Particles:
    return Particles(lattices=(name,), radius_nm=(0.9, 0.9), per_100_nm2=(0.1, 0.1), fault_share=0, zone_axis_share=0)


def test_an_unaberrated_probe_has_the_width_of_airys_disc():
    imaging = HaadfImaging(semi_angle_mrad=20.0, source_pm=0, pixel_size_angstrom=0.05)
    profile = haadf.probe((512, 512), imaging)
    assert profile.sum() == pytest.approx(1)
    # First dark ring at 0.61 λ/α: here 0.600 Å, 12 px.
    assert 0.61 * ctf.wavelength(300) / 0.020 / 0.05 == pytest.approx(12.0, abs=0.05)
    line = profile[0, :25]
    assert int(np.argmin(line[:17])) == pytest.approx(12, abs=1)
    # Half of the intensity's height at 0.257 λ/α.
    half = np.interp(-0.5, -line[:12] / line[0], np.arange(12)) * 0.05
    assert half == pytest.approx(0.257 * ctf.wavelength(300) / 0.020, rel=0.03)


def test_source_size_and_defocus_widen_the_probe():
    sharp = HaadfImaging(source_pm=0, pixel_size_angstrom=0.1)
    widths = [
        haadf.probe((256, 256), imaging)[0, 0]
        for imaging in (
            sharp,
            sharp.model_copy(update={"source_pm": 60}),
            sharp.model_copy(update={"defocus_nm": 8.0}),
        )
    ]
    assert widths[0] > 1.3 * widths[1]
    assert widths[0] > 1.3 * widths[2]


def test_signal_is_the_sum_of_z_to_the_power():
    imaging = HaadfImaging(exponent=1.7)
    totals = {}
    for name, z in (("Au", 79), ("Ni", 28)):
        specimen = build(SHAPE, 0.2, particles(name), VACUUM, np.random.default_rng(0))
        n = sum(one.positions.shape[0] for one in specimen.particles)
        totals[name] = haadf.signal(specimen, imaging).sum() * 0.04 / n / z**1.7
    assert totals["Au"] == pytest.approx(1, rel=0.01)
    assert totals["Ni"] == pytest.approx(1, rel=0.01)


def test_particles_are_bright_on_carbon_and_nothing_depends_on_focus_sign():
    imaging = HaadfImaging(counts=200)
    made = haadf.simulate(
        SHAPE, seed=1, settings=HaadfSettings(particles=particles("Au"), support=Support(), imaging=imaging)
    )
    inside = made.mask == 2
    assert made.image[inside].mean() > made.image[~inside].mean() + 0.2
    over, under = (haadf.probe(SHAPE, imaging.model_copy(update={"defocus_nm": d})) for d in (-4.0, 4.0))
    np.testing.assert_allclose(over, under, atol=1e-9)


def test_scan_faults_move_image_and_labels_together():
    still = HaadfSettings(particles=particles("Au"), support=VACUUM, imaging=HaadfImaging(counts=2000, read_noise=0))
    bent = still.model_copy(
        update={"imaging": still.imaging.model_copy(update={"scan": ScanSettings(flagging_px=30, flagging_rows=60)})}
    )
    for settings in (still, bent):
        made = haadf.simulate(SHAPE, seed=6, settings=settings)
        bright = made.image > 0.15
        inside = made.mask == 2
        assert (bright & ~inside).sum() < 0.02 * inside.sum()
    # The shift is there, and the mask took it.
    straight = haadf.simulate(SHAPE, seed=6, settings=still)
    assert (straight.mask != made.mask).sum() > 50


def test_noise_is_poisson():
    imaging = HaadfImaging(counts=50, background=0.0, read_noise=0.0)
    counts = haadf.expose(np.ones((200, 200)), imaging, np.random.default_rng(0))
    assert counts.mean() == pytest.approx(50, rel=0.01)
    assert counts.var() == pytest.approx(50, rel=0.04)


def test_same_seed_same_pixels():
    first, second = haadf.simulate(SHAPE, seed=3), haadf.simulate(SHAPE, seed=3)
    np.testing.assert_array_equal(first.image, second.image)
    settings = HaadfSettings.model_validate(first.recipe["settings"])
    np.testing.assert_array_equal(first.image, haadf.simulate(SHAPE, seed=3, settings=settings).image)
    assert (haadf.simulate(SHAPE, seed=4).image != first.image).any()
    assert first.boundaries.any()
    np.testing.assert_array_equal(first.mask == 2, first.instances > 0)
