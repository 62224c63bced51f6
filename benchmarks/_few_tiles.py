"""A few labelled tiles of 128² of one real set, and micrographs of other specimens to test on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from skimage.transform import resize

from benchmarks._common import load_pair
from napari_emtransfer.core.data.labels import IGNORE_INDEX
from napari_emtransfer.core.nn.ground import ArrayView, TrainingImage

SETS: Final = ("nasa_super", "polymer_nanocomposite_sem", "axon_sem", "graphene_unet", "creme_316l_loops")
TILE_PX: Final = 128
# Sets whose pixel sizes differ are brought to one, as a project does.
_WORKING_NM: Final = {"axon_sem": 100.0}
_N_TEST: Final = 6
_TEST_PX: Final = 384
# A person labels tiles on which there is something to label.
_SMALLEST_CLASS_PX: Final = 60
_TRIES: Final = 200


class FewTiles:
    """One set, one draw: half of the specimens to learn from, the others to test on.

    `unlabelled` are whole micrographs of the specimens learnt from, and no others.
    """

    def __init__(self, data: Path, name: str, seed: int) -> None:
        self._folder, self._name = data / name, name
        self._about = json.loads((self._folder / "dataset.json").read_text())
        self.classes = tuple(self._about["classes"].values())
        self._seed = seed
        rng = np.random.default_rng([seed, len(name)])
        stems = sorted(p.stem for p in (self._folder / "images").iterdir())
        groups = {s: self._about.get("groups", {}).get(s, s) for s in stems}
        # A set with one specimen is split by micrograph: there is nothing else.
        self.n_specimens = len(set(groups.values()))
        groups = groups if self.n_specimens > 1 else {s: s for s in stems}
        names = [str(n) for n in rng.permutation(sorted(set(groups.values())))]
        half = len(names) // 2
        learn = [s for s in stems if groups[s] in names[:half]]
        self._learn = [self._load(s) for s in rng.permutation(learn)]
        first = [next(s for s in stems if groups[s] == name) for name in names[half:]]
        self.test = [_centre(self._load(s), _TEST_PX) for s in first[:_N_TEST]]
        self.unlabelled = [ArrayView(pair.image) for pair in self._learn]

    def tiles(self, n: int) -> list[TrainingImage]:
        """`n` tiles in turns from the micrographs, which together show every class."""
        rng = np.random.default_rng([self._seed, n])
        for _ in range(_TRIES):
            found = [self._any_tile(self._learn[i % len(self._learn)], rng) for i in range(n)]
            if _shows_all(found, len(self.classes)):
                return found
        raise SystemExit(f"{self._name}: no {n} tiles with all classes in {_TRIES} draws")

    def _load(self, stem: str) -> TrainingImage:
        pair, wanted = load_pair(self._folder, stem), _WORKING_NM.get(self._name)
        size = self._about.get("pixel_size_nm", {}).get(stem)
        return pair if wanted is None or size is None else _rescaled(pair, size / wanted)

    @staticmethod
    def _any_tile(pair: TrainingImage, rng: np.random.Generator) -> TrainingImage:
        y, x = (int(rng.integers(0, edge - TILE_PX + 1)) for edge in pair.image.shape)
        place = (slice(y, y + TILE_PX), slice(x, x + TILE_PX))
        return TrainingImage(np.ascontiguousarray(pair.image[place]), np.ascontiguousarray(pair.targets[place]))


def _shows_all(tiles: Sequence[TrainingImage], n_classes: int) -> bool:
    shown = np.concatenate([t.targets[t.targets != IGNORE_INDEX] for t in tiles])
    return bool((np.bincount(shown, minlength=n_classes) >= _SMALLEST_CLASS_PX).all())


def _rescaled(pair: TrainingImage, scale: float) -> TrainingImage:
    shape = tuple(round(n * scale) for n in pair.image.shape)
    image = resize(pair.image, shape, order=1, anti_aliasing=scale < 1).astype(np.float32)
    return TrainingImage(image, resize(pair.targets, shape, order=0, preserve_range=True).astype(np.uint8))


def _centre(pair: TrainingImage, edge: int) -> TrainingImage:
    y, x = (max(0, (n - edge) // 2) for n in pair.image.shape)
    place = (slice(y, y + edge), slice(x, x + edge))
    return TrainingImage(np.ascontiguousarray(pair.image[place]), np.ascontiguousarray(pair.targets[place]))
