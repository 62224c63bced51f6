"""How much memory a forward pass takes per pixel, and how large a window therefore may be."""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch import Tensor, nn

from napari_emtransfer.core.nn.devices import free_memory_gb
from napari_emtransfer.core.nn.model import SegmentationModel
from napari_emtransfer.core.nn.tiling import aligned_down

_GIB: Final = 2**30
# Activations of one window. Larger windows waste less on halos; on a CPU the measured peak stays below 2 GB with this.
_CPU_BUDGET_GIB: Final = 1.66
_ACCELERATOR_BUDGET_GIB: Final = 6.0
_MIN_ROI: Final = 512
_CPU_MAX_ROI: Final = 3072
_ACCELERATOR_MAX_ROI: Final = 4096


def activation_bytes_per_pixel(model: SegmentationModel, bytes_per_value: int) -> float:
    """Peak bytes of activations per input pixel in one inference pass, measured on a small input.

    The encoder's feature maps are held for the decoder; on top of them come input and output of the largest layer.
    For the ResNet-18 U-Net that gives 354 bytes in float32; 336 were measured on 2240².
    """
    largest = held = 0

    def watch(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal largest, held
        if module is model.encoder:
            held = sum(feature.numel() for feature in output)
        elif not list(module.children()):
            largest = max(largest, sum(t.numel() for t in (*inputs, output) if isinstance(t, Tensor)))

    handles = [module.register_forward_hook(watch) for module in model.modules()]
    edge = 2 * max(32, model.stride)
    parameter = next(model.parameters())
    with torch.inference_mode():
        model(torch.zeros(1, 1, edge, edge, device=parameter.device, dtype=parameter.dtype))
    for handle in handles:
        handle.remove()
    return (held + largest) * bytes_per_value / edge**2


def affordable_roi(model: SegmentationModel, device: torch.device, *, bytes_per_value: int) -> int:
    """Edge of the largest square window whose activations fit the memory that prediction may take, in pixels."""
    free = free_memory_gb(device)
    if free is None:
        budget, most = _CPU_BUDGET_GIB, _CPU_MAX_ROI
    else:
        budget, most = min(_ACCELERATOR_BUDGET_GIB, 0.5 * free), _ACCELERATOR_MAX_ROI
    edge = int(math.sqrt(budget * _GIB / activation_bytes_per_pixel(model, bytes_per_value)))
    stride = model.stride
    return max(aligned_down(_MIN_ROI, stride), min(aligned_down(edge, stride), most))
