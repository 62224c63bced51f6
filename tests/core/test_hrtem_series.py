"""The published study's domains, and presets by name."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.core.synth import hrtem, hrtem_series
from napari_emtransfer.core.synth.hrtem_presets import PRESETS, pixel_size_nm, simulate
from napari_emtransfer.core.synth.hrtem_series import DOMAINS, SERIES, series

SHAPE = (96, 96)


def test_the_studys_domains_are_there():
    assert [d.defocus_nm for d in SERIES["defocus"]] == list(range(-25, 26, 5))
    assert [d.dose_e_per_a2 for d in SERIES["dose"]] == [30, 75, 150, 300, 600]
    assert len(SERIES["structure"]) == 18
    assert len(DOMAINS) == 34


def test_defoci_of_a_domain_scatter_by_its_spread():
    rng = np.random.default_rng(0)
    drawn = [DOMAINS["defocus:+5"].imaging(rng).defocus_nm for _ in range(400)]
    assert np.mean(drawn) == pytest.approx(5, abs=0.25)
    assert np.std(drawn) == pytest.approx(1.5, rel=0.1)


@pytest.mark.parametrize("name", ["defocus", "dose"])
def test_an_imaging_series_shows_one_specimen_and_computes_its_wave_once(name, monkeypatch):
    calls = []
    real = hrtem.exit_wave
    monkeypatch.setattr(hrtem, "exit_wave", lambda *args, **kwargs: calls.append(1) or real(*args, **kwargs))
    made = dict(series(name, SHAPE, seed=2))
    assert list(made) == [d.name for d in SERIES[name]]
    assert len(calls) == 1
    masks = [m.mask for m in made.values()]
    assert all((mask == masks[0]).all() for mask in masks)
    images = [m.image for m in made.values()]
    assert all((image != images[0]).any() for image in images[1:])


def test_noise_falls_through_the_dose_series():
    images = {name: m.image - m.image.mean() for name, m in series("dose", (192, 192), seed=2)}
    # White noise pulls the likeness of neighbours down.
    likeness = [float((i[1:] * i[:-1]).mean() / i.var()) for i in (images[f"dose:{d}"] for d in (30, 150, 600))]
    assert likeness == sorted(likeness)
    assert likeness[0] < 0.5 * likeness[-1]


def test_a_structure_series_changes_the_particles():
    found = series("structure", SHAPE, seed=2)
    first, second = next(found), next(found)
    assert first[0] == "structure:ZnS-small"
    assert (first[1].mask != second[1].mask).any()


def test_an_unknown_series_is_refused():
    with pytest.raises(EMTransferError, match="'tilt'"):
        next(series("tilt", SHAPE, seed=0))


@pytest.mark.parametrize("name", ["nanoparticles", "haadf", "defocus:-10", "dose:30", "structure:Fe-large"])
def test_a_preset_survives_json_and_makes_the_same_pixels(name):
    preset = PRESETS[name]
    settings = preset.draw(np.random.default_rng(4))
    read = preset.model.model_validate(json.loads(settings.model_dump_json()))
    assert read == settings
    first, second = simulate(SHAPE, seed=9, settings=settings), simulate(SHAPE, seed=9, settings=read)
    np.testing.assert_array_equal(first.image, second.image)
    assert first.pixel_size_nm == pytest.approx(pixel_size_nm(settings))
    assert preset.sentence.endswith(".")


def test_in_focus_a_particle_alone_nearly_vanishes():
    """Why the domain in focus is the hard one."""
    domain = hrtem_series.DOMAINS["defocus:0"]
    settings = domain.settings(np.random.default_rng(0), pixel_size_angstrom=0.4)
    settings = settings.model_copy(update={"support": hrtem.Support(kind="vacuum")})
    ratios = []
    for seed in range(5):
        wave = hrtem.prepare((128, 128), seed=seed, settings=settings).wave
        focused, defocused = (
            wave.intensity(settings.imaging.model_copy(update={"defocus_nm": d})).std() for d in (0.0, -10.0)
        )
        ratios.append(focused / defocused)
    assert np.median(ratios) < 0.4
