"""What an evaluation says, in numbers and in the words that keep the numbers honest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from napari_emtransfer.core.evaluate.bootstrap import mean_iou_interval
from napari_emtransfer.core.evaluate.boundary import BoundaryCounts
from napari_emtransfer.core.evaluate.calibration import Calibration
from napari_emtransfer.core.evaluate.confusion import ConfusionMatrix

# Below this the labels are strokes rather than outlined tiles.
SPARSE_FRACTION: Final = 0.5


class Evaluation(BaseModel):
    """A model measured on a ground, in native pixels, on labelled pixels only.

    None stands where nothing can be said: the IoU of a class that is absent from labels and prediction, the
    interval from a single specimen. `ci_method` says in words where the interval comes from, or why there is none.
    `specimen_confusion` holds the confusion matrix of each specimen; `confusion` is their sum.
    """

    model_config = ConfigDict(frozen=True)
    ground: str
    note: str
    mean_iou: float | None
    iou: dict[str, float | None]
    ci95: tuple[float, float] | None
    ci_method: str
    n_specimens: int
    per_specimen: dict[str, float | None]
    confusion: list[list[int]]
    specimen_confusion: dict[str, list[list[int]]] = {}
    boundary_iou: dict[str, float | None]
    labelled_fraction: float
    micrographs: list[str]
    calibration: Calibration | None = None


def summarize(
    per_specimen: Mapping[str, ConfusionMatrix],
    class_names: Sequence[str],
    *,
    ground: str,
    note: str,
    labelled_fraction: float,
    micrographs: Sequence[str],
    boundary: BoundaryCounts | None = None,
    calibration: Calibration | None = None,
    seed: int = 0,
) -> Evaluation:
    """One confusion matrix per specimen → the evaluation over all of them together."""
    n_classes = len(class_names)
    total = reduce(lambda a, b: a + b, per_specimen.values(), ConfusionMatrix.zeros(n_classes))
    measured = {name: matrix for name, matrix in per_specimen.items() if matrix.n_pixels}
    ci95, ci_method = _interval(measured, seed)
    return Evaluation(
        ground=ground,
        note=f"{note} {_coverage(labelled_fraction)}".strip(),
        mean_iou=_known(total.mean_iou()),
        iou=by_class(class_names, total.iou()),
        ci95=ci95,
        ci_method=ci_method,
        n_specimens=len(measured),
        per_specimen={name: _known(matrix.mean_iou()) for name, matrix in measured.items()},
        confusion=total.counts.tolist(),
        specimen_confusion={name: matrix.counts.tolist() for name, matrix in measured.items()},
        boundary_iou=by_class(class_names, (boundary or BoundaryCounts.zeros(n_classes)).iou()),
        labelled_fraction=labelled_fraction,
        micrographs=list(micrographs),
        calibration=calibration,
    )


def _coverage(labelled_fraction: float) -> str:
    """What a figure from strokes leaves out; nothing where most pixels are labelled."""
    if labelled_fraction >= SPARSE_FRACTION:
        return ""
    percent = 100 * labelled_fraction
    shown = f"{percent:.0f}" if percent >= 1 else f"{percent:.1g}"
    return (
        f"Measured on the {shown} % of its pixels that are labelled: strokes keep off the boundaries, "
        "so a wholly labelled tile would score lower."
    )


def by_class(class_names: Sequence[str], values: NDArray[np.float64]) -> dict[str, float | None]:
    """Values (K,) → class name to value, with None for nan: JSON knows no nan."""
    return {name: _known(value) for name, value in zip(class_names, values, strict=True)}


def _interval(measured: Mapping[str, ConfusionMatrix], seed: int) -> tuple[tuple[float, float] | None, str]:
    interval = mean_iou_interval(measured, seed=seed)
    if interval is None:
        return None, f"no interval from {len(measured)} specimen: how much specimens differ is unknown"
    ci95 = (interval.low, interval.high)
    if interval.method == "cluster bootstrap":
        return ci95, f"cluster bootstrap over {len(measured)} specimens"
    singles = ", ".join(f"{v:.3f}" for v in interval.values)
    return ci95, f"t-interval on the means of {len(measured)} specimens: {singles}"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
