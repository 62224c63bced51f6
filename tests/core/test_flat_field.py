"""The noise that was put in is the noise that is measured; images that cannot tell are refused."""

from __future__ import annotations

import numpy as np
import pytest

from napari_emtransfer.core.data.readers import read_micrograph
from napari_emtransfer.core.errors import FlatFieldError
from napari_emtransfer.core.synth.detector import DetectorSettings, expose
from napari_emtransfer.core.synth.flat_field import FlatField, measure, white_level
from napari_emtransfer.core.synth.noise_spread import block_moments, spread_of

Y, X = np.mgrid[:512, :512] / 511
RAMP = 0.08 + 0.7 * (0.4 * X + 0.6 * Y)


def frames(n=1, grey=RAMP, **changes):
    detector = DetectorSettings(**{"probe_blur_px": 0.0, "vignette": 0.0, "read_noise": 0.01, "bits": 16} | changes)
    return detector, [expose(grey, detector, np.random.default_rng([9, i])) for i in range(n)]


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(
    "settings",
    [
        {"dose_e_per_px": 60},
        {"dose_e_per_px": 300, "read_noise": 0.02},
        {"dose_e_per_px": 60, "bits": 8},
        {"dose_e_per_px": 40, "noise_psf_px": 0.8},
        {"dose_e_per_px": 40, "line_lag_px": 1.2},
        {"dose_e_per_px": 1500, "read_noise": 0.0},
    ],
)
def test_gain_is_recovered_within_five_percent(settings, n):
    detector, images = frames(n, **settings)
    found = measure(images)
    assert found.gain == pytest.approx(detector.gain, rel=0.05)
    assert found.noise_psf_px == pytest.approx(detector.noise_psf_px, abs=0.06)
    assert found.line_lag_px == pytest.approx(detector.line_lag_px, abs=0.1)
    assert found.n_frames == n
    assert found.n_levels >= 10
    assert found.r2 > 0.95
    if detector.read_noise >= 0.02:
        assert found.read_noise == pytest.approx(detector.read_noise, rel=0.1)


def test_black_level_is_found_where_the_line_meets_zero():
    detector, images = frames(2, dose_e_per_px=100, black_level=0.1, read_noise=0.0, grey=0.1 + RAMP)
    found = measure(images)
    assert found.black_level == pytest.approx(0.1, abs=0.01)
    assert found.read_noise < 0.005
    assert found.gain == pytest.approx(detector.gain, rel=0.05)


def test_a_pair_is_free_of_what_the_field_shows_and_a_single_frame_is_not():
    texture = RAMP + 0.05 * np.sin(2 * np.pi * X * 64) * np.sin(2 * np.pi * Y * 64)
    detector, images = frames(2, grey=texture, dose_e_per_px=200)
    assert measure(images).gain == pytest.approx(detector.gain, rel=0.05)
    assert measure(images[0]).read_noise > 2 * detector.read_noise
    assert "upper bound" in measure(images[0]).note


def test_edges_in_a_single_frame_are_not_noise():
    disc = np.where(np.hypot(X - 0.5, Y - 0.5) < 0.3, 0.1, 0.0)
    detector, images = frames(1, grey=RAMP + disc, dose_e_per_px=80)
    assert measure(images[0]).gain == pytest.approx(detector.gain, rel=0.08)


def test_the_result_feeds_the_detector():
    detector, images = frames(2, dose_e_per_px=90, noise_psf_px=0.6)
    drawn = DetectorSettings.draw(np.random.default_rng(4), "sem")
    fed = measure(images).applied_to(drawn)
    assert fed.gain == pytest.approx(detector.gain, rel=0.06)
    assert fed.noise_psf_px == pytest.approx(0.6, abs=0.06)
    assert (fed.contrast, fed.scan, fed.bits) == (drawn.contrast, drawn.scan, drawn.bits)
    again = [expose(RAMP, fed.model_copy(update={"bits": 16}), np.random.default_rng(i)) for i in (0, 1)]
    assert measure(again).gain == pytest.approx(measure(images).gain, rel=0.08)


def test_survives_json():
    found = measure(frames(2)[1])
    assert FlatField.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("dtype", "scale", "white"), [(np.uint8, 255, 255), (np.uint16, 4000, 4095), (np.float32, 1.0, 1.0)]
)
def test_full_scale_is_told_from_the_file(dtype, scale, white):
    assert white_level([(RAMP / RAMP.max() * scale).astype(dtype)]) == white


def test_integers_of_any_depth_give_the_same_share():
    _, images = frames(2, dose_e_per_px=60)
    counts = [np.round(4095 * image).astype(np.uint16) for image in images]
    assert measure(counts).gain == pytest.approx(measure(images).gain, rel=0.02)


def test_spread_of_the_noise_is_found_from_its_own_moments():
    for psf, lag in ((0.0, 0.0), (0.7, 0.0), (1.4, 0.0), (0.0, 2.0), (0.6, 1.0)):
        variance, right, below = block_moments(psf, lag, 16, 3)
        found = spread_of(right / variance, below / variance, 16, 3)
        assert found == pytest.approx((psf, lag), abs=0.02)
    assert block_moments(0.0, 0.0, 16, 3)[0] == pytest.approx(1 - 3 / 256)


REFUSED = {
    "saturated": (lambda: [np.clip(3 * frames()[1][0] - 0.6, 0, 1)], "saturated"),
    "even": (lambda: frames(grey=np.full((256, 256), 0.5))[1], "grey levels"),
    "too small": (lambda: frames(grey=RAMP[:40, :40])[1], "40 × 40"),
    "processed": (lambda: [RAMP + 0.01 * np.random.default_rng(0).normal(size=RAMP.shape)], "explains"),
    "another size": (lambda: [frames()[1][0], frames()[1][0][:256]], "one field"),
    "another field": (lambda: [frames()[1][0], frames(grey=RAMP[::-1])[1][0]], "different fields"),
    "nothing": (list, "no frame"),
    "the same twice": (lambda: [frames()[1][0]] * 2, "one and the same"),
    "a negative": (lambda: [1 - frames()[1][0] / frames()[1][0].max()], "negative"),
    "no numbers": (lambda: [np.where(RAMP > 0.5, np.nan, RAMP)], "no numbers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_tell_is_refused(case):
    make, words = REFUSED[case]
    with pytest.raises(FlatFieldError, match=words) as fault:
        measure(make())
    assert fault.value.hint


def real_pixels(path):
    return np.asarray(read_micrograph(path).pixels[:, :])


def test_a_real_micrograph_with_little_texture_is_measured(real_data):
    found = measure(real_pixels(real_data / "raw/rosettasciio__TVIPS_bin4.tif"))
    assert 0.001 < found.gain < 0.2
    assert found.n_levels >= 10


@pytest.mark.parametrize("name", ["polymer_nanocomposite_sem/images/10C3_0.png", "creme_316l_loops/images/1.png"])
def test_a_real_micrograph_of_texture_is_refused(real_data, name):
    with pytest.raises(FlatFieldError, match="texture"):
        measure(real_pixels(real_data / name))
