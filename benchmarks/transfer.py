"""Every strategy and set of weights on six real cells, against a random forest and a plain U-Net, and what is proposed.

    OMP_WAIT_POLICY=passive python -m benchmarks.transfer --rows rows.jsonl [--seeds 0 1 2] [--weights imagenet]

A cell is a data set with a small labelled budget (4 to 40 tiles of 256²); training, choice of the checkpoint and test
lie on different micrographs, and on different specimens where the set says which is which. All strategies train for the
same number of iterations with the program's own Trainer and defaults; the plain U-Net (ResNet-18, Adam 1e-3, from
scratch) gets the seconds that the proposed strategy took in the same run. IoU is the class mean of one confusion matrix
over the test images. "proposed" is what the recommender answers for the cell; it is one of the strategies' own rows.

Rows are appended to the file as they are done, and rows that it holds are not computed again: the benchmark can be
run in pieces, and by two processes with different seeds. The last line sums up all rows of the file. ImageNet weights
must be on the machine (`emtransfer weights fetch imagenet:tf_efficientnet_lite0`).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._common import data_folder, finish, say, whole
from benchmarks._ground import CELLS, Cell, Ground
from benchmarks._rivals import Forest, PlainLoop, iou_of_masks
from benchmarks._rows import Rows
from napari_emtransfer.core.config import ComputeConfig, PredictConfig, TrainConfig
from napari_emtransfer.core.nn.checkpoint import Checkpoint
from napari_emtransfer.core.nn.gap import domain_gap
from napari_emtransfer.core.nn.model import SegmentationModel
from napari_emtransfer.core.nn.trainer import RunContext, Trainer, initial_model
from napari_emtransfer.core.nn.validation import validate
from napari_emtransfer.core.recommend import recommend

STRATEGIES = ("scratch", "feature-extraction", "fine-tune", "gradual")
TOLERANCE = 0.01


def test_iou(model: SegmentationModel, ground: Ground) -> float:
    """Class-mean IoU over the test images."""
    config = PredictConfig(compute=ComputeConfig(device="cpu"))
    result = validate(model, [whole(pair) for pair in ground.test], config, torch.device("cpu"))
    return round(float(result.mean_iou), 4)


def train(ground: Ground, config: TrainConfig) -> dict[str, Any]:
    """One run of the program's Trainer: test IoU of its best checkpoint, its seconds, its training IoU."""
    heard: dict[str, Any] = {}

    def hear(event: Any) -> None:
        if event.event == "ValidationEnded":
            heard["training_iou"] = event.training_iou and round(event.training_iou, 4)

    with tempfile.TemporaryDirectory() as folder:
        context = RunContext("run", ground.classes, Path(folder))
        model = initial_model(config, len(ground.classes))
        held_out = [whole(pair) for pair in ground.validation]
        trainer = Trainer(model, config, ground.train, held_out, context, adaptation=ground.unlabelled)
        fit = trainer.fit(hear)
        best = Checkpoint.load(Path(folder) / "best.safetensors").build()
    return {"iou": test_iou(best, ground), "seconds": round(fit.seconds, 1), "best": fit.best_iteration, **heard}


def forest(ground: Ground, seed: int) -> dict[str, Any]:
    """The random forest's test IoU and seconds of fitting."""
    started = time.perf_counter()
    classifier = Forest(seed, n_jobs=torch.get_num_threads())
    classifier.fit(ground.train)
    seconds = time.perf_counter() - started
    masks = [classifier.predict(pair.image) for pair in ground.test]
    return {"iou": round(iou_of_masks(ground.test, masks, len(ground.classes)), 4), "seconds": round(seconds, 1)}


def plain(ground: Ground, seed: int, seconds: float, crop_px: int) -> dict[str, Any]:
    """A hand-written U-Net from scratch, for so many seconds."""
    loop = PlainLoop(ground.train, len(ground.classes), fast=True, seed=seed, crop=crop_px)
    while loop.seconds < seconds:
        loop.turn(5)
    return {"iou": test_iou(loop.model(), ground), "seconds": round(loop.seconds, 1), "iterations": loop.done}


