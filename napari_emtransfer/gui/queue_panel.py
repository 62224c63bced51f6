"""The Queue tab: the tiles worth labelling next and why, what labelling them has brought, and when it is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import QCheckBox, QComboBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget
from superqt.utils import signals_blocked

from napari_emtransfer.core.active.acquisition import offered
from napari_emtransfer.gui.job_bar import JobBar
from napari_emtransfer.gui.latest import Latest
from napari_emtransfer.gui.queue_canvas import tiles_of
from napari_emtransfer.gui.queue_findings import QueueFindings
from napari_emtransfer.gui.queue_list import CONTROL_TIP, MOST_ROWS, QueueList, legend_html
from napari_emtransfer.gui.queue_words import acquisition_text, rest_text, status_text
from napari_emtransfer.gui.tile_pictures import TilePictures
from napari_emtransfer.gui.widgets import button, calm, wrapped_label

if TYPE_CHECKING:
    from napari_emtransfer.core.data.queue_records import QueueEntry
    from napari_emtransfer.core.data.tiles import Tile
    from napari_emtransfer.gui.viewer_session import ViewerSession
    from napari_emtransfer.session.queue_state import QueueState


class QueuePanel(QWidget):
    """Shows `session.queue`; nothing is computed or read here."""

    skip_requested = Signal()
    unsure_requested = Signal()
    done_requested = Signal()

    def __init__(self, owner: ViewerSession) -> None:
        super().__init__()
        self._session, self._bridge, self._canvas = owner.session, owner.bridge, owner.canvas
        self._outlines = owner.queue_on_canvas
        self.pictures = TilePictures(owner.session, owner.bridge, owner.canvas.images, self)
        self._tiles: dict[int, Tile] = {}
        self._colors: dict[str, str] = {}
        self._offered: tuple[str, ...] = ()
        self._drawn: object = None
        self._state_shown = Latest(self._show, self)
        self._make_top()
        self.list = QueueList(self._picture)
        self.rest_label = wrapped_label(name="queue-rest")
        self._make_buttons()
        self.findings = QueueFindings()
        self._lay_out()
        self._connect()
        self._on_project()

    # ---- what buttons do

    def rank_now(self) -> None:
        """Score what is new and propose tiles again."""
        self._bridge.attempt(lambda: self._session.queue.refresh(again=True))

    def go(self, number: int) -> None:
        """Show the tile of an entry, ready to be painted on."""
        if self._bridge.attempt(lambda: self._session.queue.go(number)):
            self._canvas.layers.activate_annotation()
        else:  # it has left the queue meanwhile: the mark goes back
            self.list.set_entries(self.list.entries, self._colors, self._current)

    def set_ink(self, color: str) -> None:
        """Draw axes in this colour: napari's text colour, which follows its theme."""
        self.findings.curve.set_ink(color)

    def showEvent(self, event) -> None:  # noqa: ANN001, N802, D102
        super().showEvent(event)
        if self._session.project is not None:
            self._bridge.attempt(self._session.queue.refresh)
        self._show(self._session.queue.state)

    # ---- building

    def _make_top(self) -> None:
        self.status_label = wrapped_label(name="queue-status")
        self.error_label = wrapped_label(name="queue-error")
        self.acquisition_box = QComboBox()
        self.acquisition_box.setObjectName("acquisition")
        self.acquisition_box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.acquisition_box.setToolTip(
            "How the next tiles are chosen. Another choice ranks again and replaces what waits in the queue; random "
            "controls and tiles that were put aside stay."
        )
        calm(self.acquisition_box, Qt.FocusPolicy.TabFocus)  # a click leaves the keys with the canvas
        self.acquisition_box.activated.connect(lambda _i: self._choose_acquisition())
        self.acquisition_label = wrapped_label(name="acquisition-words")
        self.rank_button = button(
            "Rank now",
            "Learn from all labels as they are, score the tiles anew, and replace the waiting ones by the best. "
            "This happens by itself after each tile that is done. Changes no labels.",
            self.rank_now,
            name="rank-now",
        )
        self.job_bar = JobBar("Stop scoring; scores so far and the queue stay, and the next ranking goes on.")
        self.job_bar.cancel_requested.connect(lambda: self._bridge.attempt(self._session.queue.cancel))

    def _make_buttons(self) -> None:
        self.skip_button = button(
            "Skip S",
            "Leave the tile on the canvas out for good, and go to the next one. Its labels stay. Back to it, Done or "
            "Defer takes that back.",
            self.skip_requested.emit,
            name="skip",
        )
        self.unsure_button = button(
            "Defer U",
            "Put the tile on the canvas behind all others, and go to the next one.",
            self.unsure_requested.emit,
            name="defer",
        )
        self.done_button = button(
            "Done D",
            "Mark the tile on the canvas as finished, and go to the next one; the others are ranked anew.",
            self.done_requested.emit,
            name="queue-done",
        )
        self.outline_check = QCheckBox("Outlines")
        self.outline_check.setToolTip("Shows where the queued tiles of this micrograph lie. Changes no data.")
        self.outline_check.setChecked(True)
        self.outline_check.toggled.connect(self._outlines.set_visible)
        self.legend_label = wrapped_label(legend_html(), name="queue-legend")
        self.legend_label.setToolTip(f"<p>{CONTROL_TIP}</p>")

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 6, 4, 4)
        chooser = QHBoxLayout()
        chooser.addWidget(QLabel("Choose by"))
        chooser.addWidget(self.acquisition_box, 1)
        ranking = QHBoxLayout()
        ranking.addWidget(self.rank_button)
        ranking.addWidget(self.job_bar)
        acts = QHBoxLayout()
        for widget in (self.skip_button, self.unsure_button, self.done_button):
            acts.addWidget(widget)
        looks = QHBoxLayout()
        looks.addWidget(self.outline_check)
        looks.addWidget(self.legend_label, 1)
        layout.addWidget(self.status_label)
        layout.addLayout(ranking)
        layout.addWidget(self.error_label)
        layout.addLayout(chooser)
        layout.addWidget(self.acquisition_label)
        layout.addWidget(self.list)
        layout.addWidget(self.rest_label)
        layout.addLayout(acts)
        layout.addLayout(looks)
        layout.addWidget(self.findings)
        layout.addStretch(1)

    def _connect(self) -> None:
        signals, connect = self._session.signals, self._bridge.connect
        connect(signals.project_changed, self._on_project)
        connect(signals.schema_changed, self._on_schema)
        connect(signals.micrographs_changed, self._on_micrographs)
        connect(signals.tile_changed, lambda _tile: self._enable())
        connect(signals.queue_changed, self._on_queue)
        self.list.chosen.connect(self.go)
        self.list.expected.connect(self._expect)
        self.pictures.ready.connect(self.list.viewport().update)
        self.findings.target_changed.connect(
            lambda value: self._bridge.attempt(lambda: self._session.queue.set_target(value))
        )
        self.findings.finetune_every_changed.connect(
            lambda value: self._bridge.attempt(lambda: self._session.queue.set_finetune_every(value))
        )

    # ---- the session says

    def _on_project(self) -> None:
        self.setEnabled(self._session.project is not None)
        self.pictures.clear()
        self._tiles.clear()
        self._on_schema()

    def _on_micrographs(self) -> None:
        self.pictures.keep_only({record.stem for record in self._session.records})

    def _on_schema(self) -> None:
        """Kept here: asking the session for its classes reads the database."""
        self._colors = {c.name: c.color for c in self._session.schema.classes}
        if self.isVisible():
            self._show(self._session.queue.state)

    def _on_queue(self, state: QueueState) -> None:
        """What the user waits for at once, a count of scores at most twice a second, nothing while out of sight."""
        if self.isVisible():
            seen = (state.phase, state.entries, state.current, state.acquisition, len(state.rounds), state.advice)
            self._state_shown.put(state, at_once=seen != self._drawn)
            self._drawn = seen

    def _show(self, state: QueueState) -> None:
        self.status_label.setText(status_text(state))
        self.error_label.setText(f"{state.error} {state.hint}".strip())
        self.error_label.setVisible(bool(state.error))
        self._show_progress(state)
        self._show_acquisition(state)
        self._tiles = {entry.number: tile for entry, tile in tiles_of(self._session, state.entries[:MOST_ROWS])}
        self.list.set_entries(state.entries, self._colors, self._current)
        self.list.setVisible(bool(state.entries))
        self.rest_label.setText(rest_text(len(state.entries) - MOST_ROWS))
        self.rest_label.setVisible(len(state.entries) > MOST_ROWS)
        self.pictures.want(tuple(self._tiles.values()))
        self.findings.set_state(state, self._colors)
        self._enable()

    def _show_progress(self, state: QueueState) -> None:
        is_ranking = state.phase == "ranking"
        if is_ranking and self.job_bar.isHidden():
            self.job_bar.begin("Scoring the tiles …", done=state.n_scored)
        if is_ranking and state.n_tiles:
            self.job_bar.step(state.n_scored, state.n_tiles)
        if not is_ranking:
            self.job_bar.end()
        self.rank_button.setHidden(is_ranking)

    def _show_acquisition(self, state: QueueState) -> None:
        offered = self._offers(state)
        with signals_blocked(self.acquisition_box):
            if offered != self._offered:
                self._offered = offered
                self.acquisition_box.clear()
                for name in offered:
                    self.acquisition_box.addItem(name, name)
                    tip = acquisition_text(name, "")
                    self.acquisition_box.setItemData(self.acquisition_box.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
            self.acquisition_box.setCurrentIndex(self.acquisition_box.findData(state.acquisition))
        self.acquisition_label.setText(acquisition_text(state.acquisition, state.resolved))

    def _offers(self, state: QueueState) -> tuple[str, ...]:
        """The ways that differ for so many classes and with or without a model, and the one that is in use."""
        names = tuple(offered(len(self._colors), has_model(state)))
        return tuple(dict.fromkeys(("default", *names, state.acquisition)))

    def _choose_acquisition(self) -> None:
        name = self.acquisition_box.currentData()
        if name != self._session.queue.state.acquisition:
            self._bridge.attempt(lambda: self._session.queue.set_acquisition(name))

    # ---- inside

    @property
    def _current(self) -> int | None:
        current = self._session.queue.state.current
        return None if current is None else current.number

    def _picture(self, entry: QueueEntry) -> QPixmap | None:
        tile = self._tiles.get(entry.number)
        return None if tile is None else self.pictures.get(tile)

    def _expect(self, number: int) -> None:
        tile = self._tiles.get(number)
        if tile is not None:
            self._bridge.attempt(lambda: self._outlines.expect(tile.micrograph))

    def _enable(self) -> None:
        for widget in (self.skip_button, self.unsure_button, self.done_button):
            widget.setEnabled(self._session.tile is not None)


def has_model(state: QueueState) -> bool:
    """Whether in the newest ranking a model has scored any tile: there were labels to learn from."""
    return bool(state.rounds and state.rounds[-1].facts.get("n_scored"))
