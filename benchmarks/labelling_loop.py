"""The labelling loop in the real window: what the queue proposes is labelled by mouse and keys, tile after tile.

    python -m benchmarks.labelling_loop --out DIR [--set nasa_super] [--tiles 10] [--tile-px 128]

The images of a labelled set make a project; its masks only guide the hand. Somebody opens the Queue tab, takes the
tile that is proposed (key N at first; every third time a click on the next picture of the list), hatches more than half
of each class in it with the mouse, classes and brushes by keys, and presses D. The real engine learns and ranks
meanwhile. Specimens that have no part in the project (`--held-out`) show afterwards what the head that ranks has learnt
from the first 1, 5 and all tiles, on every lattice pixel of their tiles.

The last line is one JSON object: `next_…_ms` from D, N or the click to the next tile drawn on the canvas; `rank_…_s`
from D to the queue that knows the tile, with somebody painting meanwhile; gaps of the event loop beyond 5 ms, `paint_…`
while strokes are drawn (each mouse event is handled and drawn in one), `wait_…` from a tile to the next one;
`readouts` as the tab shows them. Screenshots after 1, 5 and all tiles, with the list and with the findings below it,
lie in DIR. `lost` are keys and clicks that led nowhere.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import napari
import numpy as np
from numpy.typing import NDArray
from skimage.io import imread

from benchmarks._common import data_folder, finish, say
from benchmarks._held_out import held_out_iou
from benchmarks.gui_latency import GapMeter
from napari_emtransfer.cli.display import drawing_environment, has_display
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.gui.demo_hands import DemoHands, rest
from napari_emtransfer.gui.demo_strokes import plan_hatching
from napari_emtransfer.gui.dock import EMTransferDock

SHARE: Final = 0.65
"""Of each class so much is painted, where the finest brush fits."""
BRUSHES_PX: Final = (17, 9, 5)
WINDOW_SIZE: Final = (1440, 940)
IN_SIGHT: Final = (1, 5)
LOST_S: Final = 30.0
"""A key or a click that has brought no other tile by then is lost, and counted."""
Masks = dict[str, NDArray[np.uint8]]


def make_project(root: Path, folder: Path, stems: list[str], tile_px: int) -> None:
    """Some of the set's micrographs with classes and specimens, nothing labelled."""
    about = json.loads((folder / "dataset.json").read_text())
    groups, sizes = about.get("groups", {}), about.get("pixel_size_nm") or {}
    paths = {path.stem: path for path in (folder / "images").iterdir()}
    with Project.create(root, classes=list(about["classes"].values()), tile_size_px=tile_px) as project:
        for stem in stems:
            project.add_micrograph(paths[stem], specimen=groups.get(stem, stem), pixel_size_nm=sizes.get(stem))


def split(folder: Path, n_held_out: int) -> tuple[list[str], list[str]]:
    """Stems of the project, and of `n_held_out` specimens that have no part in it."""
    groups = json.loads((folder / "dataset.json").read_text()).get("groups", {})
    stems = sorted(path.stem for path in (folder / "images").iterdir())
    specimens = sorted({groups.get(stem, stem) for stem in stems})
    held_out = set(np.random.default_rng(0).permutation(specimens)[:n_held_out].tolist())
    parts: tuple[list[str], list[str]] = [], []
    for stem in stems:
        parts[groups.get(stem, stem) in held_out].append(stem)
    return parts


