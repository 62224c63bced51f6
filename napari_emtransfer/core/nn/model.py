"""Segmentation networks of segmentation-models-pytorch, with one input channel and logits out."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import cast, get_args

import segmentation_models_pytorch as smp
import timm
import torch
from segmentation_models_pytorch.encoders import get_encoder_names
from torch import Tensor, nn

from napari_emtransfer.core.config import Architecture, ModelConfig
from napari_emtransfer.core.errors import EMTransferError


class SegmentationModel(nn.Module):
    """Encoder, decoder and head: (N, 1, H, W) standardised intensities → (N, C, H, W) logits.

    H and W are multiples of `stride`. `new_parts` are those that came from no weights: random until they are trained.
    """

    def __init__(self, config: ModelConfig, encoder: nn.Module, decoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.decoder = decoder
        self.segmentation_head = head
        self.new_parts = frozenset({"encoder", "decoder", "segmentation_head"})

    @property
    def stride(self) -> int:
        """Pixels per step of the coarsest feature map: window origins and sizes are multiples of it."""
        return cast(int, self.encoder.output_stride)

    @property
    def n_classes(self) -> int:
        """Number of logit channels."""
        return self.config.n_classes

    def forward(self, image: Tensor) -> Tensor:
        """(N, 1, H, W) → logits (N, C, H, W)."""
        return self.segmentation_head(self.decoder(self.encoder(image)))


def build_model(
    config: ModelConfig, weights: str = "none", progress: Callable[[int, int | None], None] | None = None
) -> SegmentationModel:
    """Network for `config`, with `weights`: "none", a name of the registry ("imagenet", "micronet", …), or a path.

    Weights that are not on this machine yet are fetched; `progress` is told bytes done and in all. The first
    convolution of three-channel weights becomes a one-channel one (see `first_layer`). Initialisation draws from
    torch's global generator.

    Raises
    ------
    EMTransferError
        When architecture or encoder does not exist, or the two do not go together; the hint names near ones.
    WeightsError
        When the weights cannot be had or do not fit.
    """
    model = _build(config)
    if weights != "none":
        from napari_emtransfer.core.nn.weights import initialise

        initialise(model, weights, progress)
    return model.to(memory_format=torch.channels_last)


def _build(config: ModelConfig) -> SegmentationModel:
    _check_architecture(config.architecture)
    encoder = resolve_encoder(config.encoder)
    try:
        built = getattr(smp, config.architecture)(
            encoder_name=encoder, encoder_weights=None, in_channels=1, classes=config.n_classes
        )
    except Exception as error:
        # Unsuitable encoders fail in many ways (KeyError, ValueError, RuntimeError, ...).
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise EMTransferError(
            f"The encoder {config.encoder!r} does not work in the architecture {config.architecture!r}: {reason}",
            "Unet with resnet18, resnet34 or efficientnet-b0 works.",
        ) from error
    return SegmentationModel(config, built.encoder, built.decoder, built.segmentation_head)


def _check_architecture(name: str) -> None:
    known = get_args(Architecture)
    if name not in known:
        raise EMTransferError(f"There is no architecture {name!r}.", _suggest(name, known))


def resolve_encoder(name: str) -> str:
    """Encoder name of segmentation-models-pytorch or timm → the name that the former understands ("tu-" + timm's).

    Raises
    ------
    EMTransferError
        When neither library has it; the hint names close ones.
    """
    known = get_encoder_names()
    if name in known:
        return name
    bare = name.removeprefix("tu-")
    if timm.is_model(bare):
        return f"tu-{bare}"
    raise EMTransferError(f"There is no encoder {name!r}.", _suggest(name, [*known, *timm.list_models()]))


def _suggest(name: str, known: Sequence[str]) -> str:
    by_lower = {k.lower(): k for k in known}
    near = [by_lower[k] for k in difflib.get_close_matches(name.lower(), by_lower, n=4, cutoff=0.5)]
    return f"Close to it: {', '.join(near)}." if near else f"Known: {', '.join(list(known)[:8])}."
