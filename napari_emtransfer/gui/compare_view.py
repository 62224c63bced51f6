"""Runs side by side in a window of their own: curves on one axis, the settings that differ, IoU with its ground."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractItemView, QDialog, QHeaderView, QTableWidget, QTableWidgetItem, QVBoxLayout, QWidget

from napari_emtransfer.gui.plots import MAX_POINTS, RATE_COLORS, add_plot, joined
from napari_emtransfer.gui.widgets import interval_text, iou_text, swatch, wrapped_label
from napari_emtransfer.session.compare import ComparedRun, Comparison

PLOT_PX = 300
WIDTH_PX, HEIGHT_PX = 620, 720
MOST_NAMES = 3
SETTING_TIP = "Name of the setting, as in the run's config.json."


class CompareView(QDialog):
    """Curves of the runs, each in its colour, above a table with a column per run."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Runs side by side")
        self.resize(WIDTH_PX, HEIGHT_PX)
        self.view = pg.GraphicsLayoutWidget()
        self.view.setBackground(None)
        self.view.setMinimumHeight(PLOT_PX)
        self.loss_plot, self.iou_plot = add_plot(self.view, 0, "loss"), add_plot(self.view, 1, "held-out mean IoU")
        self.iou_plot.setXLink(self.loss_plot)
        self.iou_plot.setYRange(0, 1, padding=0.02)
        self.iou_plot.setLabel("bottom", "iteration")
        self.caution_label = wrapped_label(name="caution")
        self.table = QTableWidget()
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.table.setWordWrap(True)
        self.table.verticalHeader().setVisible(False)
        layout = QVBoxLayout(self)
        layout.addWidget(self.view, 1)
        layout.addWidget(self.caution_label)
        layout.addWidget(self.table, 1)

    def set_comparison(self, comparison: Comparison, ink: str) -> None:
        """Show these runs; axes in the colour `ink`."""
        for plot in (self.loss_plot, self.iou_plot):
            plot.clear()
            for side in ("left", "bottom"):
                plot.getAxis(side).setPen(ink)
                plot.getAxis(side).setTextPen(ink)
        for number, run in enumerate(comparison.runs):
            self._draw(run, RATE_COLORS[number])
        self.caution_label.setText(comparison.caution)
        self.caution_label.setVisible(bool(comparison.caution))
        self._fill(comparison)

    def _draw(self, run: ComparedRun, color: str) -> None:
        curves = run.curves
        step = max(1, len(curves.iterations) // MAX_POINTS)
        pen = pg.mkPen(color, width=1.5)
        steps = np.array(curves.iterations[::step], dtype=float)
        self.loss_plot.plot(steps, np.array(curves.losses[::step]), pen=pen, connect=joined(steps, curves))
        points = [(p.iteration, p.mean_iou) for p in curves.validations if p.mean_iou is not None]
        places = np.array(points, dtype=float).reshape(-1, 2)
        self.iou_plot.plot(
            *places.T,
            pen=pen,
            connect=joined(places[:, 0], curves),
            symbol="o",
            symbolSize=5,
            symbolPen=None,
            symbolBrush=color,
        )

    def _fill(self, comparison: Comparison) -> None:
        rows = comparison_rows(comparison)
        self.table.setColumnCount(1 + len(comparison.runs))
        self.table.setRowCount(len(rows))
        self.table.setHorizontalHeaderItem(0, QTableWidgetItem(""))
        for number, run in enumerate(comparison.runs):
            item = QTableWidgetItem(swatch(RATE_COLORS[number]), run.run_id)
            item.setToolTip(f"Run {run.run_id}, {run.status}")
            self.table.setHorizontalHeaderItem(1 + number, item)
        for row, (name, values, tip) in enumerate(rows):
            for column, text in enumerate((name, *values)):
                item = QTableWidgetItem(shortened(text))
                item.setToolTip(tip if column == 0 else text)
                item.setTextAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
                self.table.setItem(row, column, item)
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.table.horizontalHeader().setSectionResizeMode(0, QHeaderView.ResizeMode.ResizeToContents)
        self.table.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)


def shortened(text: str) -> str:
    """A long list of names by its first few; the tooltip holds all of it."""
    names = text.split(", ")
    return text if len(names) <= MOST_NAMES else f"{', '.join(names[:MOST_NAMES])} and {len(names) - MOST_NAMES} more"


def comparison_rows(comparison: Comparison) -> list[tuple[str, tuple[str, ...], str]]:
    """(what, one text per run, tooltip): figures first, then the settings in which the runs differ."""
    runs = comparison.runs
    figures = [
        (
            "mean IoU",
            tuple(f"{iou_text(r.mean_iou)} {interval_text(r.ci95)}".strip() for r in runs),
            "Class-mean IoU of the best checkpoint on the run's held-out ground, with its 95 % interval.",
        ),
        *(
            (name, tuple(iou_text((r.iou or {}).get(name)) for r in runs), "IoU of this class.")
            for name in dict.fromkeys(name for r in runs for name in (r.iou or {}))
        ),
        ("ground", tuple(_ground(r) for r in runs), "What was held out, and what the IoU says about it."),
    ]
    settings = [(name.replace("_", " "), values, SETTING_TIP) for name, values in comparison.settings]
    return [*figures, *(settings or [("settings", tuple("the same" for _ in runs), "No setting differs.")])]


def _ground(run: ComparedRun) -> str:
    return (f"by {run.ground}: " if run.ground else "") + ", ".join(run.held_out) if run.held_out else "–"
