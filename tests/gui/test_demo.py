"""The player scribbles where somebody who knows the truth would: inside the regions of one class."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.draw import disk

from napari_emtransfer.gui.demo_strokes import plan_strokes

BRUSH_PX = 7


@pytest.fixture
def grains():
    """Three grains of class 2, of falling size, in a matrix of class 1."""
    truth = np.ones((200, 240), np.uint8)
    for centre, radius in (((60, 60), 40), ((140, 180), 25), ((30, 200), 12)):
        truth[disk(centre, radius, shape=truth.shape)] = 2
    return truth


@pytest.mark.parametrize("value", [1, 2])
def test_strokes_keep_the_brush_inside_their_class(grains, value):
    strokes = plan_strokes(grains, value, n=3, brush_px=BRUSH_PX)
    assert len(strokes) == 3
    rows, columns = np.indices(grains.shape)
    for start, end in strokes:
        for y, x in np.linspace(start, end, 50):
            painted = np.hypot(rows - y, columns - x) <= BRUSH_PX / 2
            assert set(np.unique(grains[painted])) == {value}


def test_the_roomiest_grain_comes_first_and_strokes_spread(grains):
    strokes = plan_strokes(grains, 2, n=9, brush_px=BRUSH_PX)
    middles = np.array([np.mean(stroke, axis=0) for stroke in strokes])
    assert np.hypot(*(middles[0] - (60, 60))) < 5
    centres = np.array([(60, 60), (140, 180), (30, 200)])
    grain_of = np.hypot(*(middles[:, None] - centres).transpose(2, 0, 1)).argmin(axis=1)
    assert set(grain_of) == {0, 1, 2}


def test_a_class_too_small_for_the_brush_gets_no_stroke():
    truth = np.ones((50, 50), np.uint8)
    truth[20:24, 20:24] = 2
    assert plan_strokes(truth, 2, n=3, brush_px=BRUSH_PX) == []
    assert plan_strokes(truth, 3, n=3, brush_px=BRUSH_PX) == []
