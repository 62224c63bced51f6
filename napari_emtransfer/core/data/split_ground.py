"""Labelled ground and the search for a held-out part of it: whole groups, or blocks with a gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.data.project_records import MicrographRecord
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import LabelError

_MAX_CANDIDATES = 500
_CUTS_PER_SIDE = 200
_BAND_PX = 1024


class LabelSource(Protocol):
    """Where labels are read from: an `AnnotationStore`, usually a run's snapshot."""

    def shape(self, stem: str) -> tuple[int, int]:
        """(H, W)."""

    def read(self, stem: str, window: Window | None = None) -> NDArray[np.uint8]:
        """Labels (h, w)."""

    def class_counts(self, stem: str, n_classes: int | None = None) -> NDArray[np.int64]:
        """Pixels per label value, unlabelled first."""


@dataclass(frozen=True)
class Labelled:
    """Labelled micrographs, sorted by stem, with the pixels of each class that is labelled anywhere in them.

    `pixels[stem]` is int64 (C,) in the order of `classes`, which holds label values.
    """

    records: tuple[MicrographRecord, ...]
    classes: tuple[int, ...]
    pixels: Mapping[str, NDArray[np.int64]]

    def only(self, stems: set[str]) -> Labelled:
        """The same for some of the micrographs; classes that they lack stay listed."""
        return Labelled(tuple(r for r in self.records if r.stem in stems), self.classes, self.pixels)


def survey(
    records: Sequence[MicrographRecord],
    labelled: Mapping[str, float],
    annotations: LabelSource,
    class_names: Sequence[str],
) -> Labelled:
    """Find what is labelled.

    Raises
    ------
    LabelError
        When nothing is, or one class only.
    """
    chosen = tuple(sorted((r for r in records if labelled.get(r.stem, 0.0) > 0), key=lambda r: r.stem))
    counts = {r.stem: annotations.class_counts(r.stem, 255) for r in chosen}
    total = np.sum(list(counts.values()), axis=0) if counts else np.zeros(256, np.int64)
    classes = tuple(int(value) for value in np.flatnonzero(total[1:]) + 1)
    if not classes:
        raise LabelError("No pixel of these micrographs is labelled yet.", "Paint at least two classes first.")
    if len(classes) == 1:
        raise LabelError(
            f"Only the class {name_of(classes[0], class_names)!r} is labelled; a network learns to tell classes apart.",
            "Paint a second class, too: the background is a class like any other.",
        )
    return Labelled(chosen, classes, {stem: c[list(classes)] for stem, c in counts.items()})


def name_of(value: int, class_names: Sequence[str]) -> str:
    """Name of a label value."""
    return class_names[value - 1] if value <= len(class_names) else f"class {value}"


def choose_groups(groups: Mapping[str, NDArray[np.int64]], fraction: float, rng: np.random.Generator) -> set[str]:
    """Groups (name → pixels per class (C,)) to hold out, about `fraction` of them; at least one, never all.

    All classes should occur in training, then in the held-out part, then the held-out share of the labels should be
    near `fraction`; the generator decides among equals.
    """
    names = sorted(groups)
    pixels = np.array([groups[name] for name in names])  # (G, C)
    n_held = min(len(names) - 1, max(1, round(fraction * len(names))))
    candidates = _candidates(len(names), n_held, rng)
    held = np.zeros((len(candidates), len(names)), bool)
    np.put_along_axis(held, candidates, True, axis=1)
    best = _best(~held @ pixels, held @ pixels, fraction, rng)
    assert best is not None  # noqa: S101  (every group holds labels)
    return {names[i] for i in candidates[best]}


def _candidates(n: int, k: int, rng: np.random.Generator) -> NDArray[np.intp]:
    if comb(n, k) <= _MAX_CANDIDATES:
        return np.array(list(combinations(range(n), k)))
    return np.array([np.sort(rng.permutation(n)[:k]) for _ in range(_MAX_CANDIDATES)])


