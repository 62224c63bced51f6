"""Strategies, seen from what is left of a network after training."""

import numpy as np
import pytest
import torch
from nn_helpers import blobs, config, make_trainer
from PIL import Image

from napari_emtransfer.core.data.labels import IGNORE_INDEX, to_targets
from napari_emtransfer.core.errors import RateError, WeightsError
from napari_emtransfer.core.evaluate.confusion import ConfusionMatrix
from napari_emtransfer.core.nn import trainer as trainer_module
from napari_emtransfer.core.nn.checkpoint import Checkpoint
from napari_emtransfer.core.nn.ground import ArrayView, TrainingImage, held_out_regions
from napari_emtransfer.core.nn.model import build_model
from napari_emtransfer.core.nn.trainer import initial_model
from napari_emtransfer.core.nn.validation import Validation


def of(events, kind):
    return [e for e in events if e.event == kind]


def fitted(folder, cfg, **kwargs):
    """A trainer after training, and its events."""
    events, trainer = [], make_trainer(folder, cfg, **{"held_out": [], **kwargs})
    trainer.fit(events.append)
    return trainer, events


def changed(model, start):
    """Names of tensors that are not bit by bit what they were."""
    state = start.state_dict()
    return {k for k, v in model.state_dict().items() if not torch.equal(v, state[k])}


def small_ground():
    image = blobs((32, 32))
    return held_out_regions(ArrayView(image.image), image.targets)


@pytest.fixture
def scripted(monkeypatch):
    """Validations that give the IoUs of a list, one after another, instead of measuring."""

    def script(ious):
        scores = iter(ious)

        def validate(*_args):
            right = int(1000 * next(scores))
            return Validation(ConfusionMatrix(np.array([[right, 1000 - right], [0, 0]])), 0.0)

        monkeypatch.setattr(trainer_module, "validate", validate)

    return script


@pytest.mark.parametrize(
    ("changes", "frozen"),
    [
        ({"strategy": "feature-extraction"}, "encoder."),
        ({"strategy": "feature-extraction", "normalization": "train"}, "encoder."),
        ({"strategy": "fine-tune", "freeze": "encoder"}, "encoder."),
        ({"strategy": "gradual", "freeze": "encoder"}, "encoder."),
        ({"strategy": "fine-tune", "freeze": "decoder"}, "decoder."),
    ],
)
def test_what_is_frozen_stays_bit_by_bit(tmp_path, pretrained, changes, frozen):
    cfg = config(**{"weights": pretrained, "normalization": "source", "iterations": 4, "weight_decay": 0.5, **changes})
    model, start = (initial_model(cfg, 2) for _ in range(2))
    trainer, _ = fitted(tmp_path, cfg, model=model)
    moved = changed(trainer.model, start)
    assert not [name for name in moved if name.startswith(frozen)]
    assert "segmentation_head.0.weight" in moved
    average = Checkpoint.load(tmp_path / "best.safetensors").state
    held = {k: v for k, v in start.state_dict().items() if k.startswith(frozen)}
    assert all(torch.equal(average[k], v) for k, v in held.items())
    names = [name for name, _ in trainer.model.named_parameters() if not name.startswith(frozen)]
    steps = [k for k in Checkpoint.load(tmp_path / "last.safetensors").resume if k.endswith("/step")]
    assert len(steps) == len(names), "the optimiser knows nothing of what is frozen"


def test_a_frozen_encoder_is_not_differentiated(tmp_path, pretrained):
    cfg, seen = config(weights=pretrained, strategy="feature-extraction", iterations=2), []
    model = initial_model(cfg, 2)
    model.decoder.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[0]))
    trainer, _ = fitted(tmp_path, cfg, model=model)
    assert seen
    assert not any(feature.requires_grad for feature in seen)
    assert all(p.grad is None for p in trainer.model.encoder.parameters())
    assert not any(m.training for m in trainer.model.encoder.modules())


def test_groups_and_rates_are_told(tmp_path, pretrained):
    cfg = config(weights=pretrained, iterations=2, encoder_learning_rate=1e-4, depth_decay=0.5, weight_decay=0.1)
    trainer, events = fitted(tmp_path, cfg)
    (began,) = of(events, "StageBegan")
    assert (began.stage, began.n_stages, began.name, began.iteration) == (1, 1, "fine-tune", 0)
    assert {g.part: g.learning_rate for g in began.groups} == pytest.approx(
        {"head": 1e-3, "decoder": 1e-3} | {f"encoder {5 - i}": 1e-4 * 0.5**i for i in range(5)}
    )
    assert {g.weight_decay for g in began.groups} == {0.1, 0.0}
    assert sum(g.n_parameters for g in began.groups) == sum(p.numel() for p in trainer.model.parameters())
    rates = of(events, "IterationEnded")[-1].learning_rates
    assert rates["encoder 4"] / rates["encoder 5"] == pytest.approx(0.5)
    assert rates["encoder 5"] / rates["head"] == pytest.approx(0.1)
    assert of(events, "IterationEnded")[-1].memory_gb > 0


