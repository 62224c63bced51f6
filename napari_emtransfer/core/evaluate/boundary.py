"""Boundary IoU: how well the outlines agree, which the area of a large phase hides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from napari_emtransfer.core.data.labels import UNLABELLED

_ROWS_AT_A_TIME: Final = 1024


@dataclass(frozen=True, eq=False)
class BoundaryCounts:
    """Pixels in the intersection and in the union of the true and the predicted boundary bands, (K,) int64 each."""

    intersection: NDArray[np.int64]
    union: NDArray[np.int64]

    @classmethod
    def zeros(cls, n_classes: int) -> BoundaryCounts:
        """The counts of nothing, to add to."""
        return cls(np.zeros(n_classes, np.int64), np.zeros(n_classes, np.int64))

    def __add__(self, other: BoundaryCounts) -> BoundaryCounts:
        return BoundaryCounts(self.intersection + other.intersection, self.union + other.union)

    def iou(self) -> NDArray[np.float64]:
        """Boundary IoU per class, (K,); nan for a class without any boundary."""
        with np.errstate(invalid="ignore"):
            return self.intersection / self.union


def boundary_counts(
    truth: NDArray[np.uint8], prediction: NDArray[np.uint8], n_classes: int, *, tolerance_px: int = 2
) -> BoundaryCounts:
    """Label values of truth (0..K) and prediction (1..K), both (H, W) → counts that can be added over micrographs.

    The band of a class holds its pixels within `tolerance_px` of another class. The micrograph's edge is no phase
    boundary, and neither is the edge of what somebody labelled: pixels within `tolerance_px` of an unlabelled one
    are left out, because the truth does not say whether a boundary passes there.

    Source: Cheng et al., Boundary IoU, CVPR 2021, with a band measured in pixels instead of a share of the diagonal.
    """
    total = BoundaryCounts.zeros(n_classes)
    height = truth.shape[0]
    for start in range(0, height, _ROWS_AT_A_TIME):
        stop = min(start + _ROWS_AT_A_TIME, height)
        # Everything here is local to `tolerance_px`: with that many extra rows a block counts as the whole does.
        top, bottom = max(0, start - tolerance_px), min(height, stop + tolerance_px)
        total = total + _count_block(
            truth[top:bottom], prediction[top:bottom], slice(start - top, stop - top), n_classes, tolerance_px
        )
    return total


def boundary_iou(
    truth: NDArray[np.uint8], prediction: NDArray[np.uint8], n_classes: int, *, tolerance_px: int = 2
) -> NDArray[np.float64]:
    """Boundary IoU per class, (K,), of one pair of masks (H, W); see `boundary_counts`."""
    return boundary_counts(truth, prediction, n_classes, tolerance_px=tolerance_px).iou()


def _count_block(
    truth: NDArray[np.uint8], prediction: NDArray[np.uint8], rows: slice, n_classes: int, tolerance_px: int
) -> BoundaryCounts:
    disk = _disk(tolerance_px)
    known = (truth != UNLABELLED) & ~binary_dilation(truth == UNLABELLED, disk)
    counts = BoundaryCounts.zeros(n_classes)
    for value in range(1, n_classes + 1):
        band_true, band_predicted = (
            ((mask == value) & binary_dilation((mask != value) & (mask != UNLABELLED), disk) & known)[rows]
            for mask in (truth, prediction)
        )
        counts.intersection[value - 1] = np.count_nonzero(band_true & band_predicted)
        counts.union[value - 1] = np.count_nonzero(band_true | band_predicted)
    return counts


def _disk(radius: int) -> NDArray[np.bool_]:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return y**2 + x**2 <= radius**2
