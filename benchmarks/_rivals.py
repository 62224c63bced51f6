"""What a careful person would use instead: a forest on classical features, a hand-written loop around a U-Net."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import segmentation_models_pytorch as smp
import torch
from numpy.typing import NDArray
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier

from napari_emtransfer.core.config import ModelConfig
from napari_emtransfer.core.data.labels import IGNORE_INDEX, from_targets
from napari_emtransfer.core.evaluate.confusion import ConfusionMatrix
from napari_emtransfer.core.nn.ground import TrainingImage
from napari_emtransfer.core.nn.model import SegmentationModel

MOST_PIXELS = 40_000


class Forest:
    """A random forest on `multiscale_basic_features` of the standardised image: ilastik's, Labkit's and Weka's way."""

    def __init__(self, seed: int, *, n_jobs: int = 1) -> None:
        self._forest = RandomForestClassifier(
            n_estimators=100, max_depth=15, max_samples=0.5, n_jobs=n_jobs, random_state=seed
        )
        self._rng = np.random.default_rng(seed)

    def fit(self, train: Sequence[TrainingImage]) -> None:
        """Learn from the labelled pixels, at most 40,000 of them, drawn alike from every tile."""
        share = MOST_PIXELS // len(train)
        chosen = [self._pixels(pair, share) for pair in train]
        self._forest.fit(np.concatenate([f for f, _ in chosen]), np.concatenate([t for _, t in chosen]))

    def predict(self, image: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Class indices (H, W)."""
        features = basic_features(image)
        return self._forest.predict(features.reshape(-1, features.shape[-1])).reshape(image.shape).astype(np.uint8)

    def _pixels(self, pair: TrainingImage, n: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        where = np.flatnonzero(pair.targets != IGNORE_INDEX)
        where = self._rng.choice(where, min(n, len(where)), replace=False)
        features = basic_features(pair.image)
        return features.reshape(-1, features.shape[-1])[where], pair.targets.ravel()[where]


def basic_features(image: NDArray[np.floating]) -> NDArray[np.float32]:
    """Intensity, edges and texture at scales 0.5…16 px: (H, W) → (H, W, F)."""
    return multiscale_basic_features(np.asarray(image, np.float32), sigma_min=0.5, sigma_max=16, workers=1)


def iou_of_masks(truths: Sequence[TrainingImage], masks: Sequence[NDArray[np.uint8]], n_classes: int) -> float:
    """Class-mean IoU of one confusion matrix over all images."""
    matrices = (
        ConfusionMatrix.from_masks(from_targets(pair.targets), from_targets(mask), n_classes)
        for pair, mask in zip(truths, masks, strict=True)
    )
    return float(sum(matrices, ConfusionMatrix.zeros(n_classes)).mean_iou())


class PlainLoop:
    """What one writes by hand in an afternoon: a ResNet-18 U-Net from scratch, Adam at a constant 1e-3, cross-entropy.

    `fast` trains in bfloat16 with channels-last weights.
    """

    def __init__(
        self, train: Sequence[TrainingImage], n_classes: int, *, fast: bool, seed: int, crop: int = 256
    ) -> None:
        self.name = "plain_bf16_channels_last" if fast else "plain_fp32"
        self.seconds, self.done, self._fast, self._train, self._crop = 0.0, 0, fast, train, crop
        self._rng = np.random.default_rng(seed)
        self._n_classes = n_classes
        torch.manual_seed(seed)
        net = smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=n_classes)
        self._net = net.to(memory_format=torch.channels_last) if fast else net
        self._adam = torch.optim.Adam(self._net.parameters(), lr=1e-3)

    def turn(self, n: int) -> None:
        """Train for `n` iterations."""
        started = time.perf_counter()
        self._net.train()
        for _ in range(n):
            images, targets = self._batch()
            if self._fast:
                images = images.to(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=self._fast):
                logits = self._net(images)
            loss = torch.nn.functional.cross_entropy(logits.float(), targets, ignore_index=IGNORE_INDEX)
            self._adam.zero_grad()
            loss.backward()
            self._adam.step()
        self.seconds += time.perf_counter() - started
        self.done += n

    def model(self) -> SegmentationModel:
        """The network as ours, to be measured alike."""
        net = self._net
        return SegmentationModel(
            ModelConfig(n_classes=self._n_classes), net.encoder, net.decoder, net.segmentation_head
        )

    def _batch(self, size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
        images, targets, crop = [], [], self._crop
        for _ in range(size):
            pair = self._train[self._rng.integers(len(self._train))]
            y, x = (self._rng.integers(0, length - crop + 1) for length in pair.image.shape)
            k, flip = self._rng.integers(4), self._rng.integers(2)
            for source, batch in ((pair.image, images), (pair.targets, targets)):
                turned = np.rot90(source[y : y + crop, x : x + crop], k)
                batch.append(np.ascontiguousarray(turned[::-1] if flip else turned))
        return torch.from_numpy(np.stack(images))[:, None], torch.from_numpy(np.stack(targets)).long()