def test_what_is_frozen_is_told_with_rate_0(tmp_path, pretrained):
    _, events = fitted(tmp_path, config(weights=pretrained, strategy="feature-extraction", iterations=1))
    (began,) = of(events, "StageBegan")
    (encoder,) = [g for g in began.groups if g.part == "encoder"]
    assert (encoder.learning_rate, encoder.n_parameters > 0) == (0.0, True)
    assert set(of(events, "IterationEnded")[-1].learning_rates) == {"head", "decoder"}


def test_stages_change_on_a_plateau(tmp_path, pretrained, scripted):
    scripted([0.5, 0.6, 0.6, 0.6, 0.7, 0.7, 0.7, 0.8, 0.8, 0.8])
    cfg = config(
        weights=pretrained, strategy="gradual", iterations=30, validate_every=2, plateau=2, crop_px=32, patience=2
    )
    _, events = fitted(tmp_path, cfg, held_out=small_ground())
    stages = of(events, "StageBegan")
    assert [(s.stage, s.iteration) for s in stages] == [(1, 0), (2, 8), (3, 14)]
    assert [s.reason for s in stages[1:]] == ["The validation IoU has not improved for 2 validations."] * 2
    assert [{g.part for g in s.groups if g.learning_rate == 0} for s in stages] == [
        {f"encoder {i}" for i in (1, 2, 3, 4, 5)},
        {f"encoder {i}" for i in (1, 2, 3, 4)},
        set(),
    ]
    assert [v.n_stale for v in of(events, "ValidationEnded")] == [0, 0, 1, 2, 0, 1, 2, 0, 1, 2]
    assert of(events, "CheckpointSaved")[-1].iteration == 20, "patience counts in the last stage only"
    assert all(0 <= v.training_iou <= 1 for v in of(events, "ValidationEnded"))
    assert not of(events, "NoticePosted")


def test_new_groups_warm_up_again(tmp_path, pretrained, monkeypatch):
    monkeypatch.setattr(trainer_module.Pace, "may_speak", lambda _self: True)
    cfg = config(weights=pretrained, strategy="gradual", iterations=60, crop_px=32)
    _, events = fitted(tmp_path, cfg)
    second = of(events, "StageBegan")[1]
    assert second.iteration == 20
    assert "no ground to validate on" in second.reason
    rates = {e.iteration: e.learning_rates for e in of(events, "IterationEnded")}
    assert "encoder 5" not in rates[20]
    assert rates[21]["encoder 5"] < 0.1e-4
    assert rates[24]["encoder 5"] == pytest.approx(1e-4)
    assert rates[21]["decoder"] == pytest.approx(rates[20]["decoder"], rel=0.1)


def test_a_run_that_ends_before_the_last_stage_says_so(tmp_path, pretrained):
    trainer = make_trainer(tmp_path, config(weights=pretrained, strategy="gradual", iterations=500, crop_px=32))
    events = []
    trainer.fit(events.append, lambda: bool(of(events, "IterationEnded")))
    assert "ended in stage 1 of 3 (head and decoder)" in of(events, "NoticePosted")[-1].message


def test_a_run_resumed_within_the_second_stage_is_the_unbroken_run(tmp_path, pretrained):
    cfg = config(
        weights=pretrained, strategy="gradual", iterations=18, validate_every=3, crop_px=32, l2_sp=0.01, plateau=50
    )
    whole = make_trainer(tmp_path / "whole", cfg, held_out=small_ground())
    told = []
    whole.fit(told.append)

    seen = []
    make_trainer(tmp_path / "broken", cfg, held_out=small_ground()).fit(
        seen.append, lambda: any(e.event == "CheckpointSaved" and e.iteration >= 9 for e in seen)
    )
    last = Checkpoint.load(tmp_path / "broken" / "last.safetensors")
    assert (last.meta.iteration, len(last.meta.progress["stages"]["began"])) == (9, 2)
    again = []
    fresh = build_model(last.meta.model)
    make_trainer(tmp_path / "broken", cfg, model=fresh, held_out=small_ground(), resume=last).fit(again.append)
    assert [(s.stage, s.iteration) for s in of(again, "StageBegan")] == [(2, 9), (3, 12)]
    assert of(told, "StageBegan")[-1] == of(again, "StageBegan")[-1]

    one, other = (Checkpoint.load(tmp_path / name / "last.safetensors") for name in ("whole", "broken"))
    for a, b in ((one.state, other.state), (one.resume, other.resume)):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_checkpoint_that_knows_no_stages_is_not_resumed(tmp_path):
    fitted(tmp_path, config(iterations=1))
    last = Checkpoint.load(tmp_path / "last.safetensors")
    del last.meta.progress["stages"]
    with pytest.raises(WeightsError, match="older version"):
        make_trainer(tmp_path, config(iterations=1), resume=last).fit(lambda event: None)


