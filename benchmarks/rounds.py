"""The second round of labelling: going on from the first round's network against beginning again.

    OMP_WAIT_POLICY=passive python -m benchmarks.rounds

Round 1 trains on a few tiles, round 2 on these and as many again, both with our Trainer; the checkpoint is the best one
on tiles of other micrographs, its IoU that of one confusion matrix over the test micrographs. Round 2 is done in
several ways, all with the same number of iterations, the same tiles, rates and seed:

- fresh: from the weights that round 1 began with;
- continued: from the checkpoint of round 1, with a new optimiser;
- shrunk: the same, decoder and head shrunk by half and perturbed, the new tiles' pixels weighing twice as much;
- shrunk_only, doubled_only (--arms): one of the two alone.

Tiles and specimens are drawn anew for every seed; differences are taken within a seed. ImageNet weights must be on the
machine (`emtransfer weights fetch imagenet:tf_efficientnet_lite0`).
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from benchmarks._common import data_folder, finish, say, whole
from benchmarks._ground import CELLS, Cell, Ground
from napari_emtransfer.core.config import ComputeConfig, PredictConfig, TrainConfig
from napari_emtransfer.core.events import Event
from napari_emtransfer.core.nn.checkpoint import Checkpoint
from napari_emtransfer.core.nn.devices import resolve_device
from napari_emtransfer.core.nn.ground import TrainingImage
from napari_emtransfer.core.nn.model import SegmentationModel
from napari_emtransfer.core.nn.rounds import shrink_perturb
from napari_emtransfer.core.nn.trainer import RunContext, Trainer, initial_model
from napari_emtransfer.core.nn.validation import validate
from napari_emtransfer.core.rates import encoder_rate, resolve_normalization, resolve_strategy

SETS: Final = ("nasa Super4", "polymer", "graphene", "axon")


@dataclass(frozen=True)
class Arm:
    """A way to do round 2."""

    continued: bool
    shrink: float = 1.0
    new_weight: float = 1.0


ARMS: Final = {
    "fresh": Arm(continued=False),
    "continued": Arm(continued=True),
    "shrunk": Arm(continued=True, shrink=0.5, new_weight=2.0),
    "shrunk_only": Arm(continued=True, shrink=0.5),
    "doubled_only": Arm(continued=True, new_weight=2.0),
}


@dataclass(frozen=True)
class Outcome:
    """IoU on the test micrographs, and on the tiles to choose on after each third of the run."""

    test_iou: float
    course: tuple[float, ...]


class Round:
    """Both rounds on one draw of tiles and specimens."""

    def __init__(self, ground: Ground, config: TrainConfig, folder: Path) -> None:
        self._ground, self._config, self._folder = ground, config, folder

    def first(self, n_tiles: int) -> Outcome:
        """Round 1, on the first `n_tiles` tiles."""
        model = initial_model(self._config, len(self._ground.classes))
        return self._fit("round1", model, self._config, self._ground.train[:n_tiles])

    def second(self, name: str, n_old: int) -> Outcome:
        """Round 2 in the way called `name`, on all tiles; the first `n_old` of them are not new."""
        arm = ARMS[name]
        if not arm.continued:
            model = initial_model(self._config, len(self._ground.classes))
            return self._fit(name, model, self._config, self._ground.train)
        config = going_on(self._config, arm)
        model = Checkpoint.load(self._folder / "round1" / "best.safetensors").build()
        shrink_perturb(model, arm.shrink, config.compute.seed)
        return self._fit(name, model, config, with_new_marked(self._ground.train, n_old))

    def _fit(self, name: str, model: SegmentationModel, config: TrainConfig, train: Sequence[TrainingImage]) -> Outcome:
        folder = self._folder / name
        folder.mkdir()
        course: list[float] = []

        def hear(event: Event) -> None:
            if event.event == "ValidationEnded":
                course.append(round(float(event.mean_iou or 0), 4))

        held_out = [whole(pair) for pair in self._ground.validation]
        context = RunContext(name, self._ground.classes, folder)
        Trainer(model, config, train, held_out, context, adaptation=self._ground.unlabelled).fit(hear)
        return Outcome(self._test_iou(Checkpoint.load(folder / "best.safetensors").build()), tuple(course))

    def _test_iou(self, model: SegmentationModel) -> float:
        compute = self._config.compute
        test = [whole(pair) for pair in self._ground.test]
        result = validate(model, test, PredictConfig(compute=compute), resolve_device(compute.device))
        return float(result.mean_iou or 0)


def going_on(config: TrainConfig, arm: Arm) -> TrainConfig:
    """The configuration of a continued run: nothing but the start, and what `arm` says, differs from the fresh one."""
    changes = {
        "weights": "run:round1",
        "strategy": resolve_strategy(config),
        "normalization": resolve_normalization(config),
        "encoder_learning_rate": encoder_rate(config),
        "confirm_uniform_rate": True,
        "shrink": arm.shrink,
        "new_weight": arm.new_weight,
    }
    return config.model_copy(update=changes)


def with_new_marked(train: Sequence[TrainingImage], n_old: int) -> list[TrainingImage]:
    """The tiles, those after the first `n_old` marked as labelled since the parent run."""
    return [
        pair if index < n_old else dataclasses.replace(pair, fresh=np.ones(pair.targets.shape, bool))
        for index, pair in enumerate(train)
    ]


def repetition(cell: Cell, config: TrainConfig, arms: Sequence[str], n_tiles: int) -> dict[str, Outcome]:
    """One seed of one set → "round_1" and each arm."""
    ground = dataclasses.replace(cell, n_tiles=2 * n_tiles).ground(data_folder(), config.compute.seed)
    n_old = len(ground.train) // 2
    with tempfile.TemporaryDirectory() as folder:
        rounds = Round(ground, config, Path(folder))
        outcomes = {"round_1": rounds.first(n_old)}
        for name in arms:
            outcomes[name] = rounds.second(name, n_old)
    for name, outcome in outcomes.items():
        course = " ".join(f"{iou:.3f}" for iou in outcome.course)
        say(f"{cell.name}, seed {config.compute.seed}, {name}: test IoU {outcome.test_iou:.4f}; on the way {course}")
    return outcomes


def of_set(outcomes: Sequence[dict[str, Outcome]]) -> dict[str, Any]:
    """All seeds of one set → per arm the test IoU of each, their mean, and the mean difference to the fresh run."""
    summary: dict[str, Any] = {}
    for name in outcomes[0]:
        found = [outcome[name] for outcome in outcomes]
        ious = [o.test_iou for o in found]
        differences = [iou - outcome["fresh"].test_iou for iou, outcome in zip(ious, outcomes, strict=True)]
        summary[name] = {
            "test_iou": [round(iou, 4) for iou in ious],
            "mean": round(float(np.mean(ious)), 4),
            "against_fresh": round(float(np.mean(differences)), 4),
            "on_the_way": [round(float(np.mean(ious)), 4) for ious in zip(*(o.course for o in found), strict=False)],
        }
    return summary


def overall(sets: dict[str, dict[str, Any]], arms: Sequence[str]) -> dict[str, Any]:
    """Over the sets, each of which counts alike: mean difference to the fresh run, sets won, seeds won."""
    result: dict[str, Any] = {}
    for name in arms:
        differences = [summary[name]["against_fresh"] for summary in sets.values()]
        seeds = [
            (one, fresh)
            for summary in sets.values()
            for one, fresh in zip(summary[name]["test_iou"], summary["fresh"]["test_iou"], strict=True)
        ]
        result[name] = {
            "against_fresh": round(float(np.mean(differences)), 4),
            "worst_set": round(min(differences), 4),
            "sets_better": sum(d > 0 for d in differences),
            "seeds_better": sum(one > fresh for one, fresh in seeds),
            "seeds": len(seeds),
        }
    return result


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=[c.name for c in CELLS], default=list(SETS), metavar="SET")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=["fresh", "continued", "shrunk"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=60, help="of each run of each round")
    parser.add_argument("--weights", default="imagenet", help="what round 1 and the fresh run begin with")
    parser.add_argument("--encoder", default="tu-tf_efficientnet_lite0")
    parser.add_argument("--tiles", type=int, default=4, help="of 256 px in round 1; round 2 has twice as many")
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    return parser.parse_args()


def main() -> None:
    """Run both rounds on all sets and print one JSON object."""
    args = arguments()
    arms = list(dict.fromkeys(["fresh", *args.arms]))
    sets: dict[str, dict[str, Any]] = {}
    for cell in (c for c in CELLS if c.name in args.sets):
        outcomes = []
        for seed in range(args.seeds):
            config = TrainConfig(
                weights=args.weights,
                encoder=args.encoder,
                iterations=args.iterations,
                batch_size=args.batch,
                crop_px=args.crop,
                validate_every=max(1, args.iterations // 3),
                compute=ComputeConfig(device=args.device, seed=seed, threads=args.threads),
            )
            outcomes.append(repetition(cell, config, arms, args.tiles))
        sets[cell.name] = of_set(outcomes)
    settings = {k: vars(args)[k] for k in ("weights", "encoder", "iterations", "tiles", "crop", "batch", "seeds")}
    finish(
        {"benchmark": "rounds", "torch": torch.__version__, **settings, "sets": sets, "overall": overall(sets, arms)}
    )


if __name__ == "__main__":
    main()
