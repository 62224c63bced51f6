"""The learning curve: IoU on random controls against tiles labelled, or against minutes of labelling."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_emtransfer.gui.plots import add_plot
from napari_emtransfer.gui.queue_words import Facts, missing_controls
from napari_emtransfer.gui.widgets import calm, wrapped_label

HEIGHT_PX: Final = 190
COLOR: Final = "#56B4E9"
TIP: Final = (
    "Class-mean IoU on random tiles that the model did not learn from, after each ranking, with its 95 % interval. "
    "Chosen tiles never count: they were chosen for being difficult. The model is the quick one that ranks the tiles, "
    "not a fine-tune; the Measure tab has the IoU of that."
)
AXES: Final = (("tiles labelled", "n_tiles"), ("minutes of labelling", "minutes"))


@dataclass(frozen=True)
class CurvePoint:
    """IoU on random controls when so much was labelled; nan: `minutes` nobody measured, an interval there is not."""

    n_tiles: float
    minutes: float
    mean_iou: float
    low: float
    high: float


class LearningCurve(QWidget):
    """Points with their intervals, joined by a line; where they are missing, what they need."""

    def __init__(self) -> None:
        super().__init__()
        self._points: list[CurvePoint] = []
        self.axis_box = QComboBox()
        self.axis_box.setToolTip(
            "What the curve is drawn against: how many tiles are labelled, or how long it took to label those of the "
            "queue. Changes no data."
        )
        self.axis_box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        calm(self.axis_box, Qt.FocusPolicy.TabFocus)  # a click leaves the keys with the canvas
        for text, name in AXES:
            self.axis_box.addItem(text, name)
        self.axis_box.currentIndexChanged.connect(lambda _i: self._draw())
        self.view = pg.GraphicsLayoutWidget()
        self.view.setBackground(None)
        self.view.setFixedHeight(HEIGHT_PX)
        self.view.setToolTip(TIP)
        self.plot = add_plot(self.view, 0, "IoU on random tiles")
        self.plot.setYRange(0, 1, padding=0.04)
        self.bars = pg.ErrorBarItem(beam=0, pen=pg.mkPen(COLOR, width=1.5))
        self.plot.addItem(self.bars)
        pen = pg.mkPen(COLOR, width=2)
        self.line = self.plot.plot(pen=pen, symbol="o", symbolSize=6, symbolPen=None, symbolBrush=COLOR)
        self.missing_label = wrapped_label(name="missing-points")
        self._lay_out()
        self.set_rounds([])

    def set_rounds(self, facts: Sequence[Facts]) -> None:
        """Show what was known after each ranking, oldest first."""
        self._points = curve_points(facts)
        if not self._points:
            self.missing_label.setText(missing_controls(facts[-1] if facts else None))
        elif len(self._points) == 1:
            self.missing_label.setText("One point so far: the next labelled tile adds another one.")
        self.missing_label.setVisible(len(self._points) < 2)
        self.view.setVisible(bool(self._points))
        self.axis_box.setEnabled(bool(self._points))
        self._draw()

    def set_ink(self, color: str) -> None:
        """Draw the axes in this colour: napari's text colour, which follows its theme."""
        for side in ("left", "bottom"):
            self.plot.getAxis(side).setPen(color)
            self.plot.getAxis(side).setTextPen(color)

    @property
    def points(self) -> tuple[CurvePoint, ...]:
        """What is drawn."""
        return tuple(self._points)

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        row = QHBoxLayout()
        row.addWidget(QLabel("Curve against"))
        row.addWidget(self.axis_box, 1)
        layout.addLayout(row)
        layout.addWidget(self.missing_label)
        layout.addWidget(self.view)

    def _draw(self) -> None:
        name = self.axis_box.currentData(Qt.ItemDataRole.UserRole)
        known = [point for point in self._points if np.isfinite(getattr(point, name))]
        places, heights, low, high = (
            np.array([getattr(point, field) for point in known], dtype=float)
            for field in (name, "mean_iou", "low", "high")
        )
        self.plot.setLabel("bottom", self.axis_box.currentText())
        self.line.setData(places, heights)
        bounded = np.isfinite(low) & np.isfinite(high)
        self.bars.setData(
            x=places[bounded],
            y=heights[bounded],
            top=(high - heights)[bounded],
            bottom=(heights - low)[bounded],
        )
        if places.size:
            self.plot.setXRange(0, max(float(places.max()), 1.0), padding=0.04)


def curve_points(rounds: Iterable[Facts]) -> list[CurvePoint]:
    """Rounds in which the IoU on controls is known; of several with as many labelled tiles the last one."""
    points: dict[int, CurvePoint] = {}
    for facts in rounds:
        control, n = facts.get("control") or {}, int(facts["n_labelled_tiles"])
        if control.get("mean_iou") is None:
            continue
        points[n] = CurvePoint(
            n_tiles=n,
            minutes=_number(facts.get("seconds_labelling")) / 60,
            mean_iou=float(control["mean_iou"]),
            low=_number(control.get("low")),
            high=_number(control.get("high")),
        )
    return [points[n] for n in sorted(points)]


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)
