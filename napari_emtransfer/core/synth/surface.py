"""What preparation and detection add to every polished or broken surface: texture, scratches, dust, relief, grooves."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from napari_emtransfer.core.synth.generator import Amplitude, Count, Length, Settings, log_uniform
from napari_emtransfer.core.synth.plane import Field32, Plane
from napari_emtransfer.core.synth.tessellation import Cells

_SCRATCH_REACH_PX = 3
_SPECK_REACH = 3.0


class Finish(Settings):
    """A surface after preparation; all amplitudes in grey values.

    Parameters
    ----------
    grain
        Fine texture, standard deviation; `grain_px` its correlation length.
    mottle
        Broad variation (charging, contamination, thickness), with correlation length `mottle_px`.
    scratches
        Polishing scratches per 512².
    scratch
        Their depth: most are dark, some have a bright lip.
    specks
        Dust and etch pits per 512², `speck_px` across.
    """

    grain: Amplitude = 0.02
    grain_px: float = 1.2
    mottle: Amplitude = 0.02
    mottle_px: Length = 60.0
    scratches: Count = 3
    scratch: Amplitude = 0.06
    specks: Count = 6
    speck_px: float = 3.0

    @classmethod
    def draw(cls, rng: Generator, *, polished: bool = True) -> Self:
        """As prepared on a good day or a bad one; scratches only on what was polished."""
        bad_polish = polished and rng.uniform() < 0.3
        return cls(
            grain=log_uniform(rng, 0.006, 0.03),
            grain_px=float(rng.uniform(0.8, 2.5)),
            mottle=log_uniform(rng, 0.006, 0.035),
            mottle_px=log_uniform(rng, 20, 200),
            scratches=int(rng.poisson(12 if bad_polish else 2.5)) if polished else 0,
            scratch=float(rng.uniform(0.03, 0.15)),
            specks=int(rng.poisson(rng.choice([1.0, 8.0, 40.0]))),
            speck_px=float(rng.uniform(2, 6)),
        )

    def layer(self, plane: Plane, rng: Generator) -> Field32:
        """All of it, (H, W) at the plane's coordinates, to be added to grey values."""
        grid = self.grain * plane.noise(self.grain_px, rng)
        per_area = plane.area_px2 / 512**2
        self._scratch(grid, round(self.scratches * per_area), rng)
        self._speck(grid, round(self.specks * per_area), rng)
        broad = plane.texture(self.mottle_px, rng) + 0.5 * plane.texture(self.mottle_px / 3, rng)
        return np.add(plane.at(grid), self.mottle * broad, dtype=np.float32)

    def _scratch(self, grid: Field32, n: int, rng: Generator) -> None:
        """Lines of one main direction and of any, which come and go along their way."""
        main = rng.uniform(0, np.pi)
        for _ in range(n):
            angle = main + rng.normal(0, 0.08) if rng.uniform() < 0.6 else rng.uniform(0, np.pi)
            depth = self.scratch * rng.lognormal(-0.3, 0.5) * rng.choice([-1.0, -1.0, 1.0])
            _line(grid, angle, float(rng.uniform(0.5, 1.1)), depth, rng)

    def _speck(self, grid: Field32, n: int, rng: Generator) -> None:
        for _ in range(n):
            size = self.speck_px / 2 * rng.lognormal(0, 0.4)
            depth = rng.choice([-0.25, -0.12, 0.2]) * rng.uniform(0.5, 1.2)
            _spot(grid, rng.uniform(size=2) * grid.shape, size, depth, rng)


def relief(cells: Cells, heights: NDArray[np.floating], width_px: float, light_rad: float) -> NDArray[np.floating]:
    """Shade (H, W) of steps between cells of different height: bright towards the light, dark away from it.

    Parameters
    ----------
    heights
        (n,) in grey values per unit step.
    """
    step = heights[cells.ids] - heights[cells.other]
    facing = cells.normal_y * np.sin(light_rad) + cells.normal_x * np.cos(light_rad)
    decay = np.exp(-(cells.boundary / width_px).astype(np.float32))
    shade: NDArray[np.floating] = step * (0.35 + 0.65 * facing) * decay
    return shade


def of_pairs(cells: Cells, spread: float, rng: Generator) -> NDArray[np.floating]:
    """One random factor (H, W) per pair of neighbours, mean 1: no two boundaries are etched alike."""
    table = np.clip(rng.normal(1, spread, 1021), 0.1, 2.5)
    factors: NDArray[np.floating] = table[(cells.ids * cells.other + cells.ids + cells.other) % len(table)]
    return factors


def groove(boundary: NDArray[np.floating], width_px: NDArray[np.floating] | float) -> Field32:
    """Profile exp(−(b/w)²) of an etched or segregated boundary."""
    ratio = (boundary / width_px).astype(np.float32)
    return np.exp(-(ratio**2))


def stripes(plane: Plane, ids: NDArray[np.intp], n: int, period_px: tuple[float, float], rng: Generator) -> Field32:
    """Fine parallel lines (H, W) in −1..1, of their own direction and period in each cell: etch steps, slip, laths."""
    angle, period = rng.uniform(0, np.pi, n), rng.uniform(*period_px, n)
    wave_y, wave_x = 2 * np.pi * np.sin(angle) / period, 2 * np.pi * np.cos(angle) / period
    phase = plane.y * wave_y[ids] + plane.x * wave_x[ids]
    return np.sin(phase.astype(np.float32) + 0.6 * plane.texture(16.0, rng))


def _line(grid: Field32, angle: float, width_px: float, depth: float, rng: Generator) -> None:
    turned = abs(np.sin(angle)) < abs(np.cos(angle))
    canvas = grid.T if turned else grid
    slope = np.tan(angle) if turned else 1 / np.tan(angle)
    rows = np.arange(canvas.shape[0])
    path = rng.uniform(0, canvas.shape[1]) + slope * (rows - rng.uniform(0, canvas.shape[0]))
    path += 2e-5 * rng.normal() * (rows - rows.mean()) ** 2
    start, stop = np.sort(rng.uniform(-0.6, 1.6, 2)) * len(rows)
    fade = np.clip(np.minimum(rows - start, stop - rows) / 40, 0, 1)
    strength = depth * fade * np.clip(1 + 0.5 * np.sin(rows / rng.uniform(9, 40) + rng.uniform(0, 6)), 0.1, None)
    base = np.floor(path).astype(int)
    for offset in range(-_SCRATCH_REACH_PX, _SCRATCH_REACH_PX + 1):
        column = base + offset
        seen = (column >= 0) & (column < canvas.shape[1])
        away = (column - path)[seen] / (width_px * np.hypot(1, slope))
        lip = -0.4 * np.exp(-((away - 1.8) ** 2))
        canvas[rows[seen], column[seen]] += (strength[seen] * (np.exp(-(away**2)) + lip)).astype(np.float32)


def _spot(grid: Field32, at: NDArray[np.floating], size_px: float, depth: float, rng: Generator) -> None:
    reach = int(_SPECK_REACH * size_px) + 1
    top, left = (max(int(c) - reach, 0) for c in at)
    patch = grid[top : int(at[0]) + reach + 1, left : int(at[1]) + reach + 1]
    y, x = np.mgrid[: patch.shape[0], : patch.shape[1]] + np.array([top - at[0], left - at[1]])[:, None, None]
    squeeze = rng.uniform(0.6, 1.6)
    patch += (depth * np.exp(-((((y * squeeze) ** 2 + (x / squeeze) ** 2) / size_px**2) ** 2))).astype(np.float32)
