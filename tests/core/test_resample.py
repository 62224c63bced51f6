import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import center_of_mass, gaussian_filter

from napari_emtransfer.core.data.intensity import IntensityScale, Standardization
from napari_emtransfer.core.data.micrograph import Micrograph
from napari_emtransfer.core.data.resample import WorkingView, resample_mask, resample_probabilities, working_shape
from napari_emtransfer.core.data.tiles import TileGrid, Window

IDENTITY = IntensityScale(low=-1e9, high=1e9, mean=0, std=1)


def view_of(array, scale, intensity=IDENTITY):
    return WorkingView(Micrograph("m", array), scale=scale, intensity=intensity)


def noise(shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def l_shape(shape=(120, 90), odd=0):
    """An asymmetric mask: two arms of different length and a hole, two classes; edges even, or moved by `odd`."""
    mask = np.ones(shape, np.uint8)
    mask[20 + odd : 100 + odd, 16 + odd : 36 + odd] = 2
    mask[78 + odd : 100 + odd, 16 + odd : 72 + odd] = 2
    mask[40 + odd : 52 + odd, 20 + odd : 30 + odd] = 1
    return mask


def comma(shape=(120, 90)):
    """An asymmetric mask with curved edges: a disc with a tail to one side."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    disc = (y - 41.3) ** 2 + (x - 36.8) ** 2 < 23.7**2
    tail = (np.abs(x - 36.8 - 0.004 * (y - 41.3) ** 2 * 1.7) < 9.2) & (y > 41) & (y < 101.6)
    return np.where(disc | tail, 2, 1).astype(np.uint8)


windows = st.tuples(st.floats(0, 0.8), st.floats(0, 0.8), st.floats(0.05, 1), st.floats(0.05, 1))


@settings(deadline=None, max_examples=60)
@given(scale=st.floats(0.13, 3.1), fractions=windows, shape=st.tuples(st.integers(5, 90), st.integers(5, 90)))
def test_the_same_pixels_whatever_the_window(scale, fractions, shape):
    array = noise(shape) * 100
    view = view_of(array, scale, Standardization().fit(array))
    height, width = view.shape
    y0, x0 = int(fractions[0] * height), int(fractions[1] * width)
    y1, x1 = y0 + max(1, int(fractions[2] * (height - y0))), x0 + max(1, int(fractions[3] * (width - x0)))
    window = Window(y0=y0, x0=x0, y1=y1, x1=x1)
    whole = view.read()
    assert whole.shape == view.shape
    np.testing.assert_allclose(view.read(window), whole[window.slices], atol=1e-5, rtol=0)


def test_scale_one_is_a_slice():
    array = noise((40, 50))
    view = view_of(array, 1.0)
    window = Window(y0=2, x0=3, y1=20, x1=30)
    np.testing.assert_array_equal(view.read(window), array[window.slices])
    assert view.to_native(window) == view.to_working(window) == view.native_cell(window) == window


def test_reading_a_window_touches_only_what_it_needs():
    class Recorder:
        shape, dtype = (4000, 4000), np.dtype("f4")

        def __getitem__(self, index):
            self.asked = index
            return np.zeros([s.stop - s.start for s in index], np.float32)

    pixels = Recorder()
    view = WorkingView(Micrograph("m", pixels), scale=0.5, intensity=IDENTITY)
    view.read(Window(y0=100, x0=200, y1=164, x1=264))
    y, x = pixels.asked
    assert (y.start, x.start) >= (190, 390)
    assert (y.stop, x.stop) <= (340, 540)


def test_shrinking_does_not_alias():
    # Stripes of two pixels vanish at a third of the size; picking every third pixel would keep them as beats.
    array = np.tile(np.array([0, 1], np.float32), (90, 45))
    assert np.ptp(view_of(array, 1 / 3).read()[3:-3, 3:-3]) < 0.15
    assert np.ptp(array[::3, ::3]) == 1


@pytest.mark.parametrize("scale", [0.25, 0.4, 0.5, 0.77, 1.3, 2.0, 2.6])
def test_centres_stay_where_they_are(scale):
    array = np.zeros((101, 83), np.float32)
    array[37, 52] = 1
    array = gaussian_filter(array, 6)
    small = view_of(array, scale).read()
    for axis in (0, 1):
        ratio = array.shape[axis] / small.shape[axis]
        expected = center_of_mass(array)[axis]
        assert (center_of_mass(small)[axis] + 0.5) * ratio - 0.5 == pytest.approx(expected, abs=0.1)


def test_a_ramp_and_a_constant_are_kept():
    ramp = np.tile(np.arange(60, dtype=np.float32), (30, 1))
    for scale in (0.5, 2.0):
        out = view_of(ramp, scale).read()
        x = (np.arange(out.shape[1]) + 0.5) / scale - 0.5
        np.testing.assert_allclose(out[5, 4:-4], x[4:-4], atol=1e-4)
    np.testing.assert_allclose(view_of(np.full((33, 47), 3.5), 0.37).read(), 3.5, rtol=1e-6)


@settings(deadline=None, max_examples=40)
@given(scale=st.floats(0.2, 3), tile=st.integers(7, 64))
def test_cells_of_working_windows_tile_the_micrograph(scale, tile):
    view = view_of(np.zeros((97, 61), np.float32), scale)
    covered = np.zeros((97, 61), int)
    for cell in TileGrid("m", view.shape, tile):
        covered[view.native_cell(cell.window).slices] += 1
        outer = view.to_native(cell.window)
        assert outer.y1 <= 97
        assert outer.x1 <= 61
        back = view.to_working(outer)
        assert back.intersection(cell.window) == cell.window
    assert (covered == 1).all()


@pytest.mark.parametrize("scale", [0.5, 0.63, 0.8, 1.25, 1.7, 2.0])
@pytest.mark.parametrize("mask", [l_shape(), comma()], ids=["L", "comma"])
def test_a_mask_comes_back_where_it_was(mask, scale):
    view = view_of(mask.astype(np.float32), scale)
    working = view.mask_to_working(mask)
    assert working.shape == view.shape == working_shape(mask.shape, scale)
    back = resample_mask(working, mask.shape)
    assert set(np.unique(back)) == {1, 2}
    shift = np.subtract(center_of_mass(back == 2), center_of_mass(mask == 2))
    assert np.abs(shift).max() < 0.5
    assert np.mean(back != mask) < 0.03


def test_halving_moves_no_edge_one_way():
    # All edges lie in the middle of the new pixels: the nearest pixel would push every edge to the same side.
    mask = l_shape(odd=1)
    columns = np.flatnonzero((resample_mask(resample_mask(mask, (60, 45)), (120, 90)) == 2)[30])
    assert (columns[0] - 17) + (columns[-1] - 36) == 0


def test_thin_strokes_survive_shrinking():
    mask = np.zeros((60, 60), np.uint8)
    mask[31, :] = 3
    assert (resample_mask(mask, (30, 30))[15] == 3).all()
    assert (resample_mask(mask, (24, 24)) == 3).any(axis=0).all()


def test_a_mask_shrinks_the_same_in_bands():
    mask = np.random.default_rng(0).integers(0, 4, (2500, 12)).astype(np.uint8)
    small = resample_mask(mask, (1100, 6))
    assert small.shape == (1100, 6)
    assert set(np.unique(small)) <= {0, 1, 2, 3}
    halves = [resample_mask(mask[:1250], (550, 6)), resample_mask(mask[1250:], (550, 6))]
    np.testing.assert_array_equal(np.concatenate(halves), small)


@pytest.mark.parametrize("scale", [0.5, 0.63, 1.25, 2.0])
@pytest.mark.parametrize("mask", [l_shape(), comma()], ids=["L", "comma"])
def test_probabilities_come_back_where_they_were(mask, scale):
    view = view_of(mask.astype(np.float32), scale)
    working = view.mask_to_working(mask)
    probabilities = np.stack([working == 1, working == 2]).astype(np.float32)
    back = resample_probabilities(probabilities, mask.shape)
    assert back.shape == (2, *mask.shape)
    np.testing.assert_allclose(back.sum(axis=0), 1, atol=1e-5)
    shift = np.subtract(center_of_mass(back.argmax(axis=0)), center_of_mass(mask == 2))
    assert np.abs(shift).max() < 0.5


@pytest.mark.parametrize("scale", [0.5, 0.63, 1.0, 1.7])
def test_window_by_window_is_the_whole_but_for_the_seams(scale):
    view = view_of(np.zeros((120, 90), np.float32), scale)
    probabilities = gaussian_filter(noise((3, *view.shape)), (0, 3, 3))
    whole = resample_probabilities(probabilities, (120, 90))
    pieces = np.full_like(whole, np.nan)
    for tile in TileGrid("m", view.shape, 20):
        cell, values = view.probabilities_to_native(probabilities[(slice(None), *tile.window.slices)], tile.window)
        pieces[(slice(None), *cell.slices)] = values
    assert np.isfinite(pieces).all()
    assert np.abs(pieces - whole).max() < 0.02


def test_a_view_of_almost_nothing():
    view = view_of(noise((3, 400)), 0.01)
    assert view.shape == (1, 4)
    assert view.read().shape == (1, 4)
    cell, values = view_of(noise((4, 4)), 3.0).probabilities_to_native(
        np.ones((2, 1, 1), np.float32), Window(y0=0, x0=0, y1=1, x1=1)
    )
    assert values.shape == (2, *cell.shape) == (2, 0, 0)
