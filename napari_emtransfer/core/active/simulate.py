"""Playing the labelling of a set whose labels are known, to see what each way to choose tiles would be worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.active.acquisition import choose, resolve
from napari_emtransfer.core.active.pool import TilePool
from napari_emtransfer.core.active.queue import n_controls


class Learner(Protocol):
    """A model that learns from tiles; an oracle knows their labels."""

    def learn(self, tiles: NDArray[np.intp]) -> bool:
        """Begin afresh and learn these tiles; False where they show fewer than two classes."""
        ...

    def look(self, pool: TilePool) -> TilePool:
        """The pool with the scores, shares and entropies of what was learnt."""
        ...

    def measure(self) -> float:
        """Class-mean IoU on ground of which no tile is in the pool."""
        ...


@dataclass(frozen=True)
class Curve:
    """What `acquisition` reached: class-mean IoU with `n_tiles` labelled (None: fewer than two classes were seen).

    `order` are the tiles as they were labelled.
    """

    acquisition: str
    seed: int
    n_tiles: tuple[int, ...]
    mean_iou: tuple[float | None, ...]
    order: tuple[int, ...]

    @property
    def area(self) -> float:
        """Mean IoU over the budgets, by the trapezoidal rule; a model that cannot be learnt counts 0."""
        if len(self.n_tiles) < 2:
            return float(self.mean_iou[0] or 0) if self.mean_iou else 0.0
        values = [iou or 0.0 for iou in self.mean_iou]
        return float(np.trapezoid(values, self.n_tiles) / (self.n_tiles[-1] - self.n_tiles[0]))


def play(
    acquisition: str,
    learner: Learner,
    pool: TilePool,
    budgets: Sequence[int],
    *,
    seed: int,
    control_every: int | None = None,
    spread: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    on_round: Callable[[int, float | None], None] = lambda _n, _iou: None,
) -> Curve:
    """Choose, label, learn and measure, until `budgets[-1]` tiles are labelled or the pool is.

    Parameters
    ----------
    pool
        Unscored, all tiles open.
    budgets
        Rising numbers of labelled tiles at which the model learns anew and is measured.
    control_every
        One in so many tiles is drawn uniformly, as in the window; None: none.
    on_round
        Told the number of labelled tiles and the IoU.
    """
    rng = np.random.default_rng([seed, 7919])
    order: list[int] = []
    reached: list[int] = []
    values: list[float | None] = []
    now = pool
    for query_round, budget in enumerate(budgets):
        n = min(budget, len(pool)) - len(order)
        if n <= 0 or should_stop():
            break
        n_random = n_controls(n, control_every, len(order) % control_every) if control_every else 0
        order += _next(acquisition, now, n, n_random, query_round, seed, spread, rng)
        labelled = np.array(order, np.intp)
        scored = learner.learn(labelled)
        values.append(learner.measure() if scored else None)
        reached.append(len(order))
        on_round(len(order), values[-1])
        now = _marked(learner.look(pool) if scored else pool, labelled)
    return Curve(acquisition, seed, tuple(reached), tuple(values), tuple(order))


def budgets_of(rounds: int, query_size: int) -> tuple[int, ...]:
    """Labelled tiles after each round of equal size."""
    return tuple(query_size * (number + 1) for number in range(rounds))


def tiles_to_target(curve: Curve, target: float) -> int | None:
    """Labelled tiles at which a curve reaches the IoU `target` for the first time; None where it never does."""
    reached = (
        n for n, iou in zip(curve.n_tiles, curve.mean_iou, strict=True) if iou is not None and iou >= target - 1e-9
    )
    return next(reached, None)


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean over seeds, as far as all of them go; a model that could not be learnt counts 0."""
    length = min(len(curve.n_tiles) for curve in curves)
    values = np.array([[iou or 0.0 for iou in curve.mean_iou[:length]] for curve in curves])
    first = curves[0]
    return Curve(first.acquisition, -1, first.n_tiles[:length], tuple(values.mean(axis=0).tolist()), ())


def paired_difference(curves: Sequence[Curve], rivals: Sequence[Curve]) -> tuple[float, float, float]:
    """Area of `curves` minus that of `rivals`, paired by seed: mean and 95 % interval (Student's t over seeds)."""
    by_seed = {curve.seed: curve.area for curve in rivals}
    differences = np.array([curve.area - by_seed[curve.seed] for curve in curves if curve.seed in by_seed])
    if len(differences) < 2:
        return (float(differences.mean()) if len(differences) else np.nan), -np.inf, np.inf
    from scipy.stats import t

    mean, error = float(differences.mean()), float(differences.std(ddof=1)) / np.sqrt(len(differences))
    half = float(t.ppf(0.975, len(differences) - 1)) * error
    return mean, mean - half, mean + half


def _next(
    acquisition: str,
    pool: TilePool,
    n: int,
    n_random: int,
    query_round: int,
    seed: int,
    spread: bool,
    rng: np.random.Generator,
) -> list[int]:
    """Chosen tiles, and uniform random ones where the acquisition finds no more."""
    n_open = int(pool.open.sum())
    controls = rng.choice(np.flatnonzero(pool.open), min(n_random, n_open), replace=False).tolist()
    left = pool.open.copy()
    left[controls] = False
    name = resolve(acquisition, pool)
    asked = n - len(controls)
    found = choose(name, replace(pool, open=left), asked, query_round=query_round, seed=seed, spread=spread)
    chosen = [choice.index for choice in found]
    left[chosen] = False
    rest = rng.choice(np.flatnonzero(left), max(0, min(asked - len(chosen), int(left.sum()))), replace=False)
    return [*chosen, *controls, *rest.tolist()]


def _marked(pool: TilePool, labelled: NDArray[np.intp]) -> TilePool:
    known = np.zeros(len(pool), bool)
    known[labelled] = True
    return replace(pool, open=~known, labelled=known)
