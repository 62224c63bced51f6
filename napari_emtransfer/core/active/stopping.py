"""When to stop labelling, and which criterion says so: from predictions and random control tiles, no chosen ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.active.rounds import PhaseFacts, RoundFacts
from napari_emtransfer.core.active.slope import TEN_MINUTES, slope

Criterion = Literal["stability", "slope", "target"]
BEYOND_LABELS: Final = "it takes more micrographs, because they differ"


@dataclass(frozen=True)
class StopSettings:
    """When labelling has done its work.

    Parameters
    ----------
    target_half_width
        Wanted half width of the 95 % interval of every phase fraction, 0..1. Who sets one labels until it is reached.
    kappa, n_stable
        Predictions are stable when so many comparisons in a row agree at least so well (Bloodgood & Vijay-Shanker,
        CoNLL 2009).
    tiles_apart
        So many labelled tiles lie between the two models of a comparison: one tile more hardly ever changes a model.
    gain
        Labelling that adds less than this to the mean IoU in ten minutes is not worth it.
    slope_rounds, slope_seconds
        The gain is judged by at least so many rounds and so many seconds of labelling.
    min_controls
        Control tiles without which nothing is judged by them.
    """

    target_half_width: float | None = None
    kappa: float = 0.99
    n_stable: int = 3
    tiles_apart: int = 5
    gain: float = 0.005
    slope_rounds: int = 4
    slope_seconds: float = TEN_MINUTES
    min_controls: int = 5


@dataclass(frozen=True)
class CriterionState:
    """One criterion: `met` is None where it cannot be judged, and the sentence then says what is missing.

    `value` is compared with `limit`: the least kappa, the upper end of the gain per ten minutes, the widest half width.
    """

    criterion: Criterion
    met: bool | None
    sentence: str
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class StopAdvice:
    """Whether to stop, the criterion that spoke (None: none did), one sentence with its numbers, and all criteria."""

    stop: bool
    criterion: Criterion | None
    sentence: str
    evidence: tuple[CriterionState, ...]


def advise(rounds: Sequence[RoundFacts], settings: StopSettings | None = None) -> StopAdvice:
    """Rounds, oldest first → advice.

    A target that the user has set decides alone. Without one, labelling may end when the gain is small or predictions
    are stable, the gain before stability: a model can be stable and wrong.
    """
    settings = settings or StopSettings()
    target, gain, stability = _target(rounds, settings), _slope(rounds, settings), _stability(rounds, settings)
    evidence = (target, gain, stability)
    if settings.target_half_width is not None:
        if target.met:
            return StopAdvice(True, "target", f"Labelling can stop: {target.sentence}", evidence)
        return StopAdvice(False, None, _not_there_yet(target, gain, stability), evidence)
    for state in (gain, stability):
        if state.met:
            return StopAdvice(True, state.criterion, f"Labelling can stop: {state.sentence}", evidence)
    judged = next((s for s in (gain, stability) if s.met is not None), None)
    if judged is None:
        return StopAdvice(False, None, f"Not to be judged yet: {gain.sentence}", evidence)
    return StopAdvice(False, None, f"Go on labelling: {judged.sentence}", evidence)


def _not_there_yet(target: CriterionState, *others: CriterionState) -> str:
    if target.met is None:
        return f"Not to be judged yet: {target.sentence}"
    if BEYOND_LABELS in target.sentence:
        return f"Labelling cannot reach the target: {target.sentence}"
    saturated = next((state for state in others if state.met), None)
    if saturated is None:
        return f"Go on labelling: {target.sentence}"
    return f"Only random control tiles help now: {target.sentence[:-1]}, while {saturated.sentence}"


# --- (a) stable predictions


def kappa(a: NDArray[np.integer], b: NDArray[np.integer]) -> float:
    """Cohen's kappa of two predictions of the same pixels: agreement beyond that of chance, 1 where they are equal.

    Raises
    ------
    ValueError
        When the shapes differ or there is nothing to compare.
    """
    if a.shape != b.shape or not a.size:
        raise ValueError(f"predictions of shapes {a.shape} and {b.shape} cannot be compared")
    n = int(max(a.max(), b.max())) + 1
    first, second = (np.bincount(np.ravel(values), minlength=n) / a.size for values in (a, b))
    agreement, chance = float(np.mean(a == b)), float(first @ second)
    # Both say the same one class everywhere: chance would, too, and nothing has changed.
    return 1.0 if chance >= 1.0 else (agreement - chance) / (1 - chance)


def reference_round(n_labelled_tiles: Sequence[int], now: int, tiles_apart: int = 5) -> int | None:
    """Of earlier rounds the newest whose model had learnt from at least `tiles_apart` tiles fewer than `now`.

    Returns its index: `kappa` is measured against its predictions. None where there is none.
    """
    fitting = [i for i, n in enumerate(n_labelled_tiles) if n <= now - tiles_apart]
    return fitting[-1] if fitting else None


def _stability(rounds: Sequence[RoundFacts], settings: StopSettings) -> CriterionState:
    chain = _chain(rounds)[: settings.n_stable]
    limit = settings.kappa
    if len(chain) < settings.n_stable:
        missing = settings.tiles_apart * (settings.n_stable - len(chain))
        sentence = f"about {missing} more labelled tiles are needed to see whether predictions still change."
        return CriterionState("stability", None, sentence, limit=limit)
    least = min(chain)
    met = least >= limit
    change = "no longer change" if met else "still change"
    seen = ", ".join(f"{_shown_kappa(k, limit)}" for k in reversed(chain))
    sentence = (
        f"predictions {change} (kappa {seen} in the last {len(chain)} comparisons; stable is {limit:.2f} or more)."
    )
    return CriterionState("stability", met, sentence, least, limit)


def _shown_kappa(value: float, limit: float) -> str:
    """Rounded so that what lies below the limit does not look as if it did not."""
    shown = f"{value:.3f}"
    return shown if (float(shown) >= limit) == (value >= limit) else f"{value:.5f}"


def _chain(rounds: Sequence[RoundFacts]) -> list[float]:
    """Kappas of comparisons that follow one another without overlap, newest first.

    A ranking after every tile compares models that share most of the step: counted one by one, three of them would
    say no more than one.
    """
    kappas: list[float] = []
    until = math.inf
    for facts in reversed(rounds):
        if facts.kappa is None or facts.kappa_since is None or facts.n_labelled_tiles > until:
            continue
        if facts.kappa_since >= facts.n_labelled_tiles:  # nothing was learnt in between
            continue
        kappas.append(facts.kappa)
        until = facts.kappa_since
    return kappas


# --- (b) gain per ten minutes


def _slope(rounds: Sequence[RoundFacts], settings: StopSettings) -> CriterionState:
    missing = _too_few_controls(rounds, settings)
    if missing:
        return CriterionState("slope", None, missing, limit=settings.gain)
    curve = _curve(rounds, settings)
    if not curve:
        sentence = "no labelling time was recorded, so the gain per ten minutes is unknown."
        return CriterionState("slope", None, sentence, limit=settings.gain)
    tail = _tail(curve, settings)
    if tail is None:
        return CriterionState("slope", None, _more_time(curve, settings), limit=settings.gain)
    found = slope(*zip(*tail, strict=True))
    met = found.high < settings.gain
    sentence = (
        f"the last {found.minutes:.0f} minutes brought {_points(found.gain)} of mean IoU per ten minutes "
        f"(95 % interval {_points(found.low, unit=False)} to {_points(found.high)}; "
        f"{'below' if met else 'it is not surely below'} {_points(settings.gain, sign=False)})."
    )
    return CriterionState("slope", met, sentence, found.high, settings.gain)


def _curve(rounds: Sequence[RoundFacts], settings: StopSettings) -> list[tuple[float, float]]:
    """(seconds, mean IoU) of the rounds that can be judged, of several at one time the last.

    Where time went backwards, a labelled micrograph was removed, and what was before belongs to another project.
    """
    points: dict[float, float] = {}
    for facts in rounds:
        control, seconds = facts.control, facts.seconds_labelling
        if points and (seconds or 0.0) < max(points):
            points.clear()
        if seconds and control and control.mean_iou is not None and control.n_tiles >= settings.min_controls:
            points[seconds] = control.mean_iou
    return sorted(points.items())


def _tail(curve: Sequence[tuple[float, float]], settings: StopSettings) -> Sequence[tuple[float, float]] | None:
    """The shortest end of the curve with enough rounds and enough time in it."""
    for n in range(settings.slope_rounds, len(curve) + 1):
        if curve[-1][0] - curve[-n][0] >= settings.slope_seconds:
            return curve[-n:]
    return None


def _more_time(curve: Sequence[tuple[float, float]], settings: StopSettings) -> str:
    n_rounds = settings.slope_rounds - len(curve)
    minutes = math.ceil((settings.slope_seconds - (curve[-1][0] - curve[0][0])) / 60)
    wanted = [f"{n_rounds} more round{'s' * (n_rounds > 1)}"] if n_rounds > 0 else []
    wanted += [f"{minutes} more minute{'s' * (minutes > 1)} of labelling"] if minutes > 0 else []
    return f"{' and '.join(wanted)} are needed to see what labelling still brings."


# --- (d) the user's target


def _target(rounds: Sequence[RoundFacts], settings: StopSettings) -> CriterionState:
    target = settings.target_half_width
    if target is None:
        return CriterionState("target", None, "no target is set for the phase fractions.")
    missing = _too_few_controls(rounds, settings)
    known = {name: p for name, p in rounds[-1].phases.items() if p.half_width is not None} if rounds else {}
    if missing or not known:
        return CriterionState("target", None, missing or "the phase fractions have no interval yet.", limit=target)
    name = max(known, key=lambda n: known[n].half_width or 0.0)
    widest = known[name].half_width or 0.0
    met = widest <= target
    shown = f"±{_percent(widest)}", f"±{_percent(target)}"
    sentence = (
        f"every phase fraction is known to {shown[0]} or better ({name}; the target is {shown[1]})."
        if met
        else f"the fraction of {name} is known to {shown[0]}, the target is {shown[1]}{_floor(known[name], target)}."
    )
    return CriterionState("target", met, sentence, widest, target)


def _floor(phase: PhaseFacts, target: float) -> str:
    """What labels cannot change: that what was imaged differs from place to place."""
    if phase.half_width is None or phase.from_errors is None:
        return ""
    floor = phase.half_width * math.sqrt(1 - phase.from_errors)
    return f"; {BEYOND_LABELS} (±{_percent(floor)} by itself)" if floor > target else ""


def _too_few_controls(rounds: Sequence[RoundFacts], settings: StopSettings) -> str:
    control = rounds[-1].control if rounds else None
    n = settings.min_controls - (control.n_tiles if control else 0)
    if n <= 0:
        return ""
    return f"{n} more random control {'tiles are' if n > 1 else 'tile is'} needed ({settings.min_controls} at least)."


def _points(share: float, *, unit: bool = True, sign: bool = True) -> str:
    shown = f"{100 * share:+.1f}" if sign else f"{100 * share:.1f}"
    return f"{shown} points" if unit else shown


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
