"""A confusion matrix as a small table: rows are truth, columns prediction, cells shares of the row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QHeaderView, QTableWidget, QTableWidgetItem

ROW_PX = 26
NAMES_PX = 130


class ConfusionTable(QTableWidget):
    """Counts (K, K) → per cent of each row, darker blue for more; hover for the count."""

    def __init__(self) -> None:
        super().__init__()
        self.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setToolTip("Rows: the labels. Columns: what the model said. In per cent of the row's pixels.")
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.verticalHeader().setTextElideMode(Qt.TextElideMode.ElideMiddle)

    def set_matrix(self, counts: Sequence[Sequence[int]], names: Sequence[str]) -> None:
        """Show a matrix with these class names."""
        matrix = np.asarray(counts, dtype=float)
        self.setRowCount(len(names))
        self.setColumnCount(len(names))
        for number, name in enumerate(names):  # names beside, their numbers above: three long ones fit no dock
            beside, above = QTableWidgetItem(f"{number + 1} {name}"), QTableWidgetItem(str(number + 1))
            beside.setToolTip(f"Labelled as {name}.")
            above.setToolTip(f"Called {name} by the model.")
            self.setVerticalHeaderItem(number, beside)
            self.setHorizontalHeaderItem(number, above)
        self.verticalHeader().setMaximumWidth(NAMES_PX)
        totals = matrix.sum(axis=1)
        for row in range(len(names)):
            for column in range(len(names)):
                share = matrix[row, column] / totals[row] if totals[row] else np.nan
                self.setItem(row, column, _cell(share, int(matrix[row, column]), names[row], names[column]))
        self.verticalHeader().setDefaultSectionSize(ROW_PX)
        self.setFixedHeight(self.horizontalHeader().sizeHint().height() + ROW_PX * len(names) + 6)


def _cell(share: float, count: int, truth: str, prediction: str) -> QTableWidgetItem:
    item = QTableWidgetItem("–" if np.isnan(share) else f"{100 * share:.0f}")
    item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
    item.setToolTip(f"{count:,} pixels of {truth} called {prediction}")
    if not np.isnan(share):
        item.setBackground(QColor(86, 180, 233, round(200 * share)))
    return item
