"""Drawing tiles by their scores instead of taking the highest ones, and the probability with which each was drawn.

The highest scores of a pool belong to tiles that resemble each other, and come from a model that knows little yet.
Drawing in proportion to score^β (Kirsch et al., Stochastic batch acquisition, TMLR 2023) mends both: β → 0 draws
uniformly, β → ∞ takes the highest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# In place of ln 0: a score of zero is drawn after all others (any other logarithm is above −746), and then uniformly.
_LN_ZERO: Final = -1e9

Scores = NDArray[np.floating[Any]]


def beta_of_round(query_round: int, *, first: float, last: float, n_rounds: int) -> float:
    """β of the round (from 0): `first` at the beginning, by equal factors up to `last` in round `n_rounds`, then that.

    Early scores are worth little, and tiles are few: noise finds what they have in common. Later ones are trusted.
    With 1 a tile of twice the score is drawn twice as often, with 5 32 times, with 100 one of 5 % more 130 times.

    Source: Lüth et al., Finally outshining the random baseline (ClaSP PE), 2026: noise that falls from round to round.
    """
    done = min(max(query_round, 0) / n_rounds, 1)
    return float(first * (last / first) ** done)


def noised(scores: Scores, beta: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Logarithms ln s with Gumbel noise of scale 1/β: in falling order, a sample without replacement by s^β.

    A score of nan becomes −inf: the last, and never to be taken.

    Source: Kirsch et al. 2023; Kool et al., Stochastic beams and where to find them, ICML 2019 (Gumbel-top-k).
    """
    return _logarithms(scores) + rng.gumbel(size=len(scores)) / beta


def probabilities(scores: Scores, beta: float, allowed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Chance of each tile in a single draw among the allowed ones, s^β / Σ s^β: (n,), 0 where not allowed or nan.

    Zero everywhere where none is allowed.
    """
    return _chances(_logarithms(scores), beta, allowed)


def draw(
    scores: Scores,
    beta: float,
    n: int,
    rng: np.random.Generator,
    allowed: NDArray[np.bool_],
    excludes: Callable[[int], NDArray[np.bool_]] | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Up to n tiles, one after the other without replacement, each with its probability at the moment of its draw.

    These probabilities are what an unbiased estimate from chosen tiles needs: LURE weights, Farquhar et al., On
    statistical bias in active learning, ICLR 2021.

    Parameters
    ----------
    scores
        (N,) Not negative; a nan is never drawn, a zero only when nothing else is left.
    beta
        Above 0; infinity takes the highest score, and one of several by chance.
    allowed
        (N,) Tiles that may be drawn.
    excludes
        Index of a tile that was just drawn → (N,) tiles that may not be drawn from now on: a full quota, an overlap.

    Returns
    -------
    indices, probabilities
        (m,), m <= n; in the order of drawing.
    """
    # In random order, so that ties of an infinite β are broken by chance: `argmax` takes the first.
    pool = rng.permutation(np.flatnonzero(allowed & np.isfinite(scores)))
    keys, logarithms = noised(scores[pool], beta, rng), _logarithms(scores[pool])
    left = np.ones(len(pool), bool)
    indices: list[int] = []
    chances: list[float] = []
    while len(indices) < n and left.any():
        position = int(np.where(left, keys, -np.inf).argmax())
        index = int(pool[position])
        indices.append(index)
        chances.append(_chances(logarithms, beta, left)[position])
        left[position] = False
        if excludes is not None:
            left &= ~excludes(index)[pool]
    return np.array(indices, np.intp), np.array(chances, np.float64)


def _chances(logarithms: NDArray[np.float64], beta: float, allowed: NDArray[np.bool_]) -> NDArray[np.float64]:
    held = np.where(allowed, logarithms, -np.inf)
    highest = held.max(initial=-np.inf)
    if highest == -np.inf:
        return np.zeros(len(held))
    below = held - highest
    # Ties for the highest have weight 1 even with β = ∞, where ∞ · 0 would be nan.
    weights = np.exp(np.multiply(below, beta, out=np.zeros_like(below), where=below < 0))
    chances: NDArray[np.float64] = weights / weights.sum()
    return chances


def _logarithms(scores: Scores) -> NDArray[np.float64]:
    """Natural logarithms; −inf where s is nan."""
    logarithms = np.where(np.isfinite(scores), _LN_ZERO, -np.inf)
    positive = np.isfinite(scores) & (scores > 0)
    logarithms[positive] = np.log(scores[positive], dtype=np.float64)
    return logarithms
