"""Seconds that one core takes for an ideal structure of 512², by generator.

    OMP_NUM_THREADS=1 python -m benchmarks.synthesis [--seeds 5] [--only equiaxed …]

Settings are drawn anew for each seed, as in streamed generation; coordinates are those of a distorted scan. No
detector.
`seconds` is the median over seeds by generator, `slowest` the largest single value; `voronoi_512_s` is the median of
the default polycrystal (equiaxed), `all_512_s` the median over all; `hrtem_512_s` and `haadf_512_s` are of whole
micrographs of nanoparticles, exposed. Processor time, so that other work on the machine counts as little as it can.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from benchmarks._common import finish, say
from napari_emtransfer.core.synth import haadf, hrtem
from napari_emtransfer.core.synth.scan import ScanSettings, coordinates
from napari_emtransfer.core.synth.voronoi import GENERATORS

SHAPE = (512, 512)


def _of_micrographs(make: Callable[[int], object]) -> Callable[[int], float]:
    """→ a function of the number of seeds: median processor seconds of whole micrographs, settings at random."""

    def measure(seeds: int) -> float:
        taken = []
        for seed in range(-1, seeds):
            start = time.process_time()
            make(seed + 1)
            taken.append(time.process_time() - start)
        return median(taken[1:])

    return measure


FIGURES: dict[str, Callable[[int], float]] = {  # further figures: name → (seeds) → median seconds
    "hrtem_512_s": _of_micrographs(lambda seed: hrtem.simulate(SHAPE, seed=seed)),
    "haadf_512_s": _of_micrographs(lambda seed: haadf.simulate(SHAPE, seed=seed)),
}


def seconds(name: str, seeds: int, *, drawn: bool = True) -> list[float]:
    """Processor seconds of one structure per seed; the first call, which imports and warms up, is not counted."""
    taken = []
    for seed in range(-1, seeds):
        rng = np.random.default_rng([seed + 1, *name.encode()])
        y, x = coordinates(SHAPE, ScanSettings.draw(rng), rng)
        generator = GENERATORS[name].draw(rng) if drawn else GENERATORS[name]()
        start = time.process_time()
        generator(y, x, rng)
        taken.append(time.process_time() - start)
    return taken[1:]


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=sorted(GENERATORS), default=list(GENERATORS))
    arguments = parser.parse_args()
    all_seconds = {}
    for name in arguments.only:
        all_seconds[name] = seconds(name, arguments.seeds)
        say(f"{name}: {median(all_seconds[name]):.3f} s")
    every = [value for values in all_seconds.values() for value in values]
    finish(
        {
            "voronoi_512_s": round(median(seconds("equiaxed", arguments.seeds, drawn=False)), 3),
            "all_512_s": round(median(every), 3),
            "slowest": round(max(every), 3),
            "seconds": {name: round(median(values), 3) for name, values in all_seconds.items()},
            **{name: round(measure(arguments.seeds), 3) for name, measure in FIGURES.items()},
        }
    )


if __name__ == "__main__":
    main()
