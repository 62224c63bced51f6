"""Several networks, or one in several orientations, as one."""

import numpy as np
import pytest
import torch
from nn_helpers import FP32, blobs
from torch import nn

from napari_emtransfer.core.config import ModelConfig, PredictConfig
from napari_emtransfer.core.nn.augment import dihedral
from napari_emtransfer.core.nn.ensemble import Ensemble, turned, turned_back
from napari_emtransfer.core.nn.ground import ArrayView
from napari_emtransfer.core.nn.lean import LeanUnet
from napari_emtransfer.core.nn.model import build_model
from napari_emtransfer.core.nn.predictor import Predictor

CONFIG = ModelConfig(encoder="tu-test_resnet", n_classes=3)


def network(seed):
    torch.manual_seed(seed)
    model = build_model(CONFIG)
    model(torch.randn(4, 1, 64, 64))  # a training pass, so that the norms hold statistics
    # Far enough from an undecided softmax that members differ.
    model.segmentation_head[0].weight.data *= 5
    return model.eval()


@pytest.fixture(scope="module")
def members():
    return [network(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def image():
    return torch.randn(2, 1, 64, 96, generator=torch.manual_seed(0))


def assembled(predictor, view):
    whole = np.full((predictor.n_channels, *view.shape), np.nan, np.float32)
    for window, channels in predictor.predict(view):
        whole[(slice(None), *window.slices)] = channels
    return whole


@torch.inference_mode()
def test_the_ensemble_is_the_mean_of_its_members(members, image):
    expected = torch.stack([m(image).softmax(1) for m in members]).mean(0)
    log_mean = Ensemble(members)(image)
    assert torch.allclose(log_mean.exp(), expected, atol=1e-6)
    assert torch.allclose(log_mean.softmax(1), expected, atol=1e-6)


@torch.inference_mode()
def test_disagreement_is_the_mutual_information_between_members(members, image):
    p = torch.stack([m(image).softmax(1) for m in members]).double()
    entropy = lambda q: -(q * q.log()).sum(-3)  # noqa: E731
    expected = entropy(p.mean(0)) - entropy(p).mean(0)
    found = Ensemble(members).examine(image)[1][:, 0]
    assert torch.allclose(found, expected.float(), atol=1e-5)
    assert found.max() > 0.05
    twins = Ensemble([members[0], members[0]]).examine(image)[1]
    assert twins.max() < 1e-5


@pytest.mark.parametrize("element", range(8))
def test_orientations_are_those_of_the_augmentation_and_are_undone(element):
    image = torch.randn(1, 2, 5, 7, generator=torch.manual_seed(1))
    np.testing.assert_array_equal(turned(image, element).numpy(), dihedral(image.numpy(), element))
    assert torch.equal(turned_back(turned(image, element), element), image)


class Symmetric(nn.Module):
    """A filter with the symmetry of the square: what it sees of a turned image is the turned image of what it sees."""

    def forward(self, image):
        kernel = torch.tensor([[1.0, 2, 1], [2, -4, 2], [1, 2, 1]])[None, None]
        edges = nn.functional.conv2d(image, kernel, padding=1)
        return torch.cat([image, edges], dim=1)


@torch.inference_mode()
def test_orientations_change_nothing_of_a_symmetric_network(image):
    plain = Symmetric()(image).softmax(1)
    everywhere, disagreement = Ensemble([Symmetric()], range(8)).examine(image)
    assert torch.allclose(everywhere.exp(), plain, atol=1e-5)
    assert disagreement.max() < 1e-5


@torch.inference_mode()
def test_the_mean_over_all_orientations_turns_with_the_image(members, image):
    model = Ensemble(members[:1], range(8))
    assert torch.allclose(model(turned(image, 5)), turned(model(image), 5), atol=1e-4)
    assert not torch.allclose(members[0](turned(image, 5)), turned(members[0](image), 5), atol=1e-2)


def test_predictor_of_an_ensemble_keeps_the_lean_networks_and_their_mean(members):
    view = ArrayView(blobs((90, 120), seed=3).image)
    plain = [assembled(Predictor(m, PredictConfig(compute=FP32)), view) for m in members]
    predictor = Predictor(Ensemble(members), PredictConfig(compute=FP32))
    assert all(isinstance(m, LeanUnet) for m in predictor._model.members)
    assert np.abs(assembled(predictor, view) - np.mean(plain, axis=0)).max() < 1e-5


@pytest.mark.parametrize(("blend", "tolerance"), [("valid", 1e-5), ("hann", 0.05)])
@pytest.mark.parametrize("shape", [(300, 420), (256, 384)])
def test_tiles_equal_the_whole_for_ensemble_and_orientations(blend, tolerance, shape):
    """A network that sees less far than the halo gives the very same in tiles, channel of disagreement included.

    Cross-fading lets a little of each window's rim in.
    """
    view = ArrayView(blobs(shape, seed=4).image)
    near = [Near(1), Near(2)]
    common = {"compute": FP32, "symmetries": (0, 3, 6), "halo_px": 32}
    make = lambda **changes: _predictor_of(near, PredictConfig(**common, **changes))  # noqa: E731
    whole = assembled(make(roi_px=1024), view)
    tiles = assembled(make(roi_px=160, blend=blend), view)
    assert whole.shape == (4, *shape)
    assert np.isfinite(tiles).all()
    assert np.abs(tiles - whole).max() < tolerance
    assert whole[3].max() > 1e-4


class Near(nn.Module):
    """Stands in for a network: a random filter of 5 px on blocks of 4 px, so that windows must lie on its lattice."""

    def __init__(self, seed):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 1, 5, 5, generator=torch.manual_seed(seed)))

    def forward(self, image):
        pooled = nn.functional.avg_pool2d(image, 4)
        return nn.functional.interpolate(nn.functional.conv2d(pooled, self.weight, padding=2), scale_factor=4)


def _predictor_of(networks, config):
    """A predictor whose networks are replaced; its windows, blending and channels are its own."""
    predictor = Predictor(Ensemble([network(0)] * 2), config, disagreement=True)
    predictor._model = Ensemble(networks, config.symmetries)
    return predictor


def test_disagreement_of_one_network_is_between_its_orientations(members):
    view = ArrayView(blobs((64, 64), seed=5).image)
    config = PredictConfig(compute=FP32, symmetries=tuple(range(8)))
    whole = assembled(Predictor(members[0], config, disagreement=True), view)
    assert np.allclose(whole[:3].sum(0), 1, atol=1e-5)
    assert 0 < whole[3].max() <= np.log(3)
