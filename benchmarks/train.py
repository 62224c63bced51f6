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

import torch

from benchmarks._common import data_folder, finish, load_split, say, whole
from benchmarks._rivals import PlainLoop
from napari_emtransfer.core.config import ComputeConfig, PredictConfig, TrainConfig
from napari_emtransfer.core.events import Event
from napari_emtransfer.core.nn.ground import TrainingImage
from napari_emtransfer.core.nn.model import SegmentationModel
from napari_emtransfer.core.nn.trainer import RunContext, Trainer, initial_model
from napari_emtransfer.core.nn.validation import validate

TARGET = 0.89
TURN = 25
NETWORK: dict[str, Any] = {"weights": "none", "encoder": "resnet18"}  # as the plain loop's
CLASSES = ("matrix", "secondary precipitate", "tertiary precipitate")
_FP32 = PredictConfig(compute=ComputeConfig(device="cpu", precision="fp32"))


def test_iou(model: SegmentationModel, test: list[TrainingImage]) -> float:
    """Class-mean IoU of one confusion matrix over the test images, in float32."""
    result = validate(model, [whole(pair) for pair in test], _FP32, torch.device("cpu"))
    return float(result.mean_iou)


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
        copy = initial_model(TrainConfig(**NETWORK), len(CLASSES))
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
        **NETWORK | dict(pair.split("=") for pair in args.set), compute=ComputeConfig(device="cpu", seed=args.seed)
    )
    with tempfile.TemporaryDirectory() as folder:
        contestants: list[Any] = []
        if args.only != "plain":
            contestants.append(Ours(parts, config, Path(folder)))
        if args.only != "ours":
            contestants.append(PlainLoop(parts["train"], len(CLASSES), fast=True, seed=args.seed))
            if args.fp32_iterations:
                contestants.append(PlainLoop(parts["train"], len(CLASSES), fast=False, seed=args.seed))
        n = {"ours": config.iterations, "plain_bf16_channels_last": args.iterations, "plain_fp32": args.fp32_iterations}
        results = compete(contestants, n, parts["test"])
    finish({"benchmark": "train", "set": "nasa_super/Super1", "target": TARGET, "config": args.set, **results})


if __name__ == "__main__":
    main()
