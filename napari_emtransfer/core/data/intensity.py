"""Intensities made comparable between specimens: clip to percentiles, then mean 0 and variance 1, per image.

Brightness and contrast are knobs on the microscope, not properties of the specimen; a network that saw one setting
fails on another unless each image is standardised on its own.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_emtransfer.core.data.micrograph import Micrograph
from napari_emtransfer.core.data.tiles import Window

MAX_FITTED_PIXELS: Final = 4_000_000


class IntensityScale(BaseModel):
    """What maps one image's grey values to standardised ones; `low` and `high` in the image's own units."""

    model_config = ConfigDict(frozen=True)
    low: float
    high: float
    mean: float
    std: float = Field(ge=0)

    def apply(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Grey values of any shape → float32 of the same shape, mean 0 and variance 1 over the fitted image.

        A constant image becomes zeros.
        """
        if self.std == 0:
            return np.zeros(values.shape, np.float32)
        clipped = np.clip(values.astype(np.float32, copy=False), np.float32(self.low), np.float32(self.high))
        return (clipped - np.float32(self.mean)) * np.float32(1 / self.std)


class Standardization(BaseModel):
    """How intensities are standardised; part of a checkpoint, so that prediction does as training did."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    low_percentile: float = Field(default=0.1, ge=0, lt=100)
    high_percentile: float = Field(default=99.9, gt=0, le=100)

    @model_validator(mode="after")
    def _check(self) -> Standardization:
        if self.low_percentile >= self.high_percentile:
            raise ValueError(f"low_percentile {self.low_percentile} must lie below high_percentile")
        return self

    def fit(self, source: Micrograph | NDArray[Any]) -> IntensityScale:
        """Scale of one image (H, W); huge ones are sampled regularly (≤ 4 Mpx), an info bar is left out."""
        values = _sample(source)
        low, high = (float(v) for v in np.percentile(values, (self.low_percentile, self.high_percentile)))
        if low == high:  # nearly constant: a few bright particles on nothing must not be clipped away
            low, high = float(values.min()), float(values.max())
        clipped = np.clip(values, low, high).astype(np.float64)
        std = float(clipped.std()) if low < high else 0.0
        return IntensityScale(low=low, high=high, mean=float(clipped.mean()), std=std)


def _sample(source: Micrograph | NDArray[Any]) -> NDArray[np.float32]:
    micrograph = source if isinstance(source, Micrograph) else Micrograph("array", source)
    values, step = micrograph.sample(MAX_FITTED_PIXELS)
    bar = micrograph.info_bar
    return values if bar is None else values[_rows_outside(bar, len(values), step)]


def _rows_outside(bar: Window, n_rows: int, step: int) -> NDArray[np.bool_]:
    rows = np.arange(n_rows) * step
    outside = (rows < bar.y0) | (rows >= bar.y1)
    return outside if outside.any() else ~outside
