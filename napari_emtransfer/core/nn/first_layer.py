r"""Three-channel weights behind one grey channel.

Colour weights were trained behind u_c = (r − mean_c) / std_c on intensities r in 0…1. Our image x is standardised per
micrograph (mean 0, variance 1). It takes the place of the source's intensities by r = s·x + m, where m and s are the
averages of mean_c and std_c: the one map for which all u_c are x where the channels share one normalisation. Then

    Σ_c w_c ∗ u_c  =  (Σ_c w_c s / std_c) ∗ x  +  Σ_c (m − mean_c) / std_c · Σ w_c

so the weights are summed with s / std_c, and what is left is a constant per filter. It goes into the convolution's
bias; where it has none, off the running mean of the batch norm that follows, which is the same. Without either it is
dropped: the offsets of ImageNet are (−0.16, −0.03, 0.19), and nearly cancel for filters that treat the colours alike;
what is lost is the answer of a colour-opponent filter to a slight constant tint.

Equal to the colour network up to rounding wherever the kernel lies inside of the image. In the padding a colour network
sees u = 0, and so does ours x = 0: the constant, which is now added there in full, makes the outermost pixels differ.

Where all channels share one normalisation this is the plain sum, without a constant, and exact everywhere.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from napari_emtransfer.core.nn.registry import Preprocessing

Constant = Literal["none", "bias", "norm", "dropped"]


def fold_to_grey(weight: Tensor, preprocessing: Preprocessing | None) -> tuple[Tensor, Tensor]:
    """(O, 3, h, w) → summed weights (O, 1, h, w) and the constant per filter (O,)."""
    if preprocessing is None or not preprocessing.per_channel:
        return weight.sum(1, keepdim=True), weight.new_zeros(weight.shape[0])
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (preprocessing.mean, preprocessing.std))
    exact = weight.double()
    grey = (exact * (std.mean() / std)[None, :, None, None]).sum(1, keepdim=True)
    constant = exact.sum((2, 3)) @ ((mean.mean() - mean) / std)
    return grey.to(weight.dtype), constant.to(weight.dtype)


def needs_folding(tensor: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether a tensor of a file is the three-channel form of a (O, 1, h, w) convolution."""
    return tensor.ndim == 4 and tensor.shape[1] == 3 and tuple(shape) == (tensor.shape[0], 1, *tensor.shape[2:])


def adapt_first_layers(
    state: dict[str, Tensor], model: nn.Module, preprocessing: Preprocessing | None
) -> tuple[dict[str, Tensor], Constant]:
    """Copy of `state`, named as in `model`, in which three-channel convolutions became one-channel ones.

    Also says where the constant went. More than one layer is adapted where an encoder has parallel stems.
    """
    adapted, went = dict(state), set[Constant]()
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    for key in [k for k, v in state.items() if k in shapes and needs_folding(v, shapes[k])]:
        adapted[key], constant = fold_to_grey(state[key], preprocessing)
        went.add(_place(adapted, model, key, constant))
    order: tuple[Constant, ...] = ("dropped", "norm", "bias")
    return adapted, next((o for o in order if o in went), "none")


def _place(state: dict[str, Tensor], model: nn.Module, key: str, constant: Tensor) -> Constant:
    if not constant.any():
        return "none"
    layer = key.removesuffix(".weight")
    if f"{layer}.bias" in state:
        state[f"{layer}.bias"] = state[f"{layer}.bias"] + constant
        return "bias"
    norm = _following_norm(model, layer, constant.numel())
    if norm is None or f"{norm}.running_mean" not in state:
        return "dropped"
    state[f"{norm}.running_mean"] = state[f"{norm}.running_mean"] - constant
    return "norm"


def _following_norm(model: nn.Module, layer: str, n_channels: int) -> str | None:
    # At the stem of every encoder here the order of definition is the order of computation.
    names = [n for n, m in model.named_modules() if next(m.parameters(recurse=False), None) is not None]
    following = next((name for name, previous in zip(names[1:], names, strict=False) if previous == layer), None)
    if following is None:
        return None
    running_mean = getattr(model.get_submodule(following), "running_mean", None)
    return following if running_mean is not None and running_mean.numel() == n_channels else None
