"""The clock of a training run: how far it is, how long it will take, when to speak."""

from __future__ import annotations

import math
import time
from typing import Final

_SPEAK_EVERY_S: Final = 0.1
# A forward pass is about a third of a training step.
_FORWARD_SHARE: Final = 1 / 3


class Pace:
    """Times steps and validations apart, so that the time left counts what is really to come.

    Parameters
    ----------
    n_iterations
        Iterations of the run.
    validate_every
        Iterations between validations.
    budget_s
        Seconds the run may take; None for no limit.
    spent_s
        Seconds spent before an interruption.
    validation_cost
        Pixels of a validation over pixels of a training step: a first guess of its time.
    """

    def __init__(
        self, n_iterations: int, validate_every: int, budget_s: float | None, spent_s: float, validation_cost: float
    ) -> None:
        self._n, self._every, self._budget = n_iterations, validate_every, budget_s
        self._started = time.monotonic() - spent_s
        self._step_s: float | None = None
        self._validation_s: float | None = None
        self._validation_steps = validation_cost * _FORWARD_SHARE
        self._spoke = -float("inf")

    @property
    def seconds(self) -> float:
        """Seconds since the start, an interruption left out."""
        return time.monotonic() - self._started

    @property
    def over_budget(self) -> bool:
        """True when the time that the run may take has passed."""
        return self._budget is not None and self.seconds >= self._budget

    def progress(self, iteration: int) -> float:
        """Share of the run done after `iteration` iterations, by count or by time, whichever is further."""
        by_time = self.seconds / self._budget if self._budget is not None else 0.0
        return min(1.0, max(iteration / self._n, by_time))

    def step_took(self, seconds: float) -> None:
        """Note the time of a training step."""
        self._step_s = seconds if self._step_s is None else 0.9 * self._step_s + 0.1 * seconds

    def steps_changed(self) -> None:
        """Forget how long a step took: from now on more, or less, is trained in each."""
        self._step_s = None

    def validation_took(self, seconds: float) -> None:
        """Note the time of a validation."""
        self._validation_s = seconds

    def seconds_left(self, iteration: int) -> float | None:
        """Steps and validations still to come, at their measured times; never more than the budget leaves."""
        if self._step_s is None:
            return None
        validation_s = self._validation_steps * self._step_s if self._validation_s is None else self._validation_s
        n_validations = -(-self._n // self._every) - iteration // self._every
        left = (self._n - iteration) * self._step_s + n_validations * validation_s
        return left if self._budget is None else max(0.0, min(left, self._budget - self.seconds))

    def may_speak(self) -> bool:
        """True at most ten times a second."""
        now = time.monotonic()
        if now - self._spoke < _SPEAK_EVERY_S:
            return False
        self._spoke = now
        return True


def validation_interval(wanted: int, cost: float) -> int:
    """Iterations between validations: as wanted, or so many that validating takes about half as long as training.

    `cost` is pixels of a validation over pixels of a training step; a forward pass takes a third of a step. By
    pixels, not by the clock, so that the same run validates at the same iterations on any machine.
    """
    return wanted * max(1, math.ceil(cost / 3 / (0.5 * wanted)))
