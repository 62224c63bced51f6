"""Losses for partly labelled targets, on logits: unlabelled pixels have no influence and no gradient."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_emtransfer.core.data.labels import IGNORE_INDEX

# Below this labelled share a batch holds scribbles; overlap with a stroke says nothing about overlap with a phase.
DENSE_FRACTION: Final = 0.1
_EPSILON: Final = 1e-6


def masked_cross_entropy(
    logits: Tensor, targets: Tensor, weights: Tensor | None = None, *, normalizer: Tensor | float | None = None
) -> Tensor:
    """Cross-entropy of logits (N, C, H, W) against targets (N, H, W), in nats → scalar.

    Parameters
    ----------
    targets
        Class indices, `IGNORE_INDEX` where unlabelled.
    weights
        Pixel weights (N, H, W); one where left out.
    normalizer
        What to divide by. The labelled weight of these pixels by default, so that the step does not depend
        on the length of a scribble; the whole batch's when gradients are accumulated over parts of it.
    """
    loss = functional.cross_entropy(logits, targets, ignore_index=IGNORE_INDEX, reduction="none")
    labelled = (targets != IGNORE_INDEX).to(loss.dtype)
    if weights is not None:
        labelled = labelled * weights
    total = labelled.sum() if normalizer is None else normalizer
    return (loss * labelled).sum() / (total + _EPSILON)


def masked_dice(logits: Tensor, targets: Tensor) -> Tensor:
    """1 − Dice, mean over the classes present, of logits (N, C, H, W) against targets (N, H, W) → scalar.

    Sums run over the labelled pixels of the whole batch (not per image, where a rare class is often absent);
    a class without a label in the batch is left out. Soft Dice after Milletari et al., 3DV 2016.
    """
    labelled = (targets != IGNORE_INDEX).unsqueeze(1).to(logits.dtype)
    probabilities = logits.softmax(dim=1) * labelled
    classes = targets.clamp(max=logits.shape[1] - 1).unsqueeze(1)
    truth = torch.zeros_like(probabilities).scatter_(1, classes, labelled)
    over_batch = (0, 2, 3)
    overlap, n_true = (probabilities * truth).sum(over_batch), truth.sum(over_batch)
    dice = (2 * overlap + _EPSILON) / (probabilities.sum(over_batch) + n_true + _EPSILON)
    # Sums instead of boolean indexing: a GPU would have to wait for the sizes.
    present = (n_true > 0).to(logits.dtype)
    return ((1 - dice) * present).sum() / present.sum().clamp(min=1)


class SegmentationLoss(nn.Module):
    """Masked cross-entropy, plus `dice_weight` times masked Dice where the batch is densely labelled.

    Parameters
    ----------
    dice_weight
        Weight of the Dice term; 0 turns it off.
    """

    def __init__(self, dice_weight: float = 0.5) -> None:
        super().__init__()
        self.dice_weight = dice_weight

    def forward(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        normalizer: Tensor | float | None = None,
        dense: bool | None = None,
        share: float = 1.0,
    ) -> Tensor:
        """Loss of logits (N, C, H, W) against targets (N, H, W) → scalar.

        For part of a batch, say the whole batch's labelled pixels as `normalizer`, whether it is `dense`, and the
        part's `share` of the images, so that the parts' losses add up.
        """
        loss = masked_cross_entropy(logits, targets, normalizer=normalizer)
        if dense is None:
            dense = is_dense(targets)
        return loss + self.dice_weight * share * masked_dice(logits, targets) if dense and self.dice_weight else loss


def is_dense(targets: Tensor) -> bool:
    """True where enough of the batch (N, H, W) is labelled for Dice to mean something."""
    return bool((targets != IGNORE_INDEX).float().mean() >= DENSE_FRACTION)
