"""A new head on a pretrained decoder, fitted in closed form before the first step.

Decoder features that were trained to be read by a ridge classifier are worth reading before they are changed: a head
at random sends its own errors back through them first (Kumar et al., "Fine-tuning can distort pretrained features",
ICLR 2022). One pass over the labelled tiles without gradients, and one small linear system.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from typing import Final, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_emtransfer.core.data.labels import IGNORE_INDEX
from napari_emtransfer.core.nn.ground import TrainingImage
from napari_emtransfer.core.nn.model import SegmentationModel
from napari_emtransfer.core.nn.ridge import class_weights, ridge, with_constant

_MOST_TILES: Final = 64
_TILE_PX: Final = 256
_PIXELS_PER_TILE: Final = 600
_RIDGE: Final = 1e-2
_SCALES: Final = tuple(float(s) for s in np.geomspace(1, 30, 12))


@torch.no_grad()
def fit_head(model: SegmentationModel, train: Sequence[TrainingImage], seed: int) -> bool:
    """Fill the head of `model` in place with a ridge classifier of its decoder's features → whether that was done.

    It is done where the head alone is new, and is one convolution at full resolution, as a U-Net's is, and where all
    features are finite. Every class that is labelled in `train` takes part, however few its pixels. Pixels count as
    1/√(area of their class): counted alike they would drown a rare class, and rare classes made as heavy as common ones
    are found everywhere. The scale of the logits is the one of least cross-entropy on the pixels fitted.

    Parameters
    ----------
    model
        In evaluation mode as to its norms: their running statistics are used.
    train
        Labelled tiles; at most 64 of them are looked at, at most 600 pixels of each, and one more for each class that
        none of these pixels shows.
    """
    convolution = _single_convolution(model)
    if convolution is None or model.new_parts != {"segmentation_head"}:
        return False
    training = model.training
    model.eval()
    features, targets = _pixels(model, convolution, train, np.random.default_rng(seed))
    model.train(training)
    if not features.isfinite().all():
        return False
    evenly = class_weights(targets, model.n_classes).sqrt()
    solution = ridge(features, targets, evenly, model.n_classes, _RIDGE, relative=True)
    scale = _best_scale(with_constant(features) @ solution, targets)
    weights = (solution * scale).T
    convolution.weight.copy_(weights[:, :-1].reshape(convolution.weight.shape))
    cast(Tensor, convolution.bias).copy_(weights[:, -1])
    return True


def _single_convolution(model: SegmentationModel) -> nn.Conv2d | None:
    """The head's only layer, where it is a plain convolution that keeps the size."""
    layers = [m for m in model.segmentation_head.modules() if not list(m.children()) and not isinstance(m, nn.Identity)]
    match layers:
        case [nn.Conv2d(kernel_size=(k, w), padding=(p, q), stride=(1, 1), groups=1) as only] if only.bias is not None:
            return only if k == w and p == q == k // 2 else None
    return None


def _pixels(
    model: SegmentationModel, convolution: nn.Conv2d, train: Sequence[TrainingImage], rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Features (n, C · k²) of labelled pixels as the head sees them, and their targets (n,), of every class."""
    chosen = np.linspace(0, len(train) - 1, min(len(train), _MOST_TILES)).round().astype(int)
    parts = [_look(model, convolution, _cut(tile, model.stride), rng) for tile in (train[i] for i in chosen)]
    seen = {int(value) for _, targets in parts for value in targets.unique()}
    parts += [_look(model, convolution, cut, rng) for cut in _cuts_of_others(train, seen, model.stride)]
    return torch.cat([features for features, _ in parts]), torch.cat([targets for _, targets in parts])


def _look(
    model: SegmentationModel, convolution: nn.Conv2d, cut: tuple[np.ndarray, np.ndarray], rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Features and targets of at most 600 labelled pixels of an image and its targets, both (h, w)."""
    (image, targets), device, kernel = cut, convolution.weight.device, convolution.kernel_size[0]
    pixels = torch.from_numpy(image)[None, None].to(device, memory_format=torch.channels_last)
    decoded = model.decoder(model.encoder(pixels))
    seen = functional.unfold(decoded.float(), kernel, padding=kernel // 2)[0].T
    labelled = np.flatnonzero(targets.ravel() != IGNORE_INDEX)
    places = torch.from_numpy(rng.permutation(labelled)[:_PIXELS_PER_TILE])
    return seen[places.to(device)], torch.from_numpy(targets.ravel()).to(device)[places.to(device)].long()


def _cuts_of_others(
    train: Sequence[TrainingImage], seen: Set[int], stride: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each labelled class that is not among those `seen`, where it is labelled most; nothing else is labelled."""
    counts = np.stack([np.bincount(tile.targets.ravel(), minlength=IGNORE_INDEX + 1) for tile in train])
    counts[:, IGNORE_INDEX] = 0
    for value in np.flatnonzero(counts.any(axis=0)):
        if value not in seen:
            tile = train[int(counts[:, value].argmax())]
            alone = np.where(tile.targets == value, tile.targets, np.uint8(IGNORE_INDEX))
            places = np.argwhere(alone == value)
            # The middle of scattered strokes may be empty: the pixel next to it is not.
            nearest = np.abs(places - np.median(places, axis=0)).sum(axis=1).argmin()
            yield _cut(TrainingImage(tile.image, alone), stride, tuple(places[nearest]))


def _cut(tile: TrainingImage, stride: int, centre: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """At most 256² around `centre`, else the middle of what is labelled; mirrored to the stride, unlabelled there."""
    if centre is None:
        rows, columns = np.nonzero(tile.targets != IGNORE_INDEX)
        middles = zip((rows, columns), tile.targets.shape, strict=True)
        centre = [int(np.median(where)) if len(where) else edge // 2 for where, edge in middles]
    place = tuple(slice(*_span(int(c), edge)) for c, edge in zip(centre, tile.targets.shape, strict=True))
    image, targets = np.asarray(tile.image[place], np.float32), tile.targets[place]
    missing = [(0, -n % stride) for n in image.shape]
    return np.pad(image, missing, mode="symmetric"), np.pad(targets, missing, constant_values=IGNORE_INDEX)


def _span(centre: int, edge: int) -> tuple[int, int]:
    start = max(0, min(centre - _TILE_PX // 2, edge - _TILE_PX))
    return start, min(edge, start + _TILE_PX)


def _best_scale(scores: Tensor, targets: Tensor) -> float:
    losses = [float(functional.cross_entropy(scores * scale, targets)) for scale in _SCALES]
    return _SCALES[int(np.argmin(losses))]
