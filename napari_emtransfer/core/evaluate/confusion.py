"""One confusion matrix, accumulated over everything that is measured together; IoU and its kin follow from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.data.labels import UNLABELLED


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """Pixel counts (K, K), int64: rows are the true classes, columns the predicted ones, both in value order.

    Accumulate first, divide last: the sum of two matrices is the matrix of both images together. The mean of
    per-image IoUs is another quantity, in which an image with three pixels of a phase weighs as much as any.
    """

    counts: NDArray[np.int64]

    @classmethod
    def zeros(cls, n_classes: int) -> ConfusionMatrix:
        """The matrix of nothing, to add to."""
        return cls(np.zeros((n_classes, n_classes), np.int64))

    @classmethod
    def from_masks(cls, truth: NDArray[np.integer], prediction: NDArray[np.integer], n_classes: int) -> ConfusionMatrix:
        """Label values of truth (0..K) and prediction (1..K), both (H, W) → counts over the labelled pixels.

        Raises
        ------
        ValueError
            When the shapes differ, or a labelled pixel holds a true or predicted value outside 1..K.
        """
        if truth.shape != prediction.shape:
            raise ValueError(f"truth has shape {truth.shape}, the prediction {prediction.shape}; they must agree")
        labelled = truth != UNLABELLED
        rows = truth[labelled].astype(np.int64) - 1
        columns = prediction[labelled].astype(np.int64) - 1
        for name, values in (("truth", rows), ("prediction", columns)):
            if values.size and (values.min() < 0 or values.max() >= n_classes):
                raise ValueError(f"the {name} holds a value outside 1..{n_classes} on a labelled pixel")
        counts = np.bincount(rows * n_classes + columns, minlength=n_classes**2)
        return cls(counts.reshape(n_classes, n_classes).astype(np.int64))

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        return ConfusionMatrix(self.counts + other.counts)

    @property
    def n_classes(self) -> int:
        """K."""
        return int(self.counts.shape[0])

    @property
    def n_pixels(self) -> int:
        """Number of labelled pixels that were compared."""
        return int(self.counts.sum())

    def iou(self) -> NDArray[np.float64]:
        """TP / (TP + FP + FN) per class, (K,).

        nan for a class that is absent from truth and prediction; 0 for one that was predicted but is not there.
        """
        return _ratio(np.diag(self.counts), self._union())

    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that are not nan; nan when nothing was compared."""
        return float(nanmean_rows(self.iou()[None])[0])

    def dice(self) -> NDArray[np.float64]:
        """2 TP / (2 TP + FP + FN) per class, (K,); nan as in `iou`."""
        hits = np.diag(self.counts)
        return _ratio(2 * hits, hits + self._union())

    def accuracy(self) -> float:
        """Fraction of the labelled pixels that are right; nan when nothing was compared."""
        return float(_ratio(np.trace(self.counts), self.counts.sum()))

    def _union(self) -> NDArray[np.int64]:
        return self.counts.sum(axis=0) + self.counts.sum(axis=1) - np.diag(self.counts)


def nanmean_rows(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis without the nans, (N, K) → (N,); nan, and no warning, where all are nan."""
    present = ~np.isnan(values)
    return _ratio(np.where(present, values, 0.0).sum(axis=-1), present.sum(axis=-1))


def _ratio(numerator: NDArray[np.generic], denominator: NDArray[np.generic]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.true_divide(numerator, denominator), np.float64)
