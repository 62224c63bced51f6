"""How long one core takes for a 512² micrograph of nanoparticles: HRTEM, HAADF, and another defocus of the same wave.

    OMP_NUM_THREADS=1 python -m benchmarks.hrtem_speed [--n 24]

Seconds of processor time in one thread, as other programs may share the core; median and 90th percentile over seeds with
settings at random.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from benchmarks._common import finish
from napari_emtransfer.core.synth import haadf, hrtem

SHAPE = (512, 512)


def seconds(make: Callable[[int], object], n: int) -> tuple[float, float]:
    """Median and 90th percentile of the processor time of `make(seed)`."""
    taken = []
    for seed in range(n):
        started = time.process_time()
        make(seed)
        taken.append(time.process_time() - started)
    return round(float(np.median(taken)), 3), round(float(np.quantile(taken, 0.9)), 3)


def measure(n: int = 24) -> dict[str, float]:
    """Seconds per micrograph of 512²."""
    prepared = [hrtem.prepare(SHAPE, seed=seed) for seed in range(n)]
    median, p90 = seconds(lambda seed: hrtem.simulate(SHAPE, seed=seed), n)
    again, _ = seconds(lambda seed: hrtem.micrograph(prepared[seed]), n)
    scanned, scanned_p90 = seconds(lambda seed: haadf.simulate(SHAPE, seed=seed), n)
    return {
        "hrtem_512_s": median,
        "hrtem_512_p90_s": p90,
        "hrtem_512_another_defocus_s": again,
        "haadf_512_s": scanned,
        "haadf_512_p90_s": scanned_p90,
    }


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=24)
    finish({"benchmark": "hrtem_speed", **measure(parser.parse_args().n)})


if __name__ == "__main__":
    main()
