"""A U-Net whose last blocks run in strips: the same function in a third of the memory.

At full resolution a ResNet-18 U-Net holds hundreds of bytes per pixel, but looks only a few pixels around: the two last
decoder blocks and the head, cut into strips, give the very same logits, and the window may be larger in turn.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn

from napari_emtransfer.core.nn.model import SegmentationModel

# Full-resolution pixels of a strip: its activations stay near the processor's caches.
_STRIP_PIXELS = 2**19
# Two convolutions at half, two at full resolution and the head reach 4 + 2 + 1 px; a multiple of 4 for the upsampling.
_MARGIN = 8


class LeanUnet(nn.Module):
    """Encoder and decoder of a U-Net, for inference; (N, 1, H, W) → logits (N, C, H, W), H and W multiples of 32."""

    def __init__(self, encoder: nn.Module, decoder: UnetDecoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.center = decoder.center
        self.coarse, self.fine = decoder.blocks[:-2], decoder.blocks[-2:]
        self.head = head

    def forward(self, image: Tensor) -> Tensor:
        """(N, 1, H, W) → logits (N, C, H, W)."""
        features = self.encoder(image)
        skips = features[-2:0:-1]
        coarse = self.center(features[-1])
        for block, skip in zip(self.coarse, skips, strict=False):
            coarse = block(coarse, *skip.shape[2:], skip_connection=skip)
        skip = skips[len(self.coarse)]
        # Let go of everything else before the large tensors come.
        del features, skips
        return torch.cat(list(self._strips(coarse, skip)), dim=2)

    def strip_modules(self) -> Iterator[nn.Module]:
        """Modules that see one strip at a time."""
        yield from self.fine.modules()
        yield from self.head.modules()

    def _strips(self, coarse: Tensor, skip: Tensor) -> Iterator[Tensor]:
        height, width = 2 * skip.shape[2], 2 * skip.shape[3]
        step = max(32, _STRIP_PIXELS // width // 4 * 4)
        for top in range(0, height, step):
            bottom = min(top + step, height)
            above, below = max(0, top - _MARGIN), min(height, bottom + _MARGIN)
            x = coarse[:, :, above // 4 : below // 4]
            half = skip[:, :, above // 2 : below // 2]
            x = self.fine[0](x, *half.shape[2:], skip_connection=half)
            x = self.fine[1](x, below - above, width)
            yield self.head(x)[:, :, top - above : bottom - above]


def lean(model: SegmentationModel) -> nn.Module:
    """`model` with its last blocks in strips where it is a U-Net of depth 5, else itself."""
    decoder = model.decoder
    if not isinstance(decoder, UnetDecoder) or len(decoder.blocks) != 5:
        return model
    return LeanUnet(model.encoder, decoder, model.segmentation_head)
