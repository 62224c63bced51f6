"""What a network learns from episodes: the closed-form classifier, the losses, a training that can be broken off."""

import errno

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from napari_emtransfer.core.config import ModelConfig
from napari_emtransfer.core.errors import EMTransferError, StorageError
from napari_emtransfer.core.nn import episodic, pretraining
from napari_emtransfer.core.nn.model import build_model
from napari_emtransfer.core.nn.pretraining import Pretraining
from napari_emtransfer.core.nn.ridge import class_weights, ridge
from napari_emtransfer.core.recipe import PretrainRecipe, PretrainStage
from napari_emtransfer.core.synth.episodes import make_episode
from napari_emtransfer.core.synth.materials import MAX_CLASSES


def recipe(**changes):
    said = {
        "name": "tiny",
        "encoder": "test_resnet",
        "embedding": 8,
        "warm_up": 2,
        "cool_down": 0,
        "average": 0.0,
        "stages": (PretrainStage(steps=4, tile_px=64, episodes=2),),
    }
    return PretrainRecipe(**(said | changes))


def tiny(**changes):
    return Pretraining(recipe(**changes), device="cpu", n_workers=0)


def run(pretraining_, stop_at=None):
    reports = []
    pretraining_.fit(reports.append, lambda: pretraining_.step == stop_at)
    return reports


# -- the ridge classifier


def closed_form(x, labels, n_classes, strength):
    """Minimum of Σ w (x·W − y)² + λ |W|²: ordinary least squares on rows scaled by √w, with √λ below them."""
    full = np.c_[x, np.ones(len(x))]
    y = np.eye(n_classes)[labels] - 1 / n_classes
    weight = np.sqrt(len(labels) / (n_classes * np.bincount(labels)[labels]))[:, None]
    rows = np.r_[weight * full, np.sqrt(strength) * np.eye(full.shape[1])]
    return np.linalg.lstsq(rows, np.r_[weight * y, np.zeros((full.shape[1], n_classes))], rcond=None)[0]


def even_ridge(features, labels, n_classes, strength):
    """As the episodic objective asks for it."""
    return ridge(features, labels, class_weights(labels, n_classes), n_classes, strength)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 4), st.integers(1, 12), st.floats(0.1, 100))
def test_the_ridge_is_the_closed_form_with_classes_that_count_alike(seed, n_classes, width, strength):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(n_classes), rng.integers(n_classes, size=30)])
    x = rng.standard_normal((len(labels), width)).astype("f4")
    solved = even_ridge(torch.tensor(x), torch.tensor(labels), n_classes, torch.tensor(strength))
    np.testing.assert_allclose(solved.numpy(), closed_form(x, labels, n_classes, strength), atol=1e-4)


def test_the_gradient_goes_through_the_solution():
    rng = np.random.default_rng(0)
    x, labels, seen = rng.standard_normal((20, 3)).astype("f4"), np.arange(20) % 3, rng.standard_normal((4, 3))
    features, strength = torch.tensor(x, requires_grad=True), torch.tensor(2.0, requires_grad=True)
    (even_ridge(features, torch.tensor(labels), 3, strength) * torch.tensor(seen)).sum().backward()

    def value(changed, lam):
        return (closed_form(changed, labels, 3, lam) * seen).sum()

    step = np.zeros_like(x, dtype=float)
    step[5, 1] = 1e-4
    assert float(strength.grad) == pytest.approx((value(x, 2.001) - value(x, 1.999)) / 2e-3, rel=1e-3)
    assert float(features.grad[5, 1]) == pytest.approx((value(x + step, 2.0) - value(x - step, 2.0)) / 2e-4, rel=1e-3)


def test_labelled_pixels_are_of_every_class_present_and_as_many_of_each():
    labels = torch.tensor(np.random.default_rng(0).choice([0, 1, 3], 4000, p=[0.8, 0.18, 0.02]))
    numbers = []
    for seed in range(30):
        chosen = episodic.labelled_pixels(labels, np.random.default_rng(seed))
        counts = torch.bincount(labels[chosen], minlength=4).tolist()
        assert counts[2] == 0
        assert counts[0] == counts[1] == counts[3]
        numbers.append(counts[0])
        again = episodic.labelled_pixels(labels, np.random.default_rng(seed))
        assert torch.equal(chosen, again)
    assert min(numbers) >= 10
    assert max(numbers) <= 80


