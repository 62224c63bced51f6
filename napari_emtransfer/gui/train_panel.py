"""The Train tab: what the program proposes and why, every choice under Advanced, live curves, and the runs so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError
from qtpy.QtWidgets import QGroupBox, QHBoxLayout, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.gui.config_form import FIELDS, ConfigForm
from napari_emtransfer.gui.latest import Latest
from napari_emtransfer.gui.plots import RunPlots
from napari_emtransfer.gui.run_list import RunList
from napari_emtransfer.gui.widgets import button, clock, interval_text, iou_text, sentence_case, wrapped_label
from napari_emtransfer.session.state import Phase, RunState

if TYPE_CHECKING:
    from napari_emtransfer.core.data.run import RunRecord
    from napari_emtransfer.gui.viewer_session import ViewerSession


class TrainPanel(QWidget):
    """The proposal fills the form, all but the fields that the user has changed; Fine-tune runs what the form says."""

    def __init__(self, owner: ViewerSession) -> None:
        super().__init__()
        self._session, self._bridge = owner.session, owner.bridge
        self._overridden: set[str] = set()
        self._stale = True
        self._last_phase: Phase | None = None
        self._listing = 0
        self._run_shown = Latest(self._show_run, self)
        self.proposal_label = wrapped_label("Open a project and paint a few strokes of each class.", name="proposal")
        self.train_button = button(
            "Fine-tune T",
            "Learn from all labels of this project, in the background; painting goes on.",
            self.start,
            name="fine-tune",
        )
        self.form = ConfigForm()
        self.advanced = QCollapsible("Advanced")
        self.reset_button = button("Back to the proposal", "Undo all changes in this form.", self.forget_changes)
        self.state_label = wrapped_label(name="run-state")
        self.plots = RunPlots()
        self.runs = RunList()
        self._lay_out()
        self._connect()
        self._on_run(self._session.training.state)
        self._refresh_runs()

    # ---- what buttons and keys do

    def start(self) -> None:
        """Fine-tune with what the form says; the proposal is brought up to date first, what the user changed stays."""
        if self._session.project is None or self._session.training.state.is_active or not self.train_button.isEnabled():
            return
        self._set_startable(False)
        self._propose(then=self._launch)

    def resume(self, run_id: str) -> None:
        """Go on with a run from its last checkpoint."""
        self._bridge.attempt(lambda: self._session.training.resume(run_id))

    def forget_changes(self) -> None:
        """Fill the form with the proposal again."""
        self._overridden.clear()
        self._propose()

    def refresh_proposal(self) -> None:
        """Ask for a fresh proposal if labels have changed since the last one."""
        if self._stale and self._session.project is not None and not self._session.training.state.is_active:
            self._propose()

    def showEvent(self, event) -> None:  # noqa: ANN001, N802, D102
        super().showEvent(event)
        self.refresh_proposal()

    # ---- building

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 6, 4, 4)
        layout.addWidget(self.proposal_label)
        layout.addWidget(self.train_button)
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.form)
        column.addWidget(self.reset_button)
        self.advanced.setDuration(0)
        self.advanced.toggleButton().setToolTip(
            "Every choice of the training; the program's proposal stands in the fields."
        )
        self.advanced.addWidget(inside)
        layout.addWidget(self.advanced)
        layout.addWidget(self.state_label)
        layout.addWidget(self.plots)
        box = QGroupBox("Runs")
        QHBoxLayout(box).addWidget(self.runs)
        layout.addWidget(box)
        layout.addStretch(1)

    def _connect(self) -> None:
        signals, connect = self._session.signals, self._bridge.connect
        connect(signals.project_changed, self._on_project)
        connect(signals.schema_changed, self._on_curves)
        connect(signals.annotation_saved, lambda _stem: self._outdate())
        connect(signals.micrographs_changed, self._outdate)
        connect(signals.run_changed, self._on_run)
        connect(signals.curves_changed, self._on_curves)
        self.form.edited.connect(self._overridden.add)
        self.runs.resume_requested.connect(self.resume)
        self.runs.use_requested.connect(lambda run_id: self._bridge.attempt(lambda: self._session.use_model(run_id)))

    # ---- the session says

    def _on_project(self) -> None:
        self._overridden.clear()
        self._stale = True
        self.setEnabled(self._session.project is not None)
        self.proposal_label.setText("Paint a few strokes of each class; the proposal then stands here.")
        self._on_curves()
        self._refresh_runs()
        if self.isVisible():
            self.refresh_proposal()

    def _on_run(self, run: RunState) -> None:
        is_new = run.phase is not self._last_phase
        self._last_phase = run.phase
        self._run_shown.put(run, at_once=is_new)
        if is_new:
            self._stale = True
            self._set_startable(not run.is_active)
            self._refresh_runs()

    def _show_run(self, run: RunState) -> None:
        self.state_label.setText(run_text(run))
        self.state_label.setVisible(bool(self.state_label.text()))

    def _on_curves(self) -> None:
        colors = {c.name: c.color for c in self._session.schema.classes}
        curves = self._session.training.curves
        self.plots.setVisible(bool(curves.iterations))
        self.plots.set_curves(curves, colors)

    # ---- inside

    def _propose(self, then: object = None) -> None:
        """Compute the proposal off the GUI thread (it reads all labels)."""
        training = self._session.training

        def done(found: tuple[TrainConfig, str]) -> None:
            self._stale = False
            config, why = found
            self.proposal_label.setText(why + self._said_overrides())
            self.form.fill(config, keep=self._overridden)
            if callable(then):
                then()

        def failed(message: str, hint: str) -> None:
            self._set_startable(True)
            self.proposal_label.setText(f"{message} {hint}")
            if callable(then):
                self._session.signals.failed.emit(message, hint)

        def proposed() -> tuple[TrainConfig, str]:
            self._session.labelling.save_now()
            return training.proposed_config()

        self._bridge.run(proposed, done=done, failed=failed)

    def _launch(self) -> None:
        try:
            config = self.form.config
        except ValidationError as error:
            first = error.errors()[0]
            self._session.signals.failed.emit(
                f"{'.'.join(map(str, first['loc']))}: {first['msg']}.", "Correct it under Advanced."
            )
            self._set_startable(True)
            return
        if not self._bridge.attempt(lambda: self._session.training.start(config)):
            self._set_startable(True)

    def _said_overrides(self) -> str:
        """The fields that the user has changed, in words."""
        if not self._overridden:
            return ""
        return f" Your changes: {', '.join(FIELDS[name][0].lower() for name in FIELDS if name in self._overridden)}."

    def _outdate(self) -> None:
        self._stale = True
        if self.isVisible():
            self.refresh_proposal()

    def _set_startable(self, startable: bool) -> None:
        self.train_button.setEnabled(startable)

    def _refresh_runs(self) -> None:
        project = self._session.project
        if project is None:
            self.runs.set_runs([], frozenset(), False)
            return

        def read() -> tuple[list[RunRecord], frozenset[str], frozenset[str]]:
            records = [r for r in project.runs() if r.kind == "train"]
            ended = [r for r in records if r.status in ("cancelled", "interrupted")]
            resumable = [r.id for r in ended if project.run(r.id).checkpoint_path("last").is_file()]
            usable = [r.id for r in records if project.run(r.id).checkpoint_path("best").is_file()]
            return records, frozenset(resumable), frozenset(usable)

        self._listing += 1
        listing, is_active = self._listing, self._session.training.state.is_active

        def show(found: tuple[list[RunRecord], frozenset[str], frozenset[str]]) -> None:
            if listing == self._listing:  # an answer of before is late
                records, resumable, usable = found
                self.runs.set_runs(records, resumable, is_active, usable)

        self._bridge.run(read, done=show, failed=lambda *_: None)


def run_text(run: RunState) -> str:
    """One or two sentences about a run."""
    where = f" on {run.device}" if run.device else ""
    score = (
        ""
        if run.mean_iou is None
        else f" Held-out IoU {iou_text(run.mean_iou)} {interval_text(run.ci95)}".rstrip() + "."
    )
    steps = f"{run.iteration} of {run.n_iterations} iterations"
    left = f", {clock(run.seconds_left)} left" if run.seconds_left is not None else ""
    sentence = {
        Phase.IDLE: "",
        Phase.STARTING: f"Run {run.run_id} is starting.",
        Phase.RUNNING: f"Run {run.run_id}{where}: {steps}{left}.",
        Phase.CANCELLING: f"Run {run.run_id} is being banked.",
        Phase.FINISHED: f"Run {run.run_id} has finished after {run.iteration} iterations{where}.",
        Phase.CANCELLED: f"Run {run.run_id} was ended after {run.iteration} iterations; its last checkpoint is kept.",
        Phase.FAILED: f"Run {run.run_id} failed.",
        Phase.INTERRUPTED: f"Run {run.run_id} was interrupted.",
    }[run.phase]
    said = "" if run.phase is Phase.CANCELLED else " ".join(filter(None, (run.message, run.hint)))
    return " ".join(filter(None, (sentence + score, sentence_case(run.note), said)))