class Loop:
    """Somebody who labels by the queue, with a stop watch."""

    def __init__(self, viewer: Any, dock: Any, masks: Masks, out: Path) -> None:
        self.viewer, self.dock, self.session, self.masks, self.out = viewer, dock, dock.session, masks, out
        self.hands, self.meter = DemoHands(viewer, dock), GapMeter()
        self.gaps: dict[str, list[float]] = {"paint": [], "wait": []}
        self.next_ms: dict[str, list[float]] = {"key": [], "click": []}
        self.rank_s: dict[int, float] = {}
        self.lost: list[str] = []
        self.tiles: list[dict[str, Any]] = []
        self._done_at: dict[int, float] = {}
        self._leaving: Any = None
        self._drawn: float | None = None
        viewer.window._qt_viewer.canvas._scene_canvas.events.draw.connect(self._on_draw, position="last")
        dock.owner.bridge.connect(dock.session.signals.queue_changed, self._on_queue)

    def play(self, n_tiles: int) -> None:
        """Label so many tiles."""
        self.dock.choose_tab("Queue")
        self.hands.wait(lambda: bool(self.state.entries) and self.state.phase == "ready", "a queue")
        self.hands.photograph(self.out / "00-proposed.png")
        self._go("key", lambda: self.hands.press("N"))
        for number in range(1, n_tiles + 1):
            if number % 3 == 0:
                self._go("click", self._click_another)
            self._label(number)
            self._done_at[number] = time.perf_counter()
            self._go("key", lambda: self.hands.press("D"))
            say(f"{time.strftime('%H:%M:%S')} {self.tiles[-1]}, the next one after {self.next_ms['key'][-1]:.0f} ms")
            if number in (*IN_SIGHT, n_tiles):
                self._look(number)

    @property
    def state(self) -> Any:
        """The queue as the window shows it."""
        return self.session.queue.state

    # ---- acts

    def _go(self, how: str, act: Callable[[], None]) -> None:
        """From the act to the first picture of another tile."""
        self._leaving, self._drawn = self.session.tile, None
        with self._measured("wait"):
            began = time.perf_counter()
            act()
            if not self._waited(LOST_S):
                self.lost.append(how)
                say(f"lost: {how}, {self.dock.messages.texts()}")
                return
            rest(300)
        assert self._drawn is not None
        self.next_ms[how].append((self._drawn - began) * 1000)

    def _waited(self, seconds: float) -> bool:
        """Whether the next tile was drawn in time."""
        deadline = time.perf_counter() + seconds
        while self._drawn is None and time.perf_counter() < deadline:
            rest(2)
        return self._drawn is not None

    def _click_another(self) -> None:
        """Not the tile that is shown, but the next one of the list."""
        current = self.state.current
        other = next(e for e in self.state.waiting if current is None or e.number != current.number)
        self.hands.click_queued(other.number)

    def _label(self, number: int) -> None:
        tile, entry = self.session.tile, self.state.current
        truth = self.masks[tile.micrograph][tile.window.slices]
        planned = [
            stroke
            for label_class in self.session.schema.classes
            for stroke in plan_hatching(truth, label_class.value, share=SHARE, brushes_px=BRUSHES_PX)
        ]
        began = time.perf_counter()
        with self._measured("paint"):
            self.hands.hatch(tile, sorted(planned, key=lambda stroke: -stroke.brush_px))
            rest(200)
        painted = self.session.labelling.annotation(tile.micrograph)[tile.window.slices]
        about = {"tile": number, "control": entry.control if entry else None, "reason": entry.reason if entry else ""}
        about |= {"strokes": len(planned), "seconds": round(time.perf_counter() - began, 1)}
        about |= {"labelled": round(float((painted > 0).mean()), 3)}
        self.tiles.append(about | {"wrong": round(float((painted != truth)[painted > 0].mean()), 4)})

    def _look(self, number: int) -> None:
        self.hands.wait(lambda: number in self.rank_s, "the ranking that knows the tile")
        self.hands.photograph(self.out / f"{number:02d}-queue.png")
        bar = self.dock.tabs.currentWidget().verticalScrollBar()
        bar.setValue(bar.maximum())
        self.hands.photograph(self.out / f"{number:02d}-findings.png")
        bar.setValue(0)

    # ---- eyes

    @contextmanager
    def _measured(self, kind: str) -> Iterator[None]:
        with self.meter:
            yield
        self.gaps[kind] += self.meter.gaps_ms

    def _on_draw(self, _event: Any) -> None:
        tile = self.session.tile
        if self._drawn is None and tile not in (None, self._leaving) and self.dock.canvas.shown == tile.micrograph:
            self._drawn = time.perf_counter()

    def _on_queue(self, state: Any) -> None:
        now = time.perf_counter()
        if state.facts is not None:
            for number in [n for n in self._done_at if n <= state.facts.n_done and n not in self.rank_s]:
                self.rank_s[number] = now - self._done_at[number]


