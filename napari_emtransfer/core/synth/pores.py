"""Voids in a solid: pores and cracks."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field
from scipy.signal import lfilter

from napari_emtransfer.core.synth.bodies import blobs, capsules, painted
from napari_emtransfer.core.synth.generator import Amplitude, Grey, Length, Share, StructureGenerator, log_uniform
from napari_emtransfer.core.synth.grains import polycrystal_seeds
from napari_emtransfer.core.synth.levelset import Region, region
from napari_emtransfer.core.synth.looks import EdgeLook, PhaseLook, soft_step
from napari_emtransfer.core.synth.micrograph import Field as Plane2D
from napari_emtransfer.core.synth.micrograph import Structure
from napari_emtransfer.core.synth.placing import place
from napari_emtransfer.core.synth.plane import Field32, Plane
from napari_emtransfer.core.synth.precipitates import drawn_radii, thicket
from napari_emtransfer.core.synth.surface import Finish, groove
from napari_emtransfer.core.synth.tessellation import tessellate


class _Voids(StructureGenerator):
    """What voids share: a solid, dark holes with lit walls, edges that shine.

    Parameters
    ----------
    grain_px, grain_contrast
        Grains of the solid: mean diameter and standard deviation of their grey; 0: none to be seen.
    bottom
        Grey of a deep void.
    wall_px
        How far from the edge the wall is still lit.
    """

    solid: PhaseLook = PhaseLook(level=0.58, texture="fine", amplitude=0.02)
    grain_px: Length = 60.0
    grain_contrast: Amplitude = 0.0
    bottom: Grey = 0.12
    wall_px: float = Field(default=4.0, gt=0, le=60)
    edge: EdgeLook = EdgeLook(rim=0.18, rim_px=1.8, rim_side=-0.6, shade=0.1)
    finish: Finish = Finish()

    def _grey(self, plane: Plane, voids: Region, rng: Generator) -> NDArray[np.floating]:
        ground = self.solid.paint(plane, np.zeros_like(voids.ids), 0, rng)
        if self.grain_contrast:
            ground = ground + self._grains(plane, rng)
        depth = np.maximum(voids.depth, 0)
        facing = voids.normal_y * np.sin(self.edge.light_rad) + voids.normal_x * np.cos(self.edge.light_rad)
        wall = np.exp(-depth / self.wall_px) * (0.45 + 0.45 * facing) * (self.solid.level - self.bottom)
        rough = 0.05 * plane.texture(3.0, rng) + 0.06 * plane.texture(12.0, rng)
        inner = self.bottom + wall + rough * np.clip(depth / 4, 0, 1)
        grey = ground + (inner - ground) * soft_step(voids.depth)
        return grey + self.edge.paint(plane, voids, rng) + self.finish.layer(plane, rng)

    def _grains(self, plane: Plane, rng: Generator) -> NDArray[np.floating]:
        points, weights = polycrystal_seeds(plane, self.grain_px, 0.5, 1, rng)
        cells = tessellate(plane.y, plane.x, points, weights)
        tone = rng.normal(0, self.grain_contrast, cells.n)
        return np.subtract(tone[cells.ids], 0.6 * abs(self.grain_contrast) * groove(cells.boundary, 1.2))

    @classmethod
    def _drawn(cls, rng: Generator, size_px: float) -> dict[str, object]:
        level = rng.uniform(0.42, 0.72)
        return {
            "solid": PhaseLook.draw(rng, level, ground=True),
            "grain_px": log_uniform(rng, 20, 160),
            "grain_contrast": float(rng.uniform(0.01, 0.08)) if rng.uniform() < 0.5 else 0.0,
            "bottom": float(rng.uniform(0.03, 0.25)),
            "wall_px": float(np.clip(size_px * rng.uniform(0.08, 0.5), 1.0, 30)),
            "edge": EdgeLook.draw(rng),
            "finish": Finish.draw(rng),
        }


class Pores(_Voids):
    """Pores of many sizes in a polished section: round as of gas, or ragged as between particles.

    Parameters
    ----------
    diameter_px, size_spread
        Median diameter and standard deviation of its logarithm.
    fraction
        Wanted area fraction.
    raggedness
        How far outlines are eaten away by a random field: 0 smooth, 1 torn.
    elongation
        Largest length over width.
    clustering
        0: anywhere; 1: only in some places.
    """

    classes: ClassVar[tuple[str, ...]] = ("solid", "pore")
    omits: ClassVar[tuple[str, ...]] = (
        "nothing to be seen at the bottom of a pore: no particles, no second surface, no resin",
        "pores do not prefer grain boundaries or triple points",
        "no smearing or curtaining by the preparation",
    )
    diameter_px: Length = 18.0
    size_spread: float = Field(default=0.6, ge=0, le=1.2)
    fraction: float = Field(default=0.1, ge=0.005, le=0.45)
    raggedness: Share = 0.4
    elongation: float = Field(default=1.8, ge=1, le=4)
    clustering: Share = 0.4

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """Diameters from 4 px to a fifth of the image."""
        size = log_uniform(rng, 5, 70)
        return cls(
            **cls._drawn(rng, size),
            diameter_px=size,
            size_spread=float(rng.uniform(0.25, 0.9)),
            fraction=max(log_uniform(rng, 0.02, 0.3), 10 * size**2 / 512**2),
            raggedness=float(rng.choice([0.0, 0.3, 1.0]) * rng.uniform(0.5, 1)),
            elongation=float(rng.uniform(1.1, 2.6)),
            clustering=float(rng.uniform(0, 1)),
        )

    def __call__(self, y: Plane2D, x: Plane2D, rng: Generator) -> Structure:
        """Structure at the coordinates (H, W)."""
        plane = Plane(y, x)
        sizes = drawn_radii(plane, self.diameter_px / 2, self.size_spread, self.fraction, rng)
        long = rng.uniform(1, self.elongation, len(sizes))
        where = thicket(plane, 3 * self.diameter_px, self.clustering, rng)
        centres, kept = place(plane, 0.9 * sizes * np.sqrt(long), 2.0, self.diameter_px, rng, where=where)
        outlines = blobs(centres, sizes[kept], 0.1, long[kept], rng)
        level, _ = painted(plane, outlines)
        torn = [0.7 * scale * plane.noise(max(scale, 1.5), rng) for scale in self.diameter_px * np.array([0.25, 0.08])]
        eaten = self.raggedness * (torn[0] + torn[1] + 0.3 * plane.noise(1.5, rng) + 0.04 * self.diameter_px)
        voids = region(plane, np.add(level, eaten, dtype=np.float32))
        phases = np.where(voids.inside, 2, 1)
        return self._structure(self._grey(plane, voids, rng), phases, voids.boundary, voids.ids)


class Cracks(_Voids):
    """Cracks: winding and branching ones, or a network between cells as in a dried or crazed layer.

    Parameters
    ----------
    kind
        "winding" or "network".
    n_cracks
        Winding cracks per 512².
    cell_px
        Mean diameter of the cells of a network.
    open_share
        Share of the network's edges that are open.
    opening_px
        Mean width; it varies along the crack.
    """

    classes: ClassVar[tuple[str, ...]] = ("solid", "crack")
    omits: ClassVar[tuple[str, ...]] = (
        "cracks do not follow grain boundaries or weak phases, and no grains bridge them",
        "no displacement of the flanks against each other",
        "crossing cracks are one instance",
    )
    kind: Literal["winding", "network"] = "winding"
    n_cracks: int = Field(default=3, ge=1, le=40)
    cell_px: Length = 90.0
    open_share: Share = 0.6
    opening_px: float = Field(default=4.0, ge=1.5, le=40)

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """Openings from 2 px to 16 px."""
        opening = log_uniform(rng, 2, 16)
        return cls(
            **cls._drawn(rng, opening),
            kind="winding" if rng.uniform() < 0.65 else "network",
            n_cracks=int(rng.integers(1, 7)),
            cell_px=log_uniform(rng, max(8 * opening, 40), 170),
            open_share=float(rng.uniform(0.35, 1)),
            opening_px=opening,
        )

    def __call__(self, y: Plane2D, x: Plane2D, rng: Generator) -> Structure:
        """Structure at the coordinates (H, W)."""
        plane = Plane(y, x)
        level = self._winding(plane, rng) if self.kind == "winding" else self._network(plane, rng)
        voids = region(plane, level + np.float32(0.12 * self.opening_px) * plane.noise(2.0, rng))
        phases = np.where(voids.inside, 2, 1)
        return self._structure(self._grey(plane, voids, rng), phases, voids.boundary, voids.ids)

    def _winding(self, plane: Plane, rng: Generator) -> Field32:
        main = rng.uniform(0, 2 * np.pi)
        n = max(min(2, self.n_cracks), round(self.n_cracks * plane.area_px2 / 512**2))
        pieces = []
        for start in plane.scatter(n, 0.0, rng):
            heading = main + rng.normal(0, 0.5)
            for way in (0, np.pi):
                length = float(rng.uniform(0.2, 0.9)) * max(plane.shape)
                pieces += _path(start, heading + way, self.opening_px, length, 2, rng)
        from_y, from_x, to_y, to_x, width = np.asarray(pieces).T
        middle = np.column_stack([(from_y + to_y) / 2, (from_x + to_x) / 2])
        step_y, step_x = to_y - from_y, to_x - from_x
        half = np.hypot(step_y, step_x) / 2 + width / 2
        bodies = capsules(middle, half, width / 2, np.arctan2(step_y, step_x), rng, taper=0.0, bow=0.0)
        return painted(plane, bodies)[0]

    def _network(self, plane: Plane, rng: Generator) -> Field32:
        rows, columns = np.broadcast_arrays(*plane.grid())
        points, weights = polycrystal_seeds(plane, self.cell_px, 0.6, 1, rng)
        sway = [0.05 * self.cell_px * plane.noise(0.2 * self.cell_px, rng) for _ in range(2)]
        cells = tessellate(rows + sway[0], columns + sway[1], points, weights)
        pair = (cells.ids * cells.other + cells.ids + cells.other) % 1021
        widths = self.opening_px * rng.lognormal(-0.1, 0.45, 1021) * (rng.uniform(size=1021) < self.open_share)
        width = widths[pair] * (1 + 0.3 * plane.noise(0.15 * self.cell_px, rng))
        return np.asarray(np.where(widths[pair] > 0, width / 2, -2.0) - cells.boundary, np.float32)


def _path(
    start: NDArray[np.floating], heading: float, opening_px: float, length_px: float, branches: int, rng: Generator
) -> list[tuple[float, float, float, float, float]]:
    """Straight pieces (from y, from x, to y, to x, width) of one crack: it wanders, kinks, branches and closes."""
    step = max(4.0, 1.2 * opening_px)
    n = max(3, int(length_px / step))
    turns = 0.22 * rng.normal(size=n) + (rng.uniform(size=n) < 0.15) * rng.normal(0, 0.8, n)
    # It turns away and comes back to the direction of the stress.
    headings = heading + lfilter([1.0], [1.0, -0.8], turns)
    along = np.linspace(0, 1, n)
    wander = np.cumsum(rng.normal(0, 0.12, n))
    widths = opening_px * np.clip(1 + wander - wander * along, 0.35, 1.8) * np.sqrt(np.clip(1.02 - along, 0, 1))
    at = np.column_stack([start[0] + np.cumsum(step * np.sin(headings)), start[1] + np.cumsum(step * np.cos(headings))])
    pieces = [
        (float(a[0]), float(a[1]), float(b[0]), float(b[1]), float(max(w, 1.6)))
        for a, b, w in zip(at[:-1], at[1:], widths, strict=False)
    ]
    for fork in rng.integers(1, n, rng.integers(0, branches + 1)):
        turn = rng.choice([-1, 1]) * rng.uniform(0.4, 1.1)
        rest = float(rng.uniform(0.15, 0.6)) * length_px * float(1 - along[fork])
        pieces += _path(at[fork], headings[fork] + turn, 0.7 * float(widths[fork]), rest, branches - 1, rng)
    return pieces