class Told(nn.Module):
    """An embedding that says the class."""

    def __init__(self, classes):
        super().__init__()
        self.log_ridge = nn.Parameter(torch.tensor(-5.0))
        self.log_scale = nn.Parameter(torch.tensor(2.0))
        self.embedding = nn.functional.one_hot(classes.flatten(0, 1), 4).permute(0, 3, 1, 2).float()


def test_features_that_tell_the_classes_apart_are_right_everywhere_and_others_nowhere_but_by_chance():
    classes = torch.tensor(np.stack([make_episode(0, n, 64).classes for n in range(4)]))
    network = Told(classes)
    loss, right = episodic.episodic_loss(network, network.embedding, classes, np.random.default_rng(0))
    assert right > 0.98
    noise = torch.randn(network.embedding.shape, generator=torch.Generator().manual_seed(0))
    worse, chance = episodic.episodic_loss(network, noise, classes, np.random.default_rng(0))
    assert float(worse.detach()) > 2 * float(loss.detach())
    assert chance < 0.7


# -- several tasks


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_by_brightness_is_the_rank_of_each_class_by_its_mean(seed):
    rng = np.random.default_rng(seed)
    classes = rng.choice(rng.permutation(MAX_CLASSES)[: rng.integers(1, 5)], (2, 8, 8))
    clean = rng.standard_normal((2, 8, 8)) + 3 * rng.standard_normal(MAX_CLASSES)[classes]
    ranked = episodic.by_brightness(torch.tensor(classes), torch.tensor(clean, dtype=torch.float32)).numpy()
    for c, g, r in zip(classes, clean, ranked, strict=True):
        present = sorted(np.unique(c), key=lambda k: g[c == k].mean())
        expected = np.empty(MAX_CLASSES, int)
        expected[present] = np.arange(len(present))
        assert np.array_equal(r, expected[c])


def test_what_is_asked_for_is_what_the_maps_can_say():
    e = make_episode(1, 3, 64)
    batch = {
        "classes": torch.tensor(e.classes)[None],
        "clean": torch.tensor(e.clean)[None],
        "boundaries": torch.tensor((e.boundaries > 0.5).astype("f4"))[None],
    }
    ranked = episodic.by_brightness(batch["classes"][0], batch["clean"][0])
    maps = torch.full((2, MAX_CLASSES + 2, 64, 64), -20.0)
    maps.scatter_(1, ranked[:, None], 20.0)
    maps[:, MAX_CLASSES] = 40 * batch["boundaries"][0] - 20
    maps[:, MAX_CLASSES + 1] = batch["clean"][0]
    perfect = episodic.multi_task_losses(maps, batch)
    assert set(perfect) == {"phases", "boundaries", "clean"}
    assert all(float(loss) < 1e-6 for loss in perfect.values())
    assert all(float(loss) > 0.05 for loss in episodic.multi_task_losses(-maps, batch).values())


def test_embeddings_have_the_length_that_the_ridge_expects():
    model = build_model(ModelConfig(encoder="test_resnet", n_classes=8))
    embedding = episodic.EpisodicNetwork(model)(torch.randn(2, 1, 64, 64))
    assert embedding.shape == (2, 8, 64, 64)
    torch.testing.assert_close(embedding.norm(dim=1), torch.full((2, 64, 64), 8**0.5))


# -- the training


@pytest.mark.parametrize(
    ("objective", "parts"),
    [
        ("episodic", {"episodic", "accuracy"}),
        ("multi-task", {"phases", "boundaries", "clean"}),
        ("both", {"episodic", "accuracy", "phases", "boundaries", "clean"}),
    ],
)
def test_each_objective_reports_its_parts_and_their_sum(objective, parts):
    (report,) = run(tiny(objective=objective, stages=(PretrainStage(steps=2, tile_px=64, episodes=1),)))
    assert report.parts.keys() == parts
    assert report.loss == pytest.approx(sum(v for k, v in report.parts.items() if k != "accuracy"), rel=1e-5)
    assert report.step == 2
    assert 0 <= report.waited <= 1


