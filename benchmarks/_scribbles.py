"""Scribbles as a person would draw them, and projects to draw them in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.io import imread

from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.tiles import Tile

N_SCRIBBLES = 10
N_OTHER, N_SAME = 6, 2
# A class must cover so much of the tile that one would scribble on it there.
MIN_CLASS_PX = 150
PLACES = ("same_tile", "same_specimen", "other_specimens")
Mask = NDArray[np.uint8]


@dataclass
class Scene:
    """One project: `tile` gets the scribbles; `tests` are tiles to measure on, by place."""

    project: Project
    n_classes: int
    masks: dict[str, Mask]
    tile: Tile
    tests: dict[str, list[Tile]]
    strokes: list[Mask]

    def scribbled(self) -> Mask:
        """All strokes together on the tile."""
        return np.max(self.strokes, axis=0)

    def truth(self, tile: Tile) -> Mask:
        """True labels of a tile; where the strokes are, 0."""
        mask = self.masks[tile.micrograph][tile.window.slices]
        return np.where(self.scribbled() > 0, 0, mask) if tile == self.tile else mask


def scribble(mask: Mask, value: int, rng: np.random.Generator) -> Mask:
    """One wavering stroke inside the class `value` of a tile's mask: 3 or 5 px wide, 20 to 60 px long."""
    stroke = np.zeros_like(mask)
    inside = ndimage.binary_erosion(mask == value)
    inside = inside if inside.any() else mask == value
    radius, length = int(rng.integers(1, 3)), int(rng.integers(20, 61))
    place, angle, drawn = rng.choice(np.argwhere(inside)).astype(float), rng.uniform(0, 2 * np.pi), 0
    for _ in range(4 * length):
        y, x = place.round().astype(int)
        brush = (slice(max(y - radius, 0), y + radius + 1), slice(max(x - radius, 0), x + radius + 1))
        stroke[brush][mask[brush] == value] = value
        angle += rng.normal() * 0.2
        ahead = place + np.array((np.sin(angle), np.cos(angle)))
        y, x = ahead.round().astype(int)
        if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and inside[y, x]:
            place, drawn = ahead, drawn + 1
        else:
            angle += np.pi * rng.uniform(0.5, 1.5)
        if drawn == length:
            break
    return stroke


def make_scene(folder: Path, root: Path, seed: int) -> Scene:
    """A project with one micrograph to scribble on, and some of its specimen and of others to measure on."""
    rng = np.random.default_rng(seed)
    about = json.loads((folder / "dataset.json").read_text())
    paths = {p.stem: p for p in sorted((folder / "images").iterdir())}
    groups = {stem: about.get("groups", {}).get(stem, stem) for stem in paths}
    masks = {stem: imread(folder / "masks" / f"{stem}.png") for stem in paths}
    n_classes = len(about["classes"])
    project = Project.create(root, classes=list(about["classes"].values()))
    for stem in rng.permutation(list(paths)):
        project.add_micrograph(paths[stem], specimen=groups[stem])
        full = [t for t in project.tile_grid(stem) if _has_all(masks[stem][t.window.slices], n_classes)]
        if full:
            break
    else:
        raise SystemExit(f"no tile of {folder.name} has all classes")
    tile = full[int(rng.integers(len(full)))]
    others = [s for s in rng.permutation(list(paths)) if groups[s] != groups[tile.micrograph]][:N_OTHER]
    same = [s for s in rng.permutation(list(paths)) if groups[s] == groups[tile.micrograph] and s != tile.micrograph]
    if not others:  # one specimen only: its other micrographs are as far away as one can go
        others, same = same[:N_OTHER], []
    for stem in {*others, *same[:N_SAME]} - {r.stem for r in project.micrographs()}:
        project.add_micrograph(paths[stem], specimen=groups[stem])
    drawn = {
        name: [_any_tile(project, s, rng) for s in stems]
        for name, stems in (("other", others), ("same", same[:N_SAME]))
    }
    beside = [t for t in project.tile_grid(tile.micrograph) if t != tile]
    drawn["same"] += [beside[int(rng.integers(len(beside)))]] if beside else []
    truth = masks[tile.micrograph][tile.window.slices]
    strokes = [scribble(truth, i % n_classes + 1, rng) for i in range(N_SCRIBBLES)]
    tests = dict(zip(PLACES, ([tile], drawn["same"], drawn["other"]), strict=True))
    return Scene(project, n_classes, masks, tile, tests, strokes)


def _has_all(mask: Mask, n_classes: int) -> bool:
    return all((mask == value).sum() >= MIN_CLASS_PX for value in range(1, n_classes + 1))


def _any_tile(project: Project, stem: str, rng: np.random.Generator) -> Tile:
    tiles = list(project.tile_grid(stem))
    return tiles[int(rng.integers(len(tiles)))]
