"""Tensors out of a file of weights, without ever running code that the file holds."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from napari_emtransfer.core.errors import WeightsError

# What torch.save writes; ".tar" is MicroNet's and torchvision's ".pth.tar", which is no archive of tar.
PICKLED: Final = frozenset({".pth", ".pt", ".tar", ".bin", ".ckpt"})
SUFFIXES: Final = PICKLED | {".safetensors"}

_NESTED: Final = ("state_dict", "model_state_dict", "model", "net", "weights")
_GLOBAL: Final = re.compile(r"GLOBAL (\S+)")


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, or of a pickled state dict that holds nothing but tensors, on the CPU.

    Pickled files are opened with torch's restricted unpickler (`weights_only`): one that names any function is refused
    before it is called. A state dict inside of a training checkpoint (under "state_dict", "model", …) is found.

    Raises
    ------
    WeightsError
        When the file is missing, damaged, of another format, or would run code when opened.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(
            f"There is no weights file {str(path)!r}.", "Give the path of a .safetensors or .pth file that exists."
        )
    return _read_pickled(path) if path.suffix.lower() in PICKLED else _read_safetensors(path)


def read_metadata(path: str | Path) -> dict[str, str]:
    """The text entries of a safetensors file; empty for other formats."""
    if Path(path).suffix.lower() in PICKLED:
        return {}
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"The file {str(path)!r} is no safetensors file or is damaged: {error}",
            "Fetch it again; pickled weights need their own ending (.pth or .pt).",
        ) from error


def _read_pickled(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from error
    except Exception as error:
        # A damaged archive fails in many ways: RuntimeError, EOFError, KeyError, UnicodeDecodeError, …
        reason = str(error).split("\n")[0][:160] or type(error).__name__
        raise WeightsError(f"The weights file {str(path)!r} is damaged: {reason}", "Fetch it again.") from error
    return _state_dict(content, path)


def _refused(path: Path, error: pickle.UnpicklingError) -> WeightsError:
    named = _GLOBAL.search(str(error))
    what = f"it names {named[1]!r}" if named else "it holds more than tensors"
    return WeightsError(
        f"The file {str(path)!r} was not opened, because opening it could run code: {what}.",
        "Ask its author for a safetensors file or a plain state dict (torch.save(model.state_dict(), …)).",
    )


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    inner = next((content[k] for k in _NESTED if _holds_tensors(content.get(k))), content) if _is_map(content) else {}
    tensors = {str(k): v for k, v in inner.items() if isinstance(v, Tensor)}
    if not tensors:
        raise WeightsError(
            f"The file {str(path)!r} holds no state dict.", "Save it with torch.save(model.state_dict(), …)."
        )
    return tensors


def _is_map(content: Any) -> bool:
    return isinstance(content, Mapping)


def _holds_tensors(content: Any) -> bool:
    return isinstance(content, Mapping) and any(isinstance(v, Tensor) for v in content.values())
