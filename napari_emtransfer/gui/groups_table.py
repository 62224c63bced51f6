"""Which parts of the network learn, and how fast: the parameter groups of the stage that a run is in."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtWidgets import QHeaderView, QTreeWidget, QTreeWidgetItem, QWidget

from napari_emtransfer.core.events import ParameterGroup
from napari_emtransfer.gui.section import Section
from napari_emtransfer.gui.widgets import sentence_case, wrapped_label
from napari_emtransfer.session.state import StageMark

HEADERS = ("Part", "Parameters", "Peak rate", "Decay")
TIPS = (
    "Part of the network; encoder 5 is the deepest stage of the encoder.",
    "Numbers that may be learnt in it.",
    "Highest learning rate of its course; frozen parts stay exactly as they were loaded.",
    "Weight decay; norms and biases have none.",
)


class GroupsTable(Section):
    """A section that folds away: the stage with its reason, above a row per group."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Parts and rates", "Which parts of the network learn in this stage, and how fast.")
        self.setParent(parent)
        self._stage: StageMark | None = None
        self.reason_label = wrapped_label(name="stage-reason")
        self.tree = QTreeWidget()
        self.tree.setColumnCount(len(HEADERS))
        self.tree.setRootIsDecorated(False)
        self.tree.setUniformRowHeights(True)
        header = QTreeWidgetItem(HEADERS)
        for column, tip in enumerate(TIPS):
            header.setToolTip(column, tip)
        self.tree.setHeaderItem(header)
        self.tree.header().setStretchLastSection(False)
        for column in range(len(HEADERS)):
            self.tree.header().setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        self.tree.header().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.column.addWidget(self.reason_label)
        self.column.addWidget(self.tree)
        self.hide()

    def set_stage(self, stage: StageMark | None) -> None:
        """Show the groups of a stage; nothing while none is known."""
        if stage == self._stage:
            return
        self._stage = stage
        self.setVisible(stage is not None)
        if stage is None:
            return
        self.set_note(f"stage {stage.stage} of {stage.n_stages}, {stage.name}" if stage.n_stages > 1 else stage.name)
        self.reason_label.setText(sentence_case(stage.reason))
        self.tree.clear()
        for row in group_rows(stage.groups):
            self.tree.addTopLevelItem(QTreeWidgetItem(row))
        rows = self.tree.topLevelItemCount() * max(self.tree.sizeHintForRow(0), 1)
        self.tree.setFixedHeight(self.tree.header().sizeHint().height() + rows + 2 * self.tree.frameWidth())


def group_rows(groups: Sequence[ParameterGroup]) -> list[list[str]]:
    """One row of texts per part: its norms and biases, which have no weight decay, are counted with the rest."""
    rows = []
    for part in dict.fromkeys(group.part for group in groups):
        own = [group for group in groups if group.part == part]
        rate = max(group.learning_rate for group in own)
        decay = f"{max(group.weight_decay for group in own):g}" if rate else "–"
        n_parameters = sum(group.n_parameters for group in own)
        rows.append([part, f"{n_parameters:,}", f"{rate:.2g}" if rate else "frozen", decay])
    return rows