def test_losses_fall(monkeypatch):
    """On ever the same few episodes, for there is no time for new ones."""
    monkeypatch.setattr(pretraining, "_REPORT_EVERY", 5)
    make = pretraining.make_episode
    kept = {}
    monkeypatch.setattr(
        pretraining,
        "make_episode",
        lambda seed, number, px: kept.setdefault(number % 4, make(seed, number % 4, px)),
    )
    reports = run(tiny(learning_rate=5e-3, stages=(PretrainStage(steps=25, tile_px=64, episodes=2),)))
    first, last = reports[0], reports[-1]
    for name in ("phases", "boundaries", "clean"):
        assert last.parts[name] < first.parts[name]
    assert last.loss < 0.9 * first.loss
    assert last.parts["accuracy"] > first.parts["accuracy"]


def test_a_resumed_training_is_the_unbroken_one(tmp_path):
    stages = (PretrainStage(steps=3, tile_px=64, episodes=2), PretrainStage(steps=2, tile_px=96, episodes=1))
    changes = {"stages": stages, "average": 0.9, "cool_down": 2}
    whole, first, second = (tiny(**changes) for _ in range(3))
    run(whole)
    run(first, stop_at=2)
    first.save(tmp_path / "s")
    torch.manual_seed(99)  # nothing global is drawn
    second.resume(tmp_path / "s")
    assert second.step == 2
    run(second)
    for (name, a), b in zip(whole.network.state_dict().items(), second.network.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    a, b = whole.weights(), second.weights()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_full_disk_is_said_and_leaves_the_state_before(tmp_path, monkeypatch):
    trained = tiny()
    trained.save(tmp_path / "state")
    before = (tmp_path / "state").read_bytes()

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    trained.step = 3
    with pytest.raises(StorageError, match="full"):
        trained.save(tmp_path / "state")
    assert (tmp_path / "state").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_processes_that_make_micrographs_change_nothing_but_the_time():
    alone, helped = tiny(), Pretraining(recipe(), device="cpu", n_workers=1)
    run(alone)
    run(helped)
    a, b = alone.weights(), helped.weights()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_seeds_and_only_they_make_another_network():
    before = torch.random.get_rng_state()
    one, same, other = tiny(), tiny(), tiny(seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    a, b, c = (p.network.state_dict() for p in (one, same, other))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_each_step_takes_its_own_episodes(monkeypatch):
    asked = []
    make = pretraining.make_episode

    def noted(seed, number, px):
        asked.append((seed, number, px))
        return make(seed, number, px)

    monkeypatch.setattr(pretraining, "make_episode", noted)
    trained = tiny(
        seed=4, stages=(PretrainStage(steps=1, tile_px=64, episodes=2), PretrainStage(steps=1, tile_px=96, episodes=1))
    )
    run(trained)
    assert asked == [(4, 0, 64), (4, 1, 64), (4, 2, 96)]


def test_rates_are_the_recipes_and_norms_do_not_decay():
    trained = tiny(weight_decay=0.5)
    run(trained, stop_at=1)
    groups = trained._optimizer.param_groups
    assert {g["lr"] for g in groups} == {trained.recipe.rate(0)}
    assert [g["weight_decay"] for g in groups] == [0.5, 0.0]
    assert all(p.ndim > 1 for p in groups[0]["params"])
    assert all(p.ndim <= 1 for p in groups[1]["params"])
    assert sum(len(g["params"]) for g in groups) == len(list(trained.network.parameters()))


def test_a_loss_that_is_no_number_ends_it_with_the_rate_to_blame_and_is_not_saved(tmp_path):
    trained = tiny()
    with torch.no_grad():
        trained.network.log_scale.fill_(float("nan"))
    with pytest.raises(EMTransferError, match="loss became nan by step 1") as caught:
        trained.fit(print, lambda: trained.step == 2, state=tmp_path / "state", save_every=1)
    assert "0.002" in caught.value.hint
    assert not (tmp_path / "state").exists()


def test_making_micrographs_does_not_hold_up_the_network():
    """An episode of 128² takes less time than the compact network needs to learn from it, on one core each."""
    import time

    began = time.process_time()
    for number in range(12):
        make_episode(0, number, 128)
    generation = (time.process_time() - began) / 12
    trained = Pretraining(
        recipe(encoder="tu-regnety_002", embedding=32, stages=(PretrainStage(steps=3, tile_px=128, episodes=1),)),
        device="cpu",
        n_workers=0,
    )
    episodes = [make_episode(0, n, 128) for n in range(3)]
    batches = [pretraining._collate([e]) for e in episodes]
    trained._train(batches[0])
    began = time.process_time()
    for batch in batches[1:]:
        trained._train(batch)
    learning = (time.process_time() - began) / 2
    assert generation < learning
