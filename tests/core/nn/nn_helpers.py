"""Small images, a small configuration, a small trainer."""

import numpy as np
from scipy import ndimage

from napari_emtransfer.core.config import ComputeConfig, TrainConfig
from napari_emtransfer.core.nn.ground import ArrayView, TrainingImage, held_out_regions
from napari_emtransfer.core.nn.trainer import RunContext, Trainer, initial_model

FP32 = ComputeConfig(device="cpu", precision="fp32")
CLASSES = ("matrix", "pore")


def blobs(shape, seed=0, sigma=6):
    """A noisy two-phase micrograph and its targets."""
    rng = np.random.default_rng(seed)
    targets = (ndimage.gaussian_filter(rng.standard_normal(shape), sigma) > 0).astype(np.uint8)
    image = targets + 0.5 * rng.standard_normal(shape)
    return TrainingImage(((image - image.mean()) / image.std()).astype(np.float32), targets)


def config(**changes):
    # A tiny encoder: what is tested here is not how well it segments.
    defaults = {"encoder": "test_resnet", "iterations": 12, "batch_size": 2, "crop_px": 64, "validate_every": 6}
    return TrainConfig(**{**defaults, "compute": FP32, **changes})


def make_trainer(folder, cfg, *, model=None, train=None, held_out=None, classes=CLASSES, resume=None, adaptation=()):
    train = [blobs((160, 160))] if train is None else train
    if held_out is None:
        pair = blobs((96, 128), seed=1)
        held_out = held_out_regions(ArrayView(pair.image), pair.targets)
    model = model or initial_model(cfg, len(classes))
    return Trainer(
        model, cfg, train, held_out, RunContext("run", classes, folder), resume=resume, adaptation=adaptation
    )
