import time

import pytest
import torch

from napari_emtransfer.core.data.labels import IGNORE_INDEX, from_targets
from napari_emtransfer.core.evaluate.confusion import ConfusionMatrix
from napari_emtransfer.core.nn.training_accuracy import MAX_PIXELS, RunningAccuracy


def drawn(seed, n_classes=3, shape=(2, 40, 30), labelled=0.5, right=0.7):
    """Logits that are right with a given chance, and their targets."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, n_classes, shape, generator=generator)
    wrong = torch.randint(0, n_classes, shape, generator=generator)
    said = torch.where(torch.rand(shape, generator=generator) < right, truth, wrong)
    logits = torch.nn.functional.one_hot(said, n_classes).movedim(-1, 1).float()
    truth[torch.rand(shape, generator=generator) >= labelled] = IGNORE_INDEX
    return logits, truth


def exact(batches, n_classes=3):
    total = ConfusionMatrix.zeros(n_classes)
    for logits, targets in batches:
        said = from_targets(logits.argmax(dim=1).to(torch.uint8).numpy())
        total += ConfusionMatrix.from_masks(from_targets(targets.to(torch.uint8).numpy()), said, n_classes)
    return total.mean_iou()


def test_few_labelled_pixels_are_all_counted_once():
    batches = [drawn(seed) for seed in range(3)]
    accuracy = RunningAccuracy(3)
    for logits, targets in batches:
        accuracy.update(logits.to(memory_format=torch.channels_last), targets)
    assert accuracy.mean_iou() == pytest.approx(exact(batches), abs=1e-12)


def test_scribbles_are_counted_too():
    logits, targets = drawn(0, shape=(8, 256, 256), labelled=0.001)
    assert (targets != IGNORE_INDEX).sum() < MAX_PIXELS
    accuracy = RunningAccuracy(3)
    accuracy.update(logits, targets)
    assert accuracy.mean_iou() == pytest.approx(exact([(logits, targets)]), abs=1e-12)


def test_many_labelled_pixels_are_sampled_without_bias():
    batches = [drawn(seed, shape=(8, 256, 256), labelled=1.0) for seed in range(6)]
    accuracy = RunningAccuracy(3)
    for logits, targets in batches:
        accuracy.update(logits, targets)
    assert accuracy.mean_iou() == pytest.approx(exact(batches), abs=0.01)


def test_the_sample_does_not_prefer_columns():
    # 8 crops of 256² hold 128 × 4096 pixels: an even step would look at two columns and no others.
    _, targets = drawn(0, shape=(8, 256, 256), labelled=1.0)
    positions, valid = RunningAccuracy(3)._sample(targets != IGNORE_INDEX)
    assert valid.all()
    assert len(positions.unique()) == MAX_PIXELS
    assert len((positions % 256).unique()) > 250


def test_only_the_last_batches_count():
    accuracy = RunningAccuracy(3, window=2)
    for seed in range(5):
        accuracy.update(*drawn(seed, right=0.0))
    last = [drawn(seed, right=1.0) for seed in (8, 9)]
    for batch in last:
        accuracy.update(*batch)
    assert accuracy.mean_iou() == pytest.approx(1.0)


def test_nothing_counted_is_none():
    accuracy = RunningAccuracy(2)
    assert accuracy.mean_iou() is None
    accuracy.update(torch.randn(1, 2, 8, 8), torch.full((1, 8, 8), IGNORE_INDEX))
    assert accuracy.mean_iou() is None


def test_it_costs_next_to_nothing_and_draws_from_no_generator():
    logits, targets = drawn(0, shape=(8, 256, 256), labelled=1.0)
    logits = logits.requires_grad_()
    accuracy = RunningAccuracy(3)
    state = torch.get_rng_state()
    accuracy.update(logits, targets)
    assert torch.equal(torch.get_rng_state(), state)
    started = time.process_time()
    for _ in range(5):
        accuracy.update(logits, targets)
    # A training step on such a batch takes more than half a second of CPU.
    assert (time.process_time() - started) / 5 < 0.05
