"""When one stage of the gradual strategy gives way to the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from napari_emtransfer.core.nn.strategy import WARM_UP_FRACTION

BEGINS = "The run begins."
RESUMED = "The run is resumed."


@dataclass
class StageControl:
    """Counts the validations of a stage and says when it is over.

    A stage ends when the validation IoU has not improved for `plateau` validations, but not before the rates of its new
    parameters have warmed up; at the latest when its share of the run is over, so that the last stage is reached
    by two thirds of it. Without ground to validate on it lasts for just that share.

    Attributes
    ----------
    began
        Progress of the run, 0…1, at which each stage up to the present one began.
    n_stale
        Validations since the best one, or since the present stage began if that is later.
    """

    n_stages: int
    plateau: int
    validates: bool
    began: list[float] = field(default_factory=lambda: [0.0])
    n_stale: int = 0

    @property
    def stage(self) -> int:
        """Index of the present stage, from 0."""
        return len(self.began) - 1

    @property
    def is_last(self) -> bool:
        """True when no other stage follows."""
        return self.stage == self.n_stages - 1

    def validated(self, *, is_best: bool) -> None:
        """Note a validation."""
        self.n_stale = 0 if is_best else self.n_stale + 1

    def reason_to_advance(self, progress: float) -> str | None:
        """Why the stage is over at `progress` of the run; None as long as it is not."""
        if self.is_last:
            return None
        if self.n_stale >= self.plateau and progress - self.began[-1] >= WARM_UP_FRACTION:
            return f"The validation IoU has not improved for {_validations(self.n_stale)}."
        if progress < (self.stage + 1) / self.n_stages:
            return None
        share = f"{self.stage + 1}/{self.n_stages} of the run"
        if not self.validates:
            return f"There is no ground to validate on, so the stages share the run evenly: {share} is over."
        return f"The validation IoU was still improving, but {share} is over."

    def advance(self, progress: float) -> None:
        """Begin the next stage."""
        self.began.append(progress)
        self.n_stale = 0

    def state(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {"began": list(self.began), "n_stale": self.n_stale}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up where `state` was written."""
        self.began, self.n_stale = list(state["began"]), int(state["n_stale"])


def _validations(n: int) -> str:
    return f"{n} validation{'s' * (n != 1)}"
