"""Runs of the project, newest first: status and IoU; resume, go on, clone, repeat, compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QGridLayout,
    QHeaderView,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_emtransfer.gui.widgets import button, clock, iou_text
from napari_emtransfer.session.compare import FEWEST, MOST

if TYPE_CHECKING:
    from qtpy.QtWidgets import QPushButton

    from napari_emtransfer.core.data.run import RunRecord

HEADERS = ("Run", "Status", "IoU", "Steps", "Time")
TIPS = (
    "Name of the run and of its folder in the project. Ctrl-click to choose several for comparing.",
    "How it ended. Cancelled and interrupted runs can be resumed from their last checkpoint.",
    "Class-mean IoU on the held-out ground of this run; other runs may have been judged on another ground.",
    "Iterations done.",
    "Time taken.",
)


class RunList(QWidget):
    """A table and its buttons; emits the id of the run, or the ids of the runs to compare."""

    resume_requested = Signal(str)
    use_requested = Signal(str)
    go_on_requested = Signal(str)
    clone_requested = Signal(str)
    replay_requested = Signal(str)
    compare_requested = Signal(tuple)

    def __init__(self) -> None:
        super().__init__()
        self.tree = QTreeWidget()
        self.tree.setColumnCount(len(HEADERS))
        self.tree.setRootIsDecorated(False)
        self.tree.setUniformRowHeights(True)
        self.tree.setFixedHeight(130)
        self.tree.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        header = QTreeWidgetItem(HEADERS)
        for column, tip in enumerate(TIPS):
            header.setToolTip(column, tip)
        self.tree.setHeaderItem(header)
        self.tree.header().setStretchLastSection(False)
        for column in range(len(HEADERS)):
            self.tree.header().setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        self.tree.header().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.tree.itemSelectionChanged.connect(self._update_buttons)
        self._resumable: frozenset[str] = frozenset()
        self._usable: frozenset[str] = frozenset()
        self._is_running = False
        self._make_buttons()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.tree)
        grid = QGridLayout()
        grid.setSpacing(4)
        for index, widget in enumerate(self._buttons):
            grid.addWidget(widget, index // 2, index % 2)
        layout.addLayout(grid)
        self._update_buttons()

    def set_runs(
        self,
        records: Sequence[RunRecord],
        resumable: frozenset[str],
        is_running: bool,
        usable: frozenset[str] = frozenset(),
    ) -> None:
        """Show these runs; `resumable` ids have a checkpoint to go on from, `usable` ones a model to predict with."""
        chosen = set(self.chosen) if resumable == self._resumable else set()  # a run that just ended comes first
        self._resumable, self._is_running, self._usable = resumable, is_running, usable
        self.tree.clear()
        for record in reversed(records):
            item = QTreeWidgetItem(
                [
                    record.id,
                    record.status,
                    iou_text(record.mean_iou),
                    str(record.iterations or ""),
                    clock(record.seconds or None),
                ]
            )
            item.setData(0, Qt.ItemDataRole.UserRole, record.id)
            item.setToolTip(0, record.id)
            item.setToolTip(1, record.message or TIPS[1])
            self.tree.addTopLevelItem(item)
            if record.id in chosen:
                item.setSelected(True)
        if not self.chosen:
            self._select_one()
        self._update_buttons()

    @property
    def chosen(self) -> tuple[str, ...]:
        """Ids of all selected runs, newest first."""
        items = (self.tree.topLevelItem(row) for row in range(self.tree.topLevelItemCount()))
        return tuple(item.data(0, Qt.ItemDataRole.UserRole) for item in items if item.isSelected())

    @property
    def selected(self) -> str | None:
        """Id of the selected run; None unless it is the only one."""
        return self.chosen[0] if len(self.chosen) == 1 else None

    def choose(self, run_ids: Sequence[str]) -> None:
        """Select these runs."""
        for row in range(self.tree.topLevelItemCount()):
            item = self.tree.topLevelItem(row)
            item.setSelected(item.data(0, Qt.ItemDataRole.UserRole) in run_ids)

    def _make_buttons(self) -> None:
        self.resume_button = self._button(
            "Resume", "Go on with the selected run from its last checkpoint.", self.resume_requested, "resume"
        )
        self.use_button = self._button(
            "Use its model", "Predict and measure with the model of the selected run.", self.use_requested, "use"
        )
        self.go_on_button = self._button(
            "Go on from its best",
            "Fills the form for a new run that starts from the best checkpoint of this one, with today's labels and "
            "the same held-out ground.",
            self.go_on_requested,
            "go-on",
        )
        self.clone_button = self._button(
            "Clone settings",
            "Fills the form with the settings of the selected run; nothing starts yet.",
            self.clone_requested,
            "clone",
        )
        self.replay_button = self._button(
            "Repeat it",
            "Trains once more with the same settings, seed, weights, and the labels and split of that time; then says "
            "whether the same came out.",
            self.replay_requested,
            "replay",
        )
        self.compare_button = button(
            "Compare",
            f"Curves, differing settings and IoU of {FEWEST} to {MOST} selected runs side by side.",
            lambda: self.compare_requested.emit(self.chosen),
            name="compare",
        )

    def _button(self, text: str, tip: str, signal: Any, name: str) -> QPushButton:
        return button(text, tip, lambda: self.selected and signal.emit(self.selected), name=name)

    @property
    def _buttons(self) -> tuple[QPushButton, ...]:
        return (
            self.resume_button,
            self.use_button,
            self.go_on_button,
            self.clone_button,
            self.replay_button,
            self.compare_button,
        )

    def _select_one(self) -> None:
        """The newest run that can be resumed, else the newest."""
        items = [self.tree.topLevelItem(row) for row in range(self.tree.topLevelItemCount())]
        resumable = [item for item in items if item.data(0, Qt.ItemDataRole.UserRole) in self._resumable]
        for item in (resumable or items)[:1]:
            item.setSelected(True)

    def _update_buttons(self) -> None:
        one = self.selected
        self.resume_button.setEnabled(one in self._resumable and not self._is_running)
        self.use_button.setEnabled(one in self._usable)
        self.go_on_button.setEnabled(one in self._usable)
        self.clone_button.setEnabled(one is not None)
        self.replay_button.setEnabled(one is not None and not self._is_running)
        self.compare_button.setEnabled(FEWEST <= len(self.chosen) <= MOST)
