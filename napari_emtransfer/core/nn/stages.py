"""The parts of a network that may learn at different rates: head, decoder, and the encoder's stages by depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from napari_emtransfer.core.nn.model import SegmentationModel

Parts = dict[str, list[nn.Parameter]]
ENCODER: Final = "encoder"


def parts_of(model: SegmentationModel, *, by_depth: bool, size_px: int = 64) -> Parts:
    """Parameters of "head", "decoder" and "encoder"; `by_depth` of "encoder 5" (deepest) to "encoder 1" instead.

    `size_px` is the edge of an image that the encoder takes.
    """
    parts = {"head": list(model.segmentation_head.parameters()), "decoder": list(model.decoder.parameters())}
    if by_depth:
        stages = encoder_stages(model.encoder, size_px)
        parts |= {f"{ENCODER} {depth}": stages[depth - 1] for depth in range(len(stages), 0, -1)}
    else:
        parts[ENCODER] = list(model.encoder.parameters())
    return {name: parameters for name, parameters in parts.items() if parameters}


def is_encoder(part: str) -> bool:
    """True for "encoder" and "encoder 3"."""
    return part.startswith(ENCODER)


def encoder_stages(encoder: nn.Module, size_px: int = 64) -> list[list[nn.Parameter]]:
    """Parameters of each stage of an encoder, shallow to deep.

    A stage is what one of the encoder's feature maps depends on and no shallower one does, so it needs no knowledge of
    how the layers are called or registered: layer1…4 of a ResNet (its stem being a stage of its own), the blocks
    between two resolutions of an EfficientNet, patch embedding and blocks of a Mix Transformer. It is read off the
    graph that autograd records for one small image; nothing is differentiated. Parameters that no feature map depends
    on, such as a classifier's last convolution, count to the deepest stage.
    """
    left = {id(p): p for p in encoder.parameters()}
    stages, seen = [], set[Any]()
    for feature in _features(encoder, size_px):
        own = [left.pop(key) for key in list(_leaves(feature, seen)) if key in left]
        if own:
            stages.append(_in_order(encoder, own))
    if not stages:
        return [list(left.values())]
    stages[-1] += left.values()
    return stages


def _features(encoder: nn.Module, size_px: int) -> Sequence[Tensor]:
    """Feature maps of a black image, shallow to deep, with the graph that led to them."""
    first = next(encoder.parameters())
    with _as_for_probing(encoder), torch.enable_grad():
        features: Sequence[Tensor] = encoder(first.new_zeros((1, 1, size_px, size_px)))
    return features


@contextmanager
def _as_for_probing(encoder: nn.Module) -> Iterator[None]:
    """All parameters differentiable, all layers in evaluation, so that norms keep their statistics; then as before."""
    modes = {module: module.training for module in encoder.modules()}
    flags = {parameter: parameter.requires_grad for parameter in encoder.parameters()}
    encoder.eval().requires_grad_(True)
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


def _leaves(feature: Tensor, seen: set[Any]) -> Iterator[int]:
    """Ids of the leaf tensors that `feature` depends on; nodes of the graph in `seen` are not walked again."""
    waiting = [feature.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield id(node.variable)
        waiting.extend(following for following, _ in node.next_functions)


def _in_order(encoder: nn.Module, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    """In the encoder's own order, which is the same in every process."""
    ids = {id(p) for p in parameters}
    return [p for p in encoder.parameters() if id(p) in ids]
