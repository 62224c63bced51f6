"""Curves of a run: loss, and held-out IoU per class, against the iteration."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_emtransfer.gui.latest import SHOW_MS
from napari_emtransfer.session.state import Curves

REDRAW_MS = 2 * SHOW_MS
MAX_POINTS = 400
HEIGHT_PX = 280


class RunPlots(QWidget):
    """Loss above, IoU below, on one iteration axis. Colours are those of the classes; the mean is the thick line."""

    def __init__(self) -> None:
        super().__init__()
        self._curves = Curves()
        self._ink_color = "#808080"
        self._colors: Mapping[str, str] = {}
        self._lines: dict[str, pg.PlotDataItem] = {}
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._view = pg.GraphicsLayoutWidget()  # one view for both: each view's repaint costs the whole window one
        self._view.setBackground(None)
        self._view.setFixedHeight(HEIGHT_PX)
        self._view.setToolTip(
            "Above: training loss against the iteration. Below: IoU on the held-out ground; the thick line is the mean."
        )
        self.loss_plot, self.iou_plot = self._plot(0, "loss"), self._plot(1, "held-out IoU")
        self.iou_plot.setYRange(0, 1, padding=0.02)
        self.iou_plot.setLabel("bottom", "iteration")
        self.iou_plot.setXLink(self.loss_plot)
        layout.addWidget(self._view)
        self._loss_line = self.loss_plot.plot(pen=pg.mkPen(self._ink_color, width=1.5))
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(REDRAW_MS)
        self._timer.timeout.connect(self.redraw)

    def set_curves(self, curves: Curves, colors: Mapping[str, str]) -> None:
        """Take over the curves of a run; they are drawn soon, not now."""
        if curves.run_id != self._curves.run_id or dict(colors) != dict(self._colors):
            self._drop_lines()
        self._curves, self._colors = curves, colors
        if not self._timer.isActive():
            self._timer.start()

    def redraw(self) -> None:
        """Draw what is known now; nothing while the plots are out of sight."""
        if not self.isVisible():
            return
        step = max(1, len(self._curves.iterations) // MAX_POINTS)
        count = min(len(self._curves.iterations), len(self._curves.losses))
        self._loss_line.setData(self._curves.iterations[:count:step], self._curves.losses[:count:step])
        points = self._curves.validations
        iterations = np.array([p.iteration for p in points], dtype=float)
        for name in self._colors:
            self._draw(name, iterations, [p.iou.get(name) for p in points])
        self._draw("mean", iterations, [p.mean_iou for p in points])

    def showEvent(self, event) -> None:  # noqa: ANN001, N802, D102
        super().showEvent(event)
        self._timer.start()

    def set_ink(self, color: str) -> None:
        """Draw axes, loss and mean in this colour: napari's text colour, which follows its theme."""
        self._ink_color = color
        for plot in (self.loss_plot, self.iou_plot):
            for side in ("left", "bottom"):
                plot.getAxis(side).setPen(self._ink_color)
                plot.getAxis(side).setTextPen(self._ink_color)
        self._loss_line.setPen(pg.mkPen(self._ink_color, width=1.5))
        self._drop_lines()
        self._timer.start()

    def _draw(self, name: str, iterations: np.ndarray, values: list[float | None]) -> None:
        line = self._lines.get(name) or self._add_line(name)
        heights = np.array([np.nan if v is None else v for v in values], dtype=float)
        known = np.isfinite(heights)
        line.setData(iterations[known], heights[known])

    def _add_line(self, name: str) -> pg.PlotDataItem:
        is_mean = name == "mean"
        pen = pg.mkPen(self._ink_color if is_mean else self._colors[name], width=2.5 if is_mean else 1.2)
        line = self.iou_plot.plot(
            pen=pen, symbol="o", symbolSize=5 if is_mean else 3, symbolPen=None, symbolBrush=pen.color()
        )
        self._lines[name] = line
        return line

    def _drop_lines(self) -> None:
        for line in self._lines.values():
            self.iou_plot.removeItem(line)
        self._lines.clear()

    def _plot(self, row: int, title: str) -> pg.PlotItem:
        plot = self._view.addPlot(row=row, col=0)
        plot.setMenuEnabled(False)
        plot.hideButtons()
        plot.setMouseEnabled(x=False, y=False)
        plot.setLabel("left", title)
        plot.getAxis("left").setWidth(46)
        plot.getAxis("left").enableAutoSIPrefix(False)  # "loss (×0.001)" is no unit that anybody reads
        plot.showGrid(x=False, y=True, alpha=0.15)
        return plot