def test_a_pull_to_the_weights_keeps_the_encoder_near(tmp_path, pretrained):
    moved = {}
    for strength in (0.0, 1.0):
        cfg = config(
            weights=pretrained, iterations=15, l2_sp=strength, encoder_learning_rate=5e-4, depth_decay=1, crop_px=32
        )
        model, start = (initial_model(cfg, 2) for _ in range(2))
        fitted(tmp_path, cfg, model=model)
        pairs = zip(model.encoder.parameters(), start.encoder.parameters(), strict=True)
        moved[strength] = sum(float((a - b).detach().square().sum()) for a, b in pairs if a.ndim > 1)
    assert 0 < moved[1.0] < 0.5 * moved[0.0]


@pytest.mark.parametrize("changes", [{}, {"class_weights": "balanced", "label_smoothing": 0.1}])
def test_unlabelled_pixels_get_no_gradient_at_all(tmp_path, changes):
    targets = blobs((64, 64)).targets
    targets[:, 20:50] = IGNORE_INDEX
    image = TrainingImage(blobs((64, 64)).image, targets, fresh=targets == 0)
    cfg = config(iterations=1, augment="none", **changes)
    model, gradients = initial_model(cfg, 2), []
    model.segmentation_head.register_full_backward_hook(lambda _m, _i, out: gradients.append(out[0]))
    fitted(tmp_path, cfg, model=model, train=[image])
    (gradient,) = gradients
    assert torch.count_nonzero(gradient[..., 20:50]) == 0
    assert torch.count_nonzero(gradient[..., :20]) > 0


def test_class_weights_and_smoothing_reach_the_loss(tmp_path):
    rare = blobs((96, 96), sigma=3)
    rare.targets[20:] = 0
    losses = []
    for changes in ({}, {"class_weights": "balanced"}, {"label_smoothing": 0.2}):
        _, events = fitted(tmp_path, config(iterations=1, **changes), train=[rare])
        losses.append(of(events, "IterationEnded")[0].loss)
    assert len(set(losses)) == 3


def test_fresh_pixels_weigh_more(tmp_path):
    image = blobs((96, 96))
    fresh = TrainingImage(image.image, image.targets, fresh=image.targets == 1)
    losses = []
    for weight in (1.0, 4.0):
        _, events = fitted(tmp_path, config(iterations=1, new_weight=weight), train=[fresh])
        losses.append(of(events, "IterationEnded")[0].loss)
    assert losses[0] != losses[1]


def test_the_schedule_is_the_one_asked_for(tmp_path):
    last = {}
    for shape in ("cosine", "poly"):
        _, events = fitted(tmp_path, config(iterations=4, schedule=shape))
        last[shape] = of(events, "IterationEnded")[-1].learning_rates["head"]
    done = (0.75 - 0.05) / 0.95
    assert last["poly"] == pytest.approx(1e-3 * (1 - done) ** 0.9)
    assert last["cosine"] == pytest.approx(1e-3 * 0.5 * (1 + np.cos(np.pi * done)))


@pytest.mark.parametrize(("average", "equal"), [(0.0, True), (0.98, False)])
def test_without_averaging_the_saved_weights_are_the_trained_ones(tmp_path, average, equal):
    trainer, _ = fitted(tmp_path, config(iterations=3, average=average))
    saved = Checkpoint.load(tmp_path / "best.safetensors").state
    assert all(torch.equal(v, saved[k]) for k, v in trainer.model.state_dict().items()) == equal


def test_a_uniform_high_rate_is_refused_before_any_work(tmp_path, pretrained):
    cfg = config(weights=pretrained, encoder_learning_rate=1e-3)
    with pytest.raises(RateError, match="learn"):
        make_trainer(tmp_path, cfg)
    make_trainer(tmp_path, cfg.model_copy(update={"confirm_uniform_rate": True}))


@pytest.mark.slow
def test_one_real_tile_can_be_learnt_by_heart(tmp_path, real_data):
    folder = real_data / "nasa_super"
    image, mask = (np.asarray(Image.open(folder / part / "spot2_0d_0.png"))[:128, :128] for part in ("images", "masks"))
    standardised = ((image - image.mean()) / image.std()).astype(np.float32)
    tile = TrainingImage(standardised, to_targets((mask > 1) + np.uint8(1)))
    cfg = config(iterations=60, batch_size=2, crop_px=128, augment="none", learning_rate=3e-3, validate_every=50)
    trainer = make_trainer(tmp_path, cfg, train=[tile], held_out=held_out_regions(ArrayView(tile.image), tile.targets))
    events = []
    result = trainer.fit(events.append)
    assert result.mean_iou > 0.95
    assert of(events, "ValidationEnded")[-1].training_iou > 0.95
