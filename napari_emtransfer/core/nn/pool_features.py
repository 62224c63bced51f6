"""What is kept of a tile to rank it: features of a lattice of its pixels, and where the tile lies among others.

Features of all pixels of 10⁵ tiles would be terabytes; those of 144 pixels of each are two gigabytes, and a head that
was fitted on labels since can score them anew in seconds. A pixel's features are the decoder's maps at the pixel and
around it: blurred at three widths they told phases apart better than the maps alone (class-mean IoU on other specimens
with 8 tiles .58 → .69, .61 → .74, .71 → .73 on three real sets), and the head of `pool_head` was as good as trees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_emtransfer.core.data.labels import IGNORE_INDEX
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.nn.features import FrozenNetwork
from napari_emtransfer.core.nn.ground import View
from napari_emtransfer.core.nn.live import LabelledPixels

VERSION: Final = 1
LATTICE: Final = 12
N_POINTS: Final = LATTICE**2
# (width of the blur in pixels, pixels that are averaged before): a wide blur needs no fine grid.
_BLURS: Final = ((1.5, 1), (4.0, 2), (12.0, 8))
_ALIGNMENT_PX: Final = 8
_REACH_PX: Final = 40
# Pixels that pass through the network at once.
_STRIP_PX: Final = 2_000_000


@dataclass(frozen=True, eq=False)
class TileSample:
    """n tiles: features (n, P, D) of a lattice of P pixels, and embeddings (n, 2D): their means and spreads; fp16."""

    features: NDArray[np.float16]
    embeddings: NDArray[np.float16]


class PoolFeatures:
    """Features of pixels for ranking, of one network, or of several side by side (folds of one run).

    Those of a pixel are the same through any window, up to what the networks see beyond their margin.
    """

    def __init__(self, *networks: FrozenNetwork) -> None:
        self._networks = networks
        self.n_networks = len(networks)
        self.fingerprint = f"pool {VERSION}, " + ", ".join(f"{n.part} {n.fingerprint}" for n in networks)

    def __call__(self, view: View, window: Window) -> NDArray[np.float32]:
        """Features (D, h, w) of every pixel of `window`; those of the networks one after the other."""
        wide, inner = _widened(window, view.shape)
        parts = [_in_context(torch.from_numpy(network(view, wide))) for network in self._networks]
        features: NDArray[np.float32] = torch.cat(parts)[:, inner[0], inner[1]].numpy()
        return features

    def sample(self, view: View, windows: Sequence[Window]) -> TileSample:
        """Lattices of tiles (windows in working pixels, at best neighbours: they share a pass through the network)."""
        lattices = [lattice for strip in _strips(windows) for lattice in self._lattices(view, strip)]
        values = np.stack(lattices)
        embeddings = np.concatenate([values.mean(axis=1), values.std(axis=1)], axis=1)
        return TileSample(_as_half(values), _as_half(embeddings))

    def labelled(
        self, view: View, window: Window, targets: NDArray[np.uint8], limit: int, *, seed: int = 0
    ) -> LabelledPixels:
        """At most `limit` labelled pixels of a tile, drawn evenly; `targets` (h, w) as `window`, 255 = unlabelled."""
        rows, columns = np.nonzero(targets != IGNORE_INDEX)
        if len(rows) > limit:
            chosen = np.sort(np.random.default_rng(seed).choice(len(rows), limit, replace=False))
            rows, columns = rows[chosen], columns[chosen]
        return LabelledPixels(_as_half(self(view, window)[:, rows, columns].T), targets[rows, columns])

    def _lattices(self, view: View, windows: Sequence[Window]) -> Iterator[NDArray[np.float32]]:
        around = _bounds(windows)
        features = self(view, around)
        for window in windows:
            rows, columns = lattice(window)
            yield features[:, rows - around.y0, columns - around.x0].T


def lattice(window: Window) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns (P,) of the pixels of a tile that are looked at: centres of 12 × 12 equal cells."""
    (height, width), middles = window.shape, np.arange(LATTICE) * 2 + 1
    rows = window.y0 + middles * height // (2 * LATTICE)
    columns = window.x0 + middles * width // (2 * LATTICE)
    return np.repeat(rows, LATTICE), np.tile(columns, LATTICE)


def _as_half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    limit = float(np.finfo(np.float16).max)
    return values.clip(-limit, limit).astype(np.float16)


def _strips(windows: Sequence[Window]) -> Iterator[list[Window]]:
    """Neighbours that go through the network together: as many as make up a strip of the largest size."""
    strip: list[Window] = []
    for window in windows:
        height, width = _bounds([*strip, window]).shape
        if strip and height * width > _STRIP_PX:
            yield strip
            strip = []
        strip.append(window)
    if strip:
        yield strip


def _bounds(windows: Sequence[Window]) -> Window:
    return Window(
        y0=min(w.y0 for w in windows),
        x0=min(w.x0 for w in windows),
        y1=max(w.y1 for w in windows),
        x1=max(w.x1 for w in windows),
    )


def _widened(window: Window, shape: tuple[int, int]) -> tuple[Window, tuple[slice, slice]]:
    """A window with what a blur reaches, on a grid that does not depend on it, and where it lies in that."""
    step = _ALIGNMENT_PX
    y0, x0 = (max(0, start - _REACH_PX) // step * step for start in (window.y0, window.x0))
    y1, x1 = (min(n, stop + _REACH_PX) for n, stop in zip(shape, (window.y1, window.x1), strict=True))
    inner = slice(window.y0 - y0, window.y1 - y0), slice(window.x0 - x0, window.x1 - x0)
    return Window(y0=y0, x0=x0, y1=y1, x1=x1), inner


def _in_context(maps: Tensor) -> Tensor:
    """Maps (C, h, w) → (4C, h, w): as they are, and blurred at each width."""
    height, width = maps.shape[-2:]
    missing = (0, -width % _ALIGNMENT_PX, 0, -height % _ALIGNMENT_PX)
    padded = functional.pad(maps[None], missing, mode="replicate")
    blurred = [_blurred(padded, sigma_px, step)[0, :, :height, :width] for sigma_px, step in _BLURS]
    return torch.cat([maps, *blurred])


def _blurred(maps: Tensor, sigma_px: float, step: int) -> Tensor:
    """Maps (1, C, h, w) under a Gaussian, on averages of step × step pixels, brought back to all pixels."""
    coarse = functional.avg_pool2d(maps, step) if step > 1 else maps
    reach = int(np.ceil(3 * sigma_px / step))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) * step / sigma_px) ** 2)
    kernel = (weights / weights.sum()).repeat(maps.shape[1], 1, 1, 1)
    padded = functional.pad(coarse, (reach,) * 4, mode="replicate")
    across = functional.conv2d(padded, kernel, groups=maps.shape[1])
    down = functional.conv2d(across, kernel.transpose(2, 3), groups=maps.shape[1])
    if step == 1:
        return down
    return functional.interpolate(down, size=maps.shape[-2:], mode="bilinear", align_corners=False)
