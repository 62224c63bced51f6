import time

import numpy as np
import pytest
import torch
from nn_helpers import FP32, blobs, config, make_trainer

from napari_emtransfer.core.config import ModelConfig
from napari_emtransfer.core.data.labels import IGNORE_INDEX
from napari_emtransfer.core.errors import DeviceError, EMTransferError, LabelError
from napari_emtransfer.core.nn.checkpoint import Checkpoint
from napari_emtransfer.core.nn.ground import TrainingImage
from napari_emtransfer.core.nn.model import build_model
from napari_emtransfer.core.nn.pace import Pace, validation_interval
from napari_emtransfer.core.nn.strategy import encoder_rate, plan_of, schedule
from napari_emtransfer.core.nn.trainer import initial_model


def of(events, kind):
    return [e for e in events if e.event == kind]


def test_it_learns_validates_and_saves(tmp_path):
    events = []
    result = make_trainer(tmp_path, config(iterations=30, validate_every=10, batch_size=4)).fit(events.append)
    iterations, validations = of(events, "IterationEnded"), of(events, "ValidationEnded")
    assert iterations[-1].iteration == 30
    assert iterations[-1].loss < iterations[0].loss
    assert [v.iteration for v in validations] == [10, 20, 30]
    assert set(validations[0].iou) == {"matrix", "pore"}
    assert result.mean_iou == max(v.mean_iou for v in validations) > 0.6
    assert result.reason == "done"
    assert not result.stopped_early
    assert iterations[-1].seconds_left == 0
    best = Checkpoint.load(tmp_path / "best.safetensors")
    assert best.meta.classes == ("matrix", "pore")
    assert best.meta.iteration == result.best_iteration
    assert best.meta.mean_iou == result.mean_iou
    assert best.resume == {}


def test_a_resumed_run_is_the_unbroken_run(tmp_path):
    cfg = config(iterations=60, validate_every=30, crop_px=32)
    whole = make_trainer(tmp_path / "whole", cfg)
    whole.fit(lambda event: None)

    seen = []
    make_trainer(tmp_path / "broken", cfg).fit(
        seen.append, lambda: any(e.event == "IterationEnded" and e.iteration >= 30 for e in seen)
    )
    last = Checkpoint.load(tmp_path / "broken" / "last.safetensors")
    assert 30 <= last.meta.iteration < 60
    resumed = make_trainer(tmp_path / "broken", cfg, model=build_model(last.meta.model), resume=last)
    assert resumed.first_iteration == last.meta.iteration
    resumed.fit(lambda event: None)

    one, other = (Checkpoint.load(tmp_path / name / "last.safetensors") for name in ("whole", "broken"))
    for a, b in ((one.state, other.state), (one.resume, other.resume)):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert one.meta.mean_iou == other.meta.mean_iou


def test_the_same_seed_gives_the_same_model(tmp_path):
    for name in ("a", "b"):
        make_trainer(tmp_path / name, config(iterations=4)).fit(lambda event: None)
    a, b = (Checkpoint.load(tmp_path / name / "best.safetensors").state for name in ("a", "b"))
    assert all(torch.equal(a[k], b[k]) for k in a)
    same, other = (initial_model(config(compute=FP32.model_copy(update={"seed": s})), 2) for s in (0, 1))
    key = "segmentation_head.0.weight"
    assert torch.equal(same.state_dict()[key], initial_model(config(), 2).state_dict()[key])
    assert not torch.equal(same.state_dict()[key], other.state_dict()[key])


def test_a_stop_ends_within_an_iteration_and_banks(tmp_path):
    events, asked = [], 0

    def stop():
        nonlocal asked
        asked += 1
        return asked > 3

    result = make_trainer(tmp_path, config(iterations=1000, validate_every=500)).fit(events.append, stop)
    assert result.reason == "stopped"
    assert result.iterations == 3
    assert result.best_iteration == 0
    assert Checkpoint.load(tmp_path / "last.safetensors").meta.iteration == 3
    assert Checkpoint.load(tmp_path / "best.safetensors").build()(torch.zeros(1, 1, 32, 32)).shape == (1, 2, 32, 32)


def test_a_stop_is_heard_during_validation(tmp_path):
    events, stopped = [], False
    trainer = make_trainer(tmp_path, config(iterations=2, validate_every=1))

    def stop():
        # The second question after an iteration comes from the validation.
        nonlocal stopped
        stopped = stopped or bool(of(events, "IterationEnded"))
        return stopped

    result = trainer.fit(events.append, stop)
    assert not of(events, "ValidationEnded")
    assert result.iterations == 1


def test_patience_ends_a_run_that_no_longer_improves(tmp_path):
    trainer = make_trainer(tmp_path, config(iterations=50, validate_every=1, patience=2, learning_rate=1e-12))
    result = trainer.fit(lambda event: None)
    assert result.reason == "patience"
    assert result.iterations < 50


def test_minutes_end_a_run(tmp_path):
    started = time.monotonic()
    result = make_trainer(tmp_path, config(iterations=10_000, minutes=0.03)).fit(lambda event: None)
    assert result.reason == "minutes"
    assert result.mean_iou is not None
    assert time.monotonic() - started < 20


