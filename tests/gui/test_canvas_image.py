"""What the canvas shows of a micrograph is made of samples and bands, never of the whole array at once."""

from __future__ import annotations

import numpy as np
import pytest

from napari_emtransfer.core.data.micrograph import Micrograph
from napari_emtransfer.gui import canvas_image
from napari_emtransfer.gui.canvas_image import contrast_limits, load_canvas_image
from napari_emtransfer.gui.thumbnails import EDGE, thumbnail


class Lazy:
    """A large array that remembers the largest piece that was read."""

    dtype = np.dtype(np.uint16)
    ndim = 2

    def __init__(self, shape):
        self.shape, self.largest = shape, 0

    def __getitem__(self, index):
        rows, columns = (range(*s.indices(n)) for s, n in zip(index, self.shape, strict=True))
        self.largest = max(self.largest, len(rows) * len(columns))
        return (np.add.outer(np.asarray(rows), np.asarray(columns)) % 4096).astype(np.uint16)


def test_a_small_micrograph_is_shown_as_it_is():
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    image = load_canvas_image("m", Micrograph("m", pixels), 2.5)
    assert not image.multiscale
    assert np.array_equal(image.data, pixels)
    assert image.data.dtype == np.uint8
    assert image.pixel_size_nm == 2.5


def test_a_large_micrograph_becomes_a_pyramid_read_in_bands():
    pixels = Lazy((9000, 10000))
    image = load_canvas_image("m", Micrograph("m", pixels), None)
    assert image.multiscale
    assert image.data[0] is pixels
    assert image.data[1].shape == (2250, 2500)
    assert np.array_equal(image.data[1], pixels[0:9000, 0:10000][::4, ::4])
    assert max(image.data[-1].shape) <= canvas_image.SAMPLE_EDGE
    pixels.largest = 0
    load_canvas_image("m", Micrograph("m", pixels), None)
    assert pixels.largest <= canvas_image.ROWS_PER_READ * 10000


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.full((20, 20), 7.0), (7.0, 8.0)),
        (np.full((20, 20), np.nan), (0.0, 1.0)),
    ],
)
def test_contrast_limits_of_odd_images(pixels, expected):
    assert contrast_limits(pixels) == expected


def test_contrast_limits_ignore_a_few_outliers():
    pixels = np.random.default_rng(0).uniform(10, 20, (200, 200))
    pixels[0, 0], pixels[1, 1] = 1e6, np.inf
    low, high = contrast_limits(pixels)
    assert 9.9 < low < 10.5
    assert 19.5 < high < 20.1


def test_a_thumbnail_reads_few_pixels():
    pixels = Lazy((9000, 10000))
    picture = thumbnail(Micrograph("m", pixels))
    assert picture.shape == (EDGE, EDGE)
    assert picture.dtype == np.uint8
    assert picture.std() > 0
    assert pixels.largest <= 10000
