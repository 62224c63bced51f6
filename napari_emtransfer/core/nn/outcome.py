"""What a training run is called, how far it has come, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from napari_emtransfer.core.legality import ALL

StopReason = Literal["done", "patience", "minutes", "stopped"]


@dataclass(frozen=True)
class RunContext:
    """What the run is called and where it writes: `folder`/best.safetensors and last.safetensors.

    `ground` says what the held-out regions are, such as "specimen"; `allowed` names the transforms that augmentation
    may use; the rest goes into the checkpoints.
    """

    run_id: str
    classes: tuple[str, ...]
    folder: Path
    ground: str = "specimen"
    standardization: Mapping[str, Any] = field(default_factory=dict)
    working_pixel_size_nm: float | None = None
    allowed: frozenset[str] = ALL

    def checkpoint_path(self, which: Literal["last", "best"]) -> Path:
        """Where the checkpoint lies."""
        return self.folder / f"{which}.safetensors"


@dataclass
class Best:
    """The best validation so far, and how many came after it; iteration 0 where there was none."""

    iteration: int = 0
    mean_iou: float | None = None
    iou: dict[str, float | None] = field(default_factory=dict)
    n_stale: int = 0


@dataclass(frozen=True)
class FitResult:
    """`mean_iou` and `iou` are the best checkpoint's on the held-out ground; None where there was none."""

    best_iteration: int
    mean_iou: float | None
    iou: dict[str, float | None]
    iterations: int
    seconds: float
    reason: StopReason

    @property
    def stopped_early(self) -> bool:
        """True when not all iterations were done."""
        return self.reason != "done"
