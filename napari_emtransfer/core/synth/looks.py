"""How phases and the edges between them look: grey level, texture, rims, shading."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from napari_emtransfer.core.synth.generator import Amplitude, Grey, Length, Settings, Width, log_uniform
from napari_emtransfer.core.synth.levelset import Region
from napari_emtransfer.core.synth.plane import Field32, Plane

Texture = Literal["smooth", "fine", "mottled", "pitted", "creased", "striped", "woven"]
_TEXTURES: tuple[Texture, ...] = ("smooth", "fine", "mottled", "pitted", "creased", "striped", "woven")


class PhaseLook(Settings):
    """Grey level and texture of one phase.

    Parameters
    ----------
    level
        Mean grey value.
    spread
        Standard deviation from body to body.
    texture, amplitude, scale_px
        Kind of texture, its standard deviation in grey values, and its length.
    """

    level: Grey = 0.5
    spread: Amplitude = 0.02
    texture: Texture = "smooth"
    amplitude: Amplitude = 0.03
    scale_px: Length = 4.0

    @classmethod
    def draw(cls, rng: Generator, level: float, *, ground: bool = False) -> Self:
        """A look at about this grey level; lines and weaves only in bodies, not in the `ground` they lie on."""
        chances = np.array([0.28, 0.2, 0.22, 0.1, 0.1, 0.05, 0.05]) * ([1, 1, 1, 1, 1, 0, 0] if ground else 1)
        return cls(
            level=float(np.clip(level, 0.05, 0.95)),
            spread=float(rng.uniform(0, 0.05)),
            texture=_TEXTURES[int(rng.choice(len(_TEXTURES), p=chances / chances.sum()))],
            amplitude=float(rng.uniform(0.01, 0.035) if ground else rng.uniform(0.012, 0.05)),
            scale_px=log_uniform(rng, 2.5, 14),
        )

    def paint(self, plane: Plane, ids: NDArray[np.integer], n: int, rng: Generator) -> Field32:
        """Grey values (H, W) of bodies numbered 0..n."""
        tone = (self.level + rng.normal(0, self.spread, n + 1)).astype(np.float32)
        return np.add(tone[ids], self.amplitude * self._texture(plane, rng), dtype=np.float32)

    def _texture(self, plane: Plane, rng: Generator) -> Field32 | float:
        if self.texture == "smooth":
            return 0.4 * plane.texture(3 * self.scale_px, rng)
        if self.texture == "fine":
            return plane.texture(min(self.scale_px / 3, 1.5), rng)
        if self.texture == "mottled":
            coarse, fine = plane.texture(3 * self.scale_px, rng), plane.texture(max(self.scale_px / 3, 1.0), rng)
            return 0.7 * plane.texture(self.scale_px, rng) + 0.3 * coarse + 0.6 * fine
        if self.texture == "pitted":
            return -1.6 * np.maximum(plane.texture(max(self.scale_px / 3, 1.2), rng) - 1.2, 0)
        if self.texture == "creased":
            return _creases(plane, 2 * self.scale_px, rng)
        if self.texture == "striped":
            return _wave(plane, 1.5 * self.scale_px, rng)
        return _wave(plane, 1.2 * self.scale_px, rng) * _wave(plane, 1.2 * self.scale_px, rng)


class EdgeLook(Settings):
    """What a detector of secondary electrons makes of the edge of a body.

    Parameters
    ----------
    rim
        Brightness along the edge, `rim_px` wide; negative: dark.
    rim_side
        Where the rim lies: −1 outside, 0 on the edge, 1 inside the bodies, in rim widths.
    shade
        Bright on the side towards the light, dark on the other, `shade_px` deep.
    light_rad
        Direction of the light from the x axis.
    """

    rim: Amplitude = 0.1
    rim_px: Width = 2.0
    rim_side: Amplitude = 0.0
    shade: Amplitude = 0.06
    shade_px: Width = 4.0
    light_rad: float = 0.8

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """From flat (backscattered electrons) to strongly etched."""
        flat = rng.uniform() < 0.35
        return cls(
            rim=float(rng.uniform(-0.03, 0.05) if flat else rng.choice([-1, 1], p=[0.2, 0.8]) * rng.uniform(0.05, 0.3)),
            rim_px=float(rng.uniform(1, 5)),
            rim_side=float(rng.uniform(-1, 1)),
            shade=float(rng.uniform(0, 0.02) if flat else rng.uniform(0, 0.2)),
            shade_px=float(rng.uniform(2, 9)),
            light_rad=float(rng.uniform(-np.pi, np.pi)),
        )

    def paint(self, plane: Plane, bodies: Region, rng: Generator) -> Field32:
        """Grey values (H, W) to be added, uneven along the edges as real ones are."""
        uneven = 1 + 0.3 * np.clip(plane.texture(12.0, rng), -2, 2)
        at = bodies.depth / self.rim_px - self.rim_side
        rim = self.rim * np.exp(-(at**2)) * uneven
        facing = bodies.normal_y * np.sin(self.light_rad) + bodies.normal_x * np.cos(self.light_rad)
        shade = self.shade * facing * np.exp(-np.abs(bodies.depth) / self.shade_px)
        return np.subtract(rim, shade, dtype=np.float32)


def soft_step(depth: Field32, width_px: float = 0.7) -> Field32:
    """Share (H, W) of the inside: 0 outside, 1 inside, a ramp of the beam's width between."""
    return np.clip(depth / (2 * width_px) + 0.5, 0, 1)


def _creases(plane: Plane, scale_px: float, rng: Generator) -> Field32:
    """Thin dark lines that wind and break off (H, W): where one random field changes its sign and another allows it."""
    lines, where, grain = (plane.texture(scale, rng) for scale in (scale_px, 1.7 * scale_px, 1.2))
    width = np.float32(min(0.9 / scale_px, 0.25))
    return np.subtract(0.5 * grain, 3 * np.exp(-((lines / width) ** 2)) * np.clip(where, 0, 1), dtype=np.float32)


def _wave(plane: Plane, period_px: float, rng: Generator) -> Field32:
    angle = rng.uniform(0, np.pi)
    phase = (plane.y * np.sin(angle) + plane.x * np.cos(angle)) * (2 * np.pi / period_px)
    bent, strength = plane.textures(2.5 * period_px, rng, 2)
    return np.sin(phase.astype(np.float32) + 3 * bent) * np.clip(0.6 + 0.7 * strength, 0, None)
