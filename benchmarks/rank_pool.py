"""Ranking a project of 10⁵ tiles: seconds of each step with features cached, and peak memory.

    OMP_WAIT_POLICY=passive python -m benchmarks.rank_pool --tiles 100000

Micrographs of 4096² with tiles of 64² are written as TIFF. They repeat one strip of synthetic two-phase structure, so
its features, computed by the network that comes with the program, are those of all and fill the cache; each micrograph
has its own brightness, file and checksum. Everything else is what the window asks for, through the same handler: 60
queued tiles are labelled, controls among them; then one more; then nothing.

`first_s`: a process that has just started maps features, fits, scores all, writes all scores, chooses and measures.
`next_s`: after one more tile, all are scored and written anew. `again_s`: nothing is new. `rank_s`: of the second, from
scores to the new queue. `network_tiles_per_s`: features computed by the network. Peak memory is that of the
process; features are mapped from the disk, and count as far as they are in memory.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from benchmarks._common import finish, say
from napari_emtransfer.core.config import ComputeConfig, RankConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.events import RunFinished
from napari_emtransfer.core.synth.voronoi import two_phase
from napari_emtransfer.worker import rank_handler
from napari_emtransfer.worker.handlers import RunControl, handle
from napari_emtransfer.worker.protocol import RankRequest

EDGE_PX = 4096
TILE_PX = 64
STRIP_ROWS = 4
TILES_PER_MICROGRAPH = (EDGE_PX // TILE_PX) ** 2
N_LABELLED = 60
CLASSES = ("matrix", "phase")


def strip() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Four rows of tiles: grey values 0..1 and label values."""
    micrograph = two_phase((STRIP_ROWS * TILE_PX, EDGE_PX), seed=0)
    image = micrograph.image.astype(np.float32)
    return (image - image.min()) / np.ptp(image), micrograph.mask


def write_project(folder: Path, n_micrographs: int) -> tuple[Path, NDArray[np.uint8]]:
    """The project, and the labels of each of its micrographs."""
    grey, mask = strip()
    n = EDGE_PX // len(grey)
    with Project.create(folder / "project", classes=CLASSES, tile_size_px=TILE_PX) as project:
        for i in range(n_micrographs):
            path = folder / f"m{i:03d}.tif"
            tifffile.imwrite(path, np.tile(20 + (160 + i) * grey, (n, 1)).astype(np.uint8))
            project.add_micrograph(path, specimen=f"s{i // 4}", pixel_size_nm=10.0)
        return project.root, np.tile(mask, (n, 1))


def fill_cache(root: Path, config: RankConfig) -> float:
    """Features of the first strip under the names of all pieces; tiles per second of the network."""
    with Project.open(root) as project:
        state, _ = rank_handler._state(project, config)
        features = state.features
        features.refresh(project)
        known: dict[tuple[int, int], NDArray[np.float16]] = {}
        begin = time.perf_counter()
        for piece in list(features._keys):
            row, column = int(features.table.rows[piece.start]), int(features.table.columns[piece.start])
            if piece.micrograph == 0 and row < STRIP_ROWS:
                made = features.reading(project, 0, lambda view, piece=piece: features._computed(view, piece))
                assert made is not None
                known[row, column] = made
        seconds = time.perf_counter() - begin
        n_computed = sum(len(values) for values in known.values())
        features.cache.limit_bytes = 2**40
        for piece, key in features._keys.items():
            row, column = int(features.table.rows[piece.start]), int(features.table.columns[piece.start])
            features.cache.get(key, lambda place=(row % STRIP_ROWS, column): known[place])
    rank_handler.forget()
    return n_computed / seconds


def label(root: Path, mask: NDArray[np.uint8], n: int) -> None:
    """Label the next n entries of the queue."""
    with Project.open(root) as project:
        for entry in project.active.queue(("waiting",))[:n]:
            window = project.tile_grid(entry.stem).tile(entry.row, entry.column).window
            project.annotations.write(entry.stem, window, mask[window.slices])
            project.set_tile_state(entry.stem, entry.row, entry.column, "done")
            project.active.end(entry.number, "done", seconds=20.0, clicks=10)


def ranked(root: Path, config: RankConfig) -> dict[str, Any]:
    """One request through the handler."""
    events: list[Any] = []
    handle(RankRequest(run_id="rank", project=root, config=config), events.append, RunControl())
    if not isinstance(events[-1], RunFinished):
        raise SystemExit(f"{events[-1]}")
    result: dict[str, Any] = events[-1].result
    return result


def peak_gb() -> float:
    """Largest resident memory of the process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=100_000)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--folder", type=Path, help="where the project is made and left; default: a temporary one")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="rank-pool-"))
    config = RankConfig(n_tiles=N_LABELLED, compute=ComputeConfig(device=options.device, threads=options.threads))
    try:
        n_micrographs = -(-options.tiles // TILES_PER_MICROGRAPH)
        root, mask = write_project(folder, n_micrographs)
        say(f"{n_micrographs} micrographs of {EDGE_PX}² in {root}")
        speed = fill_cache(root, config)
        say(f"features: {speed:.0f} tiles of {TILE_PX}² per second")
        cold = ranked(root, config)
        say(f"without labels: {cold['acquisition']}, {cold['seconds']}")
        label(root, mask, N_LABELLED)
        rank_handler.forget()
        few = config.model_copy(update={"n_tiles": 8})
        steps = {}
        for name, n in (("first", 0), ("next", 1), ("again", 0)):
            label(root, mask, n)
            begin = time.process_time()
            result = ranked(root, few)
            steps[name] = result["seconds"] | {"processor": time.process_time() - begin}
            say(f"{name}: { {k: round(v, 2) for k, v in steps[name].items()} }")
        finish(
            {
                "n_tiles": result["n_tiles"],
                "n_scored": result["n_scored"],
                "without_labels_s": cold["seconds"],
                **{f"{name}_s": seconds for name, seconds in steps.items()},
                "rank_s": steps["next"]["queue"],
                "score_s": steps["next"]["score"],
                "network_tiles_per_s": speed,
                "peak_memory_gb": peak_gb(),
                "features_gb": sum(p.stat().st_size for p in (root / "features" / "tiles").iterdir()) / 1e9,
                "database_gb": (root / "project.sqlite").stat().st_size / 1e9,
            }
        )
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
