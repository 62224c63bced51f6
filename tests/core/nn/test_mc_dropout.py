"""Only dropout is active, everything is as before afterwards, and a network without it is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from napari_emtransfer.core.active import uncertainty
from napari_emtransfer.core.config import ModelConfig
from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.core.nn.ensemble import Ensemble
from napari_emtransfer.core.nn.mc_dropout import dropout_active, dropout_samples
from napari_emtransfer.core.nn.model import build_model


class Small(nn.Module):
    """Convolution, batch norm, dropout, head; and a second dropout that no pass comes by."""

    def __init__(self, rate=0.5, unused_rate=0.0):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout2d(rate))
        self.unused = nn.Dropout(unused_rate)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, image):
        return self.head(self.body(image))


def modes(model):
    return [module.training for module in model.modules()]


@pytest.fixture
def image():
    return torch.randn(1, 1, 16, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_modes_inside_and_afterwards(training, fails):
    model = Small().train(training)
    model.head.train(not training)  # a mixture, as with frozen parts
    before = modes(model)
    try:
        with dropout_active(model):
            assert [type(m) for m in model.modules() if m.training] == [nn.Dropout2d]
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert modes(model) == before


def test_samples_differ_by_dropout_alone(image):
    model = Small().train()
    statistics = model.body[1].running_mean.clone()
    torch.manual_seed(3)
    samples = dropout_samples(model, image, 5)
    assert samples.shape == (5, 3, 16, 24)
    assert samples.dtype == torch.float32
    assert samples.sum(1).numpy() == pytest.approx(1, abs=1e-5)
    assert not torch.equal(samples[0], samples[1])
    assert torch.equal(model.body[1].running_mean, statistics)
    assert model.training
    torch.manual_seed(3)
    assert torch.equal(dropout_samples(model, image, 5), samples)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_mean_of_many_samples_of_a_linear_head_is_the_network_itself(image):
    """Dropout keeps the mean of what passes; logits are linear in it here."""
    model = Small(rate=0.2).eval()
    torch.manual_seed(0)
    with torch.inference_mode(), dropout_active(model):
        mean = torch.stack([model(image) for _ in range(2000)]).mean(0)
    model.eval()
    with torch.inference_mode():
        assert (mean - model(image)).abs().max() < 0.05


@pytest.mark.parametrize("model", [nn.Conv2d(1, 2, 1), Small(rate=0.0)], ids=["none", "rate 0"])
def test_a_network_without_dropout_is_refused(model, image):
    before = modes(model)
    with pytest.raises(EMTransferError, match="has none") as fault, dropout_active(model):
        pass
    assert "FPN" in fault.value.hint
    with pytest.raises(EMTransferError, match="has none"):
        dropout_samples(model, image, 2)
    assert modes(model) == before


def test_dropout_that_no_pass_comes_by_is_refused(image):
    model = Small(rate=0.0, unused_rate=0.5)
    with pytest.raises(EMTransferError, match="does not use what it has"):
        dropout_samples(model, image, 2)


@pytest.mark.parametrize("architecture", ["Unet", "FPN", "DeepLabV3Plus"])
def test_what_the_hint_names_works(architecture):
    model = build_model(ModelConfig(architecture=architecture, encoder="resnet18", n_classes=2)).eval()
    image = torch.randn(1, 1, 64, 64)
    if architecture == "Unet":
        with pytest.raises(EMTransferError, match="Unet with resnet18 has none"):
            dropout_samples(model, image, 2)
    else:
        samples = dropout_samples(model, image, 3).numpy()
        assert uncertainty.bald(samples).max() > 0


def test_disagreement_is_what_an_ensemble_tells(image):
    members = [Small().eval() for _ in range(3)]
    with torch.inference_mode():
        samples = np.stack([member(image)[0].softmax(0).numpy() for member in members])
        _, told = Ensemble(members).examine(image)
    np.testing.assert_allclose(uncertainty.disagreement(samples), told[0, 0], atol=1e-6)
