"""What the detector does to grey values: how much noise, how it is correlated, and which step comes first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from napari_emtransfer.core.synth.detector import INSTRUMENTS, DetectorSettings, expose

PLAIN = {"probe_blur_px": 0.0, "vignette": 0.0, "read_noise": 0.0, "bits": 16}


def seen(grey, seed=1, **changes):
    return expose(grey, DetectorSettings(**PLAIN | changes), np.random.default_rng(seed)).astype(float)


def flat(level, shape=(256, 256)):
    return np.full(shape, level)


def correlation(noise, dy, dx):
    noise = noise - noise.mean()
    height, width = noise.shape
    return (noise[dy:, dx:] * noise[: height - dy, : width - dx]).mean() / noise.var()


@pytest.mark.parametrize("dose", [40, 150, 3000])  # the last one is drawn from a normal distribution
@pytest.mark.parametrize("level", [0.2, 0.6])
def test_variance_is_gain_times_mean_plus_read_noise(dose, level):
    image = seen(flat(level), dose_e_per_px=dose, read_noise=0.01)
    assert image.mean() == pytest.approx(level, rel=0.01)
    assert image.var() == pytest.approx(level / dose + 1e-4, rel=0.05)


def test_black_level_holds_no_quanta():
    image = seen(flat(0.3), dose_e_per_px=80, black_level=0.1)
    assert image.mean() == pytest.approx(0.3, rel=0.01)
    assert image.var() == pytest.approx((0.3 - 0.1) * 0.9 / 80, rel=0.05)
    assert seen(flat(0.05), dose_e_per_px=80, black_level=0.1).std() == 0


def test_probe_blur_leaves_the_noise_white_and_a_camera_does_not():
    for blur, psf, expected in ((1.2, 0.0, 0.0), (0.0, 0.8, np.exp(-1 / (4 * 0.8**2)))):
        noise = seen(flat(0.5), dose_e_per_px=100, probe_blur_px=blur, noise_psf_px=psf)
        assert correlation(noise, 0, 1) == pytest.approx(expected, abs=0.03)
        assert correlation(noise, 1, 0) == pytest.approx(expected, abs=0.03)


def test_point_spread_lowers_the_variance_as_it_averages():
    white, spread = (seen(flat(0.5), dose_e_per_px=100, noise_psf_px=s) for s in (0.0, 1.5))
    assert spread.var() / white.var() == pytest.approx(1 / (4 * np.pi * 1.5**2), rel=0.06)


def test_read_noise_is_white_beside_a_point_spread():
    noise = seen(flat(0.5), dose_e_per_px=1e7, noise_psf_px=1.5, read_noise=0.02)
    assert abs(correlation(noise, 0, 1)) < 0.02
    assert noise.std() == pytest.approx(0.02, rel=0.02)


def test_a_slow_amplifier_drags_along_the_row_only_and_to_the_right():
    noise = seen(flat(0.5), dose_e_per_px=100, line_lag_px=1.5)
    assert correlation(noise, 0, 1) == pytest.approx(np.exp(-1 / 1.5), abs=0.03)
    assert abs(correlation(noise, 1, 0)) < 0.02
    step = flat(0.2)
    step[:, 128:] = 0.8
    row = seen(step, dose_e_per_px=1e7, line_lag_px=2.0).mean(axis=0)
    assert row[:128].max() < 0.21
    assert row[128] < 0.5 < row[140]


def test_polarity_contrast_and_gamma():
    ramp = np.tile(np.linspace(0.2, 0.8, 256), (64, 1))
    dose = {"dose_e_per_px": 1e7}
    plain, inverted = (seen(ramp, inverted=i, **dose).mean(axis=0) for i in (False, True))
    np.testing.assert_allclose(plain + inverted, 1, atol=2e-3)
    np.testing.assert_allclose(seen(ramp, contrast=0.5, **dose).mean(axis=0), 0.25 + 0.5 * ramp[0], atol=2e-3)
    np.testing.assert_allclose(seen(ramp, gamma=2.0, **dose).mean(axis=0), ramp[0] ** 2, atol=2e-3)
    filled = seen(0.5 + 0.1 * (ramp - 0.5), auto_contrast=1.0, **dose)
    assert np.ptp(filled.mean(axis=0)) == pytest.approx(0.24, abs=0.01)  # fourfold, and no more


def test_vignette_takes_its_share_from_the_corners():
    image = seen(flat(0.8), vignette=0.3, dose_e_per_px=1e7)
    assert image[128, 128] == pytest.approx(0.8, abs=2e-3)
    assert image[0, 0] == pytest.approx(0.8 * 0.7, abs=2e-3)


def test_charging_is_of_rows_and_remembers():
    rows = seen(flat(0.5, (2048, 64)), charging=0.03, charging_memory=0.8, dose_e_per_px=1e7)
    assert rows.std(axis=1).max() < 1e-3
    levels = rows.mean(axis=1)
    assert levels.std() == pytest.approx(0.03, rel=0.1)
    assert correlation(levels[:, None], 1, 0) == pytest.approx(0.8, abs=0.05)


def test_a_bright_particle_casts_a_shadow_to_its_right():
    grey = flat(0.4)
    grey[100:140, 100:120] = 0.9
    image = seen(grey, shadow=0.5, shadow_px=30, dose_e_per_px=1e6)
    assert image[120, 124] < image[120, 90] - 0.05
    assert image[60, 124] == pytest.approx(image[60, 90], abs=0.01)


def test_curtains_hang_down_the_image():
    image = seen(flat(0.5), curtaining=0.05, curtain_px=3, dose_e_per_px=1e7)
    assert (image / 0.5).std() == pytest.approx(0.05, rel=0.25)
    assert correlation(image, 8, 0) > 0.9
    assert abs(correlation(image, 0, 12)) < 0.3


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_values_are_digits(bits):
    image = seen(np.random.default_rng(0).uniform(0, 1, (64, 64)), bits=bits)
    digits = image * (2**bits - 1)
    np.testing.assert_allclose(digits, np.round(digits), atol=1e-2)


def test_the_same_seed_gives_the_same_pixels_and_draws_nothing_global():
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - the global one, which nobody may touch
    drawn = DetectorSettings.draw(np.random.default_rng(3))
    first, again = (expose(flat(0.5), drawn, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_switching_one_fault_off_leaves_the_others():
    # The same rows charge, whether there are curtains or not.
    def charged(**changes):
        image = seen(flat(0.5), charging=0.05, dose_e_per_px=1e7, **changes)
        return image.mean(axis=1) - image.mean()

    np.testing.assert_allclose(charged(), charged(curtaining=0.03), atol=4e-3)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), instrument=st.sampled_from([None, *INSTRUMENTS]))
def test_drawn_settings_survive_json_and_make_an_image(seed, instrument):
    drawn = DetectorSettings.draw(np.random.default_rng(seed), instrument)
    again = DetectorSettings.model_validate_json(drawn.model_dump_json())
    assert again == drawn
    assert DetectorSettings.model_validate(drawn.model_dump(mode="json")) == drawn
    nudged = drawn.nudged(np.random.default_rng(seed))
    assert DetectorSettings.model_validate(nudged.model_dump()) == nudged
    ramp = np.tile(np.linspace(0, 1, 32), (32, 1))
    image = expose(ramp, again, np.random.default_rng(seed))
    assert image.min() >= 0
    assert image.max() <= 1
    assert np.isfinite(image).all()
    if instrument == "camera":
        assert drawn.scan.drift_px == drawn.scan.jitter_px == drawn.charging == 0
        assert drawn.noise_psf_px > 0


@pytest.mark.parametrize("wrong", [{"dose_e_per_px": 0}, {"contrast": -1}, {"bits": 12}, {"black_level": 1}, {"x": 1}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        DetectorSettings(**wrong)
