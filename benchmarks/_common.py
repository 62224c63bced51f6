"""What the benchmarks share: real data, standardisation, test IoU, the closing JSON line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.io import imread

from napari_emtransfer.core.data.labels import to_targets
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.nn.ground import ArrayView, HeldOutRegion, TrainingImage


def data_folder() -> Path:
    """Folder of the real data sets; leaves with a message where there is none."""
    folder = Path(os.environ.get("EMTRANSFER_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        finish({"skipped": f"no real data at {folder}; set EMTRANSFER_DATA"})
    return folder


def standardized(image: NDArray[np.generic]) -> NDArray[np.float32]:
    """Clipped to the percentiles 0.1 and 99.9, then mean 0 and variance 1."""
    image = image.astype(np.float32)
    low, high = np.percentile(image, (0.1, 99.9))
    clipped = np.clip(image, low, high)
    return ((clipped - clipped.mean()) / max(float(clipped.std()), 1e-6)).astype(np.float32)


def load_pair(folder: Path, stem: str) -> TrainingImage:
    """Image and targets of one labelled micrograph."""
    path = next(p for p in (folder / "images").iterdir() if p.stem == stem)
    image = imread(path)
    image = image[..., 0] if image.ndim == 3 else image
    return TrainingImage(standardized(image), to_targets(imread(folder / "masks" / f"{stem}.png")))


def load_split(folder: Path, split: str) -> dict[str, list[TrainingImage]]:
    """Part name → labelled micrographs of one of the data set's splits."""
    parts = json.loads((folder / "dataset.json").read_text())["splits"][split]
    return {part: [load_pair(folder, stem) for stem in stems] for part, stems in parts.items()}


def whole(pair: TrainingImage) -> HeldOutRegion:
    """The whole micrograph as held-out ground."""
    height, width = pair.image.shape
    return HeldOutRegion(ArrayView(pair.image), Window(y0=0, x0=0, y1=height, x1=width), pair.targets)


def say(text: str) -> None:
    """Progress, at once."""
    print(text, flush=True)


def finish(result: dict[str, Any]) -> None:
    """Print the closing JSON line and leave."""
    print(json.dumps(result), flush=True)
    sys.exit(0)
