"""The scan moves image and mask together, exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_emtransfer.core.synth.detector import DetectorSettings
from napari_emtransfer.core.synth.generate import realize
from napari_emtransfer.core.synth.recipe import draw_recipe
from napari_emtransfer.core.synth.scan import ScanSettings, coordinates
from napari_emtransfer.core.synth.voronoi import GENERATORS

SHAPE = (96, 80)


def moved(seed=0, **changes):
    return coordinates(SHAPE, ScanSettings(**changes), np.random.default_rng(seed))


def displacement(seed=0, **changes):
    y, x = moved(seed, **changes)
    ideal_y, ideal_x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return y - ideal_y, x - ideal_x


def test_without_faults_the_beam_stands_where_it_should():
    dy, dx = displacement()
    assert not dy.any()
    assert not dx.any()


def test_jitter_is_of_rows_along_the_fast_axis():
    y, x = coordinates((4000, 3), ScanSettings(jitter_px=0.7), np.random.default_rng(0))
    shift = x[:, 0]
    assert shift.std() == pytest.approx(0.7, rel=0.05)
    np.testing.assert_allclose(np.ptp(x - np.arange(3), axis=1), 0, atol=1e-12)
    assert abs(np.corrcoef(shift[1:], shift[:-1])[0, 1]) < 0.05
    np.testing.assert_array_equal(y[:, 0], np.arange(4000))


def test_drift_is_slow_and_as_large_as_said():
    dy, dx = displacement(drift_px=4)
    for shift in (dy[:, 0], dx[:, 0]):
        assert np.abs(shift).max() == pytest.approx(4)
        assert np.abs(np.diff(shift)).max() < 0.6


def test_flagging_bends_the_top_and_vibration_waves():
    _, dx = displacement(flagging_px=6, flagging_rows=8)
    assert abs(dx[0, 0]) == pytest.approx(6)
    assert abs(dx[8, 0]) == pytest.approx(6 / np.e)
    assert abs(dx[-1, 0]) < 1e-3
    _, dx = displacement(vibration_px=1, vibration_rows=12)
    spectrum = np.abs(np.fft.rfft(dx[:, 0]))
    assert np.argmax(spectrum) == SHAPE[0] / 12


def test_switching_one_fault_off_leaves_the_others():
    _, both = displacement(drift_px=3, jitter_px=0.5)
    _, drift = displacement(drift_px=3)
    _, jitter = displacement(jitter_px=0.5)
    np.testing.assert_allclose(both, drift + jitter, atol=1e-12)


# Bainite numbers its laths from the first one in view, so another scan shows other laths of the same kind.
COUNTED_FROM_THE_VIEW = {"bainite"}


@pytest.mark.parametrize("preset", sorted(GENERATORS.keys() - COUNTED_FROM_THE_VIEW))
def test_labels_of_the_distorted_structure_are_the_ideal_ones_at_those_places(preset):
    # Rows shifted by whole pixels: every place that the beam visits is a pixel of the undistorted plane. Both cover
    # the same frame, so that both are the same specimen.
    rows = np.random.default_rng(3).integers(-5, 6, 96)
    rows[:2] = -5, 5
    ideal_y, ideal_x = np.mgrid[:96, -5:101].astype(float)
    y, x = np.mgrid[:96, :96].astype(float)
    generator = GENERATORS[preset]()
    ideal = generator(ideal_y, ideal_x, np.random.default_rng(5))
    distorted = generator(y, x + rows[:, None], np.random.default_rng(5))
    columns = (x + rows[:, None] + 5).astype(int)
    assert len(np.unique(ideal.instances)) > 1
    for what in ("phases", "instances", "boundary_px"):
        there = np.take_along_axis(getattr(ideal, what), columns, axis=1)
        np.testing.assert_allclose(getattr(distorted, what), there, atol=1e-3)


def test_image_and_mask_of_a_micrograph_move_together():
    # Grains of even grey value: the image varies little within a grain of its own labels, whatever the rows do.
    sharp = {"probe_blur_px": 0.0, "dose_e_per_px": 1e6, "vignette": 0.0, "bits": 16}
    even = GENERATORS["equiaxed"](
        contrast={"channelling": 0.2, "groove": 0.0, "bending": 0.0, "relief": 0.0, "striae": 0.0}, grain_px=20
    )
    recipe = draw_recipe("voronoi", "equiaxed", seed=2, shape=(128, 128))
    still, shaken = (
        realize(
            recipe.model_copy(update={"material": even.model_dump(), "detector": DetectorSettings(scan=scan, **sharp)})
        )
        for scan in (ScanSettings(), ScanSettings(jitter_px=3.0))
    )
    assert np.isin(np.unique(still.instances), shaken.instances).mean() > 0.9  # the same grains
    assert (still.instances != shaken.instances).mean() > 0.1

    def within_grains(image, instances):
        count = np.maximum(np.bincount(instances.ravel()), 1)
        mean = np.bincount(instances.ravel(), image.ravel()) / count
        return ((image - mean[instances]) ** 2).mean()

    assert within_grains(shaken.image, shaken.instances) < 0.2 * within_grains(shaken.image, still.instances)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_drawn_scans_survive_json(seed):
    drawn = ScanSettings.draw(np.random.default_rng(seed))
    assert ScanSettings.model_validate_json(drawn.model_dump_json()) == drawn
