import pytest
import torch

from napari_emtransfer.core.config import ModelConfig
from napari_emtransfer.core.nn.l2sp import L2SP
from napari_emtransfer.core.nn.model import build_model


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(ModelConfig(encoder="test_resnet", n_classes=2))


def anchored_names(model):
    return {name for name, p in model.encoder.named_parameters() if p.ndim > 1}


def test_at_the_start_nothing_pulls(model):
    l2sp = L2SP(model, 1e-3)
    penalty = l2sp.penalty()
    penalty.backward()
    assert penalty.item() == 0
    assert l2sp.distance() == 0
    assert all(torch.all(p.grad == 0) for p in model.encoder.parameters() if p.grad is not None)


def test_the_gradient_is_strength_times_the_way_gone(model):
    l2sp = L2SP(model, 0.25)
    before = {name: p.detach().clone() for name, p in model.encoder.named_parameters()}
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
    penalty = l2sp.penalty()
    penalty.backward()
    moved = {name: p.detach() - before[name] for name, p in model.encoder.named_parameters()}
    names = anchored_names(model)
    assert penalty.item() == pytest.approx(0.125 * sum(moved[n].square().sum().item() for n in names), rel=1e-4)
    for name, p in model.encoder.named_parameters():
        if name in names:
            torch.testing.assert_close(p.grad, 0.25 * moved[name])
        else:
            assert p.grad is None
    assert all(p.grad is None for part in (model.decoder, model.segmentation_head) for p in part.parameters())


def test_the_distance_is_relative_and_ignores_the_decoder(model):
    l2sp = L2SP(model, 0)
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.mul_(1.5)
        for p in model.decoder.parameters():
            p.zero_()
    assert l2sp.distance() == pytest.approx(0.5, rel=1e-4)


def test_a_frozen_weight_pulls_only_once_it_is_trained(model):
    model.encoder.requires_grad_(False)
    l2sp = L2SP(model, 1.0)
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.add_(1.0)
    assert l2sp.penalty().item() == 0
    assert not l2sp.penalty().requires_grad
    model.encoder.requires_grad_(True)
    n = sum(p.numel() for p in model.encoder.parameters() if p.ndim > 1)
    assert l2sp.penalty().item() == pytest.approx(0.5 * n, rel=1e-4)


def test_it_holds_the_weights_back(model):
    def gone(strength):
        torch.manual_seed(0)
        net = build_model(model.config)
        l2sp = L2SP(net, strength)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        image = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
        for _ in range(10):
            optimizer.zero_grad()
            (net(image).square().mean() + l2sp.penalty()).backward()
            optimizer.step()
        return l2sp.distance()

    assert gone(5.0) < 0.7 * gone(0.0)


def test_a_resumed_run_pulls_to_where_the_first_one_began(model):
    first = L2SP(model, 1.0)
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.mul_(2)
    resumed = L2SP(model, 1.0)
    assert resumed.penalty().item() == 0
    resumed.restore([anchor.clone() for anchor in first.anchors])
    assert resumed.penalty().item() == first.penalty().item() > 0
    assert resumed.distance() == first.distance() == pytest.approx(1, rel=1e-5)
