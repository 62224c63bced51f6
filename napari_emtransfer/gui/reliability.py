"""A reliability diagram: how sure the model is against how often it is right, and one sentence that says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyqtgraph as pg
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_emtransfer.gui.plots import AXIS_PX
from napari_emtransfer.gui.widgets import sentence_case, wrapped_label

HEIGHT_PX = 210
_COLOR = "#56B4E9"


class ReliabilityDiagram(QWidget):
    """Share of right pixels over the confidence in them: on the diagonal the model is as good as it thinks.

    The thick line is with the temperature, the thin one without; below the diagonal the model is too sure of itself.
    """

    def __init__(self) -> None:
        super().__init__()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.sentence = wrapped_label(name="reliability-sentence")
        self._view = pg.PlotWidget(background=None)
        self._view.setCacheMode(self._view.CacheModeFlag.CacheNone)  # as in `plots.add_plot`
        self._view.setFixedHeight(HEIGHT_PX)
        self._view.setToolTip(
            "Confidence in the predicted class against how often it was right, on held-out labelled pixels. On the "
            "diagonal the two agree; below it the model is too sure. Thin: as trained. Thick: with the temperature, as "
            "confidence and entropy are shown."
        )
        plot = self._view.getPlotItem()
        plot.setMenuEnabled(False)
        plot.hideButtons()
        plot.setMouseEnabled(x=False, y=False)
        plot.setLabel("bottom", "confidence")
        plot.setLabel("left", "right")
        plot.getAxis("left").setWidth(AXIS_PX)
        plot.setXRange(0, 1, padding=0.04)
        plot.setYRange(0, 1, padding=0.04)
        self._diagonal = plot.plot([0, 1], [0, 1])
        self.before_line = plot.plot(pen=pg.mkPen(_COLOR, width=1, dash=[4, 3]))
        self.after_line = plot.plot(
            pen=pg.mkPen(_COLOR, width=2.5), symbol="o", symbolSize=6, symbolPen=None, symbolBrush=_COLOR
        )
        layout.addWidget(self.sentence)
        layout.addWidget(self._view)
        self.set_ink("#808080")

    def set_calibration(self, calibration: Mapping[str, Any]) -> None:
        """Show the calibration of a result (`core.evaluate.calibration.Calibration` as JSON)."""
        self.sentence.setText(reliability_text(calibration))
        for line, bins in (
            (self.before_line, calibration["reliability_before"]),
            (self.after_line, calibration["reliability"]),
        ):
            line.setData([b["confidence"] for b in bins], [b["accuracy"] for b in bins])

    def set_ink(self, color: str) -> None:
        """Draw axes and diagonal in this colour: napari's text colour, which follows its theme."""
        plot = self._view.getPlotItem()
        for side in ("left", "bottom"):
            plot.getAxis(side).setPen(color)
            plot.getAxis(side).setTextPen(color)
        self._diagonal.setPen(pg.mkPen(color, width=1, dash=[2, 4]))


def reliability_text(calibration: Mapping[str, Any]) -> str:
    """How sure and how right, the calibration error without and with the temperature, and what it stands on."""
    sure, right = _means(calibration["reliability"])
    said = (
        f"On average {100 * sure:.0f} % sure and {100 * right:.0f} % right; class-wise calibration error "
        f"{calibration['ece']:.3f} ({calibration['ece_before']:.3f} as trained)."
    )
    return f"{said} {sentence_case(calibration['note'])}."


def _means(bins: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """Mean confidence and share of right pixels over all bins."""
    n = sum(b["n"] for b in bins)
    return sum(b["confidence"] * b["n"] for b in bins) / n, sum(b["accuracy"] * b["n"] for b in bins) / n