def arms(args: argparse.Namespace, seed: int) -> Iterator[tuple[str, TrainConfig]]:
    """Name and configuration of every strategy with every set of weights that it makes sense with."""
    extra = dict(pair.split("=") for pair in args.set)
    base = TrainConfig(
        encoder="resnet18",  # of the arm from scratch: that of the plain U-Net
        iterations=args.iterations,
        crop_px=args.crop,
        validate_every=max(1, args.iterations // 6),
        compute=ComputeConfig(device=args.device, seed=seed, threads=args.threads),
    )
    if "scratch" in args.strategies:
        yield "scratch", base.model_copy(update={"strategy": "scratch", "weights": "none"})
    for weights in args.weights:
        for strategy in (s for s in args.strategies if s != "scratch"):
            chosen = {"strategy": strategy, "weights": weights, "encoder": args.encoder}
            name = " · ".join([strategy, weights, *args.set])
            yield name, TrainConfig.model_validate(base.model_dump() | chosen | extra)


def proposed(ground: Ground, args: argparse.Namespace, seed: int) -> tuple[str, float | None, str]:
    """Arm that the recommender chooses for the first set of weights, the gap it measured, and the rule."""
    config = TrainConfig(weights=args.weights[0], encoder=args.encoder, compute=ComputeConfig(seed=seed))
    model = initial_model(config, len(ground.classes))
    gap = domain_gap(model, ground.unlabelled)
    answer = recommend(len(ground.train), ground.n_specimens, gap, pretrained=True, encoder_rate=None)
    arm = answer.strategy if answer.strategy == "scratch" else f"{answer.strategy} · {args.weights[0]}"
    return arm, gap, answer.rule.id


def compete(cell: Cell, seed: int, args: argparse.Namespace, rows: Rows) -> None:
    """All arms of one repetition."""
    say(f"{cell.name}, seed {seed}")
    ground = cell.ground(data_folder(), seed)
    if not rows.find(cell.name, seed, "forest"):
        rows.add(cell=cell.name, seed=seed, arm="forest", **forest(ground, seed))
    for name, config in arms(args, seed):
        if not rows.find(cell.name, seed, name):
            rows.add(cell=cell.name, seed=seed, arm=name, **train(ground, config))
    arm, gap, rule = proposed(ground, args, seed)
    say(f"  proposed: {arm} (gap {gap}, rule {rule})")
    chosen = rows.find(cell.name, seed, arm)
    if chosen and not rows.find(cell.name, seed, "plain"):
        rows.add(cell=cell.name, seed=seed, arm="plain", **plain(ground, seed, chosen["seconds"], args.crop))


def table(rows: Rows, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Cell → arm → mean and standard deviation over the seeds, and the proposal's distance from the best."""
    result: dict[str, dict[str, Any]] = {}
    for cell in CELLS:
        of_cell = [row for row in rows.all if row["cell"] == cell.name]
        if of_cell:
            by_arm = {name: [r["iou"] for r in of_cell if r["arm"] == name] for name in {r["arm"] for r in of_cell}}
            entry: dict[str, Any] = {
                name: {"iou": round(float(np.mean(v)), 3), "sd": round(float(np.std(v)), 3), "n": len(v)}
                for name, v in sorted(by_arm.items())
            }
            arm, gap, rule = proposed(cell.ground(data_folder(), 0), args, 0)
            strategies = {name: v["iou"] for name, v in entry.items() if name not in ("forest", "plain")}
            entry["proposed"] = arm
            entry["gap"], entry["rule"] = gap and round(gap, 3), rule
            entry["behind_best"] = round(max(strategies.values()) - strategies.get(arm, float("nan")), 3)
            result[cell.name] = entry
    return result


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="file of results, added to")
    parser.add_argument("--cells", nargs="*", default=[cell.name for cell in CELLS])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--weights", nargs="*", default=["imagenet"], help="the recommender is asked for the first")
    parser.add_argument("--strategies", nargs="*", default=STRATEGIES)
    parser.add_argument("--encoder", default="tu-tf_efficientnet_lite0")
    parser.add_argument("--iterations", type=int, default=80)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="change the transfers' defaults"
    )
    return parser.parse_args()


def main() -> None:
    """Run what is missing and print one JSON object."""
    args = arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    rows = Rows(args.rows)
    for seed in args.seeds:
        for cell in CELLS:
            if cell.name in args.cells:
                compete(cell, seed, args, rows)
    cells = table(rows, args)
    share = float(np.mean([entry["behind_best"] <= TOLERANCE for entry in cells.values()]))
    finish({"benchmark": "transfer", "iterations": args.iterations, "proposed_within_0.01": share, "cells": cells})


if __name__ == "__main__":
    main()
