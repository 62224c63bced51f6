"""A pull of the pretrained weights back to where they began, and how far they have come."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_emtransfer.core.nn.model import SegmentationModel


class L2SP:
    """½ · strength · ‖θ − θ₀‖² over the encoder's weights, θ₀ being their values now.

    After Li, Grandvalet & Davoine, ICML 2018: it takes the place of weight decay on the encoder, while decoder and
    head, which are new or shrunk between rounds, keep the decay towards zero. Norm scales and biases are left out, as
    in the authors' experiments: adapting them to the new micrographs is what fine-tuning should be free to do. A weight
    that is frozen now is anchored too, but pulls only once it is trained.

    Parameters
    ----------
    model
        With its pretrained weights, on the device where it will be trained.
    strength
        Weight of the penalty, 1e-3 usually; 0 only measures.
    """

    def __init__(self, model: SegmentationModel, strength: float) -> None:
        self.strength = strength
        self._weights = anchored(model.encoder)
        self._anchors = [weight.detach().clone() for weight in self._weights]
        self._size = float(_norm(self._anchors))

    @property
    def anchors(self) -> Sequence[Tensor]:
        """θ₀, in the encoder's order: what a resumed run must be given back."""
        return self._anchors

    def restore(self, anchors: Sequence[Tensor]) -> None:
        """Pull towards `anchors` of an interrupted run instead."""
        for anchor, stored in zip(self._anchors, anchors, strict=True):
            anchor.copy_(stored)
        self._size = float(_norm(self._anchors))

    def penalty(self) -> Tensor:
        """What to add to the loss, a scalar on the model's device. Once per step, not once per part of a batch."""
        pulled = [
            functional.mse_loss(weight, anchor, reduction="sum")
            for weight, anchor in zip(self._weights, self._anchors, strict=True)
            if weight.requires_grad
        ]
        total = torch.stack(pulled).sum() if pulled else torch.zeros((), device=self._anchors[0].device)
        return 0.5 * self.strength * total

    @torch.no_grad()
    def distance(self) -> float:
        """‖θ − θ₀‖ / ‖θ₀‖: 0 at the start, near 1 where nothing of the pretrained features is left.

        Reading it waits for the device.
        """
        moved = _norm([weight - anchor for weight, anchor in zip(self._weights, self._anchors, strict=True)])
        return float(moved) / max(self._size, 1e-12)


def anchored(encoder: nn.Module) -> list[nn.Parameter]:
    """The weights of `encoder` that mix channels; norm scales and all biases are vectors."""
    return [parameter for parameter in encoder.parameters() if parameter.ndim > 1]


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors]).norm()
