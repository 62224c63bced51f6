"""High-resolution micrographs: signs, zeros, statistics of the dose, masks that follow from the atoms."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.ndimage import distance_transform_edt, gaussian_filter

from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.core.synth import ctf, hrtem
from napari_emtransfer.core.synth.hrtem import HrtemSettings, Imaging, Particles, Support
from napari_emtransfer.core.synth.hrtem_imaging import ExitWave, exit_wave, expose, mean_carbon_phase, support_potential
from napari_emtransfer.core.synth.hrtem_masks import DISC_ANGSTROM
from napari_emtransfer.core.synth.hrtem_specimen import build
from napari_emtransfer.core.synth.scattering import Grid

SHAPE = (128, 144)
IDEAL = Imaging(focal_spread_nm=0, convergence_mrad=0, vibration_pm=0, defocus_nm=0)
VACUUM = Support(kind="vacuum")
SPHERE = Particles(lattices=("CdSe",), radius_nm=(1.0, 1.0), per_100_nm2=(0.1, 0.1), fault_share=0, zone_axis_share=0)


def weak_wave(period_px: int, *, phase: float = 1e-3, pixel_size: float = 0.25, n: int = 120) -> ExitWave:
    """A phase grating that is strongest at x = 0."""
    x = np.arange(n) * np.ones((n, 1))
    wave = np.exp(1j * phase * np.cos(2 * np.pi * x / period_px))
    return ExitWave(np.fft.fft2(wave).astype(np.complex64), Grid((n, n), pixel_size), (slice(None), slice(None)), 300.0)


def contrast(wave: ExitWave, imaging: Imaging) -> float:
    """Intensity minus 1 where the phase is strongest."""
    return float(wave.intensity(imaging.model_copy(update={"pixel_size_angstrom": 0.25}))[0, 0]) - 1


def with_(imaging: Imaging, **changes) -> Imaging:
    return imaging.model_copy(update=changes)


def test_atoms_are_dark_at_scherzer_and_bright_in_negative_spherical_aberration_imaging():
    wave = weak_wave(12)  # 3 Å
    scherzer = ctf.scherzer_defocus(300, 1.2e7) / 10
    assert contrast(wave, with_(IDEAL, cs_um=1200, defocus_nm=scherzer)) < -1.4e-3
    # NCSI: negative Cs with overfocus.
    assert contrast(weak_wave(6), with_(IDEAL, cs_um=-13, defocus_nm=-6)) > 0.5e-3


def test_linear_contrast_is_twice_the_transfer():
    imaging = with_(IDEAL, defocus_nm=7.0, focal_spread_nm=2.0, convergence_mrad=0.4, vibration_pm=40)
    q = np.array([1 / 3.0 + 0j])
    expected = 2e-3 * ctf.contrast_transfer(q, 300, imaging.aberrations, imaging.coherence)[0]
    assert contrast(weak_wave(12), imaging) == pytest.approx(expected, rel=5e-3)


def test_a_spacing_vanishes_at_its_zero_and_is_inverted_beyond():
    # 2 Å: Δf = d²/λ = 20.3 nm.
    wave, zero = weak_wave(8), ctf.first_zero_defocus(300, 2.0) / 10
    assert zero == pytest.approx(20.3, abs=0.1)
    before, at, beyond = (contrast(wave, with_(IDEAL, defocus_nm=zero * f)) for f in (0.5, 1.0, 1.5))
    assert before == pytest.approx(-2e-3, rel=0.02)
    assert abs(at) < 2e-5
    assert beyond > 1.9e-3


def test_information_beyond_the_limit_is_gone():
    imaging = with_(IDEAL, defocus_nm=5.0, focal_spread_nm=8.0)
    limit = ctf.information_limit(300, 80.0)
    assert limit == pytest.approx(1.32, abs=0.01)
    # 1 Å lies beyond it; 3 Å does not.
    fine, coarse = (abs(contrast(weak_wave(p), with_(imaging, defocus_nm=f))) for p, f in ((4, 2.54), (12, 22.9)))
    assert fine < 0.01 * coarse


def test_zero_of_focus_is_found_by_the_least_contrast():
    settings = HrtemSettings(particles=SPHERE, support=VACUUM, imaging=IDEAL)
    thin = hrtem.prepare(SHAPE, seed=4, settings=settings)
    assert hrtem.minimum_contrast_defocus(thin.wave, IDEAL, (-6, 6)) == pytest.approx(0, abs=0.02)
    # A thick particle is in focus in its middle, to which focus refers.
    thick = hrtem.prepare(SHAPE, seed=4, settings=settings.model_copy(update={"slab_nm": 0.25}))
    assert hrtem.minimum_contrast_defocus(thick.wave, IDEAL, (-6, 6)) == pytest.approx(0, abs=0.3)


def test_least_contrast_with_spherical_aberration_lies_where_theory_has_it():
    # For a white weak phase object the variance is ∫ sin²χ E² q dq.
    imaging = Imaging(cs_um=1200, focal_spread_nm=4.0, convergence_mrad=0.1, vibration_pm=30, pixel_size_angstrom=0.4)
    rng = np.random.default_rng(0)
    wave = np.exp(1e-3j * rng.normal(size=(256, 256)))
    spectrum = np.fft.fft2(wave).astype(np.complex64)
    white = ExitWave(spectrum, Grid((256, 256), 0.4), (slice(None), slice(None)), 300.0)
    q = np.linspace(1e-3, 2 / 3 / 0.8, 4000) + 0j
    defoci = np.arange(0, 60, 0.1)

    def variance(defocus):
        lens = with_(imaging, defocus_nm=defocus)
        return (ctf.contrast_transfer(q, 300, lens.aberrations, lens.coherence) ** 2 * q.real).sum()

    expected = defoci[np.argmin([variance(d) for d in defoci])]
    found = hrtem.minimum_contrast_defocus(white, imaging, (0, 60))
    assert found == pytest.approx(expected, abs=1.0)
    # The rule of thumb: about 0.4 √(Cs λ).
    assert found == pytest.approx(0.04 * np.sqrt(1.2e7 * ctf.wavelength(300)), rel=0.2)


@pytest.mark.parametrize(("side", "focus"), [("entrance", 2.0), ("exit", -2.0)])
def test_a_film_is_out_of_focus_by_its_distance_from_the_particles(side, focus):
    # The film's middle lies 1 nm and the particle's radius before (or behind) the particle's middle; to focus on what
    # the beam meets earlier is underfocus.
    film = Support(thickness_nm=2.0, unevenness=0, side=side)
    settings = HrtemSettings(particles=SPHERE, support=film, imaging=IDEAL, slab_nm=0.5)
    prepared = hrtem.prepare((160, 160), seed=4, settings=settings)
    away = distance_transform_edt(prepared.instances == 0) > 15
    defoci = np.arange(-5, 6.0)
    variances = [prepared.wave.intensity(with_(IDEAL, defocus_nm=d))[away].var() for d in defoci]
    assert defoci[int(np.argmin(variances))] == pytest.approx(focus, abs=1.0)


@pytest.mark.parametrize("dose", [30.0, 400.0])
def test_counts_of_an_empty_beam_are_poisson(dose):
    imaging = with_(IDEAL, dose_e_per_a2=dose, pixel_size_angstrom=0.5)
    counts = expose(np.ones((256, 256), np.float32), imaging, np.random.default_rng(0))
    assert counts.mean() == pytest.approx(dose * 0.25, rel=0.01)
    assert counts.var() == pytest.approx(dose * 0.25, rel=0.03)


def test_a_scintillator_correlates_noise_and_leaves_the_mean():
    imaging = with_(IDEAL, dose_e_per_a2=100.0, mtf_at_nyquist=0.1)
    counts = expose(np.ones((256, 256), np.float32), imaging, np.random.default_rng(0))
    assert counts.mean() == pytest.approx(4.0, rel=0.01)
    assert counts.var() < 0.5 * 4.0
    centred = counts - counts.mean()
    assert (centred[1:] * centred[:-1]).mean() / counts.var() > 0.3
    read = expose(np.ones((256, 256), np.float32), with_(imaging, read_noise_e=2.0), np.random.default_rng(0))
    assert read.var() - counts.var() == pytest.approx(4.0, rel=0.05)


def test_relative_noise_falls_as_one_over_the_dose_before_the_camera_blurs():
    settings = HrtemSettings(particles=SPHERE, support=VACUUM, imaging=with_(IDEAL, defocus_nm=8.0))
    truth = hrtem.prepare(SHAPE, seed=1, settings=settings).wave.intensity(settings.imaging)
    for dose in (100.0, 10000.0):
        imaging = with_(IDEAL, dose_e_per_a2=dose)
        per_pixel = dose * 0.04
        pair = [expose(truth, imaging, np.random.default_rng(s)) / per_pixel for s in (0, 1)]
        # Poisson: variance of a pixel's relative count = intensity / electrons.
        assert (pair[0] - pair[1]).var() / 2 == pytest.approx(1 / per_pixel, rel=0.05)


@pytest.mark.parametrize("radius", [1.0, 1.6])
@pytest.mark.parametrize("pixel", [0.2, 0.3])
def test_mask_of_a_sphere_is_its_disc_with_half_a_bond_around(radius, pixel):
    particles = with_(SPHERE, radius_nm=(radius, radius))
    settings = HrtemSettings(particles=particles, support=VACUUM, imaging=with_(IDEAL, pixel_size_angstrom=pixel))
    made = hrtem.simulate((220, 220), seed=3, settings=settings)
    equivalent = np.sqrt((made.mask == hrtem.NANOPARTICLE).sum() / np.pi) * pixel
    # The outermost atoms lie a little inside the sphere.
    assert 10 * radius - 0.8 < equivalent < 10 * radius + DISC_ANGSTROM + 0.2


def test_phase_mask_lies_inside_the_geometric_one_and_is_smaller():
    settings = HrtemSettings(particles=with_(SPHERE, radius_nm=(1.8, 1.8)), support=VACUUM, imaging=IDEAL)
    geometric = hrtem.simulate((280, 280), seed=3, settings=settings).mask == 2
    phase = hrtem.simulate((280, 280), seed=3, settings=settings.model_copy(update={"mask": "phase"})).mask == 2
    assert not (phase & ~geometric).any()
    # An 18 Å sphere of CdSe keeps some 14 to 16 Å.
    assert 13 < np.sqrt(phase.sum() / np.pi) * 0.2 < 17


def test_labels_agree_with_each_other():
    made = hrtem.simulate((256, 256), seed=8)
    assert made.image.dtype == np.float32
    assert 0 <= made.image.min() < made.image.max() <= 1
    assert made.mask.dtype == np.uint8
    assert made.instances.dtype == np.int32
    np.testing.assert_array_equal(made.mask == 2, made.instances > 0)
    assert made.classes == ("support", "nanoparticle")
    assert made.omits
    jump = made.instances[1:] != made.instances[:-1]
    assert made.boundaries[1:][jump].all()
    assert made.boundaries.sum() < 0.2 * made.mask.size


def test_same_seed_same_pixels_and_the_recipe_makes_them_again():
    np.random.seed(1)  # noqa: NPY002
    first = hrtem.simulate(SHAPE, seed=11)
    np.random.seed(2)  # noqa: NPY002
    second = hrtem.simulate(SHAPE, seed=11)
    np.testing.assert_array_equal(first.image, second.image)
    recipe = json.loads(json.dumps(first.recipe))
    again = hrtem.simulate(
        tuple(recipe["shape"]), seed=recipe["seed"], settings=HrtemSettings.model_validate(recipe["settings"])
    )
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.instances, again.instances)
    assert (hrtem.simulate(SHAPE, seed=12).image != first.image).any()


def test_one_exit_wave_serves_all_settings(monkeypatch):
    prepared = hrtem.prepare(SHAPE, seed=5, settings=HrtemSettings(particles=SPHERE))
    monkeypatch.setattr(hrtem, "exit_wave", None)
    defocused = hrtem.micrograph(prepared, with_(prepared.settings.imaging, defocus_nm=-20.0))
    whole = hrtem.micrograph(prepared)
    assert (defocused.image != whole.image).any()
    np.testing.assert_array_equal(defocused.mask, whole.mask)
    assert defocused.recipe["settings"]["imaging"]["defocus_nm"] == -20.0


def test_a_wave_refuses_another_voltage_or_pixel():
    prepared = hrtem.prepare(SHAPE, seed=5, settings=HrtemSettings(particles=SPHERE))
    with pytest.raises(EMTransferError, match="voltage_kv 300"):
        prepared.wave.intensity(with_(prepared.settings.imaging, voltage_kv=200.0))
    with pytest.raises(EMTransferError, match=r"pixel_size_angstrom 0\.2"):
        prepared.wave.intensity(with_(prepared.settings.imaging, pixel_size_angstrom=0.3))


@pytest.mark.parametrize(
    "wrong",
    [{"lattices": ("Unobtainium",)}, {"radius_nm": (2.0, 1.0)}, {"zone_axis_share": 1.5}, {"lattices": ()}],
)
def test_impossible_particles_are_refused(wrong):
    with pytest.raises(ValidationError):
        Particles(**wrong)


def test_mean_phase_of_carbon_is_its_mean_inner_potential():
    # 47.878 · f_e(0) · ρ: with free atoms 12 V at 2.0 g/cm³ (bonds make it some 9 V).
    specimen = build(SHAPE, 0.2, SPHERE, Support(thickness_nm=5.0, unevenness=0), np.random.default_rng(0))
    volts = support_potential(specimen.carbon, specimen.grid).mean() / 50
    assert volts == pytest.approx(12.0, rel=0.05)
    assert mean_carbon_phase(5.0, 2.0, 300) == pytest.approx(50 * volts * ctf.interaction_constant(300), rel=0.01)


def test_carbon_speckle_has_the_structure_factor_of_the_film():
    rng = np.random.default_rng(0)
    specimen = build((256, 256), 0.3, SPHERE, Support(thickness_nm=5.0, unevenness=0), rng)
    power = np.abs(np.fft.rfft2(specimen.carbon)) ** 2
    q = np.sqrt(specimen.grid.q_squared())
    low, first, far = (power[np.abs(q - centre) < 0.02].mean() for centre in (0.15, 0.47, 1.5))
    assert low < 0.2 * far
    assert first > 1.1 * far
    # Far out the atoms are independent: power = number of atoms.
    assert far == pytest.approx(specimen.carbon.sum(), rel=0.1)


def test_particles_lie_on_the_film_and_not_in_its_hole():
    many = with_(SPHERE, per_100_nm2=(8.0, 8.0), radius_nm=(0.6, 0.7), gap_nm=0.2)
    specimen = build((256, 256), 0.4, many, Support(hole=0.5, unevenness=0), np.random.default_rng(1))
    assert len(specimen.particles) > 3
    smooth = gaussian_filter(specimen.carbon, 4)
    film = smooth[specimen.view] > 0.5 * smooth.max()
    assert 0.2 < film.mean() < 0.8
    inside = specimen.instances[specimen.view] > 0
    assert film[inside].mean() > 0.75


def test_a_specimen_without_room_has_no_particles_and_can_be_imaged():
    settings = HrtemSettings(particles=SPHERE, support=Support(hole=1.0), slab_nm=1.0)
    made = hrtem.simulate(SHAPE, seed=0, settings=settings)
    assert (made.mask == hrtem.SUPPORT).all()
    assert np.isfinite(made.image).all()


def test_absorption_darkens_particles_in_focus():
    settings = HrtemSettings(particles=with_(SPHERE, lattices=("Au",)), support=VACUUM, imaging=IDEAL)
    specimen = build(SHAPE, 0.2, settings.particles, VACUUM, np.random.default_rng(0))
    inside = specimen.instances[specimen.view] > 0
    pure, absorbing = (exit_wave(specimen, 300.0, absorption=k).intensity(IDEAL) for k in (0.0, 0.1))
    assert absorbing[inside].mean() < pure[inside].mean() - 0.02
    assert absorbing[~inside].mean() == pytest.approx(pure[~inside].mean(), abs=0.01)


def test_fringes_fade_with_tilt():
    rng = np.random.default_rng(0)
    strength = {}
    for tilt in (0.0, 12.0):
        particles = Particles(
            lattices=("Au",),
            radius_nm=(1.8, 1.8),
            per_100_nm2=(0.1, 0.1),
            zone_axis_share=1,
            tilt_deg=tilt,
            fault_share=0,
        )
        settings = HrtemSettings(particles=particles, support=VACUUM, imaging=with_(IDEAL, defocus_nm=6.0))
        seeds = rng.integers(1000, size=6)
        waves = [hrtem.prepare((220, 220), seed=int(s), settings=settings).wave for s in seeds]
        strength[tilt] = np.median([w.intensity(settings.imaging).std() for w in waves])
    assert strength[12.0] < 0.8 * strength[0.0]


def test_drawn_settings_are_plausible_and_fast():
    settings = [hrtem.draw(np.random.default_rng(s)) for s in range(60)]
    assert {s.support.kind for s in settings} == {"carbon", "graphene", "vacuum"}
    assert len({s.particles.lattices for s in settings}) > 8
    assert min(s.imaging.defocus_nm for s in settings) < -5 < 5 < max(s.imaging.defocus_nm for s in settings)
    started = time.process_time()
    shares = [float((hrtem.simulate((192, 192), seed=s).mask == 2).mean()) for s in range(12)]
    # 0.05 s each on one core; room for a slow machine.
    assert time.process_time() - started < 12
    assert 0.02 < np.mean(shares) < 0.7
    assert np.mean(np.array(shares) > 0) > 0.8
