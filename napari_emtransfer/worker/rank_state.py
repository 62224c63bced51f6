"""What the engine keeps between two rankings: features of tiles, and the labelled pixels that were gathered."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.active.queue import LEAST_LABELLED
from napari_emtransfer.core.data.labels import IGNORE_INDEX
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.project_records import MicrographRecord
from napari_emtransfer.core.data.resample import WorkingView
from napari_emtransfer.core.data.tiles import Tile
from napari_emtransfer.core.nn.feature_cache import Features
from napari_emtransfer.core.nn.live import LabelledPixels
from napari_emtransfer.core.nn.pool_head import Coefficients, PoolHead
from napari_emtransfer.worker.label_watch import LabelWatch, digest_of, targets_of
from napari_emtransfer.worker.rank_features import TileFeatures
from napari_emtransfer.worker.rank_scores import Scores
from napari_emtransfer.worker.rank_tiles import TileTable

# Of the labelled pixels of a tile as many are learnt from.
_PIXELS_PER_TILE: Final = 600
# A data set that came labelled has thousands of tiles; so many say what there is to say.
MOST_LABELLED_TILES: Final = 512
# Of more tiles than these, wholly labelled ones are seen on their lattices alone, which costs no pass through the
# network: on five real sets that made no difference from 32 tiles on, but cost .01 of IoU with 4.
_MOST_SEEN_WHOLE: Final = 24


@dataclass(frozen=True, eq=False)
class TileLabels:
    """Labels of one tile: its class indices on the lattice (P,), 255 = unlabelled or data bar.

    `n_shown` of the P pixels show the specimen; `whole`: every pixel of the tile has a label.
    """

    lattice: NDArray[np.uint8]
    n_shown: int
    whole: bool

    @property
    def dense(self) -> bool:
        """Whether at least half of what shows the specimen has a label."""
        n_labelled = int(np.count_nonzero(self.lattice != IGNORE_INDEX))
        return n_labelled > 0 and n_labelled >= LEAST_LABELLED * self.n_shown


@dataclass(frozen=True, eq=False)
class Labelled:
    """A labelled tile, by its place in the table."""

    tile: int
    digest: bytes
    labels: TileLabels


class RankState:
    """Features and labels of the tiles of one project."""

    def __init__(self, features: TileFeatures, *, n_classes: int, seed: int) -> None:
        self.features = features
        self.n_classes = n_classes
        self.seed = seed
        self._watch = LabelWatch(n_classes, self._on_lattice)
        self._pixels: dict[str, LabelledPixels] = {}
        self._head: tuple[str, PoolHead, list[Coefficients]] | None = None
        self._scores: tuple[TileTable, Scores] | None = None

    @property
    def table(self) -> TileTable:
        """The tiles."""
        return self.features.table

    def head(self, model: str, fit: Callable[[], PoolHead], n_members: int) -> tuple[PoolHead, list[Coefficients]]:
        """The head of this name and its committee, of which the first has seen all labels; fitted where it is new."""
        if self._head is None or self._head[0] != model:
            head = fit()
            self._head = model, head, [head.solve(), *head.committee(n_members, seed=self.seed)]
        return self._head[1:]

    def scores(self, model: str, project: Project) -> Scores:
        """What is known of the tiles: what was scored last, by this model or one before, or what the project has."""
        known = self._scores
        if known is None or known[0] is not self.table:
            scores = Scores.remembered(model, project.active.read_scores(), self.table, self.n_classes)
        else:
            scores = known[1] if known[1].model == model else known[1].before(model)
        self._scores = self.table, scores
        return scores

    def read_labels(
        self, project: Project, should_stop: Callable[[], bool], on_progress: Callable[[int, int], None]
    ) -> list[Labelled]:
        """All labelled tiles; only those whose labels have changed since the last call are read."""
        grids = dict(zip((r.stem for r in self.table.records), self.table.grids, strict=True))
        self._watch.read(project, lambda record: grids.get(record.stem), should_stop, on_progress)
        found = []
        for stem, place, tile in self._watch.tiles():
            index = self.table.index(stem, *place)
            if index is not None:
                found.append(Labelled(index, tile.digest, tile.gathered))
        return found

    def pixels(
        self, project: Project, labelled: Sequence[Labelled], should_stop: Callable[[], bool]
    ) -> dict[int, LabelledPixels]:
        """Tile → features and classes of its labelled pixels, of some of each class where they are many.

        Of more than 512 tiles some are taken, whatever they show; of more than 24, those that are labelled densely are
        seen on their lattices. Those of micrographs that cannot be opened are left out.
        """
        found: dict[int, LabelledPixels] = {}
        known, self._pixels = self._pixels, {}
        sampled = self.features.sampled if len(labelled) > _MOST_SEEN_WHOLE else np.zeros(len(self.table), np.bool_)
        for entry in _some(labelled, MOST_LABELLED_TILES):
            if should_stop():
                break
            if sampled[entry.tile] and entry.labels.dense:
                found[entry.tile] = self._lattice_pixels(entry)
                continue
            key = self._pixels_key(entry)
            part = known.get(key) or self._gathered(project, entry, key)
            if part is not None:
                found[entry.tile] = self._pixels[key] = part
        self._pixels = known | self._pixels if should_stop() else self._pixels
        return found

    def _lattice_pixels(self, entry: Labelled) -> LabelledPixels:
        there = entry.labels.lattice != IGNORE_INDEX
        return LabelledPixels(self.features.features([entry.tile])[0][there], entry.labels.lattice[there])

    def _pixels_key(self, entry: Labelled) -> str:
        window: list[int] = self.table.working_windows[entry.tile].tolist()
        what = [window, entry.digest.hex(), self.n_classes, _PIXELS_PER_TILE, self.seed]
        return self.features.key(int(self.table.micrographs[entry.tile]), what)

    def _gathered(self, project: Project, entry: Labelled, key: str) -> LabelledPixels | None:
        cache, number = self.features.cache, int(self.table.micrographs[entry.tile])
        packed = cache.find(key)
        if packed is None:
            native = self._native_targets(project, entry.tile)
            made = self.features.reading(project, number, lambda view: self._packed_pixels(view, entry.tile, native))
            if made is None:
                return None
            # Somebody may have gone on painting: then it is not what the key says.
            packed = cache.get(key, lambda: made) if digest_of(native) == entry.digest else made
        values = packed[0]
        return LabelledPixels(values[:, :-1].copy(), values[:, -1].astype(np.uint8))

    def _packed_pixels(self, view: WorkingView, tile: int, native: NDArray[np.uint8]) -> Features:
        """Features and classes (1, m, D + 1): class indices below 255 are exact in fp16."""
        window, targets = self.table.working_window(tile), self._working_targets(tile, native)
        found = self.features.source.labelled(view, window, targets, _PIXELS_PER_TILE, seed=self.seed)
        return np.concatenate([found.features, found.classes[:, None].astype(np.float16)], axis=1)[None]

    def _working_targets(self, tile: int, native: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Native targets (H, W) of a tile → targets (h, w) of the working pixels that labelled ones lie in."""
        number, window = int(self.table.micrographs[tile]), self.table.working_window(tile)
        points = np.argwhere(native != IGNORE_INDEX)
        y, x = (self.table.working_pixels(number, points + self.table.windows[tile, :2]) - (window.y0, window.x0)).T
        targets = np.full(window.shape, IGNORE_INDEX, np.uint8)
        targets[y, x] = native[tuple(points.T)]
        return targets

    def _on_lattice(
        self, _project: Project, record: MicrographRecord, tile: Tile, targets: NDArray[np.uint8]
    ) -> TileLabels:
        index = self.table.index(record.stem, tile.row, tile.column)
        if index is None:
            raise ValueError(f"{tile} is no tile of the table")
        number, points = self.table.numbers[record.stem], self.features.lattice(index)
        shown = self.table.outside_bar(number, points)
        inside = self.table.native_pixels(number, points) - (tile.window.y0, tile.window.x0)
        y, x = np.clip(inside, 0, np.array(targets.shape) - 1).T  # working pixels at its rim may begin outside
        lattice = np.where(shown, targets[y, x], np.uint8(IGNORE_INDEX))
        return TileLabels(lattice, int(shown.sum()), bool((targets != IGNORE_INDEX).all()))

    def working_targets(self, project: Project, tile: int) -> NDArray[np.uint8]:
        """Targets (h, w) of the working pixels of a tile, as its labels are now."""
        return self._working_targets(tile, self._native_targets(project, tile))

    def _native_targets(self, project: Project, tile: int) -> NDArray[np.uint8]:
        table = self.table
        grid = table.grids[int(table.micrographs[tile])]
        return targets_of(project, grid.tile(int(table.rows[tile]), int(table.columns[tile])), self.n_classes)


def head_key(source: str, parts: Sequence[Labelled], table: TileTable, n_classes: int, seed: int) -> str:
    """Name of the head that these labels lead to, the same in every process."""
    digest = hashlib.sha256(f"{source} {n_classes} {seed}".encode())
    for part in parts:
        record = table.records[int(table.micrographs[part.tile])]
        cell = f"{record.checksum} {record.frame} {table.windows[part.tile].tolist()}"
        digest.update(cell.encode() + part.digest)
    return digest.hexdigest()[:16]


def _some(labelled: Sequence[Labelled], limit: int) -> list[Labelled]:
    """At most `limit`, the same ones as long as their labels are; in the order of the table."""
    chosen = sorted(labelled, key=lambda entry: entry.digest)[:limit]
    return sorted(chosen, key=lambda entry: entry.tile)
