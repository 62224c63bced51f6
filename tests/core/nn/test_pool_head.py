"""The head that ranks: what it learns, what leaving tiles out means, and that it is not too sure of itself."""

import numpy as np
import pytest
import torch

from napari_emtransfer.core.errors import LabelError
from napari_emtransfer.core.nn.live import LabelledPixels
from napari_emtransfer.core.nn.pool_head import PoolHead

N_FEATURES = 6


def tile(rng, n=120, classes=(0, 1), distance=3.0, noise=1.0):
    labels = rng.choice(classes, n).astype(np.uint8)
    features = rng.normal(0, noise, (n, N_FEATURES))
    features[np.arange(n), labels] += distance
    return LabelledPixels(features.astype(np.float16), labels)


@pytest.fixture
def tiles():
    rng = np.random.default_rng(0)
    return [tile(rng, classes=(0, 1, 2)) for _ in range(6)]


def accuracy(head, part, heads=None):
    return (head.samples(part.features, heads).mean(axis=0).argmax(axis=0) == part.classes).mean()


def test_it_tells_classes_apart_on_tiles_it_never_saw(tiles):
    head = PoolHead(tiles[:5], 3)
    assert accuracy(head, tiles[5]) > 0.9


def test_probabilities_sum_to_one_in_the_shape_of_the_features(tiles):
    head = PoolHead(tiles, 3)
    features = np.random.default_rng(1).normal(size=(4, 9, N_FEATURES)).astype(np.float16)
    samples = head.samples(features, [head.solve(), *head.committee(3)])
    assert samples.shape == (4, 3, 4, 9)
    assert np.allclose(samples.sum(axis=1), 1, atol=1e-5)


def test_a_class_without_labels_gets_nothing(tiles):
    head = PoolHead(tiles, 5)
    assert (head.samples(tiles[0].features)[0, 3:] == 0).all()


def test_a_head_without_a_tile_is_that_of_the_other_tiles(tiles):
    """Up to what all tiles share: standardisation, class weights and the scale."""
    head = PoolHead(tiles, 3)
    others = np.ones(len(tiles), np.float32)
    others[2] = 0
    assert torch.equal(head.without(2).values, head.solve(others).values)
    assert not torch.allclose(head.without(2).values, head.solve().values, atol=1e-4)


def test_a_tile_left_out_does_not_teach(tiles):
    """A tile whose labels are wrong spoils the head that saw it, not the one that did not."""
    wrong = LabelledPixels(tiles[0].features, ((tiles[0].classes + 1) % 3).astype(np.uint8))
    head = PoolHead([wrong, *tiles[1:3]], 3)
    assert accuracy(head, tiles[4], [head.without(0)]) > accuracy(head, tiles[4])
    assert accuracy(head, wrong, [head.without(0)]) < 0.2


def test_a_tile_counted_twice_is_the_tile_twice(tiles):
    once = PoolHead(tiles[:3], 3, seed=3)
    weights = np.array([2, 1, 1], np.float32)
    twice = once.solve(weights).values
    assert not torch.allclose(twice, once.solve().values, atol=1e-4)
    assert torch.allclose(once.solve(weights / 4 * 4).values, twice)


def test_a_committee_is_drawn_anew_by_its_seed(tiles):
    head = PoolHead(tiles, 3)
    one, same, other = head.committee(2, seed=1), head.committee(2, seed=1), head.committee(2, seed=2)
    assert torch.equal(one[0].values, same[0].values)
    assert not torch.equal(one[0].values, other[0].values)
    assert not torch.equal(one[0].values, one[1].values)


def test_a_committee_disagrees_more_where_fewer_tiles_decide(tiles):
    rng = np.random.default_rng(5)
    many = [tile(rng, classes=(0, 1, 2)) for _ in range(40)]
    unseen = rng.normal(size=(300, N_FEATURES)).astype(np.float16)

    def spread(parts):
        head = PoolHead(parts, 3)
        return head.samples(unseen, head.committee(6)).std(axis=0).mean()

    assert spread(many[:4]) > 1.3 * spread(many)


def test_it_is_less_sure_where_classes_overlap():
    rng = np.random.default_rng(2)
    clear = PoolHead([tile(rng, distance=5) for _ in range(5)], 2)
    vague = PoolHead([tile(rng, distance=0.5) for _ in range(5)], 2)
    new = tile(rng, distance=0.5)
    confidence = vague.samples(new.features)[0].max(axis=0).mean()
    assert confidence < clear.samples(tile(rng, distance=5).features)[0].max(axis=0).mean()
    # What it says of itself is about what it reaches on tiles that it never saw.
    assert confidence == pytest.approx(accuracy(vague, new), abs=0.12)


def test_networks_of_folds_are_members_of_their_own(tiles):
    double = [LabelledPixels(np.concatenate([p.features, p.features], axis=1), p.classes) for p in tiles]
    head = PoolHead(double, 3, n_networks=2)
    assert head.samples(double[0].features).shape[0] == 2
    assert head.samples(double[0].features, head.committee(3)).shape[0] == 6


def test_one_class_is_refused_in_words():
    rng = np.random.default_rng(0)
    with pytest.raises(LabelError, match="fewer than two classes"):
        PoolHead([tile(rng, classes=(1,))], 3)
    with pytest.raises(LabelError):
        PoolHead([], 3)


def test_one_tile_is_enough(tiles):
    assert accuracy(PoolHead(tiles[:1], 3), tiles[1]) > 0.8


def test_the_same_pixels_give_the_same_head(tiles):
    assert torch.equal(PoolHead(tiles, 3, seed=1).solve().values, PoolHead(tiles, 3, seed=1).solve().values)
