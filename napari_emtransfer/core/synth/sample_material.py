"""The material of the sample data set: two phases out of a power diagram, and a simple microscope of its own.

It stays as it is, so that what was measured on the sample holds. Other structures: `core.synth.voronoi`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from napari_emtransfer.core.synth.micrograph import Field, SyntheticMicrograph
from napari_emtransfer.core.synth.tessellation import tessellate

Kind = Literal["dual-phase", "precipitate"]

MATRIX = 1
SECOND_PHASE = 2


@dataclass(frozen=True)
class Imaging:
    """How the microscope was set: what differs between two specimens of one material.

    `brightness` and `contrast` map grey values 0..1; `dose` is electrons per pixel at full brightness; `gain_noise`
    is the Gaussian part of the noise; `vignette` the loss towards the corners.
    """

    brightness: float = 0.0
    contrast: float = 1.0
    gamma: float = 1.0
    dose: float = 120.0
    gain_noise: float = 0.01
    blur_px: float = 0.8
    vignette: float = 0.2
    edge: float = 0.25
    drift_px: float = 3.0
    jitter_px: float = 0.3

    @classmethod
    def random(cls, rng: Generator) -> Imaging:
        """A setting that an operator might leave behind."""
        return cls(
            brightness=float(rng.uniform(-0.12, 0.16)),
            contrast=float(rng.uniform(0.55, 1.1)),
            gamma=float(rng.uniform(0.75, 1.35)),
            dose=float(rng.uniform(40, 250)),
            gain_noise=float(rng.uniform(0.005, 0.03)),
            blur_px=float(rng.uniform(0.6, 1.3)),
            vignette=float(rng.uniform(0.05, 0.35)),
            edge=float(rng.uniform(0.1, 0.4)),
        )


@dataclass(frozen=True)
class _Cells:
    """A tessellation seen by every pixel (H, W): number of its cell, distance to the nearest boundary in px."""

    ids: NDArray[np.intp]
    boundary: Field
    n: int


def two_phase(
    shape: tuple[int, int],
    *,
    seed: int,
    kind: Kind = "dual-phase",
    fraction: float = 0.25,
    grain_px: float = 46.0,
    pixel_size_nm: float = 25.0,
    imaging: Imaging | None = None,
) -> SyntheticMicrograph:
    """A micrograph of a matrix (1) and a second phase (2).

    Parameters
    ----------
    shape
        (H, W) in pixels.
    kind
        "dual-phase": islands among grains, as in a steel of ferrite and martensite.
        "precipitate": rounded cuboids in channels of matrix, as γ′ in a nickel superalloy.
    fraction
        Wanted area fraction of the second phase.
    grain_px
        Mean diameter of a matrix grain, or distance of the precipitates.
    imaging
        Settings of the microscope; drawn from the seed when None.
    """
    rng = np.random.default_rng(seed)
    imaging = imaging or Imaging.random(rng)
    y, x = _scan(shape, imaging, rng)
    build = _dual_phase if kind == "dual-phase" else _precipitates
    level, grey = build(shape, y, x, fraction, grain_px, rng)
    mask = np.where(level > 0, SECOND_PHASE, MATRIX).astype(np.uint8)
    grey = grey + imaging.edge * 0.5 * np.exp(-np.abs(level) / 1.5)  # secondary electrons escape at edges
    recipe = {
        "generator": "voronoi.two_phase",
        "kind": kind,
        "seed": seed,
        "shape": list(shape),
        "fraction": fraction,
        "grain_px": grain_px,
        "imaging": asdict(imaging),
    }
    return SyntheticMicrograph(_expose(grey, imaging, rng), mask, pixel_size_nm, recipe)


def power_diagram(y: Field, x: Field, points: Field, weights: Field) -> tuple[NDArray[np.intp], Field]:
    """Number of the cell and distance to its boundary in px, both (H, W), of seeds (n, 2) with power weights (n,)."""
    cells = tessellate(y, x, points, weights)
    return cells.ids, cells.boundary


def _scan(shape: tuple[int, int], imaging: Imaging, rng: Generator) -> tuple[Field, Field]:
    """Where the beam really stands at each pixel: slow drift and a jitter from line to line, (H, W) each."""
    height, width = shape
    y, x = np.mgrid[:height, :width].astype(float)
    walk = np.cumsum(rng.normal(size=height))
    walk -= np.linspace(walk[0], walk[-1], height)
    drift = imaging.drift_px * walk / (np.abs(walk).max() + 1e-9)
    return y, x + (drift + imaging.jitter_px * rng.normal(size=height))[:, None]


def _dual_phase(
    shape: tuple[int, int], y: Field, x: Field, fraction: float, grain_px: float, rng: Generator
) -> tuple[Field, Field]:
    """Level set (> 0 inside the islands) in px and grey value of grains with islands of a second phase."""
    cells = _cells(shape, y, x, grain_px, rng)
    is_island = _islands(cells, fraction, rng)
    inside = is_island[cells.ids]
    # Only boundaries between unlike cells bound a phase.
    level = _rounded(inside, 1.6)
    grain = np.where(is_island, rng.normal(0.66, 0.04, cells.n), rng.normal(0.33, 0.035, cells.n))
    groove = np.where(inside, 0.05, 0.12) * np.exp(-((cells.boundary / 1.4) ** 2))
    # Where rounding moved a corner across a cell's edge, the phase decides the grey value, not the cell.
    island = np.where(inside, grain[cells.ids], 0.66) + 0.16 * _laths(cells, y, x, rng)
    grey = np.where(level > 0, island, np.where(inside, 0.33, grain[cells.ids]))
    return level, grey - groove + 0.025 * _texture(shape, 2.0, rng) + 0.02 * _texture(shape, 12.0, rng)


def _precipitates(
    shape: tuple[int, int], y: Field, x: Field, fraction: float, grain_px: float, rng: Generator
) -> tuple[Field, Field]:
    """Level set (> 0 inside the precipitates) in px and grey value of rounded cuboids in channels."""
    angle = rng.uniform(-0.3, 0.3)
    points = _jittered_lattice(shape, grain_px, angle, rng)
    ids, boundary = power_diagram(y, x, points, rng.uniform(0, (0.35 * grain_px) ** 2, len(points)))
    smooth = gaussian_filter(boundary, 0.07 * grain_px)
    level = smooth - np.quantile(smooth, 1 - fraction)
    inner = np.where(level > 0, rng.normal(0.34, 0.02, len(points))[ids], 0.62)
    return level, inner + 0.03 * _texture(shape, 1.5, rng) + 0.03 * _texture(shape, 20.0, rng)


def _cells(shape: tuple[int, int], y: Field, x: Field, grain_px: float, rng: Generator) -> _Cells:
    margin = grain_px
    height, width = shape[0] + 2 * margin, shape[1] + 2 * margin
    n = max(8, round(2.2 * height * width / grain_px**2))
    points = rng.uniform(size=(n, 2)) * [height, width] - margin
    weights = rng.lognormal(0.0, 0.8, n) * (0.3 * grain_px) ** 2
    ids, boundary = power_diagram(y, x, points, weights)
    return _Cells(ids, boundary, n)


def _islands(cells: _Cells, fraction: float, rng: Generator) -> NDArray[np.bool_]:
    """Cells of the second phase, small ones first, until they cover `fraction` of the image."""
    area = np.bincount(cells.ids.ravel(), minlength=cells.n)
    order = np.argsort(area * rng.lognormal(0.0, 0.7, cells.n))
    order = order[area[order] > 0]
    covered = np.cumsum(area[order]) / cells.ids.size
    chosen = np.zeros(cells.n, bool)
    chosen[order[: int(np.searchsorted(covered, fraction)) + 1]] = True
    return chosen


def _rounded(inside: NDArray[np.bool_], sigma: float) -> Field:
    """Indicator (H, W) → approximate signed distance in px with corners rounded over `sigma`."""
    smooth = gaussian_filter(inside.astype(float), sigma)
    # Across a straight edge a smoothed step has the slope 1/(σ√(2π)).
    return (smooth - 0.5) * sigma * np.sqrt(2 * np.pi)


def _laths(cells: _Cells, y: Field, x: Field, rng: Generator) -> Field:
    """Fine stripes (H, W) in −1..1 whose direction changes from cell to cell."""
    angle = rng.uniform(0, np.pi, cells.n)[cells.ids]
    period = rng.uniform(4, 8, cells.n)[cells.ids]
    bent = 2.0 * _texture(y.shape, 6.0, rng)
    return np.sin(2 * np.pi * (y * np.sin(angle) + x * np.cos(angle) + bent) / period) * np.clip(
        0.5 + 0.5 * _texture(y.shape, 5.0, rng), 0, 1
    )


def _jittered_lattice(shape: tuple[int, int], spacing: float, angle: float, rng: Generator) -> Field:
    half = int(np.hypot(*shape) / spacing / 2) + 2
    grid = np.stack(np.meshgrid(*[np.arange(-half, half + 1)] * 2, indexing="ij"), axis=-1).reshape(-1, 2) * spacing
    grid = grid + rng.normal(0, 0.13 * spacing, grid.shape)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return grid @ turn + np.asarray(shape) / 2


def _texture(shape: tuple[int, ...], sigma: float, rng: Generator) -> Field:
    """Smooth random field (H, W) with mean 0 and variance 1."""
    field = gaussian_filter(rng.normal(size=shape), sigma, mode="wrap")
    return (field - field.mean()) / (field.std() + 1e-12)


def _expose(grey: Field, imaging: Imaging, rng: Generator) -> NDArray[np.float32]:
    """Ideal grey values (H, W) → what the detector makes of them: blur, vignette, contrast, noise; 0..1."""
    height, width = grey.shape
    image = gaussian_filter(grey, imaging.blur_px)
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
    image = image * (1 - imaging.vignette * (y**2 + x**2) / 2)
    image = np.clip((image - 0.5) * imaging.contrast + 0.5 + imaging.brightness, 0, 1) ** imaging.gamma
    image = rng.poisson(image * imaging.dose) / imaging.dose
    image = image + rng.normal(0, imaging.gain_noise, image.shape)
    return np.clip(image, 0, 1).astype(np.float32)
