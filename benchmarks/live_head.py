"""The live head against a random forest on the same scribbles: seconds per stroke, and IoU after ten of them.

    OMP_WAIT_POLICY=passive python -m benchmarks.live_head

On each real set, for several seeds, ten scribbles are drawn as a person would: 3 to 5 px wide, 20 to 60 px long, each
inside one class, classes in turn, all on one tile of one micrograph. The live head learns through its handler, in a
project on disk, exactly as the window asks it to. Its rival is what ilastik, Labkit and Weka do: scikit-image's
`multiscale_basic_features` (scales 0.5 to 16 px) and a random forest of 100 trees with scikit-learn's settings, in
memory, on as many threads.

`iou`: class mean on tiles of specimens without a single stroke (of a set with one specimen: its other micrographs), of
one confusion matrix per set and seed, mean over seeds, then sets. `iou_same_specimen` and `iou_same_tile` likewise,
without the scribbled pixels.

`warm_p50_s`, `warm_p95_s`: from before the stroke is saved until mask and uncertainty of the tile lie in the store; the
forest's from the same moment, its features of the tile kept, until it has mask and uncertainty in memory. `cold_s`: the
first update, with features to be computed (median).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier

from benchmarks._common import data_folder, finish, say
from benchmarks._scribbles import PLACES, Mask, Scene, make_scene
from napari_emtransfer.core.config import LiveConfig
from napari_emtransfer.core.data.tiles import Tile, Window
from napari_emtransfer.core.events import RunFinished
from napari_emtransfer.core.nn import devices
from napari_emtransfer.worker import live_handler
from napari_emtransfer.worker.handlers import RunControl, handle
from napari_emtransfer.worker.prediction_sinks import entropy_of
from napari_emtransfer.worker.protocol import LIVE_RUN, LiveRequest

SETS = ("nasa_super", "polymer_nanocomposite_sem", "axon_sem", "graphene_unet", "creme_316l_loops")
MARGIN_PX = 64


@dataclass
class Tally:
    """What one contestant did: seconds per stroke and IoU by place."""

    warm: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    iou: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add_iou(self, name: str, scene: Scene, predicted: dict[str, list[Mask]]) -> None:
        """Class-mean IoU of each place."""
        for place, masks in predicted.items():
            truths = [scene.truth(tile) for tile in scene.tests[place]]
            if masks:
                self.iou.setdefault(place, {}).setdefault(name, []).append(
                    class_mean_iou(truths, masks, scene.n_classes)
                )

    def mean_iou(self, place: str) -> float:
        """Mean over seeds, then sets."""
        return round(mean(mean(values) for values in self.iou[place].values()), 4)


class LiveContestant:
    """The live head behind its handler."""

    def __init__(self, config: LiveConfig) -> None:
        self._config = config

    def begin(self, _scene: Scene) -> None:
        """Nothing is known of the project."""
        live_handler.forget()

    def learn(self, scene: Scene, _labels: Mask) -> None:
        """Predict the tile from what is on disk."""
        self._update(scene, scene.tile)

    def predict(self, scene: Scene, tile: Tile) -> Mask:
        """Labels of a tile."""
        self._update(scene, tile)
        return scene.project.predictions.read(LIVE_RUN, tile.micrograph, "mask", tile.window)

    def _update(self, scene: Scene, tile: Tile) -> None:
        request = LiveRequest(
            run_id="live",
            project=scene.project.root,
            micrograph=tile.micrograph,
            window=tile.window,
            config=self._config,
        )
        events: list[Any] = []
        handle(request, events.append, RunControl())
        if not isinstance(events[-1], RunFinished):
            raise SystemExit(str(events[-1]))


class ForestContestant:
    """A random forest on scikit-image's features, the tile's features kept between strokes."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._features: NDArray[np.float32] | None = None

    def begin(self, _scene: Scene) -> None:
        """No features yet."""
        self._features = None

    def learn(self, scene: Scene, labels: Mask) -> None:
        """Grow a new forest and predict the tile."""
        if self._features is None:
            self._features = self._features_of(scene, scene.tile)
        inside = labels > 0
        self._forest = RandomForestClassifier(100, n_jobs=torch.get_num_threads(), random_state=self._seed)
        self._forest.fit(self._features[inside], labels[inside])
        probabilities = self._probabilities(self._features)
        probabilities.argmax(axis=0)
        entropy_of(probabilities)

    def predict(self, scene: Scene, tile: Tile) -> Mask:
        """Labels of a tile."""
        found = self._probabilities(self._features_of(scene, tile)).argmax(axis=0)
        return self._forest.classes_[found].astype(np.uint8)

    def _probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        height, width, n_features = features.shape
        found = self._forest.predict_proba(features.reshape(-1, n_features))
        return found.T.reshape(-1, height, width).astype(np.float32)

    @staticmethod
    def _features_of(scene: Scene, tile: Tile) -> NDArray[np.float32]:
        """With a margin, so that the tile's edge leaves no trace."""
        view, w = scene.project.working_view(tile.micrograph), tile.window
        wide = Window(
            y0=max(0, w.y0 - MARGIN_PX),
            x0=max(0, w.x0 - MARGIN_PX),
            y1=min(view.shape[0], w.y1 + MARGIN_PX),
            x1=min(view.shape[1], w.x1 + MARGIN_PX),
        )
        features = multiscale_basic_features(view.read(wide), sigma_min=0.5, sigma_max=16)
        height, width = w.shape
        return features[w.y0 - wide.y0 :, w.x0 - wide.x0 :][:height, :width]


