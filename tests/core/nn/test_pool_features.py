"""Features of lattices of pixels: the same through any window, in order, and of what is labelled."""

import numpy as np
import pytest
import torch

from napari_emtransfer.core.config import ModelConfig
from napari_emtransfer.core.data.tiles import TileGrid, Window
from napari_emtransfer.core.nn.features import FrozenNetwork
from napari_emtransfer.core.nn.ground import ArrayView
from napari_emtransfer.core.nn.model import build_model
from napari_emtransfer.core.nn.pool_features import LATTICE, N_POINTS, PoolFeatures, lattice


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = build_model(ModelConfig(encoder="resnet18", n_classes=2), "none")
    return FrozenNetwork(model.eval(), "decoder-maps", torch.device("cpu"))


@pytest.fixture(scope="module")
def source(network):
    return PoolFeatures(network)


@pytest.fixture(scope="module")
def view():
    return ArrayView(np.random.default_rng(0).normal(size=(96, 160)).astype(np.float32))


def test_a_lattice_is_the_middles_of_equal_cells():
    rows, columns = lattice(Window(y0=10, x0=20, y1=10 + 24, x1=20 + 36))
    assert len(rows) == len(columns) == N_POINTS
    assert sorted(set(rows)) == list(range(11, 34, 2))
    assert sorted(set(columns)) == list(range(21, 56, 3))
    assert (rows[:LATTICE] == rows[0]).all()  # reading order


def test_a_lattice_of_a_tiny_tile_stays_inside():
    rows, columns = lattice(Window(y0=0, x0=5, y1=3, x1=9))
    assert rows.min() >= 0
    assert rows.max() <= 2
    assert columns.min() >= 5
    assert columns.max() <= 8


def test_features_are_maps_and_what_surrounds_them(network, source, view):
    window = Window(y0=16, x0=24, y1=80, x1=120)
    features, maps = source(view, window), network(view, window)
    assert features.shape == (4 * len(maps), 64, 96)
    # Blurred features vary less, the more so the wider the blur.
    spreads = features.reshape(4, len(maps), -1).std(axis=2).mean(axis=1)
    assert (np.diff(spreads) < 0).all()
    assert (
        np.abs(features.reshape(4, len(maps), -1).mean(axis=2)[1] - features[: len(maps)].mean(axis=(1, 2))).max() < 0.1
    )


def test_a_constant_stays_a_constant_under_every_blur(network):
    class Ones:
        part, fingerprint = "decoder-maps", "ones"

        def __call__(self, view, window):
            return np.full((2, *window.shape), 3.0, np.float32)

    features = PoolFeatures(Ones())(ArrayView(np.zeros((70, 50), np.float32)), Window(y0=0, x0=0, y1=70, x1=50))
    assert np.allclose(features, 3, atol=1e-5)


def test_the_blur_has_its_width():
    class Point:
        part, fingerprint = "decoder-maps", "point"

        def __call__(self, view, window):
            maps = np.zeros((1, *window.shape), np.float32)
            maps[0, 100 - window.y0, 100 - window.x0] = 1
            return maps

    features = PoolFeatures(Point())(ArrayView(np.zeros((200, 200), np.float32)), Window(y0=0, x0=0, y1=200, x1=200))
    offsets = np.arange(200) - 100
    for sigma, blurred in zip((1.5, 4, 12), features[1:], strict=True):
        profile = blurred.sum(axis=0)
        assert profile.sum() == pytest.approx(1, abs=0.02)
        centre = (profile * offsets).sum()
        width = np.sqrt((profile * (offsets - centre) ** 2).sum())
        assert width == pytest.approx(sigma, rel=0.25)
        assert abs(centre) < 1


def test_tiles_are_sampled_at_their_lattices_in_their_order(source, view):
    tiles = [tile.window for tile in TileGrid("a", view.shape, 48)]
    sample = source.sample(view, tiles)
    whole = source(view, Window(y0=0, x0=0, y1=96, x1=160))
    assert sample.features.shape == (len(tiles), N_POINTS, len(whole))
    for tile, features, embedding in zip(tiles, sample.features, sample.embeddings, strict=True):
        rows, columns = lattice(tile)
        assert np.allclose(features, whole[:, rows, columns].T, atol=2e-2)
        assert np.allclose(embedding[: len(whole)], features.mean(axis=0), atol=2e-2)
    assert sample.features.dtype == np.float16


def test_labelled_pixels_are_those_that_are_labelled(source, view):
    targets = np.full((48, 48), 255, np.uint8)
    targets[5, 7], targets[40, 3] = 0, 2
    window = Window(y0=48, x0=0, y1=96, x1=48)
    part = source.labelled(view, window, targets, 100)
    features = source(view, window)
    assert part.classes.tolist() == [0, 2]
    assert np.allclose(part.features, features[:, [5, 40], [7, 3]].T, atol=2e-2)
    assert len(source.labelled(view, window, np.zeros((48, 48), np.uint8), 100).classes) == 100


def test_networks_side_by_side(network, view):
    both = PoolFeatures(network, network)
    single = PoolFeatures(network)
    window = Window(y0=0, x0=0, y1=32, x1=32)
    joined, alone = both(view, window), single(view, window)
    assert np.array_equal(joined, np.concatenate([alone, alone]))
    assert both.n_networks == 2
    assert both.fingerprint != single.fingerprint
