"""Pretrained weights from a safetensors file into a model: strictly, and saying what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from napari_emtransfer.core.errors import WeightsError
from napari_emtransfer.core.nn.model import SegmentationModel

_HEAD = "segmentation_head."
_PARTS = ("encoder.", "decoder.", _HEAD)


@dataclass(frozen=True)
class WeightsReport:
    """Which parts came from the file, and which start anew."""

    loaded: tuple[str, ...]
    new: tuple[str, ...]


def load_weights(model: SegmentationModel, path: str | Path) -> WeightsReport:
    """Fill `model` from a safetensors file, in place.

    A part (encoder, decoder, head) is taken whole or, where the file has none of it, left as it is. A head for
    another number of classes is left as it is too. Keys without a part are read as an encoder's. Three input
    channels are summed to one.

    Raises
    ------
    WeightsError
        When the file is missing, is no safetensors file, or a part does not fit tensor by tensor; nothing is
        changed then.
    """
    state = _adapted(read_tensors(path), model)
    own = model.state_dict()
    present = [p for p in _PARTS if any(k.startswith(p) for k in state)]
    wanted = {k: v for k, v in own.items() if any(k.startswith(p) for p in present)}
    problems = _mismatches(state, wanted)
    if problems or not present:
        raise _does_not_fit(path, model, problems or ["no tensor of an encoder, decoder or head"])
    own.update(state)
    model.load_state_dict(own)
    return WeightsReport(
        tuple(p.rstrip(".") for p in present), tuple(p.rstrip(".") for p in _PARTS if p not in present)
    )


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU.

    Raises
    ------
    WeightsError
        When the file is missing, damaged, or of another format (which could run code when opened).
    """
    if not Path(path).is_file():
        raise WeightsError(f"There is no weights file {str(path)!r}.", "Give the path of a .safetensors file.")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"The file {str(path)!r} is no safetensors file or is damaged: {error}",
            "Pickled weights (.pt, .pth) can run code when opened and are refused; save them again with "
            "safetensors.torch.save_file.",
        ) from error


def _adapted(state: Mapping[str, Tensor], model: SegmentationModel) -> dict[str, Tensor]:
    if not any(k.startswith(_PARTS) for k in state):
        state = {f"encoder.{k}": v for k, v in state.items()}
    # Counters that a checkpoint may carry beside the network, and classifier layers of an encoder file.
    state = {k: v for k, v in state.items() if k.startswith(_PARTS) and not k.startswith(("encoder.fc.",))}
    own = model.state_dict()
    adapted = {k: _one_channel(v, own[k].shape) if k in own else v for k, v in state.items()}
    head_fits = all(own[k].shape == v.shape for k, v in adapted.items() if k.startswith(_HEAD) and k in own)
    return {k: v for k, v in adapted.items() if head_fits or not k.startswith(_HEAD)}


def _one_channel(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tensor.ndim == 4 and tensor.shape[1] == 3 and shape[1] == 1 and tensor.shape[2:] == tuple(shape[2:]):
        return tensor.sum(dim=1, keepdim=True)
    return tensor


def _mismatches(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    missing = [f"{k} is missing" for k in wanted if k not in state]
    unexpected = [f"{k} is unknown" for k in state if k not in wanted]
    reshaped = [
        f"{k} is {tuple(v.shape)}, not {tuple(wanted[k].shape)}"
        for k, v in state.items()
        if k in wanted and v.shape != wanted[k].shape
    ]
    return missing + unexpected + reshaped


def _does_not_fit(path: str | Path, model: SegmentationModel, problems: list[str]) -> WeightsError:
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    return WeightsError(
        f"The weights {str(path)!r} do not fit {model.config.architecture} with the encoder {model.config.encoder!r}: "
        f"{'; '.join(problems[:3])}{more}.",
        "Choose the architecture and encoder that the weights were trained with.",
    )