def readouts(project: Project) -> list[dict[str, Any]]:
    """What the Queue tab said after each ranking that had controls to measure on."""
    found = []
    for one in project.active.rounds():
        control = one.facts.get("control") or {}
        if control.get("mean_iou") is not None:
            known = {name: one.facts[name] for name in ("n_labelled_tiles", "n_control")}
            found.append(known | {name: _rounded(control.get(name)) for name in ("mean_iou", "low", "high")})
    return found


def measured(loop: Loop) -> dict[str, Any]:
    """The figures of the loop."""
    result: dict[str, Any] = {}
    for how, times in loop.next_ms.items():
        if times:
            result |= {f"next_{how}_p50_ms": round(np.median(times)), f"next_{how}_worst_ms": round(max(times))}
    seconds = list(loop.rank_s.values())
    result |= {"rank_p50_s": round(float(np.median(seconds)), 2), "rank_worst_s": round(max(seconds), 2)}
    for kind, gaps in loop.gaps.items():
        result |= {f"{kind}_gap_p99_ms": round(float(np.percentile(gaps, 99)), 1)}
        result |= {f"{kind}_gap_worst_ms": round(max(gaps), 1)}
    result["lost"] = loop.lost
    return result | {"controls": sum(bool(tile["control"]) for tile in loop.tiles), "tiles": loop.tiles}


def play(folder: Path, root: Path, held_out: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """Open the window on the project, label, close it."""
    masks = {path.stem: imread(path) for path in (folder / "masks").iterdir()}
    viewer = napari.Viewer(title="EM Transfer")
    dock = EMTransferDock(viewer)
    viewer.window.add_dock_widget(dock, name="EM Transfer", area="right")
    viewer.window._qt_window.resize(*WINDOW_SIZE)
    try:
        dock.session.open_project(root)
        loop = Loop(viewer, dock, masks, args.out)
        loop.play(args.tiles)
    finally:
        dock.owner.close()
        viewer.close()
    result = measured(loop)
    with Project.open(root) as project:
        result["readouts"] = readouts(project)
        ended = sorted(project.active.queue(("done",)), key=lambda entry: entry.ended or "")
        result["clicks"] = [entry.clicks for entry in ended]
        result["seconds"] = [round(entry.seconds or 0, 1) for entry in ended]
    budgets = sorted({n for n in (*IN_SIGHT, args.tiles) if n <= args.tiles})
    result["held_out_iou"] = held_out_iou(root, folder, held_out, masks, budgets) if held_out else None
    return result


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="nasa_super")
    parser.add_argument("--tiles", type=int, default=10)
    parser.add_argument("--tile-px", type=int, default=128)
    parser.add_argument("--held-out", type=int, default=2, help="specimens that have no part in the project")
    parser.add_argument("--out", type=Path, required=True, help="folder of the screenshots")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    args = arguments()
    if not has_display():
        with drawing_environment() as environment:
            command = [sys.executable, "-m", "benchmarks.labelling_loop", *sys.argv[1:]]
            sys.exit(subprocess.run(command, env=environment, check=False).returncode)
    args.out.mkdir(parents=True, exist_ok=True)
    folder = data_folder() / args.set
    stems, held_out = split(folder, args.held_out)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / args.set
        make_project(root, folder, stems, args.tile_px)
        result = play(folder, root, held_out, args)
    load = round(os.getloadavg()[0], 1)
    finish({"benchmark": "labelling_loop", "set": args.set, **result, "load": load})


if __name__ == "__main__":
    main()
