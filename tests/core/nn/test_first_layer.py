"""One grey channel through three-channel weights: the same numbers as the colour pipeline."""

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from napari_emtransfer.core.nn.first_layer import adapt_first_layers, fold_to_grey
from napari_emtransfer.core.nn.registry import HALF, IMAGENET


def as_colour(grey, preprocessing):
    """(N, 1, H, W) standardised → what the colour network was trained on (N, 3, H, W)."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    return (grey * std.mean() + mean.mean() - mean) / std


def grey_twin(colour, grey, preprocessing):
    state, went = adapt_first_layers(colour.state_dict(), grey, preprocessing)
    grey.load_state_dict(state)
    return went


@pytest.mark.parametrize("preprocessing", [None, HALF])
def test_channels_that_share_one_normalisation_sum_exactly(preprocessing):
    weight = torch.randn(8, 3, 3, 3)
    grey, constant = fold_to_grey(weight, preprocessing)
    assert torch.equal(grey, weight.sum(1, keepdim=True))
    assert not constant.any()


@pytest.mark.parametrize("preprocessing", [None, HALF])
def test_with_one_normalisation_the_whole_encoder_is_the_same(preprocessing):
    torch.manual_seed(0)
    colour = smp.encoders.get_encoder("resnet18", in_channels=3, weights=None).double().eval()
    grey = smp.encoders.get_encoder("resnet18", in_channels=1, weights=None).double().eval()
    assert grey_twin(colour, grey, preprocessing) == "none"
    image = torch.randn(1, 1, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        theirs, ours = colour(image.expand(1, 3, 64, 64)), grey(image)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(theirs[1:], ours[1:], strict=True))


def stem(channels, kind):
    if kind == "bias":
        return nn.Sequential(nn.Conv2d(channels, 6, 5, padding=2), nn.ReLU())
    norm = nn.BatchNorm2d(6) if kind == "norm" else nn.GroupNorm(2, 6)
    return nn.Sequential(nn.Conv2d(channels, 6, 5, padding=2, bias=False), norm, nn.ReLU())


@pytest.mark.parametrize("kind", ["bias", "norm"])
def test_imagenets_normalisation_folds_into_bias_or_norm(kind):
    torch.manual_seed(0)
    colour, grey = stem(3, kind), stem(1, kind)
    for _ in range(3):  # statistics of its own
        colour(2 + torch.randn(4, 3, 16, 16))
    assert grey_twin(colour.eval(), grey.eval(), IMAGENET) == kind
    image = torch.randn(2, 1, 24, 24)
    with torch.inference_mode():
        theirs, ours = colour(as_colour(image, IMAGENET)), grey(image)
    inner = (..., slice(2, -2), slice(2, -2))
    assert torch.allclose(theirs[inner], ours[inner], atol=1e-5)
    assert not torch.allclose(theirs, ours, atol=1e-3)  # the padding is where they differ
    with torch.inference_mode():
        plain = stem(1, kind)
        plain.load_state_dict(colour.state_dict() | {"0.weight": colour[0].weight.sum(1, keepdim=True)})
        assert not torch.allclose(theirs[inner], plain.eval()(image)[inner], atol=1e-2)  # a plain sum is another net


def test_without_bias_and_batch_norm_the_constant_is_dropped_and_reported():
    colour, grey = stem(3, "group"), stem(1, "group")
    assert grey_twin(colour, grey, IMAGENET) == "dropped"
    assert torch.allclose(grey[0].weight, fold_to_grey(colour[0].weight, IMAGENET)[0])


def stems(encoder):
    """Pairs (convolution, norm or None) that see the image, found by running them, not by their order."""
    seen, inputs = {}, []

    def watch(module, args, output):
        if isinstance(module, nn.Conv2d) and any(a is inputs[0] or a.shape == inputs[0].shape for a in args):
            seen[id(output)] = (module, None, output)
        for key, (conv, _, out) in list(seen.items()):
            if args and args[0] is out and hasattr(module, "running_mean"):
                seen[key] = (conv, module, out)

    handles = [m.register_forward_hook(watch) for m in encoder.modules() if next(m.parameters(False), None) is not None]
    inputs.append(torch.randn(1, 3, 64, 64))
    with torch.inference_mode():
        encoder.eval()(inputs[0])
    for handle in handles:
        handle.remove()
    return [(conv, norm) for conv, norm, _ in seen.values()]


ENCODERS = ["resnet18", "efficientnet-b0", "mobilenet_v2", "densenet121", "se_resnet50", "dpn68", "xception"]
ENCODERS += ["mobileone_s0", "mit_b0", "tu-resnet10t", "tu-convnext_atto", "tu-regnety_002"]


@pytest.mark.parametrize("name", ENCODERS)
def test_the_constant_finds_the_layer_that_follows(name):
    """Of every family: the running mean that moves is that of the norm which is computed next."""
    colour = smp.encoders.get_encoder(name, in_channels=3, weights=None)
    grey = smp.encoders.get_encoder(name, in_channels=1, weights=None)
    adapted, went = adapt_first_layers(colour.state_dict(), grey, IMAGENET)
    names = {id(m): n for n, m in colour.named_modules()}
    moved = {
        k
        for k, v in colour.state_dict().items()
        if k in adapted and adapted[k].shape == v.shape and (adapted[k] != v).any()
    }
    found = stems(colour)
    assert found
    for conv, norm in found:
        assert tuple(adapted[f"{names[id(conv)]}.weight"].shape)[1] == 1
        home = f"{names[id(conv)]}.bias" if conv.bias is not None else f"{names[id(norm)]}.running_mean"
        assert home in moved
    assert len(moved) == len(found)
    assert went in ("bias", "norm")
