"""Dropout while predicting: each pass leaves out other units, and so answers as another member of a committee would.

Source: Gal & Ghahramani, Dropout as a Bayesian approximation, ICML 2016. `core.active.uncertainty` measures samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from napari_emtransfer.core.errors import EMTransferError


@contextmanager
def dropout_active(model: nn.Module) -> Iterator[None]:
    """Inside, all of the model is in evaluation except its dropout modules; afterwards each module is as before.

    Batch norms keep their statistics and use them. Stochastic depth and dropout that is no module stay off.

    Raises
    ------
    EMTransferError
        When no module would drop anything; the hint names what would work.
    """
    dropouts = _dropouts(model)
    if not dropouts:
        raise _no_dropout(model, "has none")
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        for dropout in dropouts:
            dropout.train()
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@torch.inference_mode()
def dropout_samples(model: nn.Module, image: Tensor, n: int) -> Tensor:
    """Probabilities (n, C, H, W) float32 of n passes over one image (1, 1, H, W), each leaving out other units.

    One pass after the other, so that memory holds the activations of one. Draws from torch's global generator.

    Raises
    ------
    EMTransferError
        When the network has no dropout, or has it where no pass comes by, as in the classifier of an encoder: all
        samples would be the same, and say that the network is sure.
    """
    reached: list[nn.Module] = []
    watched = [module.register_forward_hook(lambda module, *_: reached.append(module)) for module in _dropouts(model)]
    try:
        with dropout_active(model):
            samples = [model(image)[0].float().softmax(dim=0) for _ in range(n)]
    finally:
        for hook in watched:
            hook.remove()
    if not reached:
        raise _no_dropout(model, "does not use what it has")
    return torch.stack(samples)


def _dropouts(model: nn.Module) -> list[_DropoutNd]:
    # Many encoders carry dropout with a rate of 0, which leaves out nothing.
    return [module for module in model.modules() if isinstance(module, _DropoutNd) and module.p > 0]


def _no_dropout(model: nn.Module, what: str) -> EMTransferError:
    config = getattr(model, "config", None)
    name = f"{config.architecture} with {config.encoder}" if config is not None else type(model).__name__
    return EMTransferError(
        f"Samples by dropout need a network with dropout, and {name} {what}.",
        "The architectures FPN and DeepLabV3Plus have dropout; for any other network, the disagreement of folds, of "
        "orientations, or of heads fitted on different tiles (acquisition bald) measures the same.",
    )
