"""Training time to a given test IoU: our Trainer with its defaults against a plain hand-written loop.

    OMP_WAIT_POLICY=passive python -m benchmarks.train

Data: NASA superalloy micrographs, split Super1 (10 images of 512² to train on, 4 held out for validation, 4 for the
test). Everybody trains a ResNet-18 U-Net from scratch. The plain loop: batch 8 of random 256² crops, flips and quarter
turns, Adam at a constant 1e-3, cross-entropy; in float32, and in bfloat16 with channels-last weights. The contestants
take turns of 25 iterations, so that other work on the machine slows all of them alike; after each turn the test IoU
(class mean of one confusion matrix over the four images) is measured off everybody's clock. Our clock includes what
the Trainer does besides: validation on the held-out images, and checkpoints.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import segmentation_models_pytorch as smp
import torch

from benchmarks._common import data_folder, finish, load_split, say, whole
from napari_emtransfer.core.config import ComputeConfig, ModelConfig, PredictConfig, TrainConfig
from napari_emtransfer.core.events import Event
from napari_emtransfer.core.nn.ground import TrainingImage
from napari_emtransfer.core.nn.model import SegmentationModel
from napari_emtransfer.core.nn.trainer import RunContext, Trainer, initial_model
from napari_emtransfer.core.nn.validation import validate

TARGET = 0.89
TURN = 25
CLASSES = ("matrix", "secondary precipitate", "tertiary precipitate")
_FP32 = PredictConfig(compute=ComputeConfig(device="cpu", precision="fp32"))


def test_iou(model: SegmentationModel, test: list[TrainingImage]) -> float:
    """Class-mean IoU of one confusion matrix over the test images, in float32."""
    result = validate(model, [whole(pair) for pair in test], _FP32, torch.device("cpu"))
    return float(result.mean_iou)


class PlainLoop:
    """What one writes by hand in an afternoon."""

    def __init__(self, train: list[TrainingImage], *, fast: bool, seed: int) -> None:
        self.name = "plain_bf16_channels_last" if fast else "plain_fp32"
        self.seconds, self.done, self._fast, self._train = 0.0, 0, fast, train
        self._rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        net = smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=len(CLASSES))
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
            loss = torch.nn.functional.cross_entropy(logits.float(), targets, ignore_index=255)
            self._adam.zero_grad()
            loss.backward()
            self._adam.step()
        self.seconds += time.perf_counter() - started
        self.done += n

    def model(self) -> SegmentationModel:
        """The network as ours, to be measured alike."""
        net = self._net
        return SegmentationModel(ModelConfig(n_classes=len(CLASSES)), net.encoder, net.decoder, net.segmentation_head)

    def _batch(self, size: int = 8, crop: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
        images, targets = [], []
        for _ in range(size):
            pair = self._train[self._rng.integers(len(self._train))]
            y, x = (self._rng.integers(0, length - crop + 1) for length in pair.image.shape)
            k, flip = self._rng.integers(4), self._rng.integers(2)
            for source, batch in ((pair.image, images), (pair.targets, targets)):
                turned = np.rot90(source[y : y + crop, x : x + crop], k)
                batch.append(np.ascontiguousarray(turned[::-1] if flip else turned))
        return torch.from_numpy(np.stack(images))[:, None], torch.from_numpy(np.stack(targets)).long()


class Ours:
    """Our Trainer in a thread of its own, held between turns at the question whether it should stop."""

    def __init__(self, parts: dict[str, list[TrainingImage]], config: TrainConfig, folder: Path) -> None:
        self.name, self.seconds, self.done = "ours", 0.0, 0
        self._model = initial_model(config, len(CLASSES))
        held_out = [whole(pair) for pair in parts["val"]]
        self._trainer = Trainer(self._model, config, parts["train"], held_out, RunContext("run", CLASSES, folder))
        self._go, self._rest, self._ends_at, self.result = threading.Event(), threading.Event(), 0, None
        self._thread = threading.Thread(target=self._fit, daemon=True)

    def _fit(self) -> None:
        self._hold()
        self.result = self._trainer.fit(self._hear, self._at_iteration)
        self._rest.set()

    def _hear(self, event: Event) -> None:
        if event.event == "IterationEnded":
            self.done = event.iteration
        if event.event == "ValidationEnded":
            say(f"  ours, validation at {event.iteration}: {event.mean_iou:.4f}")

    def _at_iteration(self) -> bool:
        if self.done >= self._ends_at:
            self._hold()
        return False

    def _hold(self) -> None:
        self._rest.set()
        self._go.wait()
        self._go.clear()

    def turn(self, n: int) -> None:
        """Train for `n` iterations, validation and checkpoints included."""
        if not self._thread.is_alive():
            self._thread.start()
            self._rest.wait()
        self._rest.clear()
        self._ends_at += n
        started = time.perf_counter()
        self._go.set()
        self._rest.wait()
        self.seconds += time.perf_counter() - started

    def model(self) -> SegmentationModel:
        """A copy with the averaged weights."""
        copy = initial_model(TrainConfig(), len(CLASSES))
        copy.load_state_dict(self._trainer.averaged_weights)
        return copy


def compete(contestants: list[Any], n: dict[str, int], test: list[TrainingImage]) -> dict[str, dict[str, Any]]:
    """Turn by turn → per contestant the seconds, the course of the test IoU, and the time to the target."""
    course: dict[str, list[tuple[int, float, float]]] = {c.name: [] for c in contestants}
    while any(c.done < n[c.name] for c in contestants):
        for c in contestants:
            if c.done < n[c.name]:
                c.turn(min(TURN, n[c.name] - c.done))
                iou = test_iou(c.model(), test)
                course[c.name].append((c.done, round(c.seconds, 1), round(iou, 4)))
                say(f"{c.name}: {c.done} iterations, {c.seconds:.0f} s, test IoU {iou:.4f}")
    return {name: _summary(points) for name, points in course.items()}


def _summary(points: list[tuple[int, float, float]]) -> dict[str, Any]:
    reached = next((p for p in points if p[2] >= TARGET), (None, None, None))
    return {
        "iterations": points[-1][0],
        "seconds": points[-1][1],
        "seconds_per_iteration": round(points[-1][1] / points[-1][0], 3),
        "test_iou": points[-1][2],
        "seconds_to_target": reached[1],
        "iterations_to_target": reached[0],
        "course": points,
    }


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=300, help="of the plain loop")
    parser.add_argument("--fp32-iterations", type=int, default=25, help="of the slow variant; 0 leaves it out")
    parser.add_argument("--only", choices=["ours", "plain"], help="leave the other out")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change our defaults")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Run the competition and print one JSON object."""
    args = arguments()
    parts = load_split(data_folder() / "nasa_super", "Super1")
    config = TrainConfig(
        **dict(pair.split("=") for pair in args.set), compute=ComputeConfig(device="cpu", seed=args.seed)
    )
    with tempfile.TemporaryDirectory() as folder:
        contestants: list[Any] = []
        if args.only != "plain":
            contestants.append(Ours(parts, config, Path(folder)))
        if args.only != "ours":
            contestants.append(PlainLoop(parts["train"], fast=True, seed=args.seed))
            if args.fp32_iterations:
                contestants.append(PlainLoop(parts["train"], fast=False, seed=args.seed))
        n = {"ours": config.iterations, "plain_bf16_channels_last": args.iterations, "plain_fp32": args.fp32_iterations}
        results = compete(contestants, n, parts["test"])
    finish({"benchmark": "train", "set": "nasa_super/Super1", "target": TARGET, "config": args.set, **results})


if __name__ == "__main__":
    main()
