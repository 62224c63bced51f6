"""Small labelled budgets on the real sets: tiles to learn from, tiles to choose on, other specimens to test on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from skimage.transform import resize

from benchmarks._common import load_pair
from napari_emtransfer.core.nn.ground import ArrayView, TrainingImage

TILE = 256


@dataclass(frozen=True)
class Ground:
    """Tiles to train on, tiles of other micrographs to choose the checkpoint on, and the test, of other specimens.

    `unlabelled` are the whole micrographs that the tiles to train on came from; `n_specimens` counts their specimens.
    """

    train: list[TrainingImage]
    validation: list[TrainingImage]
    test: list[TrainingImage]
    unlabelled: list[ArrayView]
    classes: tuple[str, ...]
    n_specimens: int


@dataclass(frozen=True)
class Cell:
    """A data set with a labelled budget. `split` is the set's own; otherwise specimens are drawn by the seed."""

    name: str
    folder: str
    n_tiles: int
    split: str | None = None
    n_train_specimens: int = 4
    working_pixel_size_nm: float | None = None

    def ground(self, data: Path, seed: int) -> Ground:
        """The tiles of one repetition."""
        folder = data / self.folder
        description = json.loads((folder / "dataset.json").read_text())
        rng = np.random.default_rng(seed)
        parts = _named_parts(description, self.split) if self.split else self._drawn_parts(description, rng)
        load = self._loader(folder, description)
        groups = description.get("groups", {})
        micrographs = [load(s) for s in parts["train"]]
        train = _tiles(micrographs, self.n_tiles, rng)
        validation = _tiles([load(s) for s in parts["val"]], 4, rng)
        test = [_centre(load(s), 2 * TILE) for s in parts["test"][:6]]
        specimens = {groups.get(s, s) for s in parts["train"]}
        unlabelled = [ArrayView(pair.image) for pair in micrographs]
        return Ground(train, validation, test, unlabelled, tuple(description["classes"].values()), len(specimens))

    def _drawn_parts(self, description: dict, rng: np.random.Generator) -> dict[str, list[str]]:
        """Whole specimens to train on, one or two to choose on, of each of the others one micrograph to test on."""
        by_specimen: dict[str, list[str]] = {}
        for stem, specimen in description["groups"].items():
            by_specimen.setdefault(specimen, []).append(stem)
        names = list(rng.permutation(sorted(by_specimen)))
        n = self.n_train_specimens
        n_validation = 2 if len(names) > n + 4 else 1
        chosen = {"train": names[:n], "val": names[n : n + n_validation], "test": names[n + n_validation :]}
        stems = {part: [s for name in group for s in by_specimen[name]] for part, group in chosen.items()}
        return stems | {"test": [by_specimen[name][0] for name in chosen["test"]]}

    def _loader(self, folder: Path, description: dict) -> Callable[[str], TrainingImage]:
        sizes = description.get("pixel_size_nm", {})

        def load(stem: str) -> TrainingImage:
            pair = load_pair(folder, stem)
            if self.working_pixel_size_nm is None:
                return pair
            return _rescaled(pair, sizes.get(stem, self.working_pixel_size_nm) / self.working_pixel_size_nm)

        return load


CELLS = (
    Cell("nasa Super1", "nasa_super", 40, split="Super1"),
    Cell("nasa Super3", "nasa_super", 4, split="Super3"),
    Cell("nasa Super4", "nasa_super", 16, split="Super4"),
    Cell("polymer", "polymer_nanocomposite_sem", 8, n_train_specimens=4),
    Cell("graphene", "graphene_unet", 16, n_train_specimens=8),
    Cell("axon", "axon_sem", 6, n_train_specimens=3, working_pixel_size_nm=100),
)


def _named_parts(description: dict, split: str) -> dict[str, list[str]]:
    return {part: list(stems) for part, stems in description["splits"][split].items()}


def _rescaled(pair: TrainingImage, scale: float) -> TrainingImage:
    if abs(scale - 1) < 0.02:
        return pair
    shape = tuple(round(n * scale) for n in pair.image.shape)
    image = resize(pair.image, shape, order=1, anti_aliasing=scale < 1).astype(np.float32)
    return TrainingImage(image, resize(pair.targets, shape, order=0, preserve_range=True).astype(np.uint8))


def _tiles(pairs: Sequence[TrainingImage], n: int, rng: np.random.Generator) -> list[TrainingImage]:
    """`n` tiles, taken in turns from the micrographs, none twice; of a turn's micrograph, a random tile."""
    left = [
        (pair, [places[i] for i in rng.permutation(len(places))]) for pair in pairs if (places := list(_cells(pair)))
    ]
    found: list[TrainingImage] = []
    while len(found) < n and any(places for _, places in left):
        for pair, places in left:
            if places and len(found) < n:
                found.append(_window(pair, *places.pop()))
    return found


def _cells(pair: TrainingImage) -> Iterator[tuple[int, int]]:
    height, width = pair.image.shape
    for y in range(0, max(1, height - TILE + 1), TILE):
        yield from ((y, x) for x in range(0, max(1, width - TILE + 1), TILE))


def _window(pair: TrainingImage, y: int, x: int, edge: int = TILE) -> TrainingImage:
    place = (slice(y, y + edge), slice(x, x + edge))
    return TrainingImage(np.ascontiguousarray(pair.image[place]), np.ascontiguousarray(pair.targets[place]))


def _centre(pair: TrainingImage, edge: int) -> TrainingImage:
    y, x = (max(0, (n - edge) // 2) for n in pair.image.shape)
    return _window(pair, y, x, edge)
