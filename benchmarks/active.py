"""Active learning on real micrographs: what the tiles that the program proposes are worth, against random ones.

    OMP_WAIT_POLICY=passive python -m benchmarks.active --rows rows.jsonl [--seeds 0 1 2 …] [--acquisitions default …]

The program's own simulation (`emtransfer simulate`) on each real set: half of the specimens are the pool, cut into
tiles of 128², the others are measured on; other ones for each seed. 4 tiles are labelled in full in each round, up to
64; one in five of them is a random control, as in the window, whatever the acquisition. After each round the head that
ranks is fitted anew on features of the bundled weights and measured on pixels of all held-out tiles: class-mean IoU of
one confusion matrix. With `--iterations` a network is fine-tuned in each round instead.

The area under the curve is the mean IoU over the budgets (trapezoidal rule). Acquisitions are compared by it, paired by
seed: the seeds have the same specimens, and intervals are Student's t over them. `reached` is the number of tiles with
which the mean curve gets to the IoU that random tiles reach with 32.

Rows are appended to the file as they are done and not computed again; the last line sums up all rows of the file.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import data_folder, finish, say
from benchmarks._few_tiles import SETS, TILE_PX
from benchmarks._rows import Rows
from napari_emtransfer.core.active.simulate import Curve, mean_curve, paired_difference, tiles_to_target
from napari_emtransfer.core.config import ComputeConfig, RankConfig
from napari_emtransfer.core.events import NoticePosted, RunFailed, RunFinished
from napari_emtransfer.worker.handlers import RunControl, handle
from napari_emtransfer.worker.protocol import SimulateRequest

RIVALS = ("random", "foreground-random")
TARGET_TILES = 32


def simulated(name: str, seed: int, acquisitions: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """The program's result for one set and one seed."""
    ended: list[RunFinished | RunFailed] = []

    def emit(event: Any) -> None:
        if isinstance(event, NoticePosted):
            say(f"  {event.message}")
        if isinstance(event, RunFinished | RunFailed):
            ended.append(event)

    request = SimulateRequest(
        run_id="benchmark",
        dataset=data_folder() / name,
        acquisitions=tuple(acquisitions),
        rounds=args.rounds,
        query_size=args.query_size,
        seeds=(seed,),
        tile_px=TILE_PX,
        iterations=args.iterations,
        config=RankConfig(compute=ComputeConfig(device=args.device, threads=args.threads)),
    )
    handle(request, emit, RunControl())
    if isinstance(ended[-1], RunFailed):
        raise SystemExit(f"{name}: {ended[-1].message} {ended[-1].traceback}")
    return ended[-1].result


def curves_of(rows: Rows, cell: str, acquisition: str) -> list[Curve]:
    """All seeds of one acquisition on one set."""
    return [
        Curve(acquisition, row["seed"], tuple(row["n_tiles"]), tuple(row["mean_iou"]), ())
        for row in rows.all
        if row["cell"] == cell and row["arm"] == acquisition
    ]


def compared(rows: Rows, cell: str, acquisition: str, rival: str) -> dict[str, Any] | None:
    """Area minus that of the rival; None where they share no two seeds."""
    mine, theirs = (curves_of(rows, cell, name) for name in (acquisition, rival))
    n = len({c.seed for c in mine} & {c.seed for c in theirs})
    if n < 2:
        return None
    difference, low, high = paired_difference(mine, theirs)
    verdict = "better" if low > 0 else "worse" if high < 0 else "open"
    return {"difference": round(difference, 4), "ci95": [round(low, 4), round(high, 4)], "n": n, "verdict": verdict}


def summary(rows: Rows, sets: list[str]) -> dict[str, Any]:
    """Per set: mean areas, differences to random and foreground-random, tiles to the target."""
    names = list(dict.fromkeys(row["arm"] for row in rows.all))
    result: dict[str, Any] = {}
    for cell in (s for s in sets if curves_of(rows, s, "random")):
        means = {name: mean_curve(found) for name in names if (found := curves_of(rows, cell, name))}
        target = dict(zip(means["random"].n_tiles, means["random"].mean_iou, strict=True)).get(TARGET_TILES)
        result[cell] = {
            "area": {name: round(float(np.mean([c.area for c in curves_of(rows, cell, name)])), 4) for name in means},
            "against": {
                rival: {name: compared(rows, cell, name, rival) for name in means if name != rival} for rival in RIVALS
            },
            "target": target and round(target, 4),
            "reached": {name: tiles_to_target(curve, target) if target else None for name, curve in means.items()},
            "curve": {name: [round(iou or 0, 3) for iou in curve.mean_iou] for name, curve in means.items()},
        }
    return result


def verdicts(by_set: dict[str, Any]) -> dict[str, Any]:
    """On how many sets the default is better, open or worse; and where the target is reached with half of the tiles."""
    found: dict[str, Any] = {}
    for rival in RIVALS:
        outcomes = [s["against"][rival].get("default") for s in by_set.values()]
        found[rival] = {
            v: sum(o is not None and o["verdict"] == v for o in outcomes) for v in ("better", "open", "worse")
        }
    reached = [s["reached"].get("default") for s in by_set.values()]
    found["target_with_half"] = sum(n is not None and n <= TARGET_TILES // 2 for n in reached)
    return found


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="file of results, added to")
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--acquisitions", nargs="*", default=["default", "random", "foreground-random"])
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--query-size", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=None)
    return parser.parse_args()


def main() -> None:
    """Run what is missing and print one JSON object."""
    args = arguments()
    rows = Rows(args.rows)
    for seed in args.seeds:
        for name in args.sets:
            missing = [a for a in args.acquisitions if rows.find(name, seed, a) is None]
            if not missing:
                continue
            say(f"{name}, seed {seed}: {', '.join(missing)}")
            curves = simulated(name, seed, missing, args)["curves"]
            for acquisition in (a for a in curves if rows.find(name, seed, a) is None):
                curve = curves[acquisition]
                values = [iou and round(iou, 4) for iou in curve["seeds"][str(seed)]]
                rows.add(cell=name, seed=seed, arm=acquisition, n_tiles=curve["n_tiles"], mean_iou=values)
    by_set = summary(rows, args.sets)
    finish({"benchmark": "active", "verdicts": verdicts(by_set), "sets": by_set})


if __name__ == "__main__":
    main()
