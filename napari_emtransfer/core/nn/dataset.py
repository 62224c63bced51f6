"""Training crops from partly labelled images: where to cut, how to pad, how to batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_emtransfer.core.config import AugmentPreset
from napari_emtransfer.core.data.labels import IGNORE_INDEX
from napari_emtransfer.core.errors import LabelError
from napari_emtransfer.core.legality import ALL
from napari_emtransfer.core.nn.augment import augment
from napari_emtransfer.core.nn.ground import TrainingImage

# Positions remembered per image and class: enough to find every precipitate, little beside the image itself.
_MAX_POSITIONS: Final = 50_000

_Crop = tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32] | None]


@dataclass(frozen=True)
class Batch:
    """images (N, 1, H, W) float32, targets (N, H, W) int64; weights (N, H, W) float32, None where all are 1."""

    images: Tensor
    targets: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True)
class _Source:
    """Where one image holds one class: flat `positions` of (some of) its pixels, and how many there are in all."""

    image: int
    positions: NDArray[np.int64]
    n_pixels: int


class PatchSampler:
    """Draws batches of square crops; batch i is a function of (seed, i) alone, so a resumed run draws the same.

    A share `centred` of the crops lies around a pixel of a class that was drawn with equal chance, which is how a
    rare class is seen at all; the rest lies anywhere over a labelled pixel. An image smaller than the crop is
    mirrored, and the mirrored part is not labelled.

    Parameters
    ----------
    images
        Labelled images of any size.
    n_classes
        K; targets hold 0..K−1 and 255.
    centred
        Share of class-balanced crops.
    new_weight
        Weight of the pixels marked as fresh; all others weigh 1.
    allowed
        Transforms that leave such a micrograph possible (`core.legality`); the others of the preset are not done.

    Raises
    ------
    LabelError
        When nothing is labelled, or only one class is.
    """

    def __init__(
        self,
        images: Sequence[TrainingImage],
        n_classes: int,
        *,
        crop_px: int = 256,
        batch_size: int = 8,
        preset: AugmentPreset = "basic",
        seed: int = 0,
        centred: float = 0.6,
        new_weight: float = 1.0,
        allowed: frozenset[str] = ALL,
    ) -> None:
        self._images = images
        self._crop_px = crop_px
        self._batch_size = batch_size
        self._preset = preset
        self._seed = seed
        self._centred = centred
        self._new_weight = new_weight
        self._allowed = allowed
        self._weighted = new_weight != 1 and any(part.fresh is not None and part.fresh.any() for part in images)
        rng = np.random.default_rng(seed)
        by_class = [_sources(images, label, rng) for label in range(n_classes)]
        check_learnable(np.array([sum(s.n_pixels for s in sources) for sources in by_class]))
        self._by_class = [sources for sources in by_class if sources]
        self._everywhere = [source for sources in by_class for source in sources]

    def batch(self, index: int) -> Batch:
        """The batch for iteration `index`."""
        rng = np.random.default_rng((self._seed, index))
        crops = [self._crop(rng) for _ in range(self._batch_size)]
        images = np.stack([image for image, _, _ in crops])[:, None]
        targets = np.stack([target for _, target, _ in crops])
        weighed = [weights for _, _, weights in crops if weights is not None]
        weights = torch.from_numpy(np.stack(weighed)) if weighed else None
        return Batch(torch.from_numpy(images), torch.from_numpy(targets).long(), weights)

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Batches from iteration `start` on, without end."""
        index = start
        while True:
            yield self.batch(index)
            index += 1

    def _crop(self, rng: np.random.Generator) -> _Crop:
        place = self._place(rng)
        image, targets = self._cut(*place)
        if not self._weighted:
            return *augment(image, targets, self._preset, rng, allowed=self._allowed), None
        weights = self._weights(*place)
        return augment(image, targets, self._preset, rng, allowed=self._allowed, weights=weights)

    def _place(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """Image index and origin (y, x) of a crop that holds at least one labelled pixel."""
        centred = rng.random() < self._centred
        sources = self._by_class[rng.integers(len(self._by_class))] if centred else self._everywhere
        source = sources[rng.choice(len(sources), p=_chances(sources))]
        targets = self._images[source.image].targets
        position = divmod(int(rng.choice(source.positions)), targets.shape[1])
        # Around the pixel, give or take a quarter of the crop; or the pixel anywhere within the crop.
        reach = self._crop_px // 4 if centred else self._crop_px // 2
        offsets = rng.integers(-reach, reach, size=2, endpoint=not centred) + self._crop_px // 2
        y, x = (
            int(np.clip(p - o, 0, max(0, length - self._crop_px)))
            for p, o, length in zip(position, offsets, targets.shape, strict=True)
        )
        return source.image, y, x

    def _cut(self, index: int, y: int, x: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        part = self._images[index]
        window = (slice(y, y + self._crop_px), slice(x, x + self._crop_px))
        image, targets = part.image[window].astype(np.float32), part.targets[window]
        missing = [(0, self._crop_px - length) for length in image.shape]
        if any(after for _, after in missing):
            image = np.pad(image, missing, mode="reflect")
            targets = np.pad(targets, missing, constant_values=IGNORE_INDEX)
        return image, targets

    def _weights(self, index: int, y: int, x: int) -> NDArray[np.float32]:
        weights, fresh = np.ones((self._crop_px, self._crop_px), np.float32), self._images[index].fresh
        if fresh is not None:
            new = fresh[y : y + self._crop_px, x : x + self._crop_px]
            weights[: new.shape[0], : new.shape[1]][new] = self._new_weight
        return weights


def check_learnable(class_pixels: NDArray[np.integer]) -> None:
    """Labelled pixels per class, (K,): raises `LabelError` unless at least two classes are labelled."""
    if not class_pixels.any():
        raise LabelError("Nothing is labelled in the training images.", "Paint a few tiles with every class first.")
    if np.count_nonzero(class_pixels) < 2:
        raise LabelError(
            "Only one class is labelled in the training images, so there is nothing to tell apart.",
            "Paint some of another class too; the background is a class like any other.",
        )


def _sources(images: Sequence[TrainingImage], label: int, rng: np.random.Generator) -> list[_Source]:
    found = []
    for index, part in enumerate(images):
        positions = np.flatnonzero(part.targets == label)
        if positions.size:
            kept = positions if positions.size <= _MAX_POSITIONS else rng.choice(positions, _MAX_POSITIONS, False)
            found.append(_Source(index, kept, positions.size))
    return found


def _chances(sources: Sequence[_Source]) -> NDArray[np.float64]:
    # Square root: a large labelled area is drawn more often than a small one, but does not drown it.
    weights = np.sqrt([s.n_pixels for s in sources])
    return weights / weights.sum()
