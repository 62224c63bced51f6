"""Things that lie on each other: agglomerates of particles on a substrate, mats of fibres.

What is on top hides what is below. The height of a surface is painted with its largest value winning, so the owner of
a pixel and its shading follow from one field.
"""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from napari_emtransfer.core.synth.bodies import Bodies, Numbers, painted
from napari_emtransfer.core.synth.generator import Amplitude, Grey, Length, Share, StructureGenerator, log_uniform
from napari_emtransfer.core.synth.looks import PhaseLook
from napari_emtransfer.core.synth.micrograph import Field as Plane2D
from napari_emtransfer.core.synth.micrograph import Structure
from napari_emtransfer.core.synth.plane import Field32, Plane, smoothed
from napari_emtransfer.core.synth.surface import Finish


class _Piled(StructureGenerator):
    """What bodies on each other share: heights on a grid become grey values as secondary electrons would.

    Parameters
    ----------
    body
        Grey of a surface that faces the detector.
    body_spread
        Standard deviation from body to body.
    edge_bright
        Excess at steep flanks.
    shadow
        How much darker it is beside and between high bodies.
    light
        Asymmetry of the detector: one flank brighter than the other.
    """

    substrate: PhaseLook = PhaseLook(level=0.28, texture="mottled", scale_px=6.0)
    body: Grey = 0.55
    body_spread: Amplitude = 0.04
    edge_bright: Amplitude = 0.3
    shadow: Amplitude = 0.25
    light: Amplitude = 0.12
    light_rad: float = 0.8
    finish: Finish = Finish(scratches=0)

    def _grey(
        self, plane: Plane, height: Field32, ids: NDArray[np.int32], scale_px: float, rng: Generator
    ) -> NDArray[np.floating]:
        """Grey values (H, W); `height` in px on the grid, 0 on the substrate."""
        slope_y, slope_x = np.gradient(smoothed(height, 0.6))
        steep = np.sqrt(slope_y**2 + slope_x**2)
        tilt = steep / np.sqrt(1 + steep**2)
        flank = self.edge_bright * tilt**3
        lit = self.light * (slope_y * np.sin(self.light_rad) + slope_x * np.cos(self.light_rad)) / np.sqrt(1 + steep**2)
        above = smoothed(height, 0.5 * scale_px) - height
        hidden = self.shadow * np.tanh(np.maximum(above, 0) / (0.6 * scale_px))
        tone = rng.normal(0, self.body_spread, int(ids.max()) + 1)
        surface = self.body + tone[ids] + 0.02 * plane.noise(max(scale_px / 8, 1.0), rng)
        ground = self.substrate.paint(plane, np.zeros(plane.y.shape, np.intp), 0, rng)
        on_body = plane.at((ids > 0).astype(np.float32))
        body = plane.at(surface + flank + lit)
        return ground + (body - ground) * on_body - plane.at(hidden) + self.finish.layer(plane, rng)

    def _piled(
        self, plane: Plane, height: Field32, ids: NDArray[np.int32], scale_px: float, rng: Generator
    ) -> Structure:
        grey = self._grey(plane, height, ids, scale_px, rng)
        instances = plane.nearest(ids)
        return self._structure(grey, np.where(instances > 0, 2, 1), plane.at(seen_edges(ids)), instances)

    @classmethod
    def _drawn(cls, rng: Generator) -> dict[str, object]:
        ground = rng.uniform(0.12, 0.42)
        return {
            "substrate": PhaseLook.draw(rng, ground, ground=True),
            "body": float(np.clip(ground + rng.uniform(0.08, 0.4), 0.2, 0.75)),
            "body_spread": float(rng.uniform(0, 0.07)),
            "edge_bright": float(rng.uniform(0.1, 0.5)),
            "shadow": float(rng.uniform(0.05, 0.35)),
            "light": float(rng.uniform(0.0, 0.3)),
            "light_rad": float(rng.uniform(-np.pi, np.pi)),
            "finish": Finish.draw(rng, polished=False),
        }


