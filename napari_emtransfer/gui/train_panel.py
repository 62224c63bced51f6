"""The Train tab: what the program proposes and why, every choice under Advanced, live curves, and the runs so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QGroupBox, QVBoxLayout, QWidget

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.errors import RateError
from napari_emtransfer.gui.augment_box import attach
from napari_emtransfer.gui.config_fields import FIELDS
from napari_emtransfer.gui.config_form import ConfigForm
from napari_emtransfer.gui.dialogs import confirm_rate
from napari_emtransfer.gui.latest import SHOW_MS, Latest
from napari_emtransfer.gui.run_actions import RunActions
from napari_emtransfer.gui.run_list import RunList
from napari_emtransfer.gui.run_monitor import RunMonitor, run_text
from napari_emtransfer.gui.section import Section
from napari_emtransfer.gui.widgets import button, wrapped_label
from napari_emtransfer.session.state import Advice, Phase, RunState

if TYPE_CHECKING:
    from napari_emtransfer.gui.viewer_session import ViewerSession

__all__ = ["TrainPanel", "run_text"]

_DECIDES = frozenset({"strategy", "weights", "encoder", "architecture", "normalization", "freeze", "learning_rate"})
"""Fields on which the recommendation hangs."""
_RULED = frozenset({"strategy", "normalization", "freeze", "encoder_learning_rate"})
"""Fields that the recommendation fills in where they are left open."""


class TrainPanel(QWidget):
    """The proposal fills the form, all but the fields that the user has changed; Fine-tune runs what the form says."""

    def __init__(self, owner: ViewerSession) -> None:
        super().__init__()
        self._session, self._bridge = owner.session, owner.bridge
        self._overridden: set[str] = set()
        self._cloned: tuple[TrainConfig, str] | None = None
        self._stale = True
        self._last_phase: Phase | None = None
        self._run_shown = Latest(self._show_run, self)
        self.proposal_label = wrapped_label("Open a project and paint a few strokes of each class.", name="proposal")
        self.advice_label = wrapped_label(name="advice")
        self.train_button = button(
            "Fine-tune T",
            "Learn from all labels of this project, in the background; painting goes on.",
            self.start,
            name="fine-tune",
        )
        self.use_button = button(
            "Use this",
            "Leaves strategy, norms and the encoder's rate to this recommendation; your other changes stay.",
            self.use_recommendation,
            name="use-recommendation",
        )
        self.reset_button = button(
            "Back to the proposal", "Undo all changes in this form.", self.forget_changes, name="reset"
        )
        self.form = ConfigForm()
        attach(self.form.augment_box, owner, lambda: int(self.form.editor("crop_px").value))
        self.advanced = Section(
            "Advanced", "Every choice of the training; the program's proposal stands in the fields.", indented=False
        )
        self.monitor = RunMonitor()
        self.plots, self.state_label = self.monitor.plots, self.monitor.state_label
        self.runs = RunList()
        self.run_actions = RunActions(owner, self.runs, self, self._take_settings, lambda: self.plots.ink)
        self._ask_soon = QTimer(self)
        self._ask_soon.setSingleShot(True)
        self._ask_soon.setInterval(SHOW_MS)
        self._ask_soon.timeout.connect(self._ask_advice)
        self._lay_out()
        self._connect()
        self._on_run(self._session.training.state)
        self.run_actions.refresh()

    # ---- what buttons and keys do

    def start(self) -> None:
        """Fine-tune with what the form says; the proposal is brought up to date first, what the user changed stays."""
        if self._session.project is None or self._session.training.state.is_active or not self.train_button.isEnabled():
            return
        self._set_startable(False)
        self._propose(then=self._launch)

    def resume(self, run_id: str) -> None:
        """Go on with a run from its last checkpoint."""
        self.run_actions.resume(run_id)

    def forget_changes(self) -> None:
        """Fill the form with the proposal again."""
        self._overridden.clear()
        self._cloned = None
        self._propose()

    def use_recommendation(self) -> None:
        """Leave to the rules what they decide; what else the user has changed stays."""
        plain = {name: value for name, value in TrainConfig().model_dump().items() if name in _RULED}
        self.form.fill(self.form.config.model_copy(update=plain))
        self._overridden -= _RULED
        if self._cloned is not None:
            self._cloned = (self._cloned[0].model_copy(update=plain), self._cloned[1])
        self._say_changes()
        self._ask_advice()

    def refresh_proposal(self) -> None:
        """Ask for a fresh proposal if labels have changed since the last one."""
        if self._session.project is not None:
            self.form.set_modality(self._session.project.settings.modality)
        if self._stale and self._session.project is not None and not self._session.training.state.is_active:
            self._propose()

    def showEvent(self, event) -> None:  # noqa: ANN001, N802, D102
        super().showEvent(event)
        self.refresh_proposal()

    # ---- building

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 6, 4, 4)
        self.advanced.column.addWidget(self.form)
        self.advanced.column.addWidget(self.reset_button)
        box = QGroupBox("Runs")
        QVBoxLayout(box).addWidget(self.runs)
        box.layout().setContentsMargins(4, 4, 4, 4)
        for widget in (
            self.proposal_label,
            self.advice_label,
            self.use_button,
            self.train_button,
            self.advanced,
            self.monitor,
            box,
        ):
            layout.addWidget(widget)
        layout.addStretch(1)
        self._hide_advice()
        self._say_changes()

    def _connect(self) -> None:
        signals, connect = self._session.signals, self._bridge.connect
        connect(signals.project_changed, self._on_project)
        connect(signals.schema_changed, self._on_curves)
        connect(signals.annotation_saved, lambda _stem: self._outdate())
        connect(signals.micrographs_changed, self._outdate)
        connect(signals.run_changed, self._on_run)
        connect(signals.curves_changed, self._on_curves)
        connect(signals.advice_changed, self._on_advice)
        connect(signals.run_advice_changed, self.monitor.set_advice)
        self.form.edited.connect(self._on_edit)

    # ---- the session says

    def _on_project(self) -> None:
        self._overridden.clear()
        self._cloned = None
        self._stale = True
        self.setEnabled(self._session.project is not None)
        self.proposal_label.setText("Paint a few strokes of each class; the proposal then stands here.")
        self._hide_advice()
        self.monitor.set_advice("")
        self._say_changes()
        self._on_curves()
        self.run_actions.refresh()
        if self.isVisible():
            self.refresh_proposal()

    def _on_run(self, run: RunState) -> None:
        is_new = run.phase is not self._last_phase
        self._last_phase = run.phase
        self._run_shown.put(run, at_once=is_new)
        if is_new:
            self._stale = True
            self._set_startable(not run.is_active)
            self.run_actions.refresh()
            if run.phase is Phase.FINISHED and self.isVisible():
                self.refresh_proposal()

    def _show_run(self, run: RunState) -> None:
        self.monitor.set_run(run, self._session.training.curves, self._session.training.config)

    def _on_curves(self) -> None:
        colors = {c.name: c.color for c in self._session.schema.classes}
        self.monitor.set_curves(self._session.training.curves, colors)

    def _on_advice(self, found: Advice) -> None:
        """What the rules say about strategy and rates, with the source; the user's own choice stays in the form."""
        mine = self.form.editor("strategy").value
        other = "" if mine in ("auto", found.strategy) or found.failed else f" You chose {mine}."
        source = f" (after {found.source})" if found.source else ""
        self.advice_label.setText(f"{found.reason}{source}{other}")
        self.advice_label.setToolTip("Which strategy suits labels, weights and their measured gap, and who says so.")
        self.advice_label.show()
        self.use_button.setVisible(bool(other))

    def _hide_advice(self) -> None:
        self.advice_label.hide()
        self.use_button.hide()

    # ---- inside

    def _on_edit(self, name: str) -> None:
        self._overridden.add(name)
        self._say_changes()
        if name in _DECIDES:
            self._ask_soon.start()

    def _take_settings(self, config: TrainConfig, said: str) -> None:
        """The settings of an earlier run take the proposal's place, until "Use this"."""
        self._cloned = (config, said)
        self._overridden.clear()
        self.advanced.expand()
        self._propose()

    def _propose(self, then: object = None) -> None:
        """Compute the proposal off the GUI thread (it reads all labels)."""
        training = self._session.training

        def done(found: tuple[TrainConfig, str]) -> None:
            self._stale = False
            config, why = found
            if self._cloned is not None:
                config, why = self._cloned
            self.proposal_label.setText(why + self._said_overrides())
            self.form.fill(config, keep=self._overridden)
            self._say_changes()
            if callable(then):
                then()
            else:
                self._ask_advice()

        def failed(message: str, hint: str) -> None:
            self._set_startable(True)
            self.proposal_label.setText(f"{message} {hint}")
            if callable(then):
                self._session.signals.failed.emit(message, hint)

        def proposed() -> tuple[TrainConfig, str]:
            self._session.labelling.save_now()
            return training.proposed_config()

        self._bridge.run(proposed, done=done, failed=failed)

    def _ask_advice(self) -> None:
        """Have the strategy recommended, where there is anything to transfer; the engine takes about a second."""
        try:
            config = self.form.config
        except ValidationError:
            return
        if self._session.project is None or not self.isVisible() or config.weights == "none":
            self._hide_advice()
            return
        self._bridge.attempt(lambda: self._session.advice.request(config))

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
        if not self._bridge.attempt(lambda: self._start(config)):
            self._set_startable(True)

    def _start(self, config: TrainConfig) -> None:
        """Start; a rate that would undo the pretraining is asked about once."""
        try:
            self._session.training.start(config)
        except RateError as error:
            if confirm_rate(self, error.message):
                self._session.training.start(config.model_copy(update={"confirm_uniform_rate": True}))
            else:
                self._set_startable(True)

    def _say_changes(self) -> None:
        self.form.mark_changes(self._overridden)
        self.reset_button.setEnabled(bool(self._overridden) or self._cloned is not None)

    def _said_overrides(self) -> str:
        """The fields that the user has changed, in words."""
        changed = [FIELDS[name].label.lower() for name in FIELDS if name in self._overridden]
        changed += ["allowed augmentation"] if "illegal_augment" in self._overridden else []
        return f" Your changes: {', '.join(changed)}." if changed else ""

    def _outdate(self) -> None:
        self._stale = True
        if self.isVisible():
            self.refresh_proposal()

    def _set_startable(self, startable: bool) -> None:
        self.train_button.setEnabled(startable)
