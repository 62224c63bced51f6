import numpy as np
import pytest
import torch

from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.nn.filters import MARGIN_PX, N_FILTERS, filter_bank, filter_window, read_mirrored
from napari_emtransfer.core.nn.ground import ArrayView


def textured(shape, seed=0):
    rng = np.random.default_rng(seed)
    return ArrayView(rng.normal(size=shape).astype(np.float32))


@pytest.mark.parametrize(
    "window",
    [
        Window(y0=100, x0=83, y1=180, x1=190),
        Window(y0=3, x0=5, y1=40, x1=47),
        Window(y0=171, x0=154, y1=250, x1=231),
        Window(y0=64, x0=64, y1=65, x1=66),
    ],
)
def test_the_filters_of_a_pixel_are_the_same_through_any_window(window):
    view = textured((250, 231))
    everything = filter_window(view, Window(y0=0, x0=0, y1=250, x1=231))
    assert everything.shape == (N_FILTERS, 250, 231)
    part = filter_window(view, window)
    np.testing.assert_allclose(part, everything[(slice(None), *window.slices)], atol=1e-4)


def test_nothing_beyond_the_margin_is_seen():
    """A filter that saw further would depend on how much was read."""
    rng = np.random.default_rng(1)
    size = 8 + 2 * MARGIN_PX
    pixels = torch.from_numpy(rng.normal(size=(size + 32, size + 32)).astype(np.float32))
    wide = filter_bank(pixels)[:, 16:-16, 16:-16]
    torch.testing.assert_close(filter_bank(pixels[16:-16, 16:-16]), wide, atol=1e-4, rtol=0)


def test_all_filters_are_finite_and_differ():
    filters = filter_window(textured((64, 64)), Window(y0=0, x0=0, y1=64, x1=64)).reshape(N_FILTERS, -1)
    assert np.isfinite(filters).all()
    correlation = np.corrcoef(filters) - np.eye(N_FILTERS)
    assert np.abs(correlation).max() < 0.9999


def test_a_constant_image_gives_finite_filters():
    view = ArrayView(np.zeros((40, 40), np.float32))
    assert np.isfinite(filter_window(view, Window(y0=0, x0=0, y1=40, x1=40))).all()


def test_images_smaller_than_the_margin_are_mirrored_again_and_again():
    image = np.arange(6, dtype=np.float32).reshape(2, 3)
    mirrored = read_mirrored(ArrayView(image), (-3, 4), (-4, 5))
    np.testing.assert_array_equal(mirrored, np.pad(image, ((3, 2), (4, 2)), mode="symmetric"))
