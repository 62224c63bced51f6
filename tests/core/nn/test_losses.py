import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_emtransfer.core.data.labels import IGNORE_INDEX
from napari_emtransfer.core.nn.ground import TrainingImage
from napari_emtransfer.core.nn.losses import (
    SegmentationLoss,
    class_weights_of,
    is_dense,
    masked_cross_entropy,
    masked_dice,
    smoothing_floor,
)


def one_hot_logits(targets, n_classes, scale=30.0):
    return torch.nn.functional.one_hot(targets, n_classes).movedim(-1, 1).float() * scale


def test_a_perfect_prediction_costs_nothing():
    targets = torch.randint(0, 3, (2, 16, 16), generator=torch.manual_seed(0))
    assert SegmentationLoss()(one_hot_logits(targets, 3), targets).item() < 1e-5


def drawn(seed, n_classes=3, shape=(2, 12, 10)):
    """Logits, targets with a random share of unlabelled pixels, pixel weights."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, n_classes, shape, generator=generator)
    targets[torch.rand(shape, generator=generator) < torch.rand((), generator=generator)] = IGNORE_INDEX
    logits = 4 * torch.randn(shape[0], n_classes, *shape[1:], generator=generator)
    return logits, targets, 0.5 + 2 * torch.rand(shape, generator=generator)


@given(st.integers(0, 2**31), st.floats(0, 0.49), st.booleans(), st.booleans())
@settings(max_examples=50, deadline=None)
def test_only_labelled_pixels_have_a_gradient_whatever_the_weights(seed, smoothing, weighted, dense):
    logits, targets, pixel_weights = drawn(seed)
    logits.requires_grad_()
    loss = SegmentationLoss(0.5, torch.tensor([0.5, 1.0, 4.0]) if weighted else None, smoothing)
    loss(logits, targets, pixel_weights=pixel_weights if weighted else None, dense=dense).backward()
    gradient = logits.grad.abs().sum(dim=1)
    assert torch.all(gradient[targets == IGNORE_INDEX] == 0)
    assert torch.all(gradient[targets != IGNORE_INDEX] > 0)
    # And so, what the network says there changes nothing.
    elsewhere = torch.where((targets == IGNORE_INDEX).unsqueeze(1), -logits, logits)
    assert loss(elsewhere, targets, dense=True).item() == loss(logits, targets, dense=True).item()


@pytest.mark.parametrize("seed", range(3))
def test_weighted_and_smoothed_cross_entropy_by_hand(seed):
    logits, targets, pixel_weights = drawn(seed)
    class_weights, epsilon = torch.tensor([0.5, 1.0, 4.0]), 0.1
    total = weight = 0.0
    log_p = logits.double().log_softmax(dim=1)
    for n, y, x in (targets != IGNORE_INDEX).nonzero().tolist():
        truth = torch.full((3,), epsilon / 3, dtype=torch.float64)
        truth[targets[n, y, x]] += 1 - epsilon
        w = (class_weights[targets[n, y, x]] * pixel_weights[n, y, x]).item()
        total -= w * (truth * log_p[n, :, y, x]).sum().item()
        weight += w
    loss = SegmentationLoss(0, class_weights, epsilon)
    assert loss(logits, targets, pixel_weights=pixel_weights).item() == pytest.approx(total / weight, rel=1e-4)
    assert loss.labelled_weight(targets, pixel_weights).item() == pytest.approx(weight, rel=1e-5)


def test_equal_weights_are_no_weights():
    logits, targets, _ = drawn(0)
    plain, weighted = SegmentationLoss(), SegmentationLoss(class_weights=torch.full((3,), 7.0))
    twice = torch.full(targets.shape, 2.0)
    assert weighted(logits, targets, pixel_weights=twice).item() == pytest.approx(plain(logits, targets).item(), 1e-5)


def test_a_perfect_prediction_costs_nothing_with_weights():
    targets = torch.randint(0, 3, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    loss = SegmentationLoss(class_weights=torch.tensor([0.2, 1.0, 9.0]))
    assert loss(one_hot_logits(targets, 3), targets, pixel_weights=1.0 + (targets == 1)).item() < 1e-5


@pytest.mark.parametrize(("epsilon", "n_classes"), [(0.05, 2), (0.1, 3), (0.3, 5)])
def test_the_floor_under_smoothing_is_reached_and_not_passed(epsilon, n_classes):
    targets = torch.randint(0, n_classes, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    share = torch.full((n_classes,), epsilon / n_classes)
    best = torch.nn.functional.one_hot(targets, n_classes).movedim(-1, 1) * (1 - epsilon) + share.view(1, -1, 1, 1)
    loss = SegmentationLoss(0, label_smoothing=epsilon)
    floor = smoothing_floor(epsilon, n_classes)
    assert loss(best.log(), targets).item() == pytest.approx(floor, rel=1e-4)
    for scale in (0.5, 1.5):
        assert loss(scale * best.log(), targets).item() > floor
    assert smoothing_floor(0, n_classes) == 0


def test_class_weights_are_inverse_roots_with_mean_one():
    targets = np.full((100, 100), IGNORE_INDEX, np.uint8)
    targets[:81, 0] = 0
    targets[:9, 1] = 1
    targets[:10, 2] = 3
    image = np.zeros(targets.shape, np.float32)
    weights = class_weights_of([TrainingImage(image, targets[:, :1]), TrainingImage(image, targets[:, 1:])], 4)
    assert weights.dtype == torch.float32
    assert (weights[1] / weights[0]).item() == pytest.approx(3, rel=1e-5)
    assert (weights * torch.tensor([81, 9, 0, 10]) / 100).sum().item() == pytest.approx(1, rel=1e-5)
    assert weights[2] == 1


def test_class_weights_of_nothing_are_one():
    empty = TrainingImage(np.zeros((4, 4), np.float32), np.full((4, 4), IGNORE_INDEX, np.uint8))
    assert torch.equal(class_weights_of([empty], 3), torch.ones(3))


def test_dice_counts_pixels_by_their_weight():
    # A pixel of weight 2 is two pixels.
    logits, targets, _ = drawn(1, shape=(1, 4, 6))
    weights = torch.ones(targets.shape)
    weights[:, :, 4:] = 2
    repeated = masked_dice(torch.cat([logits, logits[..., 4:]], -1), torch.cat([targets, targets[..., 4:]], -1))
    assert masked_dice(logits, targets, weights).item() == pytest.approx(repeated.item(), rel=1e-5)


def test_dice_is_added_with_pixel_weights_and_without_class_weights():
    logits, targets, pixel_weights = drawn(2)
    with_dice, without = (SegmentationLoss(w, torch.tensor([0.5, 1.0, 4.0])) for w in (0.7, 0.0))
    added = [loss(logits, targets, pixel_weights=pixel_weights, dense=True) for loss in (with_dice, without)]
    dice = masked_dice(logits, targets, pixel_weights).item()
    assert (added[0] - added[1]).item() == pytest.approx(0.7 * dice, rel=1e-4)


def test_a_uniform_guess_costs_ln_k():
    targets = torch.randint(0, 4, (1, 8, 8), generator=torch.manual_seed(0))
    assert masked_cross_entropy(torch.zeros(1, 4, 8, 8), targets).item() == pytest.approx(math.log(4), rel=1e-5)


def test_unlabelled_pixels_have_exactly_no_gradient():
    targets = torch.randint(0, 2, (2, 16, 16), generator=torch.manual_seed(0))
    targets[:, :, 8:] = IGNORE_INDEX
    logits = torch.randn(2, 2, 16, 16, requires_grad=True)
    SegmentationLoss()(logits, targets, dense=True).backward()
    assert torch.all(logits.grad[..., 8:] == 0)
    assert torch.all(logits.grad[..., :8].abs().sum(1) > 0)


def test_the_loss_does_not_depend_on_how_much_is_labelled():
    logits = torch.zeros(1, 2, 32, 32)
    few, many = (torch.full((1, 32, 32), IGNORE_INDEX) for _ in range(2))
    few[0, 0, :4] = 1
    many[0, :16] = 1
    assert masked_cross_entropy(logits, few).item() == pytest.approx(masked_cross_entropy(logits, many).item(), 1e-5)


def test_pixel_weights_count():
    logits = torch.tensor([[[[4.0, 0.0]], [[0.0, 0.0]]]])
    targets = torch.zeros(1, 1, 2, dtype=torch.long)
    only_second = masked_cross_entropy(logits, targets, torch.tensor([[[0.0, 1.0]]]))
    assert only_second.item() == pytest.approx(math.log(2), rel=1e-5)


def test_dice_leaves_out_absent_classes_and_skips_scribbles():
    targets = torch.zeros(1, 16, 16, dtype=torch.long)
    assert masked_dice(one_hot_logits(targets, 3), targets).item() < 1e-5
    scribble = torch.full((1, 64, 64), IGNORE_INDEX)
    scribble[0, 5, :20] = 1
    assert not is_dense(scribble)
    logits = torch.randn(1, 2, 64, 64, generator=torch.manual_seed(0))
    assert SegmentationLoss()(logits, scribble) == masked_cross_entropy(logits, scribble)


def test_parts_of_a_batch_add_up():
    generator = torch.manual_seed(0)
    logits = torch.randn(4, 2, 8, 8, generator=generator)
    targets = torch.randint(0, 2, (4, 8, 8), generator=generator)
    targets[2:, 4:] = IGNORE_INDEX
    loss, labelled = SegmentationLoss(dice_weight=0), (targets != IGNORE_INDEX).sum().item()
    parts = zip(logits.split(1), targets.split(1), strict=True)
    total = sum(loss(a, b, normalizer=labelled, share=0.25).item() for a, b in parts)
    assert total == pytest.approx(loss(logits, targets).item(), rel=1e-5)

    loss, pixel_weights = SegmentationLoss(0, torch.tensor([0.3, 2.0]), 0.05), 1.0 + torch.rand(targets.shape)
    whole = loss.labelled_weight(targets, pixel_weights)
    parts = zip(logits.split(1), targets.split(1), pixel_weights.split(1), strict=True)
    total = sum(loss(a, b, pixel_weights=w, normalizer=whole, share=0.25).item() for a, b, w in parts)
    assert total == pytest.approx(loss(logits, targets, pixel_weights=pixel_weights).item(), rel=1e-5)


def test_nothing_labelled_is_no_nan():
    targets = torch.full((1, 8, 8), IGNORE_INDEX)
    assert SegmentationLoss()(torch.randn(1, 2, 8, 8), targets, dense=True).item() == 0
