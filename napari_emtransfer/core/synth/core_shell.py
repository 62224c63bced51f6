"""Bodies with a core and a shell: coated particles, hollow spheres, and rings such as sheathed fibres in section."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field

from napari_emtransfer.core.synth.bodies import blobs, painted
from napari_emtransfer.core.synth.generator import Amplitude, Length, Share, StructureGenerator, log_uniform
from napari_emtransfer.core.synth.levelset import Region, region
from napari_emtransfer.core.synth.looks import EdgeLook, PhaseLook, soft_step
from napari_emtransfer.core.synth.micrograph import Field as Plane2D
from napari_emtransfer.core.synth.micrograph import Structure
from napari_emtransfer.core.synth.placing import place
from napari_emtransfer.core.synth.plane import Field32, Plane
from napari_emtransfer.core.synth.precipitates import drawn_radii, thicket
from napari_emtransfer.core.synth.surface import Finish


class CoreShell(StructureGenerator):
    """Cores in shells of uneven thickness, crowded or apart.

    Instances are whole bodies, and `boundary_px` is the distance to the nearest edge, of a core or of a shell.

    Parameters
    ----------
    diameter_px, size_spread
        Median outer diameter and standard deviation of its logarithm.
    fraction
        Wanted area fraction of the bodies, shell and core; about 0.55 is what finds room.
    shell_share
        Mean thickness of the shell relative to the outer radius.
    unevenness
        How far the thickness varies around a body, relative to itself.
    layers
        Amplitude of concentric lines in the shell.
    solid_share
        Share of bodies without a core (cut beside it).
    """

    classes: ClassVar[tuple[str, ...]] = ("background", "shell", "core")
    omits: ClassVar[tuple[str, ...]] = (
        "bodies do not press each other flat, even where crowded",
        "no collapsed or broken shells, no second shell",
        "nothing inside the cores",
    )
    diameter_px: Length = 46.0
    size_spread: float = Field(default=0.4, ge=0, le=1)
    fraction: float = Field(default=0.45, ge=0.02, le=0.8)
    shell_share: float = Field(default=0.32, ge=0.05, le=0.9)
    unevenness: float = Field(default=0.15, ge=0, le=0.6)
    layers: Amplitude = 0.03
    solid_share: Share = 0.05
    roughness: float = Field(default=0.07, ge=0, le=0.3)
    elongation: float = Field(default=1.5, ge=1, le=4)
    background: PhaseLook = PhaseLook(level=0.5, texture="mottled", amplitude=0.06)
    shell: PhaseLook = PhaseLook(level=0.78, spread=0.04)
    core: PhaseLook = PhaseLook(level=0.18, spread=0.04)
    edge: EdgeLook = EdgeLook(rim=-0.05, rim_px=1.5, shade=0.0)
    finish: Finish = Finish(scratches=0)

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """Bodies from 12 px to a third of the image."""
        low, middle, high = rng.uniform(0.1, 0.28), rng.uniform(0.36, 0.55), rng.uniform(0.64, 0.88)
        levels = rng.permutation([low, middle, high])
        size = log_uniform(rng, 14, 140)
        return cls(
            diameter_px=size,
            size_spread=float(rng.uniform(0.1, 0.6)),
            fraction=max(float(rng.uniform(0.25, 0.7)), 10 * size**2 / 512**2),
            shell_share=float(rng.uniform(0.15, 0.55)),
            unevenness=float(rng.uniform(0.03, 0.3)),
            layers=float(rng.uniform(0.02, 0.1)) if rng.uniform() < 0.35 else 0.0,
            solid_share=float(rng.choice([0.0, 0.0, 0.15])),
            roughness=float(rng.uniform(0.01, 0.09)),
            elongation=float(rng.uniform(1.02, 2.0)),
            background=PhaseLook.draw(rng, levels[0], ground=True),
            shell=PhaseLook.draw(rng, levels[1], ground=True),
            core=PhaseLook.draw(rng, levels[2], ground=True),
            edge=EdgeLook.draw(rng),
            finish=Finish.draw(rng, polished=rng.uniform() < 0.3),
        )

    def __call__(self, y: Plane2D, x: Plane2D, rng: Generator) -> Structure:
        """Structure at the coordinates (H, W)."""
        plane = Plane(y, x)
        outer, radii = self._outer(plane, rng)
        thickness = self._thickness(plane, outer, radii, rng)
        in_core = np.asarray(outer.depth - thickness, np.float32)
        grey = self._grey(plane, outer, in_core, thickness, rng)
        phases = np.where(outer.inside, np.where(in_core > 0, 3, 2), 1)
        boundary = np.minimum(outer.boundary, np.abs(in_core))
        return self._structure(grey, phases, boundary, outer.ids)

    def _outer(self, plane: Plane, rng: Generator) -> tuple[Region, NDArray[np.float64]]:
        sizes = drawn_radii(plane, self.diameter_px / 2, self.size_spread, self.fraction, rng)
        long = rng.uniform(1, self.elongation, len(sizes))
        room = sizes * np.sqrt(long) * (1 + self.roughness)
        where = thicket(plane, 3 * self.diameter_px, 0.4, rng)
        centres, kept = place(plane, room, 1.6, self.diameter_px, rng, where=where)
        outlines = blobs(centres, sizes[kept], self.roughness, long[kept], rng)
        return region(plane, *painted(plane, outlines)), sizes[kept] / np.sqrt(long[kept])

    def _thickness(self, plane: Plane, outer: Region, radii: NDArray[np.float64], rng: Generator) -> Field32:
        """Thickness (H, W) in px of the shell of the body that a pixel belongs to."""
        share = np.clip(self.shell_share * rng.lognormal(0, 0.2, len(radii)), 0.03, 0.95)
        share = np.where(rng.uniform(size=len(radii)) < self.solid_share, 2.0, share)
        of_body = np.concatenate([[1.0], np.maximum(share * radii, 2.0)]).astype(np.float32)
        uneven = 1 + self.unevenness * np.clip(plane.texture(0.25 * self.diameter_px, rng), -2, 2)
        return np.asarray(of_body[outer.ids] * np.maximum(uneven, 0.2), np.float32)

    def _grey(
        self, plane: Plane, outer: Region, in_core: Field32, thickness: Field32, rng: Generator
    ) -> NDArray[np.floating]:
        n = int(outer.ids.max(initial=0))
        background, shell, core = (look.paint(plane, outer.ids, n, rng) for look in self._phase_looks())
        rings = np.sin(outer.depth * np.float32(2 * np.pi / 3.5)) * (1 + 0.4 * plane.texture(6.0, rng))
        shell = shell + self.layers * rings * (thickness > 5)
        grey = background + (shell - background) * soft_step(outer.depth)
        grey = grey + (core - grey) * soft_step(in_core) * outer.inside
        return grey + self.edge.paint(plane, outer, rng) + self.finish.layer(plane, rng)

    def _phase_looks(self) -> tuple[PhaseLook, ...]:
        return self.background, self.shell, self.core
