"""Where the beam really stands while a scanning microscope believes in its grid: image and mask move together."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.ndimage import gaussian_filter1d

Grid = NDArray[np.float64]
_Length = Annotated[float, Field(ge=0, le=64, allow_inf_nan=False)]


class ScanSettings(BaseModel):
    """Faults of a raster scan, fast axis along x; all zero for a camera.

    Parameters
    ----------
    drift_px
        Largest displacement by the slow drift of stage and specimen in the course of a frame, on either axis.
    jitter_px
        Standard deviation of a row's displacement along x, independent from row to row.
    vibration_px, vibration_rows
        Amplitude of a periodic displacement along x (mains, pumps), and its period.
    flagging_px, flagging_rows
        Displacement of the first row along x, and over how many rows it dies away (1/e).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    drift_px: _Length = 0.0
    jitter_px: _Length = 0.0
    vibration_px: _Length = 0.0
    vibration_rows: float = Field(default=12.0, ge=2, le=1000)
    flagging_px: _Length = 0.0
    flagging_rows: float = Field(default=10.0, gt=0, le=1000)

    @classmethod
    def draw(cls, rng: Generator) -> ScanSettings:
        """A scan of an ordinary day: always some drift, seldom a vibration or a bent top."""
        return cls(
            drift_px=float(rng.uniform(0, 5)),
            jitter_px=float(rng.choice([0.0, rng.uniform(0.1, 0.4), rng.uniform(0.4, 1.0)], p=[0.4, 0.5, 0.1])),
            vibration_px=float(rng.uniform(0.2, 1.0) if rng.random() < 0.15 else 0),
            vibration_rows=float(rng.uniform(4, 40)),
            flagging_px=float(rng.uniform(1, 8) if rng.random() < 0.1 else 0),
            flagging_rows=float(rng.uniform(3, 15)),
        )


def coordinates(shape: tuple[int, int], settings: ScanSettings, rng: Generator) -> tuple[Grid, Grid]:
    """Place of the beam at each pixel, y and x in pixels of the ideal plane, float64 (H, W) each.

    A structure is evaluated at these coordinates, so that whatever is drawn or labelled is distorted alike. `rng` is
    drawn from equally often whatever the settings, so switching one fault off leaves the others as they were.
    """
    height, _ = shape
    rows = np.arange(height, dtype=float)
    drift_y, drift_x = _drift(height, rng), _drift(height, rng)
    phase, side = rng.uniform(0, 2 * np.pi), rng.choice([-1.0, 1.0])
    shift = settings.drift_px * drift_x + settings.jitter_px * rng.normal(size=height)
    shift += settings.vibration_px * np.sin(2 * np.pi * rows / settings.vibration_rows + phase)
    shift += side * settings.flagging_px * np.exp(-rows / settings.flagging_rows)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    return y + (settings.drift_px * drift_y)[:, None], x + shift[:, None]


def _drift(n_rows: int, rng: Generator) -> Grid:
    """A smooth walk (H,) that begins and ends at 0 and goes as far as 1."""
    walk = np.cumsum(rng.normal(size=n_rows))
    walk = gaussian_filter1d(walk, max(1.0, n_rows / 20), mode="nearest")
    walk -= np.linspace(walk[0], walk[-1], n_rows)
    largest = np.abs(walk).max()
    return np.asarray(walk / largest if largest > 0 else walk)
