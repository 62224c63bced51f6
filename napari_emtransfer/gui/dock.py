"""The main widget: header, loop bar, messages, and the tabs. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from napari.utils.theme import get_theme
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QFrame, QHBoxLayout, QScrollArea, QShortcut, QTabWidget, QVBoxLayout, QWidget

from napari_emtransfer.gui.header import Header
from napari_emtransfer.gui.label_panel import LabelPanel
from napari_emtransfer.gui.latest import Latest
from napari_emtransfer.gui.loop_bar import LoopBar, TileCount
from napari_emtransfer.gui.measure_panel import MeasurePanel
from napari_emtransfer.gui.messages import MessageArea
from napari_emtransfer.gui.project_panel import ProjectPanel
from napari_emtransfer.gui.queue_panel import QueuePanel
from napari_emtransfer.gui.shortcuts import Shortcuts, as_text
from napari_emtransfer.gui.train_panel import TrainPanel
from napari_emtransfer.gui.viewer_session import ViewerSession, unwrapped
from napari_emtransfer.gui.widgets import small_button, wrapped_label
from napari_emtransfer.session.runs import newest_model

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_emtransfer.session.state import LiveState, Phase, Readouts, RunState

WIDTH: Final = 380


class EMTransferDock(QWidget):
    """*Plugins → EM Transfer*: paint tiles, fine-tune in the background, read the held-out IoU.

    The session belongs to the viewer; this widget only shows it and may be closed and opened again.
    """

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("emtransfer-dock")
        viewer = unwrapped(napari_viewer)
        self.owner = ViewerSession.of(viewer)
        self.session, self.canvas = self.owner.session, self.owner.canvas
        self.header, self.loop_bar, self.messages = Header(), LoopBar(), MessageArea()
        self.project_panel = ProjectPanel(self.owner, viewer)
        self.label_panel = LabelPanel(self.owner)
        self.train_panel = TrainPanel(self.owner)
        self.queue_panel = QueuePanel(self.owner)
        self.measure_panel = MeasurePanel(self.owner)
        self.help_label = wrapped_label(as_text())
        self.help_label.hide()
        self.tabs = QTabWidget()
        self._lay_out()
        self._viewer = viewer
        self._phase: tuple[Phase, bool] | None = None
        self._run_shown = Latest(self.loop_bar.set_run, self)
        self._live_shown = Latest(self.loop_bar.set_live, self)
        self.shortcuts = Shortcuts(viewer, self._actions())
        self._connect()
        self._on_project()

    def sizeHint(self) -> QSize:  # noqa: N802, D102
        return QSize(WIDTH, 800)

    def minimumSizeHint(self) -> QSize:  # noqa: N802, D102
        return QSize(300, 300)

    def choose_tab(self, name: str) -> None:
        """Bring a tab to the front by its title."""
        for index in range(self.tabs.count()):
            if self.tabs.tabText(index) == name:
                self.tabs.setCurrentIndex(index)

    # ---- building

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.setSpacing(6)
        top = QHBoxLayout()
        top.addWidget(self.header, 1)
        top.addWidget(small_button("?", "Show or hide the table of keys.", self.toggle_help, name="help"))
        layout.addLayout(top)
        layout.addWidget(self.loop_bar)
        layout.addWidget(self.messages)
        layout.addWidget(self.help_label)
        for title, panel, tip in (
            ("Project", self.project_panel, "Micrographs, specimens and classes."),
            ("Label", self.label_panel, "Paint labels, tile by tile."),
            ("Train", self.train_panel, "Fine-tune, follow the curves, resume runs."),
            ("Queue", self.queue_panel, "The tiles worth labelling next, and what labelling has brought."),
            ("Measure", self.measure_panel, "IoU, phase fractions, confusion matrix."),
        ):
            self.tabs.setTabToolTip(self.tabs.addTab(_scrolled(panel), title), tip)
        layout.addWidget(self.tabs, 1)

    def _actions(self) -> dict[str, Callable[[], object]]:
        label, tools = self.label_panel, self.label_panel.tools
        keys = {str(value): (lambda value=value: label.choose_class(value)) for value in range(1, 10)}
        modes = {"B": "paint", "E": "erase", "P": "polygon", "F": "fill", "M": "pan_zoom"}
        keys |= {key: (lambda mode=mode: self._use_tool(mode)) for key, mode in modes.items()}
        return keys | {
            "[": lambda: tools.step_brush(-1),
            "]": lambda: tools.step_brush(1),
            "N": label.next_tile,
            "D": label.mark_done,
            "U": label.mark_unsure,
            "S": label.mark_skipped,
            "C": self.canvas.focus_tile,
            "L": self.toggle_live,
            "T": self.train_panel.start,
        }

    def _connect(self) -> None:
        signals, connect = self.session.signals, self.owner.bridge.connect
        connect(signals.project_changed, self._on_project)
        connect(signals.micrographs_changed, self._count_tiles)
        connect(signals.tile_states_changed, lambda _stem: self._count_tiles())
        connect(signals.engine_changed, self.header.set_engine)
        connect(signals.run_changed, self._on_run)
        connect(signals.readouts_changed, self._on_readouts)
        connect(signals.notice_posted, lambda message, hint: self.messages.post(message, hint))
        connect(signals.failed, lambda message, hint: self.messages.post(message, hint, is_error=True))
        bar, training = self.loop_bar, self.session.training
        connect(signals.live_changed, self._on_live)
        bar.live_requested.connect(self.toggle_live)
        bar.next_requested.connect(self.label_panel.next_tile)
        bar.previous_requested.connect(self.label_panel.previous_tile)
        bar.train_requested.connect(self.train_panel.start)
        bar.stop_early_requested.connect(training.stop_early)
        bar.cancel_requested.connect(training.cancel)
        bar.kill_requested.connect(training.kill)
        queue = self.queue_panel
        queue.skip_requested.connect(self.label_panel.mark_skipped)
        queue.unsure_requested.connect(self.label_panel.mark_unsure)
        queue.done_requested.connect(self.label_panel.mark_done)
        self.canvas.annotation_layer_changed.connect(self.shortcuts.set_layer)
        self.shortcuts.set_layer(self.canvas.layers.annotation)
        self.label_panel._set_layer(self.canvas.layers.annotation)
        for keys in ("?", "Shift+?"):  # napari's keymaps know no "?", which lies on another key in every country
            QShortcut(QKeySequence(keys), self).activated.connect(self.toggle_help)
        self._viewer.events.theme.connect(self._on_theme)
        self._on_theme()
        self.destroyed.connect(self.shortcuts.close)

    # ---- what keys and buttons do

    def toggle_help(self) -> None:
        """Show or hide the table of keys."""
        self.help_label.setVisible(self.help_label.isHidden())

    def toggle_live(self) -> None:
        """Switch the live overlay on or off."""
        if self.session.project is not None:
            self.owner.bridge.attempt(self.session.live.toggle)
        self.loop_bar.set_live(self.session.live.state)

    def _on_theme(self, _event: object = None) -> None:
        ink = get_theme(self._viewer.theme).text.as_hex()
        self.train_panel.plots.set_ink(ink)
        self.queue_panel.set_ink(ink)
        self.measure_panel.reliability.set_ink(ink)

    def _use_tool(self, mode: str) -> None:
        self.canvas.layers.activate_annotation()
        self.label_panel.tools.set_mode(mode)

    # ---- the session says

    def _on_project(self) -> None:
        project = self.session.project
        self.header.set_project(project.settings.name if project else None, project.root if project else None)
        self.header.set_engine(self.session.prediction.engine)
        self.loop_bar.setVisible(project is not None)
        for index in range(1, self.tabs.count()):
            self.tabs.setTabEnabled(index, project is not None)
        self._count_tiles()
        self._on_run(self.session.training.state)
        self._on_live(self.session.live.state)
        self._on_readouts(self.session.readouts)
        if project is None:
            self.tabs.setCurrentIndex(0)
        else:
            self._offer_resume()
            self._go_live()

    def _go_live(self) -> None:
        """In a new project a few strokes bring an overlay; nobody has to find the switch first."""
        project = self.session.project
        if project is not None and newest_model(project) is None:
            self.session.live.set_enabled(True, automatic=True)

    def _offer_resume(self) -> None:
        """Runs that a crash or a closed window cut off can go on."""
        self.owner.bridge.run(self.session.training.interrupted_runs, done=self._show_offer)

    def _show_offer(self, records: list) -> None:
        if records and not self.session.training.state.is_active:
            run_id = records[0].id
            self.messages.post(
                f"Run {run_id} was interrupted.",
                "It can go on from its last checkpoint.",
                action=("Resume it", lambda: self.train_panel.resume(run_id)),
            )

    def _on_run(self, run: RunState) -> None:
        self._run_shown.put(run, at_once=(run.phase, run.stopping_early) != self._phase)
        self._phase = (run.phase, run.stopping_early)

    def _on_live(self, live: LiveState) -> None:
        self._live_shown.put(live, at_once=live.phase != self.loop_bar.live.phase)

    def _on_readouts(self, readouts: Readouts) -> None:
        self.loop_bar.set_model(readouts.model)

    def _count_tiles(self) -> None:
        labelling = self.session.labelling
        self.loop_bar.set_tiles(TileCount(labelling.n_tiles_done, labelling.n_tiles))


def _scrolled(panel: QWidget) -> QScrollArea:
    """A panel that scrolls up and down where the window is too low, never sideways."""
    area = QScrollArea()
    area.setWidget(panel)
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    return area
