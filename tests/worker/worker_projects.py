"""A small real project: bright squares on a noisy matrix, three specimens, a named split with a test part."""

from pathlib import Path

import numpy as np
import tifffile

from napari_emtransfer.core.config import ComputeConfig, PredictConfig, TrainConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.tiles import Window

CLASSES = ("matrix", "particle")
SHAPE = (96, 128)
COMPUTE = ComputeConfig(device="cpu", threads=1)
QUICK = TrainConfig(
    weights="none",
    encoder="tu-test_resnet",
    iterations=4,
    batch_size=2,
    crop_px=64,
    validate_every=2,
    augment="none",
    compute=COMPUTE,
    train=("a1", "b1"),
    validation=("c1",),
)
ENDLESS = QUICK.model_copy(update={"iterations": 100_000, "validate_every": 3})
PREDICT = PredictConfig(compute=COMPUTE)


def micrograph(seed: int, shape: tuple[int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 and its mask: 1 matrix, 2 particle."""
    rng = np.random.default_rng(seed)
    mask = np.ones(shape, np.uint8)
    for y, x in rng.integers(0, (shape[0] - 20, shape[1] - 20), (6, 2)):
        mask[y : y + 18, x : x + 18] = 2
    image = np.where(mask == 2, 170, 80) + rng.normal(0, 12, shape)
    return image.clip(0, 255).astype(np.uint8), mask


def make_project(root: Path, *, pixel_size_nm: float | None = 5.0) -> Path:
    """Micrographs a1 … d1 of the specimens a … d, all labelled but for a strip; the split "given" has a test part."""
    files = root / "files"
    files.mkdir(parents=True)
    with Project.create(root / "project", classes=CLASSES, pixel_size_nm=pixel_size_nm) as project:
        for seed, stem in enumerate(("a1", "b1", "c1", "d1")):
            image, mask = micrograph(seed)
            tifffile.imwrite(files / f"{stem}.tif", image)
            project.add_micrograph(files / f"{stem}.tif", specimen=stem[0], pixel_size_nm=pixel_size_nm)
            mask[:, -16:] = 0
            project.annotations.write(stem, Window(y0=0, x0=0, y1=SHAPE[0], x1=SHAPE[1]), mask)
        project.set_named_splits({"given": {"train": ["a1", "b1"], "val": ["c1"], "test": ["d1"]}})
        return project.root


def new_run(root: Path, config: TrainConfig = QUICK) -> str:
    with Project.open(root) as project:
        return project.create_run("train", config.model_dump(mode="json")).id
