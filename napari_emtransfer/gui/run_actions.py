"""What the buttons of the run list do: read the runs off the GUI thread, compare, clone, repeat."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QWidget

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.gui.compare_view import CompareView
from napari_emtransfer.gui.run_list import RunList
from napari_emtransfer.session.compare import Comparison, compare
from napari_emtransfer.session.runs import settings_of, settings_to_go_on

if TYPE_CHECKING:
    from napari_emtransfer.core.data.run import RunRecord
    from napari_emtransfer.gui.viewer_session import ViewerSession

_Listed = tuple[list["RunRecord"], frozenset[str], frozenset[str]]


class RunActions:
    """Connects a run list with the session.

    Parameters
    ----------
    take_settings
        Gets the settings of a cloned run, and a sentence that says whose they are.
    ink
        Colour for axes, at the time of asking.
    """

    def __init__(
        self,
        owner: ViewerSession,
        runs: RunList,
        parent: QWidget,
        take_settings: Callable[[TrainConfig, str], object],
        ink: Callable[[], str],
    ) -> None:
        self._session, self._bridge = owner.session, owner.bridge
        self._runs, self._parent, self._take_settings, self._ink = runs, parent, take_settings, ink
        self._listing = 0
        self.compare_view: CompareView | None = None
        runs.resume_requested.connect(self.resume)
        runs.use_requested.connect(lambda run_id: self._bridge.attempt(lambda: self._session.use_model(run_id)))
        runs.go_on_requested.connect(self.go_on)
        runs.clone_requested.connect(self.clone)
        runs.replay_requested.connect(self.replay)
        runs.compare_requested.connect(self.compare)

    def refresh(self) -> None:
        """Read the runs of the project anew."""
        project = self._session.project
        if project is None:
            self._runs.set_runs([], frozenset(), False)
            return

        def read() -> _Listed:
            records = [r for r in project.runs() if r.kind == "train"]
            ended = [r for r in records if r.status in ("cancelled", "interrupted")]
            resumable = [r.id for r in ended if project.run(r.id).is_resumable]
            usable = [r.id for r in records if project.run(r.id).starting_point() is not None]
            return records, frozenset(resumable), frozenset(usable)

        self._listing += 1
        listing, is_active = self._listing, self._session.training.state.is_active

        def show(found: _Listed) -> None:
            if listing == self._listing:  # an answer of before is late
                records, resumable, usable = found
                self._runs.set_runs(records, resumable, is_active, usable)

        self._bridge.run(read, done=show, failed=lambda *_: None)

    def resume(self, run_id: str) -> None:
        """Go on with a run from its last checkpoint."""
        self._bridge.attempt(lambda: self._session.training.resume(run_id))

    def replay(self, run_id: str) -> None:
        """Repeat a run."""
        self._bridge.attempt(lambda: self._session.training.replay(run_id))

    def clone(self, run_id: str) -> None:
        """Fill the form with the settings of a run."""
        project = self._session.project
        said = f"The form holds the settings of run {run_id}."
        if project is not None:
            self._bridge.attempt(lambda: self._take_settings(settings_of(project, run_id), said))

    def go_on(self, run_id: str) -> None:
        """Fill the form for a run that goes on from the best checkpoint of another."""
        project = self._session.project
        said = f"The form is filled for going on from the best of run {run_id}."
        if project is not None:
            self._bridge.attempt(lambda: self._take_settings(settings_to_go_on(project, run_id), said))

    def compare(self, run_ids: tuple[str, ...]) -> None:
        """Show runs side by side."""
        project = self._session.project
        if project is not None:
            self._bridge.run(lambda: compare(project, run_ids), done=self._show)

    def _show(self, comparison: Comparison) -> None:
        if self.compare_view is None:
            self.compare_view = CompareView(self._parent.window())
        self.compare_view.set_comparison(comparison, self._ink())
        self.compare_view.show()
        self.compare_view.raise_()