class Agglomerates(_Piled):
    """Heaps of primary particles on a substrate, with single ones between: powders, fillers, catalysts.

    Instances are primary particles, as far as they are not hidden.

    Parameters
    ----------
    particle_px, size_spread
        Median diameter of a primary particle and standard deviation of its logarithm.
    particles_each
        Mean number of particles in an agglomerate.
    coverage
        Wanted share of the substrate under agglomerates; heaps overlap, so it is met only roughly.
    compactness
        0: branched chains; 1: dense heaps.
    bumpiness
        How far particles depart from spheres.
    """

    classes: ClassVar[tuple[str, ...]] = ("substrate", "particle")
    omits: ClassVar[tuple[str, ...]] = (
        "no faceted or plate-like particles, no sintering necks",
        "no sinking into the substrate and no binder between particles",
        "charging of single particles is left to the detector",
    )
    particle_px: Length = 16.0
    size_spread: float = Field(default=0.25, ge=0, le=1)
    particles_each: int = Field(default=24, ge=1, le=400)
    coverage: float = Field(default=0.2, ge=0.01, le=0.9)
    compactness: Share = 0.6
    bumpiness: float = Field(default=0.08, ge=0, le=0.3)

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """Particles from 6 px to 60 px."""
        size = log_uniform(rng, 6, 60)
        return cls(
            **cls._drawn(rng),
            particle_px=size,
            size_spread=float(rng.uniform(0.1, 0.5)),
            particles_each=max(1, int(log_uniform(rng, 2, 120) * min(1.0, 20 / size))),
            coverage=float(rng.uniform(0.06, 0.5)),
            compactness=float(rng.uniform(0, 1)),
            bumpiness=float(rng.uniform(0.0, 0.12)),
        )

    def __call__(self, y: Plane2D, x: Plane2D, rng: Generator) -> Structure:
        """Structure at the coordinates (H, W)."""
        plane = Plane(y, x)
        places, radii = self._heaps(plane, rng)
        value, ids = painted(plane, _spheres(places, radii, self.bumpiness, rng))
        on_body = value > 0
        rough = self.bumpiness * self.particle_px * plane.noise(max(self.particle_px / 8, 1.2), rng)
        height = np.where(on_body, np.maximum(value + 0.3 * rough, 0.1), 0).astype(np.float32)
        return self._piled(plane, height, np.where(on_body, ids, 0).astype(np.int32), self.particle_px, rng)

    def _heaps(self, plane: Plane, rng: Generator) -> tuple[Plane2D, NDArray[np.float64]]:
        """Centres (n, 3) zyx and radii (n,): each particle touches an earlier one of its heap, or the substrate."""
        margin, radius = 3 * self.particle_px, self.particle_px / 2
        area = (plane.shape[0] + 2 * margin) * (plane.shape[1] + 2 * margin)
        hides = np.pi * radius**2 * np.exp(2 * self.size_spread**2) * (1 - 0.6 * self.compactness)
        n = max(1, round(-np.log(1 - min(self.coverage, 0.9)) * area / hides))
        first = rng.uniform(size=n) < 1 / self.particles_each
        first[0] = True
        radii = np.clip(radius * rng.lognormal(0, self.size_spread, n), 1.6, 3 * radius)
        heap, starts = np.cumsum(first) - 1, np.flatnonzero(first)
        centres = np.zeros((n, 3))
        centres[starts] = np.column_stack([radii[starts], plane.scatter(len(starts), margin, rng)])
        # In a dense heap early particles are grown upon again and again, in a chain the latest one.
        choice = rng.uniform(size=n) ** (1 + 2 * self.compactness)
        direction = rng.normal(size=(n, 3)) * [0.7, 1, 1]
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        direction[:, 0] = np.abs(direction[:, 0]) * 0.8
        for i in np.flatnonzero(~first):
            start = starts[heap[i]]
            base = i - 1 - int((i - start) * (1 - choice[i]) * self.compactness) if self.compactness else i - 1
            base = max(base, start)
            centres[i] = centres[base] + 0.92 * (radii[i] + radii[base]) * direction[i]
        return centres, radii


