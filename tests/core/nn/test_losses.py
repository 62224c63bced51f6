import math

import pytest
import torch

from napari_emtransfer.core.data.labels import IGNORE_INDEX
from napari_emtransfer.core.nn.losses import SegmentationLoss, is_dense, masked_cross_entropy, masked_dice


def one_hot_logits(targets, n_classes, scale=30.0):
    return torch.nn.functional.one_hot(targets, n_classes).movedim(-1, 1).float() * scale


def test_a_perfect_prediction_costs_nothing():
    targets = torch.randint(0, 3, (2, 16, 16), generator=torch.manual_seed(0))
    assert SegmentationLoss()(one_hot_logits(targets, 3), targets).item() < 1e-5


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


def test_nothing_labelled_is_no_nan():
    targets = torch.full((1, 8, 8), IGNORE_INDEX)
    assert SegmentationLoss()(torch.randn(1, 2, 8, 8), targets, dense=True).item() == 0
