import copy

import numpy as np
import pytest
import torch
from nn_helpers import blobs, config, make_trainer

from napari_emtransfer.core.config import ModelConfig
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.nn.ground import ArrayView, held_out_regions
from napari_emtransfer.core.nn.model import build_model
from napari_emtransfer.core.nn.normalization import MAX_CROPS, adapt, batch_norms, resting
from napari_emtransfer.core.nn.trainer import initial_model


def views(n=3, shape=(100, 130)):
    return [ArrayView(2 * blobs(shape, seed=10 + i).image + 1) for i in range(n)]


def statistics(module):
    return [b.clone() for norm in batch_norms(module) for b in (norm.running_mean, norm.running_var)]


def same(one, other):
    return [torch.equal(a, b) for a, b in zip(one, other, strict=True)]


class Counting:
    """A view that notes what is read of it."""

    def __init__(self, array):
        self.view, self.read_windows = ArrayView(array), []

    shape = property(lambda self: self.view.shape)

    def read(self, window):
        self.read_windows.append(window)
        return self.view.read(window)


def test_the_measured_statistics_are_those_of_the_views(pretrained):
    model = initial_model(config(weights=pretrained), 2)
    images = [ArrayView(blobs((64, 64), seed=i).image) for i in range(8)]
    adapt(model, "adabn", images, crop_px=64)
    first = next(m for m in model.encoder.modules() if isinstance(m, torch.nn.Conv2d))
    features = first(torch.stack([torch.from_numpy(v.read(_whole(v))) for v in images])[:, None])
    norm = batch_norms(model.encoder)[0]
    torch.testing.assert_close(norm.running_mean, features.mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(norm.running_var, features.var((0, 2, 3)), atol=1e-5, rtol=1e-4)


def _whole(view):
    return Window(y0=0, x0=0, y1=view.shape[0], x1=view.shape[1])


def test_one_pass_is_deterministic_and_leaves_all_else_alone(pretrained):
    model = initial_model(config(weights=pretrained), 2).train()
    twin = copy.deepcopy(model)
    momenta = [n.momentum for n in batch_norms(model.encoder)]
    for m in (model, twin):
        adapt(m, "adabn", views(), crop_px=64, seed=3)
    assert all(same(statistics(model.encoder), statistics(twin.encoder)))
    assert [n.momentum for n in batch_norms(model.encoder)] == momenta
    assert all(m.training for m in model.modules())
    fresh = initial_model(config(weights=pretrained), 2)
    assert all(same(model.parameters(), fresh.parameters()))
    assert all(same(statistics(model.decoder), statistics(fresh.decoder)))


def test_the_mix_lies_halfway(pretrained):
    source, adapted, mixed = (initial_model(config(weights=pretrained), 2) for _ in range(3))
    adapt(adapted, "adabn", views(), crop_px=64)
    adapt(mixed, "mix", views(), crop_px=64)
    for s, a, m in zip(*map(statistics, (source.encoder, adapted.encoder, mixed.encoder)), strict=True):
        torch.testing.assert_close(m, (s + a) / 2)


def test_many_and_small_micrographs_are_sampled_evenly(pretrained):
    model = initial_model(config(weights=pretrained), 2)
    large = [Counting(np.random.default_rng(i).standard_normal((1024, 1024))) for i in range(2)]
    adapt(model, "adabn", large, crop_px=64)
    assert sum(len(v.read_windows) for v in large) == MAX_CROPS
    for view in large:
        assert min(w.y0 for w in view.read_windows) == 0
        assert max(w.y1 for w in view.read_windows) == 1024
    adapt(model, "adabn", [ArrayView(blobs((20, 40)).image)], crop_px=32)
    assert all(torch.isfinite(s).all() for s in statistics(model.encoder))


def test_without_batch_norms_nothing_happens():
    model = build_model(ModelConfig(encoder="tu-convnext_atto", n_classes=2))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    adapt(model, "adabn", views(), crop_px=64)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_frozen_blocks_rest_but_not_those_that_learn(pretrained):
    model = initial_model(config(weights=pretrained), 2)
    model.encoder.requires_grad_(False)
    model.encoder.model.layer4.requires_grad_(True)
    model.train()
    for module in resting(model, "train"):
        module.eval()
    assert not any(m.training for m in model.encoder.model.layer3.modules())
    assert all(m.training for m in model.encoder.model.layer4.modules())
    assert all(m.training for m in model.decoder.modules())
    for module in resting(model, "adabn"):
        module.eval()
    assert not any(n.training for n in batch_norms(model.encoder))


@pytest.mark.parametrize("strategy", ["scratch", "feature-extraction", "fine-tune", "gradual"])
@pytest.mark.parametrize("policy", ["source", "train", "adabn", "mix"])
def test_statistics_after_training_are_as_the_policy_says(tmp_path, pretrained, strategy, policy):
    cfg = config(
        strategy=strategy,
        normalization=policy,
        weights=pretrained,
        iterations=3,
        crop_px=32,
        average=0,
        confirm_uniform_rate=True,
    )
    start = initial_model(cfg, 2)
    expected = copy.deepcopy(start)
    adapt(expected, policy, views(), crop_px=32, seed=cfg.compute.seed)
    trainer = make_trainer(tmp_path, cfg, held_out=[], adaptation=views())
    trainer.fit(lambda event: None)

    kept = same(statistics(trainer.model.encoder), statistics(expected.encoder))
    moved_from_source = not all(same(statistics(start.encoder), statistics(trainer.model.encoder)))
    if policy == "train" and strategy != "feature-extraction":
        # Norms of the deepest stage, the last to be frozen, have seen batches; stages unfrozen at the end too.
        assert not any(kept[-2:])
        assert kept.count(False) > len(kept) / 2
    else:
        assert all(kept)
        assert moved_from_source == (policy in ("adabn", "mix"))
    assert not any(same(statistics(trainer.model.decoder), statistics(start.decoder)))
    affine = [n.weight for n in batch_norms(trainer.model.encoder)]
    unchanged = same(affine, [n.weight for n in batch_norms(start.encoder)])
    assert all(unchanged) if strategy == "feature-extraction" else not all(unchanged)


def test_held_out_ground_is_not_looked_at_before_training(tmp_path, pretrained):
    cfg = config(weights=pretrained, iterations=1)
    held_out = blobs((64, 64), seed=5)
    model, expected = initial_model(cfg, 2), initial_model(cfg, 2)
    training = blobs((96, 96))
    adapt(expected, "adabn", [ArrayView(training.image)], crop_px=cfg.crop_px)
    regions = held_out_regions(ArrayView(held_out.image * 100), held_out.targets)
    make_trainer(tmp_path, cfg, model=model, train=[training], held_out=regions).fit(lambda event: None)
    assert all(same(statistics(model.encoder), statistics(expected.encoder)))


def test_an_encoder_without_batch_norms_says_so(tmp_path):
    cfg = config(encoder="tu-convnext_atto", normalization="adabn", iterations=1, crop_px=64)
    events = []
    make_trainer(tmp_path, cfg, held_out=[]).fit(events.append)
    assert "The encoder tu-convnext_atto has no batch norms: normalization 'adabn' changes nothing." in [
        e.message for e in events if e.event == "NoticePosted"
    ]