class Hungry(torch.nn.Module):
    """An encoder that runs out of memory above a number of crops."""

    def __init__(self, encoder, most, error):
        super().__init__()
        self.encoder, self.most, self.error = encoder, most, error
        self.output_stride, self.sizes = encoder.output_stride, []

    def forward(self, images):
        self.sizes.append(len(images))
        if self.training and len(images) > self.most:
            raise self.error
        return self.encoder(images)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_batch_and_says_so(tmp_path, error):
    cfg, events = config(iterations=2, batch_size=5), []
    model = initial_model(cfg, 2)
    model.encoder = hungry = Hungry(model.encoder, 2, error)
    make_trainer(tmp_path, cfg, model=model).fit(events.append)
    assert [n.message for n in of(events, "NoticePosted")] == [
        "Memory ran out: each batch is now computed in parts of 3.",
        "Memory ran out: each batch is now computed in parts of 2.",
    ]
    assert hungry.sizes[:5] == [5, 3, 2, 2, 1]
    assert of(events, "IterationEnded")[-1].iteration == 2


def test_no_memory_for_one_crop_is_a_device_error(tmp_path):
    cfg = config(batch_size=2)
    model = initial_model(cfg, 2)
    model.encoder = Hungry(model.encoder, 0, torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(DeviceError, match="one crop"):
        make_trainer(tmp_path, cfg, model=model).fit(lambda event: None)


def test_other_errors_are_not_taken_for_lack_of_memory(tmp_path):
    cfg = config()
    model = initial_model(cfg, 2)
    model.encoder = Hungry(model.encoder, 0, RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        make_trainer(tmp_path, cfg, model=model).fit(lambda event: None)


@pytest.mark.parametrize(("value", "said"), [(IGNORE_INDEX, "Nothing is labelled"), (0, "Only one class")])
def test_labels_that_teach_nothing_are_refused_before_any_work(tmp_path, value, said):
    image = TrainingImage(np.zeros((64, 64), np.float32), np.full((64, 64), value, np.uint8))
    with pytest.raises(LabelError, match=said):
        make_trainer(tmp_path, config(), train=[image])
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_diverging_run_says_what_to_change(tmp_path):
    image = blobs((96, 96))
    broken = TrainingImage(np.full_like(image.image, np.inf), image.targets)
    with pytest.raises(EMTransferError, match="The loss became"):
        make_trainer(tmp_path, config(), train=[broken]).fit(lambda event: None)


@pytest.mark.parametrize("stops", [False, True])
def test_weights_that_have_become_nan_are_not_banked(tmp_path, monkeypatch, stops):
    monkeypatch.setattr(Pace, "may_speak", lambda self: False)
    trainer = make_trainer(tmp_path, config(iterations=40, validate_every=3, learning_rate=1))
    fit_until = iter([False, False, stops, False, False])
    monkeypatch.setattr("napari_emtransfer.core.nn.step.Optimization.step", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(EMTransferError, match="loss became nan"):
        trainer.fit(lambda event: None, lambda: next(fit_until))
    assert not (tmp_path / "last.safetensors").exists()


def test_without_held_out_ground_the_last_weights_count(tmp_path):
    events = []
    result = make_trainer(tmp_path, config(iterations=3), held_out=[]).fit(events.append)
    assert result.mean_iou is None
    assert result.best_iteration == 3
    assert not of(events, "ValidationEnded")
    assert (tmp_path / "best.safetensors").is_file()


def test_a_batch_norm_that_sees_one_value_is_explained(tmp_path):
    cfg = config(architecture="DeepLabV3Plus", batch_size=1)
    with pytest.raises(EMTransferError, match="DeepLabV3Plus cannot be trained on 1 crop"):
        make_trainer(tmp_path, cfg).fit(lambda event: None)


def test_norms_and_biases_do_not_decay():
    model = build_model(ModelConfig(n_classes=2))
    groups = plan_of(model, config(weight_decay=0.1)).groups(0, set())
    assert sum(p.numel() for g in groups for p in g["params"]) == sum(p.numel() for p in model.parameters())
    assert {g["part"] for g in groups} == {"head", "decoder", "encoder"}
    for group in groups:
        assert all((p.ndim > 1) == (group["weight_decay"] == 0.1) for p in group["params"])


def test_fine_tuning_moves_the_encoder_ten_times_slower():
    assert encoder_rate(config(learning_rate=1e-3)) == 1e-3
    assert encoder_rate(config(learning_rate=1e-3, weights="imagenet")) == pytest.approx(1e-4)
    assert encoder_rate(config(learning_rate=1e-3, weights="imagenet", encoder_learning_rate=3e-5)) == 3e-5


def test_the_rate_warms_up_and_ends_at_nothing():
    rates = [schedule(i / 100) for i in range(101)]
    assert rates[0] < 0.05
    assert max(rates) == pytest.approx(1, abs=0.01)
    assert rates.index(max(rates)) == 5
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_large_held_out_ground_is_measured_less_often():
    assert validation_interval(50, cost=2) == 50
    assert validation_interval(50, cost=300) == 200


def test_the_time_left_counts_validations_and_the_budget():
    pace = Pace(100, 10, None, 0.0, validation_cost=3.0)
    assert pace.seconds_left(0) is None
    pace.step_took(2.0)
    assert pace.seconds_left(50) == pytest.approx(50 * 2 + 5 * 2)
    pace.validation_took(4.0)
    assert pace.seconds_left(50) == pytest.approx(50 * 2 + 5 * 4)
    assert pace.seconds_left(100) == 0
    pace.steps_changed()
    pace.step_took(4.0)
    assert pace.seconds_left(50) == pytest.approx(50 * 4 + 5 * 4)
    short = Pace(100, 10, 30.0, 20.0, validation_cost=0.0)
    short.step_took(2.0)
    assert short.seconds_left(0) == pytest.approx(10, abs=0.1)
    assert short.progress(0) == pytest.approx(2 / 3, abs=0.01)
