import pytest
import torch

from napari_emtransfer.core.config import ModelConfig
from napari_emtransfer.core.nn.model import build_model
from napari_emtransfer.core.nn.rounds import NOISE, shrink_perturb


def trained_model():
    """A network whose every tensor, running statistics included, differs from a fresh one's."""
    torch.manual_seed(3)
    model = build_model(ModelConfig(encoder="test_resnet", n_classes=3))
    model.train()(torch.randn(4, 1, 64, 64))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


def copied(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_decoder_and_head_shrink_and_the_rest_stays():
    model = trained_model()
    before = copied(model)
    shrink_perturb(model, 0.5, seed=7)
    torch.manual_seed(7)
    fresh = dict(build_model(model.config).named_parameters())
    parameters = dict(model.named_parameters())
    for name, value in model.state_dict().items():
        if name in parameters and not name.startswith("encoder."):
            torch.testing.assert_close(value, 0.5 * before[name] + NOISE * fresh[name])
            assert not torch.equal(value, before[name])
        else:
            # The encoder, and all running statistics and counts.
            assert torch.equal(value, before[name]), name


def test_the_same_seed_perturbs_alike_and_leaves_the_global_generator_alone():
    models = [trained_model() for _ in range(3)]
    states = []
    for model, seed in zip(models, (1, 1, 2), strict=True):
        torch.manual_seed(11)
        shrink_perturb(model, 0.5, seed)
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(11)))
        states.append(model.state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not torch.equal(states[0]["segmentation_head.0.weight"], states[2]["segmentation_head.0.weight"])


def test_a_shrink_of_one_leaves_the_network_alone():
    model = trained_model()
    before = copied(model)
    shrink_perturb(model, 1, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("architecture", ["UnetPlusPlus", "DeepLabV3Plus", "FPN", "Segformer"])
def test_every_architecture_can_be_shrunk_and_trained_on(architecture):
    model = build_model(ModelConfig(architecture=architecture, encoder="resnet18", n_classes=2))
    before = copied(model)
    shrink_perturb(model, 0.5, seed=0)
    assert not torch.equal(model.segmentation_head[0].weight, before["segmentation_head.0.weight"])
    model(torch.randn(2, 1, 64, 64)).sum().backward()
    assert all(p.grad is not None for p in model.segmentation_head.parameters())
