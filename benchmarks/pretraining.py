"""The bundled weights on real micrographs that they never saw, against a random start and a random forest.

    OMP_WAIT_POLICY=passive python -m benchmarks.pretraining --rows rows.jsonl [--seeds 0 1 2] [--tiles 4 8 16 32]

On each real set half of the specimens are learnt from and the others tested on (a set with one specimen is split by
micrograph). 4 to 32 tiles of 128² are labelled in full. Both networks are the same U-Net, trained by the program's own
Trainer on the same crops in the same order for the same number of iterations, so for the same time; only the start
differs: the bundled weights with the program's defaults for them, or random numbers with its defaults for those. No
validation: the last weights are measured. The forest: 100 trees on scikit-image's multiscale features of the
standardised image. IoU is the class mean of one confusion matrix over the test images.

Rows are appended to the file as they are done and not computed again. The last line sums up all rows of the file:
`mean` per set, budget and arm over the seeds; `gain_8` the mean over the sets of bundled minus random at 8 tiles.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._common import data_folder, finish, say, whole
from benchmarks._few_tiles import SETS, TILE_PX, FewTiles
from benchmarks._rivals import Forest, iou_of_masks
from benchmarks._rows import Rows
from napari_emtransfer.core.config import ComputeConfig, PredictConfig, TrainConfig
from napari_emtransfer.core.nn.checkpoint import Checkpoint
from napari_emtransfer.core.nn.ground import TrainingImage
from napari_emtransfer.core.nn.trainer import RunContext, Trainer, initial_model
from napari_emtransfer.core.nn.validation import validate


def config_of(arm: str, args: argparse.Namespace, seed: int) -> TrainConfig:
    """The configuration of a network's arm: "random", or "bundled" with fields changed after a "·"."""
    base = {
        "iterations": args.iterations,
        "crop_px": TILE_PX,
        "encoder": args.encoder,
        "compute": ComputeConfig(device=args.device, seed=seed, threads=args.threads),
    }
    start, *changes = arm.split("·")
    chosen = {"strategy": "scratch", "weights": "none"} if start == "random" else {"weights": args.weights}
    return TrainConfig.model_validate(base | chosen | dict(change.split("=") for change in changes))


def network(few: FewTiles, tiles: list[TrainingImage], config: TrainConfig) -> dict[str, Any]:
    """Train on the tiles → test IoU and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        context = RunContext("run", few.classes, Path(folder))
        model = initial_model(config, len(few.classes))
        fit = Trainer(model, config, tiles, [], context, adaptation=few.unlabelled).fit(lambda _: None)
        trained = Checkpoint.load(Path(folder) / "best.safetensors").build()
    compute = PredictConfig(compute=config.compute)
    result = validate(trained, [whole(pair) for pair in few.test], compute, torch.device("cpu"))
    return {"iou": round(float(result.mean_iou), 4), "seconds": round(fit.seconds, 1)}


def forest(few: FewTiles, tiles: list[TrainingImage], seed: int) -> dict[str, Any]:
    """Fit on the tiles' pixels → test IoU and seconds of fitting."""
    started = time.perf_counter()
    classifier = Forest(seed, n_jobs=torch.get_num_threads())
    classifier.fit(tiles)
    seconds = time.perf_counter() - started
    masks = [classifier.predict(pair.image) for pair in few.test]
    return {"iou": round(iou_of_masks(few.test, masks, len(few.classes)), 4), "seconds": round(seconds, 1)}


def summary(rows: Rows, n_tiles: list[int]) -> dict[str, Any]:
    """Means over seeds, and what is claimed of them."""
    means: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows.all:
        name, n = row["cell"].rsplit(" ", 1)
        means.setdefault(name, {}).setdefault(n, {}).setdefault(row["arm"], []).append(row["iou"])
    for by_tiles in means.values():
        for arms in by_tiles.values():
            arms.update({arm: round(float(np.mean(values)), 3) for arm, values in arms.items()})
    budgets = [str(n) for n in n_tiles]

    def ahead(n: str, rival: str) -> list[float]:
        cells = [by_tiles[n] for by_tiles in means.values() if n in by_tiles]
        return [c["bundled"] - c[rival] for c in cells if "bundled" in c and rival in c]

    against = {
        rival: {n: [round(d, 3) for d in ahead(n, rival)] for n in budgets if ahead(n, rival)}
        for rival in ("random", "forest")
    }
    gain = against["random"].get("8")
    return {"mean": means, "ahead_of": against, "gain_8": gain and round(float(np.mean(gain)), 3)}


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="file of results, added to")
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--tiles", nargs="*", type=int, default=[4, 8, 16, 32])
    parser.add_argument("--arms", nargs="*", default=["forest", "random", "bundled"])
    parser.add_argument("--weights", default="synthetic")
    parser.add_argument("--encoder", default="tu-regnety_002")
    parser.add_argument("--iterations", type=int, default=80)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=None)
    return parser.parse_args()


def main() -> None:
    """Run what is missing and print one JSON object."""
    args = arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    rows = Rows(args.rows)
    for seed in args.seeds:
        for name in args.sets:
            few = FewTiles(data_folder(), name, seed)
            for n in args.tiles:
                cell, tiles = f"{name} {n}", few.tiles(n)
                say(f"{cell}, seed {seed}")
                for arm in (a for a in args.arms if rows.find(cell, seed, a) is None):
                    result = (
                        forest(few, tiles, seed) if arm == "forest" else network(few, tiles, config_of(arm, args, seed))
                    )
                    rows.add(cell=cell, seed=seed, arm=arm, **result)
    finish({"benchmark": "pretraining", "iterations": args.iterations, **summary(rows, args.tiles)})


if __name__ == "__main__":
    main()
