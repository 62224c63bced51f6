"""How good the network is on held-out ground: one confusion matrix over all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from napari_emtransfer.core.config import PredictConfig
from napari_emtransfer.core.data.labels import IGNORE_INDEX, from_targets
from napari_emtransfer.core.evaluate.confusion import ConfusionMatrix
from napari_emtransfer.core.nn.ground import HeldOutRegion
from napari_emtransfer.core.nn.model import SegmentationModel
from napari_emtransfer.core.nn.predictor import Predictor, Probabilities

# A certain mistake costs −ln 1e-7 ≈ 16 nats instead of infinity.
_SMALLEST_PROBABILITY = 1e-7


@dataclass(frozen=True)
class Validation:
    """Accumulated confusion matrix and mean cross-entropy (nats per labelled pixel)."""

    confusion: ConfusionMatrix
    loss: float

    @property
    def mean_iou(self) -> float | None:
        """Mean IoU over the classes that occur; None when nothing was compared."""
        return finite(self.confusion.mean_iou())

    def iou_by_name(self, classes: Sequence[str]) -> dict[str, float | None]:
        """IoU per class name; None for a class absent from labels and prediction."""
        return {name: finite(value) for name, value in zip(classes, self.confusion.iou(), strict=True)}


def validate(
    model: SegmentationModel,
    regions: Sequence[HeldOutRegion],
    config: PredictConfig,
    device: torch.device,
    should_stop: Callable[[], bool] = lambda: False,
) -> Validation | None:
    """Predict the held-out regions and compare; None when `should_stop` came before the end."""
    predictor = Predictor(model, config, device)
    confusion, total_loss = ConfusionMatrix.zeros(model.n_classes), 0.0
    for region in regions:
        for part, probabilities in predictor.predict(region.view, should_stop, window=region.window):
            y, x = part.y0 - region.window.y0, part.x0 - region.window.x0
            targets = region.targets[y : y + part.shape[0], x : x + part.shape[1]]
            prediction = from_targets(probabilities.argmax(axis=0).astype(np.uint8))
            confusion += ConfusionMatrix.from_masks(from_targets(targets), prediction, model.n_classes)
            total_loss += _summed_cross_entropy(probabilities, targets)
        if should_stop():
            return None
    return Validation(confusion, total_loss / max(1, confusion.n_pixels))


def _summed_cross_entropy(probabilities: Probabilities, targets: NDArray[np.uint8]) -> float:
    ys, xs = np.nonzero(targets != IGNORE_INDEX)
    of_truth = probabilities[targets[ys, xs], ys, xs]
    return float(-np.log(np.maximum(of_truth, _SMALLEST_PROBABILITY)).sum())


def finite(value: float) -> float | None:
    """None instead of nan: JSON has no nan."""
    return float(value) if np.isfinite(value) else None
