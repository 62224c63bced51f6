"""Whose statistics the encoder's batch norms use, and which layers stay as they are during training.

Statistics of the weights' own images are wrong for micrographs; those of each batch of a few correlated crops are
noisy, and differ from the ones that are used to predict. Hence the middle way: measure them once on the project's
micrographs, then keep them (AdaBN: Li et al., Pattern Recognition 80, 2018).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.nn.ground import View
from napari_emtransfer.core.nn.model import SegmentationModel
from napari_emtransfer.core.rates import Normalization

# A pass over these costs about as much as ten training steps.
MAX_CROPS: Final = 128
_BATCH: Final = 8
_SOURCE_SHARE: Final = 0.5


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """All batch norms with running statistics; layer, group and instance norms have none."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


def adapt(
    model: SegmentationModel, policy: Normalization, views: Sequence[View], *, crop_px: int, seed: int = 0
) -> None:
    """Give the encoder's batch norms the statistics of `views` ("adabn"), or half of both ("mix").

    One pass without gradients over at most 128 crops, evenly spread and mixed over the views, each batch with the same
    weight; a function of (model, views, crop_px, seed). "source" and "train" change nothing, and so does an encoder
    without batch norms. Scales and offsets stay as they are.

    Parameters
    ----------
    views
        Standardised micrographs; none that must not have been looked at.
    """
    norms = batch_norms(model.encoder)
    if policy in ("source", "train") or not norms or not views:
        return
    source = [_statistics(norm) for norm in norms]
    _measure(model.encoder, norms, _batches(views, crop_px, seed))
    if policy == "mix":
        with torch.no_grad():
            for norm, old in zip(norms, source, strict=True):
                for value, was in zip(_buffers(norm), old, strict=True):
                    value.lerp_(was, _SOURCE_SHARE)


def resting(model: SegmentationModel, policy: Normalization) -> list[nn.Module]:
    """What stays in evaluation during training: frozen parts and, unless the policy is "train", the encoder's norms.

    A module is frozen when it has parameters and none of them has a gradient. It then keeps its running statistics
    too, whatever the policy. Norms of the decoder, which is new, are trained with each batch's own statistics.
    """
    held = [] if policy == "train" else list(batch_norms(model.encoder))
    return [*_frozen(model), *held]


def _frozen(module: nn.Module) -> Iterator[nn.Module]:
    """The uppermost modules all of whose parameters are frozen."""
    flags = [p.requires_grad for p in module.parameters()]
    if flags and not any(flags):
        yield module
    else:
        for child in module.children():
            yield from _frozen(child)


@torch.no_grad()
def _measure(encoder: nn.Module, norms: Sequence[_BatchNorm], batches: Iterator[Tensor]) -> None:
    momenta, modes = [norm.momentum for norm in norms], {m: m.training for m in encoder.modules()}
    encoder.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches, instead of a fading memory of the last
        norm.train()
    try:
        for images in batches:
            encoder(images.to(next(encoder.parameters()).device, memory_format=torch.channels_last))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes.items():
            module.training = training


def _buffers(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    # With `track_running_stats`, which `batch_norms` asks for, neither is None.
    return cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)


def _statistics(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    mean, variance = _buffers(norm)
    return mean.clone(), variance.clone()


def _batches(views: Sequence[View], crop_px: int, seed: int) -> Iterator[Tensor]:
    """Batches (N, 1, crop, crop) of nearly one size, each mixed from all views, so that each is like the whole."""
    places = [
        (view, window) for view in views for window in _spread(_grid(view.shape, crop_px), -(-MAX_CROPS // len(views)))
    ]
    order = np.random.default_rng(seed).permutation(len(places))
    for part in np.array_split(order, -(-len(order) // _BATCH)):
        crops = [_crop(view, window, crop_px) for view, window in (places[i] for i in part)]
        if len(crops) == 1:
            # A batch norm over a single pixel of the deepest map has no variance.
            crops.append(crops[0][::-1, ::-1].copy())
        yield torch.from_numpy(np.stack(crops)[:, None])


def _grid(shape: tuple[int, int], crop_px: int) -> list[Window]:
    """Windows of at most `crop_px`, side by side from one edge to the other."""
    ys, xs = (np.linspace(0, max(0, n - crop_px), max(1, n // crop_px)).round().astype(int) for n in shape)
    height, width = shape
    return [
        Window(y0=int(y), x0=int(x), y1=min(int(y) + crop_px, height), x1=min(int(x) + crop_px, width))
        for y in ys
        for x in xs
    ]


def _spread(windows: list[Window], most: int) -> list[Window]:
    if len(windows) <= most:
        return windows
    return [windows[i] for i in np.linspace(0, len(windows) - 1, most).round().astype(int)]


def _crop(view: View, window: Window, crop_px: int) -> NDArray[np.float32]:
    """A crop of the full size: a smaller image is mirrored, as it is for training."""
    pixels = view.read(window)
    return np.pad(pixels, [(0, crop_px - n) for n in pixels.shape], mode="symmetric")