def _best(train: NDArray[np.int64], held: NDArray[np.int64], fraction: float, rng: np.random.Generator) -> int | None:
    """Index of the best of N candidates, given pixels per class on both sides (N, C); None where no side works."""
    n_train, n_held = train.sum(axis=1), held.sum(axis=1)
    possible = np.flatnonzero((n_train > 0) & (n_held > 0))
    if not possible.size:
        return None
    train, held, n_train, n_held = train[possible], held[possible], n_train[possible], n_held[possible]
    # In powers of two: small differences in size must not overrule the seed.
    off_size = np.abs(np.log2(n_held / (n_train + n_held) / fraction)).round()
    lost = (-np.log2((n_train + n_held) / (n_train + n_held).max())).round()
    order = np.lexsort((rng.random(possible.size), off_size + lost, (held == 0).sum(axis=1), (train == 0).sum(axis=1)))
    return int(possible[order[0]])


@dataclass(frozen=True)
class Cut:
    """A micrograph cut in two along a straight gap; pixels per class (C,) on both sides."""

    train: Window
    held_out: Window
    train_pixels: NDArray[np.int64]
    held_pixels: NDArray[np.int64]


def cut_blocks(
    stem: str,
    annotations: LabelSource,
    classes: Sequence[int],
    *,
    gap_px: int,
    fraction: float,
    rng: np.random.Generator,
) -> Cut | None:
    """Cut one micrograph such that both sides hold labels of as many classes as possible.

    The held-out block touches one of the four edges; between it and the training block lie `gap_px` native pixels
    that belong to neither. None where no straight cut leaves labels on both sides.
    """
    height, width = shape = annotations.shape(stem)
    options: list[tuple[Window, Window]] = []
    train: list[NDArray[np.int64]] = []
    held: list[NDArray[np.int64]] = []
    for axis, profile in enumerate(_profiles(stem, annotations, classes)):
        before = np.vstack([np.zeros(len(classes), np.int64), profile.cumsum(axis=0)])  # pixels before each line
        for low, high in _gaps(profile, gap_px):
            first, last = _band(axis, 0, low, shape), _band(axis, high, (height, width)[axis], shape)
            options += [(last, first), (first, last)]
            sides = before[low], before[-1] - before[high]
            train += [sides[1], sides[0]]
            held += [sides[0], sides[1]]
    best = _best(np.array(train), np.array(held), fraction, rng) if options else None
    return None if best is None else Cut(*options[best], train[best], held[best])


def _gaps(profile: NDArray[np.int64], gap_px: int) -> list[tuple[int, int]]:
    """Possible gaps (start, stop) along one axis, given labelled pixels per line and class (L, C)."""
    lines = np.flatnonzero(profile.any(axis=1))
    starts = np.unique(np.linspace(lines[0] + 1, lines[-1] - gap_px, _CUTS_PER_SIDE).round().astype(int))
    return [(start, start + gap_px) for start in starts.tolist() if lines[0] < start and start + gap_px <= lines[-1]]


def _band(axis: int, start: int, stop: int, shape: tuple[int, int]) -> Window:
    if axis == 0:
        return Window(y0=start, x0=0, y1=stop, x1=shape[1])
    return Window(y0=0, x0=start, y1=shape[0], x1=stop)


def _profiles(
    stem: str, annotations: LabelSource, classes: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels per row (H, C) and per column (W, C), read band by band so that memory stays small."""
    height, width = annotations.shape(stem)
    rows, columns = np.zeros((height, len(classes)), np.int64), np.zeros((width, len(classes)), np.int64)
    for y0 in range(0, height, _BAND_PX):
        band = annotations.read(stem, Window(y0=y0, x0=0, y1=min(y0 + _BAND_PX, height), x1=width))
        for c, value in enumerate(classes):
            hit = band == value
            rows[y0 : y0 + _BAND_PX, c] = hit.sum(axis=1)
            columns[:, c] += hit.sum(axis=0)
    return rows, columns
