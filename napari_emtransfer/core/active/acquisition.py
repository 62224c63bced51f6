"""Ways to choose the tiles that are labelled next.

What was measured, and why the default is what it is: `benchmarks.active`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from typing import Final

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.active import diversity, power_noise
from napari_emtransfer.core.active.pool import Choice, TilePool

# A tile belongs to a class that is predicted on so much of it; fewer pixels may be a mistake of the model.
_SMALLEST_SHARE: Final = 0.02
# What of a tile is not the commonest class, to count as foreground; and how many of a round's tiles show it.
_SMALLEST_FOREGROUND: Final = 0.05
_FOREGROUND_PART: Final = 2 / 3
# Candidates per tile asked for, among which those are taken that differ.
_CANDIDATES: Final = 10
# How strongly scores decide, from the first round to the last noisy one (`power_noise`).
_FIRST_BETA: Final = 2.0
_LAST_BETA: Final = 5.0
_N_NOISY_ROUNDS: Final = 10

_NEED_NO_MODEL: Final = ("random", "typiclust", "kcenter")
_ALL: Final = ("clasp", "entropy", "margin", "bald", "entropy+kcenter", "kcenter", "typiclust", "foreground-random")


def resolve(name: str, pool: TilePool) -> str:
    """What an acquisition stands for now: "default", and those that need a model while there is none."""
    if pool.has_model:
        return "clasp" if name == "default" else name
    return name if name in _NEED_NO_MODEL else "typiclust"


def offered(n_classes: int, has_model: bool) -> tuple[str, ...]:
    """Acquisitions that differ, best first. Of two classes, entropy and margin rank pixels alike: one is offered."""
    if not has_model:
        return "typiclust", "kcenter", "random"
    return tuple(name for name in (*_ALL, "random") if n_classes != 2 or name != "margin")


def choose(
    name: str, pool: TilePool, n: int, *, query_round: int = 0, seed: int = 0, spread: bool = False
) -> list[Choice]:
    """Up to n open tiles of the pool, the best first; fewer where fewer are open or scored.

    Parameters
    ----------
    name
        An `Acquisition`, but not "default": see `resolve`.
    query_round
        Number of the round, from 0: noise falls with it, and each has its own random numbers.
    spread
        No micrograph, and no specimen, gives more than its even share while others have tiles to give.
    """
    draw = _Draw(pool, n, query_round, np.random.default_rng([seed, query_round, 104729]), spread)
    return _WAYS[name](draw) if n > 0 and pool.open.any() else []


@dataclass(frozen=True, eq=False)
class _Draw:
    """One round: what is asked for."""

    pool: TilePool
    n: int
    query_round: int
    rng: np.random.Generator
    spread: bool

    def even(self, order: NDArray[np.intp]) -> NDArray[np.intp]:
        """The first n of `order`; with `spread`, none beyond the even share of its micrograph and specimen."""
        if not self.spread:
            return order[: self.n]
        pool = self.pool
        quota = diversity.even_quota(order, pool.micrographs, self.n)
        of_micrographs = diversity.within_quotas(order, pool.micrographs, len(order), quota)
        quota = diversity.even_quota(of_micrographs, pool.specimens, self.n)
        return diversity.within_quotas(of_micrographs, pool.specimens, self.n, quota)

    def scored(self, name: str) -> NDArray[np.floating]:
        """Scores (N,) of open tiles, nan elsewhere."""
        return np.where(self.pool.open, self.pool.scores[name], np.nan)

    def ranked(self, name: str) -> NDArray[np.intp]:
        """Scored open tiles, the highest first; equals in random order."""
        scores = self.scored(name)
        tiles = self.rng.permutation(np.flatnonzero(np.isfinite(scores)))
        return tiles[np.argsort(-scores[tiles], kind="stable")]

    def shuffled(self, allowed: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Tiles in random order."""
        return self.rng.permutation(np.flatnonzero(allowed))


# --- without a model


def _random(draw: _Draw) -> list[Choice]:
    """Uniform, whatever `spread` says: it is what others are compared with."""
    return _drawn(draw.shuffled(draw.pool.open)[: draw.n], draw.pool.open)


def _drawn(tiles: NDArray[np.intp], allowed: NDArray[np.bool_], reason: str = "random") -> list[Choice]:
    """Uniform draws without replacement: the chance of each is one over what was left."""
    n_left = int(allowed.sum())
    return [Choice(int(tile), None, reason, probability=1 / (n_left - i)) for i, tile in enumerate(tiles)]


def _typiclust(draw: _Draw) -> list[Choice]:
    pool = draw.pool
    tiles = diversity.typiclust(pool.embeddings, pool.labelled, pool.open, draw.n, draw.rng)
    return [Choice(int(tile), None, "typical", _commonest(pool, tile)) for tile in tiles]


def _k_center(draw: _Draw) -> list[Choice]:
    pool = draw.pool
    return _unlike(pool, diversity.k_center(pool.embeddings, pool.labelled, draw.n, pool.open))


def _unlike(pool: TilePool, tiles: NDArray[np.intp]) -> list[Choice]:
    novelty = pool.scores.get("novelty")
    return [Choice(int(tile), None if novelty is None else _number(novelty[tile]), "unlike") for tile in tiles]


# --- with a model


