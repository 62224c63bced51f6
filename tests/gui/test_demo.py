"""The player scribbles where somebody who knows the truth would: inside the regions of one class."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.draw import disk

from napari_emtransfer.gui.demo_strokes import plan_hatching, plan_strokes

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


def painted(shape, strokes):
    """Label values as the brush leaves them: of its diameter, round at both ends."""
    labels, (rows, columns) = np.zeros(shape, np.uint8), np.indices(shape)
    for value, brush_px, ((y, x0), (_, x1)) in strokes:
        labels[np.hypot(rows - y, columns - np.clip(columns, x0, x1)) <= brush_px / 2] = value
    return labels


def test_hatching_covers_as_much_of_each_class_as_asked_for_and_nothing_else(grains):
    for value in (1, 2):
        strokes = plan_hatching(grains, value, share=0.6, brushes_px=(15, 7, 3))
        labels = painted(grains.shape, strokes)
        assert (labels[grains == value] == value).mean() > 0.5
        assert not labels[grains != value].any()
        assert [stroke.brush_px for stroke in strokes] == sorted((s.brush_px for s in strokes), reverse=True)


def test_hatching_stops_when_it_is_enough(grains):
    few, many = (plan_hatching(grains, 1, share=share, brushes_px=(15, 5)) for share in (0.2, 0.8))
    assert 0 < len(few) < len(many)
    assert plan_hatching(grains, 3, share=0.6, brushes_px=(15, 5)) == []
