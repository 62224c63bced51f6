"""One entry to all generators: the same seed, the same recipe, the same pixels."""

from __future__ import annotations

import json
from itertools import islice

import numpy as np
import pytest

from napari_emtransfer.core.data.info_bar import find_info_bar
from napari_emtransfer.core.errors import SynthesisError
from napari_emtransfer.core.synth.data_bar import draw_data_bar, length_text, n_bar_rows, nice_length_nm
from napari_emtransfer.core.synth.detector import DetectorSettings, expose
from napari_emtransfer.core.synth.flat_field import measure
from napari_emtransfer.core.synth.generate import generate, realize, regenerate, stream
from napari_emtransfer.core.synth.recipe import Recipe, child_seed, draw_recipe, presets, same_specimen
from napari_emtransfer.core.synth.scan import ScanSettings

SHAPE = (96, 128)
SOME = [
    ("voronoi", "equiaxed"),
    ("voronoi", None),
    ("hrtem", "nanoparticles"),
    ("hrtem", "haadf"),
    ("hrtem", "dose:75"),
]


def assert_same(one, other):
    for name in ("image", "mask", "boundaries", "instances"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize(("kind", "preset"), SOME)
def test_a_recipe_makes_the_same_pixels_again(kind, preset):
    made = generate(kind, preset, seed=5, shape=SHAPE)
    assert made.image.shape == made.mask.shape == made.boundaries.shape == made.instances.shape == SHAPE
    assert (made.image.dtype, made.mask.dtype, made.instances.dtype) == (np.float32, np.uint8, np.int32)
    assert 0 <= made.image.min() < made.image.max() <= 1
    assert 1 <= made.mask.max() <= len(made.classes)
    assert made.omits
    stored = json.loads(json.dumps(made.recipe))
    assert_same(regenerate(stored), made)
    assert_same(generate(kind, preset, seed=5, shape=SHAPE), made)
    assert (generate(kind, preset, seed=6, shape=SHAPE).image != made.image).any()


@pytest.mark.parametrize("name", sorted(presets("voronoi")))
def test_every_preset_makes_a_micrograph_and_says_what_it_is(name):
    made = generate("voronoi", name, seed=1, shape=(128, 128))
    assert made.recipe["preset"] == name
    assert len(presets("voronoi")[name]) > 15
    assert made.instances.any()
    assert made.classes


def test_a_stream_begins_anywhere():
    whole = list(islice(stream(seed=3, shape=SHAPE), 4))
    rest = list(islice(stream(seed=3, start=2, shape=SHAPE), 2))
    for one, other in zip(whole[2:], rest, strict=True):
        assert_same(one, other)
    assert len({made.recipe["seed"] for made in whole}) == 4
    assert len({child_seed(3, i) for i in range(1000)}) == 1000


def test_another_scan_or_noise_shows_the_same_specimen():
    recipe = draw_recipe("voronoi", "equiaxed", seed=4, shape=SHAPE)
    quiet = DetectorSettings(dose_e_per_px=1e6)
    noisy = DetectorSettings(dose_e_per_px=30, noise_psf_px=0.7, scan=ScanSettings(drift_px=0.3))
    one, other = (realize(recipe.model_copy(update={"detector": d})) for d in (quiet, noisy))
    assert (one.instances == other.instances).mean() > 0.9
    assert np.abs(one.image - other.image).mean() > 0.02


def test_another_place_of_a_specimen_shares_material_and_nearly_the_microscope():
    first = draw_recipe("voronoi", "equiaxed", seed=1, shape=SHAPE)
    second = same_specimen(first, 2)
    assert second.material == first.material
    assert second.detector.gain == first.detector.gain
    assert 0 < abs(second.detector.brightness - first.detector.brightness) < 0.1
    assert (realize(first).instances != realize(second).instances).any()


def test_the_preset_does_not_depend_on_being_named():
    drawn = draw_recipe("voronoi", seed=8)
    assert draw_recipe("voronoi", drawn.preset, seed=8) == drawn


def test_a_flat_field_sets_the_noise_and_nothing_else():
    ramp = np.tile(np.linspace(0.1, 0.8, 256), (256, 1))
    mine = DetectorSettings(dose_e_per_px=70, probe_blur_px=0, vignette=0, bits=16)
    found = measure([expose(ramp, mine, np.random.default_rng(i)) for i in (0, 1)])
    plain, fed = (draw_recipe("voronoi", seed=2, flat_field=f) for f in (None, found))
    assert fed.material == plain.material
    assert fed.detector.gain == pytest.approx(mine.gain, rel=0.07)
    assert fed.detector.contrast == plain.detector.contrast
    camera = draw_recipe("hrtem", "nanoparticles", seed=2, flat_field=found).material["imaging"]
    assert camera["read_noise_e"] == pytest.approx(found.read_noise / found.gain)
    assert camera["mtf_at_nyquist"] == pytest.approx(np.exp(-(np.pi**2) * found.noise_psf_px**2 / 2))


def test_pixel_size_is_the_one_asked_for():
    assert generate("voronoi", seed=1, shape=SHAPE, pixel_size_nm=7.5).pixel_size_nm == 7.5
    assert generate("hrtem", seed=1, shape=SHAPE, pixel_size_nm=0.03).pixel_size_nm == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("kind", "preset", "given", "words"),
    [
        ("voronoi", "bubbles", {}, "no preset 'bubbles'"),
        ("hrtem", "equiaxed", {}, "no preset 'equiaxed'"),
        ("voronoi", None, {"shape": (32, 512)}, "32 × 512"),
        ("voronoi", None, {"shape": (512, 9000)}, "512 × 9000"),
        ("hrtem", None, {"pixel_size_nm": 25.0}, "25 nm"),
        ("hrtem", "dose:30", {"pixel_size_nm": 0.2, "shape": (4096, 4096)}, "819 nm × 819 nm would hold up to 20468"),
        ("hrtem", None, {"instrument": "sem"}, "'sem'"),
        ("hrtem", None, {"detector": DetectorSettings()}, "no detector"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_sentence(kind, preset, given, words):
    with pytest.raises(SynthesisError, match=words):
        generate(kind, preset, **given)


def test_a_damaged_recipe_is_refused():
    recipe = generate("voronoi", seed=1, shape=SHAPE).recipe
    for damage in (
        {"seed": -1},
        {"preset": "bubbles"},
        {"shape": [8, 8]},
        {"colour": 3},
        {"material": {"nonsense": 1}},
    ):
        with pytest.raises(SynthesisError):
            regenerate(recipe | damage)
    assert Recipe.model_validate(recipe).model_dump(mode="json") == recipe


# --- the data bar


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("size", "pixel_size_nm"), [((480, 640), 25.0), ((256, 256), 0.02), ((960, 1280), 800.0)])
def test_the_data_bar_is_found_as_one_of_a_microscope_is(seed, size, pixel_size_nm):
    rng = np.random.default_rng(seed)
    noise = np.clip(rng.normal(0.5, 0.1, size), 0, 1).astype(np.float32)
    image = draw_data_bar(noise, 0.08, pixel_size_nm, rng)
    found = find_info_bar(size, lambda rows: image[rows])
    assert (found.y0, found.y1) == (size[0] - n_bar_rows(size[0], 0.08), size[0])


def test_nothing_is_labelled_in_the_data_bar():
    made = generate("voronoi", "equiaxed", seed=1, shape=SHAPE, detector=DetectorSettings(info_bar=0.15))
    n = n_bar_rows(SHAPE[0], 0.15)
    assert n > 0
    for labels in (made.mask, made.boundaries, made.instances):
        assert not labels[-n:].any()
    assert made.mask[:-n].all()


def test_the_scale_bar_is_as_long_as_it_says():
    length = nice_length_nm(0.18 * 640 * 25)
    assert length == 2000
    bar = draw_data_bar(np.full((480, 640), 0.5, np.float32), 0.08, 25.0, _rng_of_lines())[-n_bar_rows(480, 0.08) :]
    ink = np.abs(bar - np.median(bar)) > 0.5
    runs = [len(run) for row in ink for run in "".join("x" if pixel else " " for pixel in row).split()]
    assert max(runs) == pytest.approx(length / 25 + 1, abs=1)


def _rng_of_lines():
    """A random generator whose first numbers choose lines of text, white on black."""
    return next(
        np.random.default_rng(s)
        for s in range(99)
        if (np.random.default_rng(s).random(2) < 0.5).tolist() == [False, True]
    )


@pytest.mark.parametrize(
    ("nm", "text"), [(2000, "2 um"), (500, "500 nm"), (5e6, "5 mm"), (2, "2 nm"), (0.5, "5 A"), (0.05, "0.5 A")]
)
def test_lengths_have_the_unit_that_a_microscopist_chooses(nm, text):
    assert length_text(nm) == text


def test_no_bar_where_it_would_leave_too_little_image():
    assert n_bar_rows(512, 0) == 0
    assert n_bar_rows(40, 0.1) == 0
    assert n_bar_rows(512, 0.1) == 51
