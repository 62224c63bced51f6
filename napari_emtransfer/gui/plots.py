"""Curves of a run: loss, held-out IoU per class and learning rates, against the iteration."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget
from superqt import QFlowLayout

from napari_emtransfer.gui.latest import SHOW_MS
from napari_emtransfer.gui.widgets import swatch, wrapped_label
from napari_emtransfer.session.state import Curves

REDRAW_MS = 2 * SHOW_MS
MAX_POINTS = 400
HEIGHT_PX = 390
AXIS_PX = 46
RATE_DECADES = 4
MEAN = "mean"
TRAINING = "training"
TRAINING_COLOR = "#9A9A9A"
_TIPS = {
    MEAN: "Mean over the classes on the held-out ground: what the best checkpoint is chosen by.",
    TRAINING: "Mean IoU on the training crops of late. Far above the held-out one: too few labels or specimens.",
}
# Told apart also by people who confuse red and green (Okabe and Ito).
RATE_COLORS = ("#56B4E9", "#E69F00", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999")


class Legend(QWidget):
    """A tick per curve with its colour; `toggled(name, shown)`."""

    toggled = Signal(str, bool)

    def __init__(self) -> None:
        super().__init__()
        self.ticks: dict[str, QCheckBox] = {}
        layout = QFlowLayout(self)
        layout.setContentsMargins(AXIS_PX, 0, 0, 0)
        layout.setHorizontalSpacing(8)
        layout.setVerticalSpacing(0)

    @property
    def hidden(self) -> set[str]:
        """Names whose tick is off."""
        return {name for name, tick in self.ticks.items() if not tick.isChecked()}

    def set_names(self, colors: Mapping[str, str]) -> None:
        """One tick for each name; a name that stays keeps its tick."""
        hidden = self.hidden
        for tick in self.ticks.values():
            self.layout().removeWidget(tick)
            tick.deleteLater()
        self.ticks = {name: self._tick(name, color, name not in hidden) for name, color in colors.items()}
        for tick in self.ticks.values():
            self.layout().addWidget(tick)

    def _tick(self, name: str, color: str, shown: bool) -> QCheckBox:
        tick = QCheckBox(name)
        tick.setIcon(swatch(color))
        tick.setChecked(shown)
        tick.setToolTip(f"Show or hide this curve. {_TIPS.get(name, 'IoU of this class on the held-out ground.')}")
        tick.toggled.connect(lambda on: self.toggled.emit(name, on))
        return tick


class RunPlots(QWidget):
    """Loss, IoU and learning rates on one iteration axis. Colours are those of the classes; the mean is thick.

    Dashed lines mark where a stage of the strategy or a fold begins. Drawn at most once a second: each repaint makes Qt
    compose the whole window anew, canvas included.
    """

    def __init__(self) -> None:
        super().__init__()
        self._curves = Curves()
        self._ink_color = "#808080"
        self._colors: dict[str, str] = {}
        self._lines: dict[str, pg.PlotDataItem] = {}
        self._rate_lines: dict[str, pg.PlotDataItem] = {}
        self._marks: list[tuple[pg.PlotItem, pg.InfiniteLine]] = []
        self._marked: tuple[tuple[int, str], ...] = ()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        self._view = pg.GraphicsLayoutWidget()  # one view for all: each view's repaint costs the whole window one
        self._view.setBackground(None)
        self._view.setFixedHeight(HEIGHT_PX)
        self._view.setToolTip(
            "Against the iteration: training loss, IoU on the held-out ground (the thick line is the mean), and the "
            "learning rates of the parts of the network on a logarithmic axis. Dashed: a stage or a fold begins."
        )
        self.loss_plot, self.iou_plot, self.rate_plot = (
            self._plot(row, title) for row, title in enumerate(("loss", "held-out IoU", "learning rate"))
        )
        self.iou_plot.setYRange(0, 1, padding=0.02)
        self.rate_plot.setLogMode(x=False, y=True)
        self.rate_plot.getAxis("left").logTickStrings = _powers_of_ten
        self.rate_plot.setLabel("bottom", "iteration")
        for plot in (self.loss_plot, self.iou_plot):  # one row of numbers is enough for one common axis
            plot.getAxis("bottom").setStyle(showValues=False)
            plot.getAxis("bottom").setHeight(6)
        for plot in (self.iou_plot, self.rate_plot):
            plot.setXLink(self.loss_plot)
        self.legend = Legend()
        self.legend.toggled.connect(lambda _name, _on: self.redraw())
        self.rate_legend = wrapped_label(name="rate-legend")
        self.rate_legend.setContentsMargins(AXIS_PX, 0, 0, 0)
        self.rate_legend.setToolTip("Parts of the network that learn alike; encoder 5 is the deepest stage.")
        for widget in (self.legend, self._view, self.rate_legend):
            layout.addWidget(widget)
        self._loss_line = self.loss_plot.plot(pen=pg.mkPen(self._ink_color, width=1.5))
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(REDRAW_MS)
        self._timer.timeout.connect(self.redraw)

    def set_curves(self, curves: Curves, colors: Mapping[str, str]) -> None:
        """Take over the curves of a run; they are drawn soon, not now."""
        if curves.run_id != self._curves.run_id or dict(colors) != dict(self._colors):
            self._drop_lines()
        self._curves, self._colors = curves, dict(colors)
        names = self._colors | {MEAN: self._ink_color, TRAINING: TRAINING_COLOR}
        if list(names) != list(self.legend.ticks):
            self.legend.set_names(names)
        if not self._timer.isActive():
            self._timer.start()

    def redraw(self) -> None:
        """Draw what is known now; nothing while the plots are out of sight."""
        if not self.isVisible():
            return
        curves = self._curves
        step = max(1, len(curves.iterations) // MAX_POINTS)
        count = min(len(curves.iterations), len(curves.losses))
        places = np.array(curves.iterations[:count:step], dtype=float)
        self._loss_line.setData(places, np.array(curves.losses[:count:step]), connect=joined(places, curves))
        iterations = np.array([p.iteration for p in curves.validations], dtype=float)
        for name in self._colors:
            self._draw(name, iterations, [p.iou.get(name) for p in curves.validations])
        self._draw(MEAN, iterations, [p.mean_iou for p in curves.validations])
        self._draw(TRAINING, iterations, [p.training_iou for p in curves.validations])
        self._draw_rates(step)
        self._draw_marks()

    def showEvent(self, event) -> None:  # noqa: ANN001, N802, D102
        super().showEvent(event)
        self._timer.start()

    @property
    def ink(self) -> str:
        """The colour of axes, loss and mean."""
        return self._ink_color

    def set_ink(self, color: str) -> None:
        """Draw axes, loss and mean in this colour: napari's text colour, which follows its theme."""
        self._ink_color = color
        for plot in (self.loss_plot, self.iou_plot, self.rate_plot):
            for side in ("left", "bottom"):
                plot.getAxis(side).setPen(self._ink_color)
                plot.getAxis(side).setTextPen(self._ink_color)
        self._loss_line.setPen(pg.mkPen(self._ink_color, width=1.5))
        self._drop_lines()
        self.legend.set_names(self._colors | {MEAN: color, TRAINING: TRAINING_COLOR})
        self._timer.start()

    # ---- inside

    def _draw(self, name: str, iterations: np.ndarray, values: list[float | None]) -> None:
        line = self._lines.get(name) or self._add_line(name)
        heights = np.array([np.nan if v is None else v for v in values], dtype=float)
        known = np.isfinite(heights)
        line.setData(iterations[known], heights[known], connect=joined(iterations[known], self._curves))
        line.setVisible(name not in self.legend.hidden)

    def _add_line(self, name: str) -> pg.PlotDataItem:
        color = {MEAN: self._ink_color, TRAINING: TRAINING_COLOR}.get(name) or self._colors[name]
        pen = pg.mkPen(color, width=2.5 if name == MEAN else 1.2)
        if name == TRAINING:
            pen = pg.mkPen(color, width=1.5, dash=[2, 3])
        symbol = None if name == TRAINING else "o"
        line = self.iou_plot.plot(
            pen=pen, symbol=symbol, symbolSize=5 if name == MEAN else 3, symbolPen=None, symbolBrush=pen.color()
        )
        self._lines[name] = line
        return line

    def _draw_rates(self, step: int) -> None:
        rates = self._curves.learning_rates
        for name in self._rate_lines.keys() - rates.keys():
            self.rate_plot.removeItem(self._rate_lines.pop(name))
        for number, (name, values) in enumerate(rates.items()):
            color = RATE_COLORS[number % len(RATE_COLORS)]
            if name not in self._rate_lines:
                self._rate_lines[name] = self.rate_plot.plot(pen=pg.mkPen(color, width=1.5), connect="finite")
            heights = np.array(values[::step], dtype=float)
            iterations = np.array(self._curves.iterations[: len(values) : step], dtype=float)
            heights[heights <= 0] = np.nan  # no logarithm
            self._rate_lines[name].setData(iterations, heights)
        highest = max((rate for values in rates.values() for rate in values if rate > 0), default=None)
        if highest is not None:  # the end of the course, near zero, tells nothing
            self.rate_plot.setYRange(np.log10(highest) - RATE_DECADES, np.log10(highest) + 0.5, padding=0)
        self.rate_legend.setText(rate_legend_text(rates))

    def _draw_marks(self) -> None:
        """Where stages and folds begin; the first of each begins with the run and needs no line."""
        stages = [(m.iteration, f"stage {m.stage}") for m in self._curves.stages if m.stage > 1]
        folds = [(m.iteration, f"fold {m.fold + 1}") for m in self._curves.folds if m.fold > 0]
        wanted = tuple(sorted(stages + folds))
        if wanted == self._marked:
            return
        for plot, line in self._marks:
            plot.removeItem(line)
        pen = pg.mkPen(self._ink_color, width=1, dash=[4, 4])
        self._marks = []
        for plot in (self.loss_plot, self.iou_plot, self.rate_plot):
            for number, (iteration, label) in enumerate(wanted):
                text = label if plot is self.loss_plot else None
                # Neighbours at two heights, so that they do not lie upon each other.
                options = {
                    "position": (0.88, 0.68)[number % 2],
                    "color": self._ink_color,
                    "anchors": [(1, 0.5), (1, 0.5)],
                }
                line = pg.InfiniteLine(iteration, angle=90, pen=pen, label=text, labelOpts=options)
                plot.addItem(line, ignoreBounds=True)
                self._marks.append((plot, line))
        self._marked = wanted

    def _drop_lines(self) -> None:
        for plot, lines in ((self.iou_plot, self._lines), (self.rate_plot, self._rate_lines)):
            for line in lines.values():
                plot.removeItem(line)
            lines.clear()
        for plot, line in self._marks:
            plot.removeItem(line)
        self._marks, self._marked = [], ()

    def _plot(self, row: int, title: str) -> pg.PlotItem:
        plot = add_plot(self._view, row, title)
        self._view.ci.layout.setRowStretchFactor(row, 4 if row == 1 else 3)
        return plot


