"""How much memory a forward pass takes per pixel, and how large a window therefore may be."""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch import Tensor, nn

from napari_emtransfer.core.nn.devices import free_memory_gb
from napari_emtransfer.core.nn.lean import LeanUnet
from napari_emtransfer.core.nn.tiling import aligned_down

_GIB: Final = 2**30
# Of one window on a CPU, so that prediction stays below 2 GB; larger windows waste less on halos.
_CPU_BUDGET_GIB: Final = 1.7
_ACCELERATOR_BUDGET_GIB: Final = 6.0
_MIN_ROI: Final = 512
_CPU_MAX_ROI: Final = 3072
_ACCELERATOR_MAX_ROI: Final = 4096
# Blocks that are free, but of the wrong size.
_FRAGMENTATION: Final = 1.15


def activation_bytes_per_pixel(network: nn.Module, stride: int, *, bytes_per_value: int) -> float:
    """Peak bytes per input pixel in one inference pass of a network with an `encoder`, measured on a small input.

    The encoder's feature maps are held for the decoder; on top of them come input, output and workspace of the largest
    layer. For the ResNet-18 U-Net in float32 that gives 278 bytes; 263 were measured on 2240².
    """
    in_strips = set(network.strip_modules()) if isinstance(network, LeanUnet) else set()
    largest = held = 0

    def watch(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal largest, held
        if module is network.encoder:
            held = sum(feature.numel() for feature in output)
        elif module not in in_strips and not list(module.children()):
            # By address: an activation that works in place has one tensor, not two.
            sizes = {t.data_ptr(): t.numel() for t in (*inputs, output) if isinstance(t, Tensor)}.values()
            largest = max(largest, sum(sizes) + max(sizes, default=0))

    handles = [module.register_forward_hook(watch) for module in network.modules()]
    edge = 2 * max(32, stride)
    parameter = next(network.parameters())
    with torch.inference_mode():
        network(torch.zeros(1, 1, edge, edge, device=parameter.device, dtype=parameter.dtype))
    for handle in handles:
        handle.remove()
    return _FRAGMENTATION * (held + largest) * bytes_per_value / edge**2


def affordable_roi(network: nn.Module, stride: int, device: torch.device, *, bytes_per_value: int) -> int:
    """Edge of the largest square window whose activations fit the memory that prediction may take, in pixels."""
    free = free_memory_gb(device)
    if free is None:
        budget, most = _CPU_BUDGET_GIB, _CPU_MAX_ROI
    else:
        budget, most = min(_ACCELERATOR_BUDGET_GIB, 0.5 * free), _ACCELERATOR_MAX_ROI
    per_pixel = activation_bytes_per_pixel(network, stride, bytes_per_value=bytes_per_value)
    edge = int(math.sqrt(budget * _GIB / per_pixel))
    return max(aligned_down(_MIN_ROI, stride), min(aligned_down(edge, stride), most))
