"""Runs of the project, newest first: status, IoU, and resume for those that can go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QHeaderView, QTreeWidget, QTreeWidgetItem, QVBoxLayout, QWidget

from napari_emtransfer.gui.widgets import button, clock, iou_text

if TYPE_CHECKING:
    from napari_emtransfer.core.data.run import RunRecord

HEADERS = ("Run", "Status", "IoU", "Steps", "Time")
TIPS = (
    "Name of the run and of its folder in the project.",
    "How it ended. Cancelled and interrupted runs can be resumed from their last checkpoint.",
    "Class-mean IoU on the held-out ground.",
    "Iterations done.",
    "Time taken.",
)


class RunList(QWidget):
    """A table and two buttons; emits the id of the run to resume, or whose model to use."""

    resume_requested = Signal(str)
    use_requested = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.tree = QTreeWidget()
        self.tree.setColumnCount(len(HEADERS))
        self.tree.setRootIsDecorated(False)
        self.tree.setUniformRowHeights(True)
        self.tree.setFixedHeight(120)
        header = QTreeWidgetItem(HEADERS)
        for column, tip in enumerate(TIPS):
            header.setToolTip(column, tip)
        self.tree.setHeaderItem(header)
        self.tree.header().setStretchLastSection(False)
        for column in range(len(HEADERS)):
            self.tree.header().setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        self.tree.header().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.tree.itemSelectionChanged.connect(self._update_button)
        self.resume_button = button(
            "Resume", "Go on with the selected run from its last checkpoint.", self._resume, name="resume"
        )
        self.use_button = button(
            "Use its model", "Predict and measure with the model of the selected run.", self._use, name="use"
        )
        self._resumable: frozenset[str] = frozenset()
        self._usable: frozenset[str] = frozenset()
        self._is_running = False
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.tree)
        row = QHBoxLayout()
        row.addWidget(self.resume_button)
        row.addWidget(self.use_button)
        layout.addLayout(row)
        self._update_button()

    def set_runs(
        self,
        records: Sequence[RunRecord],
        resumable: frozenset[str],
        is_running: bool,
        usable: frozenset[str] = frozenset(),
    ) -> None:
        """Show these runs; `resumable` ids have a checkpoint to go on from, `usable` ones a model to predict with."""
        chosen = self.selected if resumable == self._resumable else None  # a run that just ended comes first
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
            if record.id == chosen:
                item.setSelected(True)
        if self.selected is None:
            self._select_resumable()
        self._update_button()

    @property
    def selected(self) -> str | None:
        """Id of the selected run."""
        items = self.tree.selectedItems()
        return items[0].data(0, Qt.ItemDataRole.UserRole) if items else None

    def _select_resumable(self) -> None:
        for row in range(self.tree.topLevelItemCount()):
            if self.tree.topLevelItem(row).data(0, Qt.ItemDataRole.UserRole) in self._resumable:
                self.tree.topLevelItem(row).setSelected(True)
                return

    def _update_button(self) -> None:
        self.resume_button.setEnabled(self.selected in self._resumable and not self._is_running)
        self.use_button.setEnabled(self.selected in self._usable)

    def _use(self) -> None:
        if self.selected is not None:
            self.use_requested.emit(self.selected)

    def _resume(self) -> None:
        if self.selected is not None:
            self.resume_requested.emit(self.selected)
