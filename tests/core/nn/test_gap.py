"""The domain gap: nothing on the data of the weights, more with every step away from them."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from nn_helpers import blobs, config
from scipy import ndimage

from napari_emtransfer.core.config import ModelConfig
from napari_emtransfer.core.data.intensity import Standardization
from napari_emtransfer.core.data.readers import read_micrograph
from napari_emtransfer.core.data.resample import WorkingView
from napari_emtransfer.core.nn.gap import MAX_WINDOWS, WINDOW_PX, domain_gap, windows
from napari_emtransfer.core.nn.ground import ArrayView
from napari_emtransfer.core.nn.model import build_model
from napari_emtransfer.core.nn.trainer import initial_model

SIZE = (192, 192)


def views(change=lambda image: image, n=4, first_seed=100):
    return [ArrayView(change(blobs(SIZE, seed=first_seed + i).image)) for i in range(n)]


def standardised(image):
    return ((image - image.mean()) / image.std()).astype(np.float32)


@pytest.fixture(scope="module")
def source():
    """A network whose norms have seen blobs for so long that their statistics are those of blobs."""
    torch.manual_seed(0)
    model = initial_model(config(encoder="resnet18"), 2)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the plain average over all batches
    model.train()
    with torch.no_grad():
        for seed in range(2):
            batch = np.stack([blobs(SIZE, seed=10 * seed + i).image for i in range(4)])
            for module in model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.reset_running_stats()
            model.encoder(torch.from_numpy(batch)[:, None])
    return model.eval()


def test_the_gap_to_data_of_the_same_kind_is_next_to_nothing(source):
    assert 0 <= domain_gap(source, views()) < 0.02


@pytest.mark.parametrize(
    "change",
    [
        lambda image, amount: image + 0.5 * amount,
        lambda image, amount: standardised(image + amount * np.random.default_rng(0).standard_normal(image.shape)),
        lambda image, amount: standardised(ndimage.gaussian_filter(image, amount)),
        lambda image, amount: image * (1 + amount),
    ],
    ids=["brighter", "noisier", "blurred", "more contrast"],
)
def test_the_gap_grows_with_the_shift(source, change):
    gaps = [domain_gap(source, views(lambda image, a=amount: change(image, a))) for amount in (0.0, 1.0, 3.0)]
    assert gaps[0] < gaps[1] < gaps[2] <= 1


def test_it_is_the_squared_hellinger_distance_of_the_channels():
    """One norm, fed with known moments: against the integral of √(p q)."""
    model = build_model(ModelConfig(encoder="test_resnet", n_classes=2)).eval()
    norm = torch.nn.BatchNorm2d(1)
    norm.running_mean.fill_(0.3)
    norm.running_var.fill_(4.0)
    model.encoder = norm.eval()
    model.encoder.output_stride = 32
    image = np.random.default_rng(0).normal(-0.5, 0.7, SIZE).astype(np.float32)
    x = np.linspace(-15, 15, 20_001)

    def density(mean, variance):
        return np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)

    seen = np.concatenate([w.ravel() for w in windows([ArrayView(image)], 32)]).astype(np.float64)
    p, q = density(0.3, 4.0 + norm.eps), density(seen.mean(), seen.var() + norm.eps)
    expected = 1 - np.sum(np.sqrt(p * q)) * (x[1] - x[0])
    assert domain_gap(model, [ArrayView(image)]) == pytest.approx(expected, abs=1e-4)


def test_measuring_changes_nothing_and_repeats_itself(source):
    source.train()
    before = {k: v.clone() for k, v in source.state_dict().items()}
    first, second = domain_gap(source, views()), domain_gap(source, views())
    assert first == second
    assert source.training
    assert source.encoder.bn1.training
    assert not source.encoder.bn1._forward_pre_hooks
    assert all(torch.equal(v, before[k]) for k, v in source.state_dict().items())
    source.eval()


def test_without_batch_norms_or_micrographs_it_is_unknown(source):
    layer_norms = build_model(ModelConfig(encoder="tu-test_convnext", n_classes=2))
    assert domain_gap(layer_norms, views()) is None
    assert domain_gap(source, []) is None


def test_windows_are_few_small_and_spread():
    rng = np.random.default_rng(0)
    many = windows([ArrayView(rng.normal(size=(600, 400))) for _ in range(40)], 32)
    assert len(many) == MAX_WINDOWS
    assert {w.shape for w in many} == {(WINDOW_PX, WINDOW_PX)}
    index = np.arange(2000 * 1500).reshape(2000, 1500)
    one = windows([ArrayView(index)], 32)
    assert len(one) == MAX_WINDOWS
    rows = {int(w[0, 0]) // 1500 for w in one}
    assert min(rows) < 400 < 1400 < max(rows)
    three = windows([ArrayView(rng.normal(size=(300, 300))) for _ in range(3)], 32)
    assert 9 <= len(three) <= MAX_WINDOWS


@pytest.mark.parametrize("shape", [(20, 300), (7, 5), (100, 33)])
def test_odd_micrographs_do_too(source, shape):
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert all(w.shape[0] % 32 == w.shape[1] % 32 == 0 for w in windows([ArrayView(image)], 32))
    assert 0 <= domain_gap(source, [ArrayView(image)]) <= 1


def test_it_takes_about_a_second(source):
    big = [ArrayView(np.random.default_rng(i).normal(size=(512, 512)).astype(np.float32)) for i in range(16)]
    began = time.process_time()
    domain_gap(source, big)
    assert time.process_time() - began < 6  # a loaded machine counts more


def test_real_micrographs_of_another_kind_lie_further_away(source, real_data):
    """Statistics of three micrographs of superalloys: others are near, graphene in a TEM is far."""
    alloys, graphene = (real_views(real_data / name / "images", 6) for name in ("nasa_super", "graphene_unet"))
    norms = [m for m in source.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    before = {k: v.clone() for k, v in source.state_dict().items()}
    for norm in norms:
        norm.reset_running_stats()
    source.train()
    with torch.no_grad():
        source.encoder(torch.from_numpy(np.stack(windows(alloys[:3], 32)[::2]))[:, None])
    near, far = domain_gap(source, alloys[3:]), domain_gap(source, graphene)
    source.load_state_dict(before)
    source.eval()
    assert near < 0.5 * far


def real_views(folder, n):
    paths = sorted(folder.iterdir())
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, n).round().astype(int)]
    micrographs = [read_micrograph(path) for path in chosen]
    return [WorkingView(m, scale=1.0, intensity=Standardization().fit(m)) for m in micrographs]
