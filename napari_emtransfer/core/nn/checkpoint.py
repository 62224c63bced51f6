"""Checkpoints: one safetensors file with the network, what it was trained on, and what a resume needs.

Safetensors only: a pickled file can run code when opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from napari_emtransfer.core.config import ModelConfig
from napari_emtransfer.core.data.storage import storage_faults, write_atomic
from napari_emtransfer.core.errors import WeightsError
from napari_emtransfer.core.nn.model import SegmentationModel, build_model
from napari_emtransfer.core.nn.weights import read_tensors

_META_KEY: Final = "emtransfer"
_RESUME_PREFIX: Final = "resume/"


class CheckpointMeta(BaseModel):
    """What one must know to use the network: written into the file beside the tensors.

    `temperature` makes its probabilities believable (`core.evaluate.calibration`); 1 where none has been fitted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: int = 1
    model: ModelConfig
    classes: tuple[str, ...]
    standardization: dict[str, Any] = Field(default_factory=dict)
    working_pixel_size_nm: float | None = None
    run_id: str = ""
    iteration: int = 0
    mean_iou: float | None = None
    iou: dict[str, float | None] = Field(default_factory=dict)
    temperature: float = Field(default=1.0, gt=0)
    progress: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: `state` of the network; `resume` holds the trainer's tensors, empty in "best"."""

    meta: CheckpointMeta
    state: Mapping[str, Tensor]
    resume: Mapping[str, Tensor] = field(default_factory=dict)

    def build(self) -> SegmentationModel:
        """The network with these weights, in evaluation mode, on the CPU."""
        model = build_model(self.meta.model)
        model.load_state_dict(dict(self.state))
        return model.eval()

    def save(self, path: Path) -> None:
        """Write atomically: a crash leaves the old file or the new one, never half of one.

        Raises
        ------
        StorageError
            When the disk is full or the folder cannot be written.
        """
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.state.items()}
        tensors |= {_RESUME_PREFIX + k: v.detach().cpu().contiguous() for k, v in self.resume.items()}
        with storage_faults(path):
            write_atomic(path, save(tensors, metadata={_META_KEY: self.meta.model_dump_json()}))

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a checkpoint.

        Raises
        ------
        WeightsError
            When the file is missing, damaged, or not written by this program.
        """
        tensors = read_tensors(path)
        resume = {k.removeprefix(_RESUME_PREFIX): v for k, v in tensors.items() if k.startswith(_RESUME_PREFIX)}
        state = {k: v for k, v in tensors.items() if not k.startswith(_RESUME_PREFIX)}
        return cls(read_meta(path), state, resume)


def set_temperature(path: Path, temperature: float) -> None:
    """Write a temperature into a checkpoint; raises as `Checkpoint.load` and `Checkpoint.save` do."""
    checkpoint = Checkpoint.load(path)
    replace(checkpoint, meta=checkpoint.meta.model_copy(update={"temperature": temperature})).save(path)


def read_meta(path: Path) -> CheckpointMeta:
    """The description of a checkpoint without its tensors; raises `WeightsError` as `Checkpoint.load` does."""
    if not path.is_file():
        raise WeightsError(f"There is no checkpoint {str(path)!r}.", "Train a model first.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return CheckpointMeta.model_validate_json(metadata[_META_KEY])
    except (SafetensorError, KeyError, ValidationError, OSError) as error:
        raise WeightsError(
            f"The file {str(path)!r} is no checkpoint of this program: {type(error).__name__}.",
            "Choose a best.safetensors or last.safetensors of a run.",
        ) from error
