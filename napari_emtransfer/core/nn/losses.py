"""Losses for partly labelled targets, on logits: unlabelled pixels have no influence and no gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_emtransfer.core.data.labels import IGNORE_INDEX
from napari_emtransfer.core.nn.ground import TrainingImage

# Below this labelled share a batch holds scribbles; overlap with a stroke says nothing about overlap with a phase.
DENSE_FRACTION: Final = 0.1
_EPSILON: Final = 1e-6


def masked_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    *,
    normalizer: Tensor | float | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of logits (N, C, H, W) against targets (N, H, W), in nats → scalar Σ w·CE / Σ w.

    Parameters
    ----------
    targets
        Class indices, `IGNORE_INDEX` where unlabelled.
    weights
        Pixel weights (N, H, W); one where left out. Those of unlabelled pixels do not matter.
    normalizer
        What to divide by. The labelled weight of these pixels by default, so that the step does not depend
        on the length of a scribble; the whole batch's when gradients are accumulated over parts of it.
    label_smoothing
        Share ε of each labelled pixel's truth that is spread evenly over all classes. A perfect prediction then
        costs `smoothing_floor`, not nothing.
    """
    # The weights are not torch's: it would weigh the smoothed part by the class it falls on, not by the pixel's own.
    loss = functional.cross_entropy(
        logits, targets, ignore_index=IGNORE_INDEX, reduction="none", label_smoothing=label_smoothing
    )
    labelled = (targets != IGNORE_INDEX).to(loss.dtype)
    if weights is not None:
        labelled = labelled * weights
    total = labelled.sum() if normalizer is None else normalizer
    return (loss * labelled).sum() / (total + _EPSILON)


def smoothing_floor(label_smoothing: float, n_classes: int) -> float:
    """Least cross-entropy (nats) under label smoothing: the entropy of the smoothed truth; 0 without smoothing."""
    other = label_smoothing / n_classes
    shares = [1 - label_smoothing + other, *[other] * (n_classes - 1)]
    return -sum(share * math.log(share) for share in shares if share > 0)


def masked_dice(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """1 − Dice, mean over the classes present, of logits (N, C, H, W) against targets (N, H, W) → scalar.

    Sums run over the labelled pixels of the whole batch (not per image, where a rare class is often absent), each
    counted by its weight (N, H, W); a class without a label in the batch is left out. Soft Dice after Milletari et
    al., 3DV 2016.
    """
    counted = (targets != IGNORE_INDEX).to(logits.dtype)
    if weights is not None:
        counted = counted * weights
    counted = counted.unsqueeze(1)
    probabilities = logits.softmax(dim=1)
    classes = targets.clamp(max=logits.shape[1] - 1).unsqueeze(1)
    truth = torch.zeros_like(probabilities).scatter_(1, classes, counted)
    over_batch = (0, 2, 3)
    overlap, n_true = (probabilities * truth).sum(over_batch), truth.sum(over_batch)
    dice = (2 * overlap + _EPSILON) / ((probabilities * counted).sum(over_batch) + n_true + _EPSILON)
    # Sums instead of boolean indexing: a GPU would have to wait for the sizes.
    present = (n_true > 0).to(logits.dtype)
    return ((1 - dice) * present).sum() / present.sum().clamp(min=1)


class SegmentationLoss(nn.Module):
    """Masked cross-entropy, plus `dice_weight` times masked Dice where the batch is densely labelled.

    Parameters
    ----------
    dice_weight
        Weight of the Dice term; 0 turns it off.
    class_weights
        (C,) weight of a pixel in the cross-entropy by its true class, see `class_weights_of`. Dice is a mean over
        classes and does without.
    label_smoothing
        Of the cross-entropy, on labelled pixels only; its least value is then `smoothing_floor`.
    """

    def __init__(
        self, dice_weight: float = 0.5, class_weights: Tensor | None = None, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        self.dice_weight = dice_weight
        self.label_smoothing = label_smoothing
        # Not a buffer: `labelled_weight` needs it beside the batch, before anything has moved to the device.
        self.class_weights = class_weights

    def forward(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        pixel_weights: Tensor | None = None,
        normalizer: Tensor | float | None = None,
        dense: bool | None = None,
        share: float = 1.0,
    ) -> Tensor:
        """Loss of logits (N, C, H, W) against targets (N, H, W), pixels counted by `pixel_weights` (N, H, W) → scalar.

        For part of a batch, say the whole batch's `labelled_weight` as `normalizer`, whether it is `dense`, and the
        part's `share` of the images, so that the parts' losses add up.
        """
        loss = masked_cross_entropy(
            logits,
            targets,
            self._weights(targets, pixel_weights),
            normalizer=normalizer,
            label_smoothing=self.label_smoothing,
        )
        if dense is None:
            dense = is_dense(targets)
        if not (dense and self.dice_weight):
            return loss
        return loss + self.dice_weight * share * masked_dice(logits, targets, pixel_weights)

    def labelled_weight(self, targets: Tensor, pixel_weights: Tensor | None = None) -> Tensor:
        """Σ of class weight × pixel weight over the labelled pixels: what the loss of the batch is divided by."""
        labelled = targets != IGNORE_INDEX
        weights = self._weights(targets, pixel_weights)
        return labelled.sum() if weights is None else (labelled * weights).sum()

    def _weights(self, targets: Tensor, pixel_weights: Tensor | None) -> Tensor | None:
        if self.class_weights is None:
            return pixel_weights
        by_class = self.class_weights.to(targets.device, non_blocking=True)
        # Unlabelled pixels borrow the last class's weight; they are masked out afterwards.
        weights = by_class[targets.clamp(max=len(by_class) - 1)]
        return weights if pixel_weights is None else weights * pixel_weights


def is_dense(targets: Tensor) -> bool:
    """True where enough of the batch (N, H, W) is labelled for Dice to mean something."""
    return bool((targets != IGNORE_INDEX).float().mean() >= DENSE_FRACTION)


def class_weights_of(train: Sequence[TrainingImage], n_classes: int) -> Tensor:
    """Weights (C,) float32 for rare classes: 1/√f, scaled so that the mean over the labelled pixels is 1.

    f is the class's share of the labelled pixels. The square root is a compromise: 1/f would let a phase of 1 % decide
    as much as one of 99 %, and with it every mistake at its edges. A class without a label gets 1; nothing is weighed
    by it.
    """
    counts = np.zeros(n_classes, np.int64)
    for part in train:
        counts += np.bincount(part.targets.ravel(), minlength=IGNORE_INDEX + 1)[:n_classes]
    roots = np.sqrt(counts / max(1, counts.sum()))
    # Σ f·w = 1 with w = a/√f gives a = 1 / Σ √f.
    weights = np.divide(1.0, roots * roots.sum(), out=np.ones(n_classes), where=counts > 0)
    return torch.from_numpy(weights.astype(np.float32))