def add_plot(view: pg.GraphicsLayoutWidget, row: int, title: str) -> pg.PlotItem:
    """A plot without menu and mouse, its axis wide enough for its numbers."""
    view.setCacheMode(view.CacheModeFlag.CacheNone)  # a kept background stays that of the theme before
    plot = view.addPlot(row=row, col=0)
    plot.setMenuEnabled(False)
    plot.hideButtons()
    plot.setMouseEnabled(x=False, y=False)
    plot.setLabel("left", title)
    plot.getAxis("left").setWidth(AXIS_PX)
    plot.getAxis("left").enableAutoSIPrefix(False)  # "loss (×0.001)" is no unit that anybody reads
    plot.showGrid(x=False, y=True, alpha=0.15)
    return plot


def joined(iterations: np.ndarray, curves: Curves) -> np.ndarray:
    """Which of these points a line joins to the next: those of two folds belong to two networks."""
    begun = np.array([m.iteration for m in curves.folds if m.fold > 0], dtype=float)
    fold = np.searchsorted(np.sort(begun), iterations)  # a fold begins after the iteration that it is marked at
    return np.append(fold[:-1] == fold[1:], False)[: len(iterations)].astype(np.int32)


def _powers_of_ten(values: Collection[float], _scale: float, _spacing: float) -> list[str]:
    """Ticks at whole powers as "1e-4"; pyqtgraph's own mix "0.001" with "10⁻⁵"."""
    return [f"1e{round(v)}" if abs(v - round(v)) < 1e-6 else "" for v in values]


def rate_legend_text(names: Collection[str]) -> str:
    """A coloured square and a name for each group of parameters, as rich text."""
    squares = (
        f'<span style="color:{RATE_COLORS[number % len(RATE_COLORS)]}">■</span>&nbsp;{name.replace(" ", "&nbsp;")}'
        for number, name in enumerate(names)
    )
    return " &nbsp;".join(squares)
