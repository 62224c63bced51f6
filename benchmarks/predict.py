"""Tiled prediction: throughput against the bare network, peak memory on a large micrograph, tiled against untiled.

    OMP_WAIT_POLICY=passive python -m benchmarks.predict

A ResNet-18 U-Net, trained for a moment on synthetic micrographs (or `--checkpoint`), so that its norms and filters are
no initialisation. Three figures:

`ratio`: pixels per second of the Predictor on 4096² over those of the bare network, median over repeats. The bare
network gets the same pixels, at the same precision, channels last, as plain windows without halo or overlap, with
nothing read, cropped or copied; its window is the fastest of several sizes, found first. The two take turns, a quarter
of the image at a time, so that other work on the machine slows both; the ratio of processor times ignores it.
`peak_gb`: peak resident memory of a fresh process that predicts 16384² from a generated image into nothing, less that
of the same process with the model loaded and one window of 64² predicted. In float32, the larger of the two precisions.
`max_difference`: the largest difference of any probability between tiled and whole prediction in float32.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._common import finish, say, standardized
from napari_emtransfer.core.config import ComputeConfig, PredictConfig, TrainConfig
from napari_emtransfer.core.data.labels import to_targets
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.nn import devices
from napari_emtransfer.core.nn.checkpoint import Checkpoint
from napari_emtransfer.core.nn.ground import ArrayView, TrainingImage
from napari_emtransfer.core.nn.model import SegmentationModel
from napari_emtransfer.core.nn.predictor import Predictor
from napari_emtransfer.core.nn.trainer import RunContext, Trainer, initial_model
from napari_emtransfer.core.synth.voronoi import Imaging, two_phase

CLASSES = ("matrix", "second phase")


def synthetic(shape: tuple[int, int], seed: int) -> TrainingImage:
    """A standardised synthetic micrograph and its targets."""
    made = two_phase(shape, kind="precipitate", imaging=Imaging.random(np.random.default_rng(seed)), seed=seed)
    return TrainingImage(standardized(made.image), to_targets(made.mask))


def train_briefly(folder: Path, iterations: int) -> Path:
    """Train a ResNet-18 U-Net for a moment → its checkpoint."""
    config = TrainConfig(
        weights="none", encoder="resnet18", iterations=iterations, batch_size=4, validate_every=iterations
    )
    train = [synthetic((512, 512), seed) for seed in range(4)]
    Trainer(initial_model(config, 2), config, train, [], RunContext("bench", CLASSES, folder)).fit(lambda _event: None)
    return folder / "best.safetensors"


class TiledMicrograph:
    """A view of any size that repeats a small image, mirrored, and holds no more than that."""

    def __init__(self, patch: NDArray[np.float32], shape: tuple[int, int]) -> None:
        self.patch, self.shape = patch, shape

    def read(self, window: Window) -> NDArray[np.float32]:
        """Pixels of `window`."""
        rows, columns = (
            np.abs((np.arange(a, b) + n) % (2 * n) - n) % n
            for a, b, n in zip((window.y0, window.x0), (window.y1, window.x1), self.patch.shape, strict=True)
        )
        return self.patch[np.ix_(rows, columns)]


def _compute(precision: str) -> ComputeConfig:
    return ComputeConfig(device="cpu", precision=precision)


class Clock:
    """Adds up wall and processor seconds over with-blocks."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._wall
        self.cpu += time.process_time() - self._cpu


def run_predictor(model: SegmentationModel, view: Any, precision: str) -> float:
    """Predict the whole view and drop the result → seconds."""
    started = time.perf_counter()
    for _ in Predictor(model, PredictConfig(compute=_compute(precision))).predict(view):
        pass
    return time.perf_counter() - started


@torch.inference_mode()
def run_bare(model: SegmentationModel, images: list[torch.Tensor], precision: str, clock: Clock) -> None:
    """The network on windows that are already there."""
    with clock, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        for image in images:
            model(image)


def windows(view: Any, edge: int) -> list[torch.Tensor]:
    """The view cut into plain windows of `edge` pixels, as the network wants them."""
    return [
        torch.from_numpy(view.read(Window(y0=y, x0=x, y1=y + edge, x1=x + edge)))[None, None].to(
            memory_format=torch.channels_last
        )
        for y in range(0, view.shape[0], edge)
        for x in range(0, view.shape[1], edge)
    ]


