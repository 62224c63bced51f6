"""The curves of a run, from its events: those that arrive, and those that a run of before has in its folder."""

from __future__ import annotations

import math
from collections.abc import Iterable

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.events import Event, FoldBegan, IterationEnded, RunStarted, StageBegan, ValidationEnded
from napari_emtransfer.session.state import Curves, FoldMark, StageMark, ValidationPoint


def replayed(run_id: str, events: Iterable[Event]) -> Curves:
    """The curves as they were when the run ended, or was cut short."""
    curves = Curves(run_id)
    for event in events:
        record(curves, event)
    return curves


def record(curves: Curves, event: Event) -> bool:
    """Take an event into the curves; True when they have changed."""
    match event:
        case RunStarted():
            return _forget_after(curves, event.first_step)
        case IterationEnded():
            _add_iteration(curves, event)
        case ValidationEnded():
            curves.validations.append(_point(event))
        case StageBegan():
            mark = StageMark(event.iteration, event.stage, event.n_stages, event.name, event.reason, event.groups)
            # A resumed run announces the stage that it goes on in once more.
            if not any((m.iteration, m.stage) == (mark.iteration, mark.stage) for m in curves.stages):
                curves.stages.append(mark)
        case FoldBegan():
            begun = curves.iterations[-1] if curves.iterations else 0
            curves.folds[:] = [f for f in curves.folds if f.fold != event.fold]
            curves.folds.append(FoldMark(begun, event.fold, event.n_folds, event.held_out))
        case _:
            return False
    return True


def plateau_text(curves: Curves, config: TrainConfig) -> str:
    """How many validations have brought nothing better, and of how many the run or its stage lets pass."""
    if not curves.validations:
        return ""
    stale = curves.validations[-1].n_stale
    if stale == 0:
        return "The last validation was the best."
    stage = curves.stages[-1] if curves.stages else None
    if stage is not None and stage.stage < stage.n_stages:
        return f"No better for {stale} of {_count(config.plateau, 'validation')}; then the next stage begins."
    if config.patience is not None:
        return f"No better for {stale} of {_count(config.patience, 'validation')}; then the run ends."
    return f"No better for {_count(stale, 'validation')}."


def _add_iteration(curves: Curves, event: IterationEnded) -> None:
    n_before = len(curves.iterations)
    curves.iterations.append(event.iteration)
    curves.losses.append(event.loss)
    curves.memory_gb.append(math.nan if event.memory_gb is None else event.memory_gb)
    for group in {**curves.learning_rates, **event.learning_rates}:
        rates = curves.learning_rates.setdefault(group, [math.nan] * n_before)
        rates.append(event.learning_rates.get(group, math.nan))


def _point(event: ValidationEnded) -> ValidationPoint:
    return ValidationPoint(
        event.iteration, event.loss, event.mean_iou, event.iou, event.is_best, event.n_stale, event.training_iou
    )


def _forget_after(curves: Curves, iteration: int) -> bool:
    """A resumed run goes on from its checkpoint: what came after it is done once more."""
    n_kept = sum(i <= iteration for i in curves.iterations)
    changed = n_kept < len(curves.iterations)
    del curves.iterations[n_kept:]
    for values in (curves.losses, curves.memory_gb, *curves.learning_rates.values()):
        del values[n_kept:]
    curves.validations[:] = [point for point in curves.validations if point.iteration <= iteration]
    curves.stages[:] = [mark for mark in curves.stages if mark.iteration <= iteration]
    curves.folds[:] = [mark for mark in curves.folds if mark.iteration <= iteration]
    return changed


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")
