"""Predictions on disk: a cache that may be deleted at any time, written window by window while it is being computed."""

from __future__ import annotations

import glob
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_emtransfer.core.data.storage import storage_faults, write_text
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import ProjectError, StorageError

CHUNK_PX = 512
PredictionKind = Literal["mask", "entropy", "confidence", "disagreement"]
_DTYPES: dict[PredictionKind, str] = {"mask": "uint8", "entropy": "float16", "confidence": "float16"}
_ON_DEMAND: dict[PredictionKind, str] = {"disagreement": "float16"}
_RECIPE_NAME = "recipe.txt"


class PredictionStore:
    """`<root>/<run_id>/<stem>/{mask, entropy, confidence}`, each (H, W) in native pixels.

    `mask` holds label values 1..K, 0 where nothing has been predicted yet; `entropy` is in nats; `confidence` is the
    probability of the predicted class. `disagreement` between networks, in nats, is there on demand only.
    """

    def __init__(self, root: Path, *, read_only: str = "") -> None:
        self.root = root
        self._read_only = read_only

    def exists(self, run_id: str, stem: str) -> bool:
        """Whether the store holds a (perhaps partial) prediction of `stem` by the model of `run_id`."""
        return all((self._folder(run_id, stem) / kind / "zarr.json").is_file() for kind in _DTYPES)

    def recipe(self, run_id: str, stem: str) -> str:
        """How the stored prediction was made beyond the run's own model; empty for that alone."""
        path = self._folder(run_id, stem) / _RECIPE_NAME
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def create(
        self, run_id: str, stem: str, shape: tuple[int, int], *, recipe: str = "", disagreement: bool = False
    ) -> None:
        """Make an empty prediction (H, W), replacing an earlier one."""
        if self._read_only:
            raise StorageError(
                f"Cannot write {str(self.root)!r}: {self._read_only}.", "Copy the project and go on there."
            )
        folder = self._folder(run_id, stem)
        with storage_faults(folder):
            if folder.exists():
                shutil.rmtree(folder)
            for kind, dtype in (_DTYPES | _ON_DEMAND if disagreement else _DTYPES).items():
                zarr.create_array(
                    folder / kind,
                    shape=shape,
                    chunks=(CHUNK_PX, CHUNK_PX),
                    dtype=dtype,
                    fill_value=0,
                    overwrite=True,
                    dimension_names=("y", "x"),
                )
            if recipe:
                write_text(folder / _RECIPE_NAME, recipe)

    def write(
        self,
        run_id: str,
        stem: str,
        window: Window,
        *,
        mask: NDArray[np.uint8],
        entropy: NDArray[np.floating],
        confidence: NDArray[np.floating],
        disagreement: NDArray[np.floating] | None = None,
    ) -> None:
        """Store one window (h, w) of a prediction made by `create`."""
        folder = self._folder(run_id, stem)
        maps = {"mask": mask, "entropy": entropy, "confidence": confidence, "disagreement": disagreement}
        with storage_faults(folder):
            for kind, values in maps.items():
                if values is not None:
                    zarr.open_array(folder / kind, mode="r+")[window.slices] = values

    def read(self, run_id: str, stem: str, kind: PredictionKind, window: Window | None = None) -> NDArray[np.generic]:
        """One map (h, w) in `window`, or the whole (H, W).

        Raises
        ------
        ProjectError
            When there is no such prediction (any more).
        """
        if not self.exists(run_id, stem) or not (self._folder(run_id, stem) / kind).exists():
            what = "disagreement in the prediction" if kind in _ON_DEMAND else "prediction"
            raise ProjectError(f"There is no {what} of {stem!r} by the run {run_id!r}.", "Predict it again.")
        array = zarr.open_array(self._folder(run_id, stem) / kind, mode="r")
        return np.asarray(array[window.slices if window is not None else (slice(None), slice(None))])

    def stems(self, run_id: str) -> list[str]:
        """Micrographs that `run_id` has predicted."""
        folder = self.root / run_id
        return sorted(p.name for p in folder.iterdir() if self.exists(run_id, p.name)) if folder.is_dir() else []

    def remove(self, run_id: str | None = None) -> None:
        """Delete the predictions of one run, or the whole cache."""
        with storage_faults(self.root):
            folder = self.root if run_id is None else self.root / run_id
            if folder.exists():
                shutil.rmtree(folder)

    def forget(self, stem: str) -> None:
        """Delete what all runs have predicted of a micrograph: another one may come under its name."""
        with storage_faults(self.root):
            for folder in self.root.glob(f"*/{glob.escape(stem)}"):
                shutil.rmtree(folder)

    def _folder(self, run_id: str, stem: str) -> Path:
        return self.root / run_id / stem
