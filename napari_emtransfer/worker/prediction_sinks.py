"""Where predicted pixels go: the project's prediction store, or image files in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_emtransfer.core.data.labels import from_targets
from napari_emtransfer.core.data.prediction_store import PredictionStore
from napari_emtransfer.core.data.storage import storage_faults
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.worker.models import TrainedModel

Uncertainty = Literal["none", "entropy", "disagreement"]
_NM_PER_CM: Final = 1e7
_SMALLEST_PROBABILITY: Final = 1e-12


class Sink(Protocol):
    """Takes the prediction of one micrograph, piece by piece."""

    def write(
        self, window: Window, probabilities: NDArray[np.float32], disagreement: NDArray[np.float32] | None
    ) -> None:
        """Probabilities (C, h, w) of a native window; disagreement (h, w) in nats where the model gives it."""

    def finish(self) -> str:
        """Everything is written; returns the name under which it is found."""


def mask_of(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Probabilities (C, H, W) → label values (H, W), 1..C."""
    return from_targets(probabilities.argmax(axis=0).astype(np.uint8))


def entropy_of(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Entropy of probabilities (C, H, W) → (H, W), in nats: 0 certain, ln C undecided."""
    p = np.maximum(probabilities, _SMALLEST_PROBABILITY)
    entropy: NDArray[np.float32] = -(p * np.log(p)).sum(axis=0)
    return np.maximum(entropy, 0)


class StoreSink:
    """Into the project's prediction store, where the window sees it at once."""

    def __init__(self, store: PredictionStore, model: TrainedModel, stem: str, shape: tuple[int, int]) -> None:
        self._store = store
        self._run_id = model.run.id
        self._stem = stem
        disagreement = model.predictor.n_channels > model.n_classes
        recipe = f"{model.recipe} disagreement".strip() if disagreement else model.recipe
        if not self._is_of(model.checkpoints, recipe):
            store.create(self._run_id, stem, shape, recipe=recipe, disagreement=disagreement)

    def write(
        self, window: Window, probabilities: NDArray[np.float32], disagreement: NDArray[np.float32] | None
    ) -> None:
        """Probabilities (C, h, w) and disagreement (h, w) of a native window."""
        self._store.write(
            self._run_id,
            self._stem,
            window,
            mask=mask_of(probabilities),
            entropy=entropy_of(probabilities).astype(np.float16),
            confidence=probabilities.max(axis=0).astype(np.float16),
            disagreement=None if disagreement is None else disagreement.astype(np.float16),
        )

    def finish(self) -> str:
        """The micrograph's stem."""
        return self._stem

    def _is_of(self, checkpoints: Iterable[Path], recipe: str) -> bool:
        """Whether what is stored was made so, by these very checkpoints: a run's best one changes while it trains."""
        if not self._store.exists(self._run_id, self._stem) or self._store.recipe(self._run_id, self._stem) != recipe:
            return False
        made = (self._store.root / self._run_id / self._stem / "confidence" / "zarr.json").stat().st_mtime_ns
        return made > max(path.stat().st_mtime_ns for path in checkpoints)


class FileSink:
    """Into image files: STEM.tif, and on demand STEM_entropy.tif, STEM_disagreement.tif and STEM_probabilities.npy.

    STEM.tif holds label values (H, W) uint8 and the pixel size. Entropy and disagreement are float32 in nats, the
    probabilities are float32 (C, H, W). Each file appears when it is complete.
    """

    def __init__(
        self,
        stem: Path,
        model: TrainedModel,
        shape: tuple[int, int],
        pixel_size_nm: float | None,
        *,
        uncertainty: Uncertainty,
        probabilities: bool,
    ) -> None:
        self._stem = stem
        self._pixel_size_nm = pixel_size_nm
        self._about = {"classes": list(model.meta.classes), "run": model.run.id, "pixel_size_nm": pixel_size_nm}
        self._mask = np.zeros(shape, np.uint8)
        self._uncertainty = None if uncertainty == "none" else np.zeros(shape, np.float32)
        self._uncertainty_name = uncertainty
        self._part = self._named("_probabilities.npy.part")
        self._probabilities: NDArray[np.float32] | None = None
        with storage_faults(stem.parent):
            stem.parent.mkdir(parents=True, exist_ok=True)
            if probabilities:
                self._probabilities = np.lib.format.open_memmap(
                    self._part, mode="w+", dtype=np.float32, shape=(model.n_classes, *shape)
                )

    def write(
        self, window: Window, probabilities: NDArray[np.float32], disagreement: NDArray[np.float32] | None
    ) -> None:
        """Probabilities (C, h, w) and disagreement (h, w) of a native window."""
        self._mask[window.slices] = mask_of(probabilities)
        if self._uncertainty is not None:
            self._uncertainty[window.slices] = entropy_of(probabilities) if disagreement is None else disagreement
        if self._probabilities is not None:
            self._probabilities[:, *window.slices] = probabilities

    def finish(self) -> str:
        """Path of the mask."""
        path = self._named(".tif")
        self._write_tiff(path, self._mask, self._about)
        if self._uncertainty is not None:
            path_of_map = self._named(f"_{self._uncertainty_name}.tif")
            self._write_tiff(path_of_map, self._uncertainty, self._about | {"unit": "nat"})
        if self._probabilities is not None:
            with storage_faults(self._part):
                self._probabilities.flush()  # type: ignore[attr-defined]
                self._probabilities = None
                self._part.replace(self._named("_probabilities.npy"))
        return str(path)

    def _named(self, ending: str) -> Path:
        return self._stem.with_name(self._stem.name + ending)

    def _write_tiff(self, path: Path, image: NDArray[Any], about: dict[str, Any]) -> None:
        size = self._pixel_size_nm
        per_cm = (_NM_PER_CM / size,) * 2 if size else None
        part = path.with_name(f"{path.name}.part{os.getpid()}")
        with storage_faults(path):
            try:
                tifffile.imwrite(
                    part,
                    image,
                    photometric="minisblack",
                    compression="zlib",
                    metadata=about,
                    resolution=per_cm,
                    resolutionunit="CENTIMETER" if size else None,
                )
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