def _foreground_random(draw: _Draw) -> list[Choice]:
    """Two thirds among tiles that show more than the commonest class, the rest among all."""
    pool = draw.pool
    share = np.nan_to_num(pool.shares)
    foreground = pool.open & (1 - share[:, share.sum(axis=0).argmax()] >= _SMALLEST_FOREGROUND) & share.any(axis=1)
    first = draw.shuffled(foreground)[: round(draw.n * _FOREGROUND_PART)]
    left = pool.open.copy()
    left[first] = False
    rest = draw.shuffled(left)[: draw.n - len(first)]
    return [*_drawn(first, foreground, "foreground"), *_drawn(rest, left)]


def _uncertain(draw: _Draw, score: str) -> list[Choice]:
    return _by_score(draw.pool, score, draw.even(draw.ranked(score)))


def _by_score(pool: TilePool, score: str, tiles: NDArray[np.intp]) -> list[Choice]:
    values = pool.scores[score]
    return [Choice(int(tile), _number(values[tile]), "uncertain", _most_uncertain(pool, tile)) for tile in tiles]


def _entropy_k_center(draw: _Draw) -> list[Choice]:
    """Of the most uncertain tiles those that differ from what is labelled, and from each other."""
    pool = draw.pool
    candidates = draw.ranked("entropy")[: _CANDIDATES * draw.n]
    return _by_score(pool, "entropy", diversity.k_center(pool.embeddings, pool.labelled, draw.n, candidates))


def _clasp(draw: _Draw) -> list[Choice]:
    """Half of the tiles by class and uncertainty, the others foreground-aware random ones; in turns.

    After ClaSP PE (Lüth et al., Finally outshining the random baseline, 2026), which found it the first acquisition to
    beat foreground-aware random tiles reliably; the fall of the noise is ours. Without the random half it fell behind
    random tiles where few labels say all there is to learn.
    """
    n_uncertain = (draw.n + draw.query_round % 2) // 2
    uncertain = _by_class(replace(draw, n=n_uncertain))
    left = draw.pool.open.copy()
    left[[choice.index for choice in uncertain]] = False
    others = _foreground_random(replace(draw, pool=replace(draw.pool, open=left), n=draw.n - len(uncertain)))
    return [choice for pair in zip_longest(uncertain, others) for choice in pair if choice is not None]


def _by_class(draw: _Draw) -> list[Choice]:
    """Predicted classes in turn; of each a tile in which it is uncertain, drawn by power noise that falls with time."""
    pool, n_classes = draw.pool, draw.pool.shares.shape[1]
    beta = power_noise.beta_of_round(draw.query_round, first=_FIRST_BETA, last=_LAST_BETA, n_rounds=_N_NOISY_ROUNDS)
    left, turn, chosen = pool.open.copy(), draw.rng.permutation(n_classes), list[Choice]()
    for number in range(draw.n):
        klass = int(turn[(number + draw.query_round * draw.n) % n_classes])
        choice = _one_of_class(draw, klass, beta, _within_share(draw, left, chosen))
        if choice is None:
            break
        chosen.append(choice)
        left[choice.index] = False
    return chosen


def _one_of_class(draw: _Draw, klass: int, beta: float, allowed: NDArray[np.bool_]) -> Choice | None:
    """A tile in which `klass` is predicted; where none shows it, any uncertain one."""
    pool = draw.pool
    scores, reason = np.where(pool.shares[:, klass] >= _SMALLEST_SHARE, pool.class_entropy[:, klass], np.nan), klass
    if not (allowed & np.isfinite(scores)).any():
        scores, reason = pool.scores["entropy"], -1
    tiles, chances = power_noise.draw(scores, beta, 1, draw.rng, allowed)
    if not len(tiles):
        return None
    tile = int(tiles[0])
    told = reason if reason >= 0 else _most_uncertain(pool, tile)
    return Choice(tile, _number(scores[tile]), "uncertain-class", told, float(chances[0]))


def _within_share(draw: _Draw, left: NDArray[np.bool_], chosen: list[Choice]) -> NDArray[np.bool_]:
    """Tiles left of micrographs that have given least to this round, and of these of specimens that have."""
    if not draw.spread or not left.any():
        return left
    pool, tiles, allowed = draw.pool, [choice.index for choice in chosen], left
    for groups in (pool.specimens, pool.micrographs):
        given = np.bincount(groups[tiles], minlength=int(groups.max()) + 1)[groups]
        allowed = allowed & (given == given[allowed].min())
    return allowed


def _most_uncertain(pool: TilePool, tile: int | np.intp) -> int | None:
    """The class whose pixels add most to the tile's entropy; None where nothing is predicted."""
    parts = np.nan_to_num(pool.class_entropy[tile]) * np.nan_to_num(pool.shares[tile])
    return int(parts.argmax()) if parts.any() else None


def _commonest(pool: TilePool, tile: int | np.intp) -> int | None:
    share = np.nan_to_num(pool.shares[tile])
    return int(share.argmax()) if share.any() else None


def _number(value: np.floating) -> float | None:
    return float(value) if np.isfinite(value) else None


_WAYS: Final[dict[str, Callable[[_Draw], list[Choice]]]] = {
    "random": _random,
    "foreground-random": _foreground_random,
    "typiclust": _typiclust,
    "entropy": partial(_uncertain, score="entropy"),
    "margin": partial(_uncertain, score="margin"),
    "bald": partial(_uncertain, score="bald"),
    "kcenter": _k_center,
    "entropy+kcenter": _entropy_k_center,
    "clasp": _clasp,
}
