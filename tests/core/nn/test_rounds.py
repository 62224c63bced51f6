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


def of_norms(part):
    norms = [m for m in part.modules() if isinstance(m, torch.nn.BatchNorm2d | torch.nn.GroupNorm)]
    return {id(p) for norm in norms for p in norm.parameters()}


def test_weights_of_decoder_and_head_shrink_and_the_rest_stays():
    model = trained_model()
    before = copied(model)
    shrink_perturb(model, 0.5, seed=7)
    torch.manual_seed(7)
    fresh = dict(build_model(model.config).named_parameters())
    kept = of_norms(model)
    for name, parameter in model.named_parameters():
        if name.startswith("encoder.") or id(parameter) in kept:
            assert torch.equal(parameter, before[name]), name
        else:
            torch.testing.assert_close(parameter, 0.5 * before[name] + NOISE * fresh[name])
            assert not torch.equal(parameter, before[name])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items() if k.startswith("encoder."))


def test_running_statistics_follow_their_weights():
    model = trained_model()
    before = copied(model)
    shrink_perturb(model, 0.5, seed=7)
    names = [n for n, _ in model.named_buffers() if n.startswith("decoder.") and n.endswith("running_var")]
    assert names
    for name in names:
        torch.testing.assert_close(model.state_dict()[name], 0.25 * before[name], rtol=0.1, atol=0)
        mean = name.replace("running_var", "running_mean")
        torch.testing.assert_close(model.state_dict()[mean], 0.5 * before[mean], rtol=0.1, atol=0)


def brightness_task(generator):
    image = torch.nn.functional.avg_pool2d(torch.randn(4, 1, 64, 64, generator=generator), 5, 1, 2) * 4
    return image, (image[:, 0] > 0).long() + (image[:, 0] > 1).long()


@pytest.mark.parametrize("architecture", ["Unet", "UnetPlusPlus", "DeepLabV3Plus", "FPN", "Segformer"])
def test_a_shrunk_network_says_the_same_with_smaller_logits(architecture):
    torch.manual_seed(0)
    model = build_model(ModelConfig(architecture=architecture, encoder="resnet18", n_classes=3))
    optimizer, generator = torch.optim.Adam(model.parameters(), 2e-3), torch.Generator().manual_seed(1)
    for _ in range(6):
        image, targets = brightness_task(generator)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model.train()(image), targets).backward()
        optimizer.step()
    # Running statistics of the network as it is now: six steps are too few for them to follow it.
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        for _ in range(3):
            model.train()(brightness_task(generator)[0])
        before = model.eval()(image)
        shrink_perturb(model, 0.5, seed=0)
        after = model(image)
    assert (before.argmax(1) == after.argmax(1)).float().mean() > 0.9
    assert ((before * after).sum() / before.square().sum()).item() == pytest.approx(0.5, abs=0.05)
    assert not model.training


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
