"""From one round of labelling to the next: what a continued run takes over from the one before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from napari_emtransfer.core.nn.model import SegmentationModel, build_model

NOISE: Final = 0.01

_Hook = Callable[[nn.Module, tuple[Any, ...]], None]


@torch.no_grad()
def shrink_perturb(model: SegmentationModel, shrink: float, seed: int) -> None:
    """Decoder and head of `model`, in place: θ ← shrink · θ + 0.01 · freshly initialised θ.

    A network that goes on from a converged one generalises worse than a fresh one trained on the same data; shrunk and
    stirred it keeps what it knew, is less sure of it, and learns as freely (Ash & Adams, NeurIPS 2020). The encoder
    stays: what it knows comes from far more data than the labelled tiles.

    θ are the weights and biases, without scales and shifts of norms. Behind a batch norm the size of a weight means
    nothing as long as the running statistics are of the same size, so they are scaled along: the network says the same
    as before, with smaller logits. Left as they are, they would be wrong for dozens of iterations, and the averaged
    weights with them.

    Parameters
    ----------
    shrink
        In (0, 1]; 1 leaves the network alone.
    seed
        Of the fresh initialisation. The same seed gives the same result; torch's global generator is not touched.
    """
    if shrink == 1:
        return
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = build_model(model.config)
        probe = torch.randn(4, 1, 2 * model.stride, 2 * model.stride).to(device)
    spreads = _spreads(model, probe)
    for part, fresh_part in ((model.decoder, fresh.decoder), (model.segmentation_head, fresh.segmentation_head)):
        new = dict(fresh_part.named_parameters())
        for name in _shrinking(part):
            part.get_parameter(name).mul_(shrink).add_(new[name].to(device), alpha=NOISE)
    _rescale(model, probe, spreads)


def _shrinking(part: nn.Module) -> list[str]:
    """Names of the parameters that are no scale or shift of a norm."""
    norms = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)
    kept = {id(p) for module in part.modules() if isinstance(module, norms) for p in module.parameters()}
    return [name for name, parameter in part.named_parameters() if id(parameter) not in kept]


def _spreads(model: SegmentationModel, probe: Tensor) -> dict[nn.Module, Tensor]:
    """Standard deviation per channel of what each batch norm of the decoder is given."""
    found: dict[nn.Module, Tensor] = {}

    def note(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        found[norm] = _spread(inputs[0])

    _run(model, probe, note)
    return found


def _rescale(model: SegmentationModel, probe: Tensor, before: dict[nn.Module, Tensor]) -> None:
    """Scale running statistics by as much as the input of their norm has shrunk, in the order of computation."""

    def follow(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        # Channels that are constant on the probe tell nothing; of the others, the noise shifts some a little.
        told = before[norm] > 0
        if told.any():
            ratio = (_spread(inputs[0])[told] / before[norm][told]).median()
            norm.get_buffer("running_mean").mul_(ratio)
            norm.get_buffer("running_var").mul_(ratio**2)

    _run(model, probe, follow)


def _spread(values: Tensor) -> Tensor:
    return values.transpose(0, 1).flatten(1).std(dim=1, correction=0)


def _run(model: SegmentationModel, probe: Tensor, hook: _Hook) -> None:
    """`probe` through the network in evaluation mode; `hook` sees the input of each batch norm of the decoder."""
    training = model.training
    norms = [m for m in model.decoder.modules() if isinstance(m, _BatchNorm) and m.running_var is not None]
    handles = [norm.register_forward_pre_hook(hook) for norm in norms]
    try:
        model.eval()(probe)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