Contestant = LiveContestant | ForestContestant


def class_mean_iou(truths: list[Mask], masks: list[Mask], n_classes: int) -> float:
    """Of one confusion matrix over all tiles; classes that occur neither in truth nor prediction do not count."""
    matrix = np.zeros((n_classes + 1, n_classes + 1))
    for truth, mask in zip(truths, masks, strict=True):
        np.add.at(matrix, (truth[truth > 0], mask[truth > 0]), 1)
    hit = np.diag(matrix)[1:]
    union = matrix[1:].sum(axis=1) + matrix[:, 1:].sum(axis=0) - hit
    return float(np.mean(hit[union > 0] / union[union > 0]))


def play(scene: Scene, contestants: dict[str, Contestant], tallies: dict[str, Tally], name: str) -> None:
    """All strokes, one after the other, both contestants at each; then what they have learnt from them."""
    for contestant in contestants.values():
        contestant.begin(scene)
    for n, labels in enumerate(_growing(scene.strokes), start=1):
        begin = time.perf_counter()
        scene.project.annotations.write(scene.tile.micrograph, scene.tile.window, labels)
        saving = time.perf_counter() - begin
        if n < 2:
            continue  # one class cannot be told from anything
        for key, contestant in contestants.items():
            begin = time.perf_counter()
            contestant.learn(scene, labels)
            seconds = saving + time.perf_counter() - begin
            (tallies[key].cold if n == 2 else tallies[key].warm).append(seconds)
    for key, contestant in contestants.items():
        found = {place: [contestant.predict(scene, t) for t in tiles] for place, tiles in scene.tests.items()}
        tallies[key].add_iou(name, scene, found)


def _growing(strokes: list[Mask]) -> Iterator[Mask]:
    for n in range(1, len(strokes) + 1):
        yield np.max(strokes[:n], axis=0)


def result(tallies: dict[str, Tally]) -> dict[str, Any]:
    """Figures of both, side by side."""
    live, forest = tallies["live"], tallies["forest"]
    figures: dict[str, Any] = {"iou": live.mean_iou(PLACES[2]), "iou_random_forest": forest.mean_iou(PLACES[2])}
    for place in PLACES[:2]:
        figures |= {f"iou_{place}": live.mean_iou(place), f"iou_{place}_random_forest": forest.mean_iou(place)}
    for prefix, tally in (("", live), ("forest_", forest)):
        p50, p95 = np.percentile(tally.warm, (50, 95)).round(4).tolist()
        names = (
            ("warm_p50_s", "warm_p95_s", "cold_s") if not prefix else ("forest_p50_s", "forest_p95_s", "forest_cold_s")
        )
        figures |= dict(zip(names, (p50, p95, round(median(tally.cold), 4)), strict=True))
    figures["sets"] = {
        name: {
            key: {place: round(mean(tally.iou[place][name]), 4) for place in PLACES if name in tally.iou[place]}
            for key, tally in tallies.items()
        }
        for name in live.iou[PLACES[2]]
    }
    return figures


def main() -> None:
    """Run and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--weights", default="none", help="of the frozen network: none, a name, or a path")
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    devices.set_threads(options.threads)
    folder = data_folder()
    config = LiveConfig(weights=options.weights, encoder=options.encoder)
    tallies = {"live": Tally(), "forest": Tally()}
    for name in options.sets:
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as temporary:
                scene = make_scene(folder / name, Path(temporary) / "project", seed)
                play(scene, {"live": LiveContestant(config), "forest": ForestContestant(seed)}, tallies, name)
                scene.project.close()
        say(f"{name}: " + ", ".join(f"{k} {mean(t.iou[PLACES[2]][name]):.3f}" for k, t in tallies.items()))
    finish({"n_threads": torch.get_num_threads(), "n_seeds": options.seeds, **result(tallies)})


if __name__ == "__main__":
    main()
