"""How well the network does on what it is trained on, from the logits that a step computes anyway."""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np
import torch
from torch import Tensor

from napari_emtransfer.core.data.labels import IGNORE_INDEX
from napari_emtransfer.core.evaluate.confusion import ConfusionMatrix

MAX_PIXELS: Final = 4096
# Fractions of a stratum are whole numbers: exact on every device, and int64 does not overflow below 2^36 pixels.
_FRACTION_BITS: Final = 14


class RunningAccuracy:
    """Confusion of the last `window` batches, on at most 4096 labelled pixels of each.

    It is measured on augmented crops while the network is still learning, so it is no more than a sign of how far the
    training has come: low when saturated, the network cannot fit its labels.

    Nothing is read from the device until `mean_iou` is asked for, and torch's global generator is not touched.

    Parameters
    ----------
    n_classes
        K.
    window
        Batches remembered.
    """

    def __init__(self, n_classes: int, window: int = 20) -> None:
        self._n_classes = n_classes
        self._counts: deque[Tensor] = deque(maxlen=window)
        # One pixel from each of 4096 equal strata; at random within it, since an even step falls on the same columns.
        generator = torch.Generator().manual_seed(0)
        self._within = torch.randint(1 << _FRACTION_BITS, (MAX_PIXELS,), generator=generator)

    @torch.no_grad()
    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Count logits (N, C, H, W) against targets (N, H, W), `IGNORE_INDEX` where unlabelled.

        `targets` may still lie on the CPU when the logits do not.
        """
        positions, valid = (t.to(logits.device, non_blocking=True) for t in self._sample(targets != IGNORE_INDEX))
        truth = targets.to(logits.device, non_blocking=True).reshape(-1)[positions]
        image, pixel = positions // targets[0].numel(), positions % targets[0].numel()
        prediction = logits[image, :, pixel // targets.shape[2], pixel % targets.shape[2]].argmax(dim=1)
        # What is not valid may point at an unlabelled pixel: it adds nothing, to any cell.
        cells = truth.clamp(max=self._n_classes - 1) * self._n_classes + prediction
        counts = torch.zeros(self._n_classes**2, dtype=torch.int64, device=logits.device)
        self._counts.append(counts.scatter_add_(0, cells, valid.to(torch.int64)))

    def mean_iou(self) -> float | None:
        """Mean IoU over the classes that occurred; None when nothing was counted. Waits for the device."""
        if not self._counts:
            return None
        counts = torch.stack(tuple(self._counts)).sum(dim=0).cpu().numpy().astype(np.int64)
        value = ConfusionMatrix(counts.reshape(self._n_classes, self._n_classes)).mean_iou()
        return value if np.isfinite(value) else None

    def _sample(self, labelled: Tensor) -> tuple[Tensor, Tensor]:
        """Flat positions of 4096 labelled pixels, and which of them count: all pixels once where there are fewer.

        Without boolean indexing, for whose size a GPU would have to wait.
        """
        rank = labelled.reshape(-1).cumsum(0)
        n = rank[-1]
        within = self._within.to(rank.device, non_blocking=True) * (n > MAX_PIXELS)
        strata = torch.arange(MAX_PIXELS, device=rank.device) << _FRACTION_BITS
        wanted = 1 + (strata + within) * n.clamp(min=MAX_PIXELS) // (MAX_PIXELS << _FRACTION_BITS)
        positions = torch.searchsorted(rank, wanted).clamp(max=rank.numel() - 1)
        return positions, wanted <= n
