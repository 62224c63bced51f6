"""Episodes: two places of one random material under two settings of one microscope, for learning to learn.

The first (support) is where a few pixels are labelled, the second (query) what is to be segmented after it. An episode
belongs to a number: the same seed and number give the same pixels, in any process.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from napari_emtransfer.core.synth import fields, materials
from napari_emtransfer.core.synth.fields import Field
from napari_emtransfer.core.synth.materials import Place

# Fewer pixels than this of a class in the support, and nobody could have labelled it.
_SMALLEST_CLASS_PX: Final = 40
_TRIES: Final = 8


@dataclass(frozen=True)
class Episode:
    """Support and query, (2, H, W) each.

    Parameters
    ----------
    images
        float32, standardised per image up to a little jitter, as micrographs come to a network.
    classes
        0..K−1, int64: means nothing beyond this episode.
    clean
        float32: the images without their noise, on the same scale.
    boundaries
        float32: 1 on boundaries between phases, falling to 0 away from them.
    """

    images: NDArray[np.float32]
    classes: NDArray[np.int64]
    clean: NDArray[np.float32]
    boundaries: NDArray[np.float32]

    @property
    def n_classes(self) -> int:
        """K of the support; the query may have fewer."""
        return int(self.classes[0].max()) + 1


@dataclass(frozen=True)
class Acquisition:
    """Settings of an imagined microscope; lengths in px, what hides a structure relative to its contrast."""

    blur_px: float
    noise: float
    counting: bool
    correlation_px: float
    gamma: float
    vignette: float
    shading: float
    rows: float
    jitter_px: float
    stripes: float
    inverted: bool

    @classmethod
    def draw(cls, rng: Generator) -> Acquisition:
        """Random settings."""

        def sometimes(share: float, high: float) -> float:
            return float(rng.uniform(0, high)) if rng.random() < share else 0.0

        return cls(
            blur_px=sometimes(0.6, 1.8),
            noise=float(np.exp(rng.uniform(np.log(0.05), np.log(1.4)))),
            counting=bool(rng.random() < 0.5),
            correlation_px=sometimes(0.3, 1.0),
            gamma=float(np.exp(rng.normal(0, 0.3))),
            vignette=sometimes(0.4, 0.3),
            shading=sometimes(0.6, 0.6),
            rows=sometimes(0.2, 0.25),
            jitter_px=sometimes(0.15, 1.2),
            stripes=sometimes(0.1, 0.4),
            inverted=bool(rng.random() < 0.5),
        )

    def nearby(self, rng: Generator) -> Acquisition:
        """The same microscope another day."""
        return replace(
            self,
            noise=self.noise * float(np.exp(rng.normal(0, 0.35))),
            gamma=self.gamma * float(np.exp(rng.normal(0, 0.12))),
            blur_px=self.blur_px * float(np.exp(rng.normal(0, 0.25))),
            shading=self.shading * float(rng.uniform(0.5, 1.5)),
        )


def make_episode(seed: int, number: int, tile_px: int = 128) -> Episode:
    """Episode `number` of a stream; both images are `tile_px` squared."""
    rng = np.random.default_rng([seed, number])
    shape = (tile_px, tile_px)
    material = materials.draw(rng)
    support = materials.render(material, shape, rng)
    for _ in range(_TRIES):
        counts = np.bincount(support.classes.ravel(), minlength=material.n_classes)
        if (counts >= _SMALLEST_CLASS_PX).all():
            break
        material = materials.draw(rng)
        support = materials.render(material, shape, rng)
    query = materials.render(material, shape, rng)
    acquisition = Acquisition.draw(rng)
    settings = (acquisition, acquisition.nearby(rng))
    exposed = [_expose(place, a, rng) for place, a in zip((support, query), settings, strict=True)]
    images, clean, classes, boundaries = (np.stack(parts) for parts in zip(*exposed, strict=True))
    return Episode(images.astype("f4"), classes.astype("i8"), clean.astype("f4"), boundaries.astype("f4"))


def _expose(place: Place, acquisition: Acquisition, rng: Generator) -> tuple[Field, Field, Field, Field]:
    """Noisy and clean image, standardised alike, classes and boundaries."""
    grey, labels = place.grey, np.stack([place.classes, place.phases])
    if acquisition.jitter_px:
        grey, labels = _jittered(grey, labels, acquisition.jitter_px, rng)
    contrast = float(grey.std()) + 0.01
    clean = _imaged(grey, acquisition, contrast, rng)
    noisy = clean + contrast * _noise(clean, acquisition, rng)
    if acquisition.inverted:
        clean, noisy = 1 - clean, 1 - noisy
    mean, std = noisy.mean(), noisy.std() + 1e-3
    # A tile's own mean and spread are not those of its micrograph.
    std, mean = std * np.exp(rng.normal(0, 0.15)), mean + std * rng.normal(0, 0.15)
    boundaries = materials.boundary_map(labels[1])
    return (noisy - mean) / std, (clean - mean) / std, labels[0], boundaries


def _imaged(grey: Field, acquisition: Acquisition, contrast: float, rng: Generator) -> Field:
    shape = grey.shape
    image = gaussian_filter(grey, acquisition.blur_px) if acquisition.blur_px > 0.2 else grey
    if acquisition.vignette:
        y, x = np.linspace(-1, 1, shape[0])[:, None], np.linspace(-1, 1, shape[1])[None]
        cy, cx = rng.uniform(-1, 1, 2)  # a tile is any part of a field of view
        image = image * (1 - acquisition.vignette * ((y - cy) ** 2 + (x - cx) ** 2) / 2)
    if acquisition.shading:
        image = image + contrast * acquisition.shading * fields.smooth(shape, rng, shape[0] / 4)
    return np.clip(image, 0.01, 2) ** acquisition.gamma


def _noise(clean: Field, acquisition: Acquisition, rng: Generator) -> Field:
    """In units of the contrast."""
    noise = rng.standard_normal(clean.shape)
    if acquisition.correlation_px > 0.2:
        noise = gaussian_filter(noise, acquisition.correlation_px)
        noise /= noise.std()
    noise *= acquisition.noise * (np.sqrt(np.clip(2 * clean, 0.1, 4)) if acquisition.counting else 1)
    if acquisition.rows:
        noise += acquisition.rows * rng.standard_normal((clean.shape[0], 1))
    if acquisition.stripes:
        noise += acquisition.stripes * gaussian_filter(rng.standard_normal((1, clean.shape[1])), (0, 2)) * 2.5
    return noise


def _jittered(
    grey: Field, labels: NDArray[np.intp], jitter_px: float, rng: Generator
) -> tuple[Field, NDArray[np.intp]]:
    """Rows shifted against each other, in the image and in the labels alike."""
    height, width = grey.shape
    shift = jitter_px * rng.standard_normal((height, 1)) + np.cumsum(rng.normal(0, 0.15, (height, 1)), axis=0)
    y, x = np.broadcast_to(np.arange(height)[:, None], grey.shape), np.arange(width)[None] + shift
    moved = np.asarray(map_coordinates(grey, [y, x], order=1, mode="reflect"))
    nearest = np.clip(np.round(x), 0, width - 1).astype(int)
    return moved, labels[:, y, nearest]
