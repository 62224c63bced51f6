"""What a run is at: where it stands, what it holds, what its course suggests, its curves, and what learns how fast."""

from __future__ import annotations

import re
from collections.abc import Mapping

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.gui.groups_table import GroupsTable
from napari_emtransfer.gui.plots import RunPlots
from napari_emtransfer.gui.widgets import clock, interval_text, iou_text, sentence_case, wrapped_label
from napari_emtransfer.session.curves import plateau_text
from napari_emtransfer.session.state import Curves, Phase, RunState


class RunMonitor(QWidget):
    """Sentences above the curves and the table of parameter groups; each part is hidden while it has nothing to say."""

    def __init__(self) -> None:
        super().__init__()
        self.state_label = wrapped_label(name="run-state")
        self.course_label = wrapped_label(name="run-course")
        self.course_label.setToolTip(
            "Validations since the best one, and memory that the device holds for the training."
        )
        self.advice_label = wrapped_label(name="run-advice")
        self.advice_label.setToolTip("What the course of this run suggests.")
        self.plots = RunPlots()
        self.groups = GroupsTable()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for widget in (self.state_label, self.course_label, self.advice_label, self.plots, self.groups):
            layout.addWidget(widget)
        self.set_advice("")

    def set_run(self, run: RunState, curves: Curves, config: TrainConfig) -> None:
        """Show where a run stands."""
        _say(self.state_label, run_text(run))
        _say(self.course_label, course_text(curves, config) if run.is_active else "")

    def set_curves(self, curves: Curves, colors: Mapping[str, str]) -> None:
        """Show the curves of a run; they are drawn soon, not now."""
        self.plots.setVisible(bool(curves.iterations))
        self.plots.set_curves(curves, colors)
        self.groups.set_stage(curves.stages[-1] if curves.stages else None)

    def set_advice(self, words: str) -> None:
        """Show what the course of the run suggests; empty for nothing."""
        _say(self.advice_label, words)


def _say(label: QWidget, text: str) -> None:
    if text != label.text():
        label.setText(text)
    label.setVisible(bool(text))


def course_text(curves: Curves, config: TrainConfig) -> str:
    """Fold, plateau and memory, in short sentences."""
    fold = curves.folds[-1] if curves.folds else None
    parts = [] if fold is None else [f"Fold {fold.fold + 1} of {fold.n_folds}, without {', '.join(fold.held_out)}."]
    parts.append(plateau_text(curves, config))
    memory = curves.memory_gb[-1] if curves.memory_gb else float("nan")
    if memory == memory:  # NaN is not itself
        parts.append(f"Memory {memory:.1f} GB.")
    return " ".join(filter(None, parts))


def run_text(run: RunState) -> str:
    """One or two sentences about a run."""
    where = f" on {run.device}" if run.device else ""
    score = ""
    if run.mean_iou is not None:
        figure = f"{iou_text(run.mean_iou)} {interval_text(run.ci95)}".rstrip()
        score = (
            f" IoU {figure} on labelled pixels at the last validation." if run.is_active else f" Held-out IoU {figure}."
        )
    steps = f"{run.iteration} of {run.n_iterations} iterations"
    left = f", {clock(run.seconds_left)} left" if run.seconds_left is not None else ""
    sentence = {
        Phase.IDLE: "",
        Phase.STARTING: f"Run {run.run_id} is starting.",
        Phase.RUNNING: f"Run {run.run_id}{where}: {steps}{left}.",
        Phase.CANCELLING: f"Run {run.run_id} is being banked.",
        Phase.FINISHED: f"Run {run.run_id} has finished after {run.iteration} iterations{where}.",
        Phase.CANCELLED: f"Run {run.run_id} was ended {_how_far(run)}.",
        Phase.FAILED: f"Run {run.run_id} failed.",
        Phase.INTERRUPTED: f"Run {run.run_id} was interrupted.",
    }[run.phase]
    said = "" if run.phase is Phase.CANCELLED else " ".join(filter(None, (run.message, run.hint)))
    return " ".join(filter(None, (sentence + score, sentence_case(_note(run)), said)))


def _how_far(run: RunState) -> str:
    if not run.iteration:
        return "before its first iteration; there is nothing to resume"
    return f"after {run.iteration} iterations; its last checkpoint is kept"


def _note(run: RunState) -> str:
    """Of a run that goes on only what is held out: what its figure lacks is told of the figure that it ends with."""
    if not run.is_active:
        return run.note
    held_out = re.split(r"[.;] ", run.note, maxsplit=1)[0].rstrip(".")
    return f"{held_out}." if held_out else ""