class Fibres(_Piled):
    """A mat of fibres that lie across each other: electrospun polymer, paper, carbon fibres, nanotubes.

    Instances are fibres; the visible parts of one fibre are one instance.

    Parameters
    ----------
    diameter_px, size_spread
        Median diameter and standard deviation of its logarithm.
    coverage
        Wanted share of the image under fibres.
    alignment
        0: all directions; 1: nearly parallel.
    waviness
        Standard deviation of the change of direction over 100 px, in radians.
    """

    classes: ClassVar[tuple[str, ...]] = ("substrate", "fibre")
    omits: ClassVar[tuple[str, ...]] = (
        "fibres do not branch, end, fuse or bead",
        "no fibres out of focus far below",
        "surfaces are smooth: no fibrils, pores or skin",
    )
    diameter_px: Length = 14.0
    size_spread: float = Field(default=0.3, ge=0, le=1)
    coverage: float = Field(default=0.6, ge=0.02, le=0.97)
    alignment: Share = 0.2
    waviness: float = Field(default=0.25, ge=0, le=1.5)

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """Diameters from 4 px to 60 px."""
        return cls(
            **cls._drawn(rng),
            diameter_px=log_uniform(rng, 5, 60),
            size_spread=float(rng.uniform(0.05, 0.5)),
            coverage=float(rng.uniform(0.2, 0.9)),
            alignment=float(rng.uniform(0, 0.95)) if rng.uniform() < 0.4 else 0.0,
            waviness=log_uniform(rng, 0.05, 0.7),
        )

    def __call__(self, y: Plane2D, x: Plane2D, rng: Generator) -> Structure:
        """Structure at the coordinates (H, W)."""
        plane = Plane(y, x)
        beads, radii, fibre = self._beads(plane, rng)
        value, bead = painted(plane, _tubes(beads, radii, fibre))
        inside = value > 0
        ids = np.where(inside, fibre[np.maximum(bead - 1, 0)] + 1, 0).astype(np.int32)
        layer = np.floor(value)
        n = int(fibre.max()) + 1
        depth_of_mat = 2.5 * self.diameter_px
        height = np.where(inside, depth_of_mat * layer / n + self.diameter_px / 2 * (value - layer), 0)
        return self._piled(plane, height.astype(np.float32), ids, self.diameter_px, rng)

    def _beads(self, plane: Plane, rng: Generator) -> tuple[Plane2D, NDArray[np.float64], NDArray[np.intp]]:
        """Places (n, 2), radii (n,) and fibres (n,) of the discs that fibres are strung of, a quarter radius apart."""
        length = 1.5 * float(np.hypot(*plane.shape))
        covered = self.diameter_px * np.exp(self.size_spread**2 / 2) * 0.62 * float(np.hypot(*plane.shape))
        n = max(1, round(-np.log(1 - self.coverage) * plane.area_px2 / covered))
        main = rng.uniform(0, np.pi)
        places, radii, numbers = [], [], []
        for number, middle in enumerate(plane.scatter(n, 0.0, rng)):
            radius = max(self.diameter_px / 2 * rng.lognormal(0, self.size_spread), 1.6)
            step = max(1.0, 0.25 * radius)
            count = int(length / step)
            angle = main + rng.normal(0, 0.08) if rng.uniform() < self.alignment else rng.uniform(0, np.pi)
            turning = ndimage.gaussian_filter1d(rng.normal(size=count), 60 / step, mode="wrap")
            turning *= self.waviness / (turning.std() + 1e-9)
            way = step * np.column_stack([np.sin(angle + turning), np.cos(angle + turning)]).cumsum(axis=0)
            path = middle + way - way[int(count * rng.uniform(0.3, 0.7))]
            near = ((path > np.array([plane.top, plane.left]) - radius).all(axis=1)) & (
                (path < np.array([plane.top, plane.left]) + plane.shape + radius).all(axis=1)
            )
            places.append(path[near])
            radii.append(np.full(int(near.sum()), radius))
            numbers.append(np.full(int(near.sum()), number))
        return np.concatenate(places), np.concatenate(radii), np.concatenate(numbers)


def seen_edges(ids: NDArray[np.int32]) -> Field32:
    """Distance (h, w) in px to the nearest visible edge between two numbers, right to half a px."""
    edge = np.zeros(ids.shape, bool)
    edge[:-1] |= ids[:-1] != ids[1:]
    edge[1:] |= ids[:-1] != ids[1:]
    edge[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    edge[:, 1:] |= ids[:, :-1] != ids[:, 1:]
    if not edge.any():
        return np.full(ids.shape, np.hypot(*ids.shape), np.float32)
    distance: Field32 = (ndimage.distance_transform_edt(~edge) + 0.5).astype(np.float32)
    return distance


def _spheres(places: Plane2D, radii: NDArray[np.floating], bumpiness: float, rng: Generator) -> Bodies:
    """Heights (positive) of bumpy spheres above the substrate."""
    waves, phases = rng.normal(0, bumpiness, (2, len(radii))), rng.uniform(0, 2 * np.pi, (2, len(radii)))

    def level(i: Numbers, dy: Field32, dx: Field32) -> Field32:
        radius, top = (v[i].astype(np.float32)[:, None, None] for v in (radii, places[:, 0]))
        square = dy**2 + dx**2
        if bumpiness:
            theta = np.arctan2(dy, dx)
            for k, wave, phase in zip((2, 3), waves, phases, strict=True):
                ripple = wave[i].astype(np.float32)[:, None, None] * np.cos(k * theta + phase[i][:, None, None])
                square = square * (1 + ripple)
        cap = radius**2 - square
        return np.where(cap > 0, np.maximum(top, 0.1) + np.sqrt(np.maximum(cap, 0)), -1.0).astype(np.float32)

    return Bodies(places[:, 1:], radii * (1 + 2 * bumpiness), level)


def _tubes(places: Plane2D, radii: NDArray[np.floating], number: NDArray[np.intp]) -> Bodies:
    """Fibre number plus the profile 0..1 of its round section: the latest fibre wins, on it the highest bead."""

    def level(i: Numbers, dy: Field32, dx: Field32) -> Field32:
        radius, layer = (v[i].astype(np.float32)[:, None, None] for v in (radii, number + 1))
        cap = 1 - (dy**2 + dx**2) / radius**2
        return np.where(cap > 0, layer + 0.999 * np.sqrt(np.maximum(cap, 0)), -1.0).astype(np.float32)

    return Bodies(places, radii, level)