def throughput(model: SegmentationModel, precision: str, edge: int, repeats: int) -> dict[str, Any]:
    """Predictor against bare network on edge², in turns of one window of the Predictor and as many bare pixels."""
    view = TiledMicrograph(synthetic((512, 512), 9).image, (edge, edge))
    size = _fastest_window(model, view, precision)
    images = windows(view, size)
    ratios, cpu_ratios, seconds = [], [], []
    for _ in range(repeats):
        bare, ours, done = Clock(), Clock(), 0
        with ours:
            pieces = Predictor(model, PredictConfig(compute=_compute(precision))).predict(view)
        for _ in pieces_timed(pieces, ours):
            share = images[done : done + max(1, len(images) // N_TURNS)]
            run_bare(model, share, precision, bare)
            done += len(share)
        run_bare(model, images[done:], precision, bare)
        ratios.append(bare.wall / ours.wall)
        cpu_ratios.append(bare.cpu / ours.cpu)
        seconds.append(ours.wall)
        say(
            f"{precision}: bare {bare.wall:.1f} s, tiled {ours.wall:.1f} s, ratio {ratios[-1]:.3f}; processor time "
            f"{bare.cpu:.1f} s, {ours.cpu:.1f} s, ratio {cpu_ratios[-1]:.3f}"
        )
    return {
        "ratio": round(median(ratios), 3),
        "ratios": [round(r, 3) for r in sorted(ratios)],
        "ratio_of_processor_time": round(median(cpu_ratios), 3),
        "megapixels_per_second": round(edge**2 / 1e6 / median(seconds), 3),
        "bare_window_px": size,
    }


# The default windows cut 4096² into four.
N_TURNS = 4


def pieces_timed(pieces: Iterator[Any], clock: Clock) -> Iterator[Any]:
    """`pieces`, with the time that it takes to make them on `clock`."""
    while True:
        with clock:
            piece = next(pieces, None)
        if piece is None:
            return
        yield piece


def _fastest_window(model: SegmentationModel, view: Any, precision: str) -> int:
    seconds = {}
    for size in (512, 1024, 2048):
        images, clock = windows(TiledMicrograph(view.patch, (2048, 2048)), size), Clock()
        run_bare(model, images[:1], precision, Clock())
        run_bare(model, images, precision, clock)
        seconds[size] = clock.cpu
    return min(seconds, key=lambda size: seconds[size])


def difference(model: SegmentationModel, edge: int) -> dict[str, float]:
    """Tiled (windows much smaller than memory would allow) against the whole at once, in float32."""
    view = ArrayView(np.concatenate([synthetic((edge, edge // 2), seed).image for seed in (20, 21)], axis=1))
    whole = Predictor(model, PredictConfig(roi_px=edge, compute=_compute("fp32")))
    ((_, expected),) = whole.predict(view)
    halo = whole.halo_px
    tiled = Predictor(model, PredictConfig(roi_px=2 * halo + 256, compute=_compute("fp32")))
    worst, n = 0.0, 0
    for window, probabilities in tiled.predict(view):
        worst = max(worst, float(np.abs(probabilities - expected[(slice(None), *window.slices)]).max()))
        n += 1
    return {"max_difference": worst, "n_windows": n, "halo_px": halo}


def peak_memory(checkpoint: Path, precision: str, edge: int) -> dict[str, float]:
    """Peak memory of a fresh process that predicts edge² (GB over the loaded model), and how long it took."""
    command = [sys.executable, "-m", "benchmarks.predict", "--child", precision, "--edge", str(edge)]
    done = subprocess.run([*command, "--checkpoint", str(checkpoint)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def child(checkpoint: Path, precision: str, edge: int) -> None:
    """In the fresh process: predict and report."""
    model = Checkpoint.load(checkpoint).build()
    patch = synthetic((512, 512), 9).image
    run_predictor(model, TiledMicrograph(patch, (64, 64)), precision)
    before = _peak_gb()
    seconds = run_predictor(model, TiledMicrograph(patch, (edge, edge)), precision)
    finish({"peak_gb": round(_peak_gb() - before, 3), "base_gb": round(before, 3), "seconds": round(seconds, 1)})


def _peak_gb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1e6


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--iterations", type=int, default=60, help="of the brief training without a checkpoint")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--throughput-edge", type=int, default=4096)
    parser.add_argument("--edge", type=int, default=16384, help="of the micrograph whose prediction is weighed")
    parser.add_argument("--skip", nargs="*", default=[], choices=["throughput", "memory", "difference"])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.checkpoint, args.child, args.edge)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = args.checkpoint or train_briefly(Path(folder), args.iterations)
        finish(_measured(checkpoint, args))


def _measured(checkpoint: Path, args: argparse.Namespace) -> dict[str, Any]:
    model = Checkpoint.load(checkpoint).build()
    result: dict[str, Any] = {"benchmark": "predict", "threads": torch.get_num_threads()}
    tests: dict[str, Callable[[], dict[str, Any]]] = {
        "difference": lambda: difference(model, 1536),
        "throughput": lambda: throughput(model, "fp32", args.throughput_edge, args.repeats),
        "memory": lambda: peak_memory(checkpoint, "fp32", args.edge),
    }
    for name, test in tests.items():
        if name not in args.skip:
            result |= test()
            say(json.dumps(result))
    if "throughput" not in args.skip and devices.has_fast_bf16(torch.device("cpu")):
        result["bf16"] = throughput(model, "bf16", args.throughput_edge, args.repeats)
    return result


if __name__ == "__main__":
    main()
