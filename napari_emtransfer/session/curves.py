"""The curves of a run, from its events: those that arrive, and those that a resumed run has in its folder."""

from __future__ import annotations

from collections.abc import Iterable

from napari_emtransfer.core.events import Event, IterationEnded, RunStarted, ValidationEnded
from napari_emtransfer.session.state import Curves, ValidationPoint


def replayed(run_id: str, events: Iterable[Event]) -> Curves:
    """The curves as they were when the run was cut short."""
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
            curves.iterations.append(event.iteration)
            curves.losses.append(event.loss)
            for group, rate in event.learning_rates.items():
                curves.learning_rates.setdefault(group, []).append(rate)
        case ValidationEnded():
            point = ValidationPoint(event.iteration, event.loss, event.mean_iou, event.iou, event.is_best)
            curves.validations.append(point)
        case _:
            return False
    return True


def _forget_after(curves: Curves, iteration: int) -> bool:
    """A resumed run goes on from its checkpoint: what came after it is done once more."""
    n_kept = sum(i <= iteration for i in curves.iterations)
    changed = n_kept < len(curves.iterations)
    del curves.iterations[n_kept:]
    for values in (curves.losses, *curves.learning_rates.values()):
        del values[n_kept:]
    curves.validations[:] = [point for point in curves.validations if point.iteration <= iteration]
    return changed
