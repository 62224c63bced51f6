"""From one round of labelling to the next: what a continued run takes over from the one before."""

from __future__ import annotations

from typing import Final

import torch

from napari_emtransfer.core.nn.model import SegmentationModel, build_model

NOISE: Final = 0.01


@torch.no_grad()
def shrink_perturb(model: SegmentationModel, shrink: float, seed: int) -> None:
    """Decoder and head of `model`, in place: θ ← shrink · θ + 0.01 · freshly initialised θ.

    A network that goes on from a converged one generalises worse than a fresh one trained on the same data; shrunk and
    stirred it keeps most of what it knew and learns as freely (Ash & Adams, NeurIPS 2020). The encoder stays: what it
    knows comes from far more data than the labelled tiles. Running statistics of norms stay too, and so do all other
    buffers; the first iterations measure them anew.

    Parameters
    ----------
    shrink
        In (0, 1]; 1 leaves the network alone.
    seed
        Of the fresh initialisation. The same seed gives the same result; torch's global generator is not touched.
    """
    if shrink == 1:
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = build_model(model.config)
    pairs = ((model.decoder, fresh.decoder), (model.segmentation_head, fresh.segmentation_head))
    for part, fresh_part in pairs:
        for parameter, noise in zip(part.parameters(), fresh_part.parameters(), strict=True):
            parameter.mul_(shrink).add_(noise.to(parameter.device), alpha=NOISE)
