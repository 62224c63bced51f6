"""What carries nanoparticles: films of amorphous carbon and sheets of graphene, as atoms per pixel."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field
from scipy.fft import irfft2, rfft2

from napari_emtransfer.core.synth.atoms_carbon import number_density, structure_factor
from napari_emtransfer.core.synth.generator import Settings, Share
from napari_emtransfer.core.synth.scattering import Grid, deposit

Real = NDArray[np.float64]
Map = NDArray[np.float32]
_GRAPHENE_BOND: Final = 1.42


class Support(Settings):
    """What carries the particles: amorphous carbon, one sheet of graphene, or nothing.

    `side` is where the beam comes from: it meets the support first where that is its "entrance" side.
    `unevenness` is the relative standard deviation of a carbon film's thickness over some nanometres; `hole` the part
    of the picture, along a bent edge, where the film has ended.
    """

    kind: Literal["carbon", "graphene", "vacuum"] = "carbon"
    thickness_nm: float = Field(default=4.0, gt=0, le=100)
    density_g_cm3: float = Field(default=2.0, gt=0.5, le=3.5)
    unevenness: Share = 0.1
    hole: Share = 0.0
    side: Literal["entrance", "exit"] = "entrance"

    @property
    def depth(self) -> float:
        """Thickness in Å; 0 of a sheet and of nothing."""
        return 10 * self.thickness_nm if self.kind == "carbon" else 0.0


def films(grid: Grid, support: Support, present: Map, edges: Real, rng: Generator) -> list[Map | None]:
    """Carbon atoms per pixel between each two `edges` (n + 1,) in Å, of a support at 0 ≤ z ≤ its thickness.

    `present` is what `presence` gave.
    """
    if support.kind == "vacuum":
        return [None] * (len(edges) - 1)
    if support.kind == "graphene":
        sheet = _graphene(grid, rng) * present
        here = min(int(np.searchsorted(edges, 0.0, side="right")), len(edges) - 1) - 1
        return [sheet if number == here else None for number in range(len(edges) - 1)]
    inside = np.clip(edges, 0, support.depth)
    per_pixel = number_density(support.density_g_cm3) * grid.pixel_size**2
    thickness = 1 + support.unevenness * _smooth(grid, 25.0, rng) if support.unevenness else np.float32(1)
    profile = per_pixel * np.clip(thickness, 0.2, None) * present
    return [_amorphous(grid, profile * part, rng) if part > 0 else None for part in np.diff(inside).astype(np.float32)]


def _amorphous(grid: Grid, mean: NDArray[np.floating], rng: Generator) -> Map:
    """Carbon atoms per pixel about a mean, shy of each other as in the film's structure factor."""
    # Many atoms share the width of one in projection: their number is as good as normal.
    white = np.sqrt(mean) * rng.standard_normal(grid.shape, np.float32)
    shaped = rfft2(white) * np.sqrt(structure_factor(grid.q_squared()))
    return np.asarray(mean + irfft2(shaped, s=grid.shape), np.float32)


def _smooth(grid: Grid, scale: float, rng: Generator) -> Map:
    """Random field (H, W) of mean 0 and variance 1 that varies over `scale` Å."""
    spectrum = rfft2(rng.standard_normal(grid.shape, np.float32)) * np.exp(-2 * (np.pi * scale) ** 2 * grid.q_squared())
    spectrum[0, 0] = 0
    field = irfft2(spectrum, s=grid.shape)
    return np.asarray(field / (field.std() + 1e-12), np.float32)


def presence(grid: Grid, hole: float, rng: Generator) -> Map:
    """1 where the film is, 0 in a hole that takes so much of the grid (H, W), its edge rough and some Å wide."""
    if hole <= 0:
        return np.ones(grid.shape, np.float32)
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in grid.shape)
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.sin(angle) * y[:, None] + np.cos(angle) * x[None, :]
    bent = slope + rng.uniform(-0.3, 0.3) * (y[:, None] ** 2 + x[None, :] ** 2) + 0.05 * _smooth(grid, 12.0, rng)
    edge = np.quantile(bent[::4, ::4], hole)
    width = 8.0 / (0.5 * min(grid.shape) * grid.pixel_size)
    return np.asarray(np.clip((bent - edge) / width, 0, 1), np.float32)


def _graphene(grid: Grid, rng: Generator) -> Map:
    """One sheet, turned at random: atoms per pixel."""
    reach = 0.75 * np.hypot(*grid.shape) * grid.pixel_size
    a = _GRAPHENE_BOND * np.sqrt(3)
    vectors = np.array([[a, 0.0], [a / 2, a * np.sqrt(3) / 2]])
    half = int(np.ceil(1.3 * reach / a))
    cells = np.stack(np.meshgrid(*[np.arange(-half, half + 1)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    first = (cells + rng.uniform(size=2)) @ vectors
    both = np.concatenate([first, first + np.array([0.0, _GRAPHENE_BOND])])
    both = both[np.hypot(*both.T) < reach] @ turn.T
    counts = rfft2(deposit(both / grid.pixel_size + np.asarray(grid.shape) / 2, grid.shape))
    q_squared = grid.q_squared()
    return np.asarray(irfft2(counts * grid.undo_deposit() * grid.band(q_squared), s=grid.shape), np.float32)
