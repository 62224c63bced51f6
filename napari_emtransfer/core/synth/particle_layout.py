"""Particles on a matrix, as a morphology of abstract materials."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from napari_emtransfer.core.synth.generator import log_uniform
from napari_emtransfer.core.synth.layout import Layout


@dataclass(frozen=True)
class Particles:
    """Rounded, faceted or long particles of one or two kinds on a matrix (0), some with a shell as a further phase."""

    size_px: tuple[float, ...]
    aspect: tuple[float, ...]
    coverage: tuple[float, ...]
    power: float
    spread: float
    angle: float
    angle_sd: float
    shell: float
    overlapping: bool

    @classmethod
    def draw(cls, rng: Generator) -> Particles:
        """Random settings."""
        n = int(rng.integers(1, 3))
        return cls(
            size_px=tuple(log_uniform(rng, 2.5, 32) for _ in range(n)),
            aspect=tuple(float(rng.choice([1.0, rng.uniform(0.15, 1)])) for _ in range(n)),
            coverage=tuple(log_uniform(rng, 0.04, 0.6) / n for _ in range(n)),
            power=float(rng.choice([2.0, 2.0, 3.0, 6.0])),
            spread=float(rng.uniform(0, 0.5)),
            angle=float(rng.uniform(0, np.pi)),
            angle_sd=float(rng.choice([0.05, 0.3, 3.0])),
            shell=float(rng.uniform(0.15, 0.5)) if rng.random() < 0.3 else 0.0,
            overlapping=bool(rng.random() < 0.4),
        )

    @property
    def n_phases(self) -> int:
        """How many phases there are."""
        return 1 + len(self.size_px) + (self.shell > 0)

    def __call__(self, shape: tuple[int, int], rng: Generator) -> Layout:
        """Lay out one place of the material."""
        layout = Layout(np.zeros(shape, np.intp), np.zeros(shape, np.intp))
        n = 0
        # Large kinds first: small ones then lie between and on them, not hidden below.
        for kind in np.argsort(self.size_px)[::-1]:
            mean_area = np.pi * self.size_px[kind] ** 2 * self.aspect[kind] * np.exp(2 * self.spread**2)
            crowd = 1.0 if self.overlapping else 1.5  # those that find their place taken are left out
            for _ in range(min(400, rng.poisson(crowd * self.coverage[kind] * layout.phases.size / mean_area))):
                n += self._place(layout, int(kind), n + 1, rng)
        return layout

    def _place(self, layout: Layout, kind: int, number: int, rng: Generator) -> bool:
        height, width = layout.phases.shape
        cy, cx = rng.uniform(-3, height + 3), rng.uniform(-3, width + 3)
        a = self.size_px[kind] * np.exp(self.spread * rng.standard_normal())
        b, turn = a * self.aspect[kind], self.angle + self.angle_sd * rng.standard_normal()
        reach = 1.45 * max(a, b) + 1
        y0, y1 = max(0, int(cy - reach)), min(height, int(cy + reach) + 2)
        x0, x1 = max(0, int(cx - reach)), min(width, int(cx + reach) + 2)
        if y1 <= y0 or x1 <= x0:
            return False
        dy, dx = np.arange(y0, y1)[:, None] - cy, np.arange(x0, x1)[None] - cx
        u, v = (dy * np.cos(turn) + dx * np.sin(turn)) / a, (dx * np.cos(turn) - dy * np.sin(turn)) / b
        radius = (np.abs(u) ** self.power + np.abs(v) ** self.power) ** (1 / self.power)
        inside = radius < 1
        phases, instances = layout.phases[y0:y1, x0:x1], layout.instances[y0:y1, x0:x1]
        if not self.overlapping and instances[inside].any():
            return False
        phases[inside] = 1 + kind
        if self.shell:
            phases[inside & (radius > 1 - self.shell)] = self.n_phases - 1
        instances[inside] = number
        return True
