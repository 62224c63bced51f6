"""Always in sight: where am I, what next, how good; and the one button that learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QMenu, QProgressBar, QPushButton, QWidget

from napari_emtransfer.gui.widgets import (
    button,
    clock,
    interval_text,
    iou_text,
    sentence_case,
    swatch,
    wrapped_label,
)
from napari_emtransfer.session.state import LivePhase, LiveState, ModelReadout, Phase, RunState

LIVE_LIGHTS: Final[dict[LivePhase, str]] = {
    "off": "#808080",
    "waiting": "#E69F00",
    "updating": "#56B4E9",
    "ready": "#009E73",
    "failed": "#D55E00",
}
LIVE_TIP: Final = (
    "After every stroke, learn from all strokes and show the overlay of this tile anew. Changes no labels. "
    "Switched off, the overlay of the newest model comes back."
)


@dataclass(frozen=True)
class TileCount:
    """How many tiles are done, of how many."""

    done: int = 0
    total: int = 0


class LoopBar(QWidget):
    """Tiles done, previous and next tile, held-out IoU; the live head's switch; Fine-tune with progress and stops."""

    next_requested = Signal()
    previous_requested = Signal()
    live_requested = Signal()
    train_requested = Signal()
    stop_early_requested = Signal()
    cancel_requested = Signal()
    kill_requested = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._model: ModelReadout | None = None
        self.tile_label = QLabel("No tiles")
        self.tile_label.setToolTip("Tiles marked as done, of all tiles of the project.")
        self.previous_button = button("◀ Prev", "Go back to the tile before this one.", self.previous_requested.emit)
        self.next_button = button(
            "Next N ▶", "Go to the next tile to label; strokes are saved.", self.next_requested.emit
        )
        self.iou_label = QLabel()
        self.iou_label.setToolTip("Class-mean IoU of the newest model on held-out micrographs, with its 95 % interval.")
        self.train_button = button(
            "Fine-tune T",
            "Learn from all labels of this project, in the background; painting goes on.",
            name="fine-tune",
        )
        self.train_button.clicked.connect(self.train_requested.emit)
        self.live_button = button("Live L", LIVE_TIP, name="live")
        self.live_button.setCheckable(True)
        self.live_button.clicked.connect(lambda _checked: self.live_requested.emit())
        self.live_label = wrapped_label(name="live-state")
        self.live = LiveState()
        self.progress = QProgressBar()
        self.progress.setToolTip("Iterations done of the running fine-tune, and the time left.")
        self.stop_button = self._build_stop_button()
        self._lay_out()
        self.set_tiles(TileCount())
        self.set_live(LiveState())
        self.set_run(RunState())

    def set_tiles(self, count: TileCount) -> None:
        """Show how far the labelling has come."""
        self.tile_label.setText(f"{count.done} of {count.total} tiles" if count.total else "No tiles to label")
        for widget in (self.previous_button, self.next_button):
            widget.setEnabled(count.total > 1)

    def set_model(self, model: ModelReadout | None) -> None:
        """Show the held-out IoU with its interval, and whether it rose or fell since the model before."""
        if model == self._model:
            return  # the readout of the tile has changed, not this one
        before, self._model = self._model, model
        if model is None or model.mean_iou is None:
            self.iou_label.setText("")
            return
        trend = ""
        if before is not None and before.mean_iou is not None and before.synthetic == model.synthetic:
            rise = model.mean_iou - before.mean_iou
            trend = "" if abs(rise) < 0.005 else " ▲" if rise > 0 else " ▼"
        ground = " on synthetic" if model.synthetic else " on strokes" if model.is_from_strokes else ""
        text = f"IoU {iou_text(model.mean_iou)}{ground} {interval_text(model.ci95)}{trend}"
        self.iou_label.setText(text.replace("  ", " ").strip())
        self.iou_label.setToolTip(
            f"Class-mean IoU of run {model.run_id} on held-out micrographs. {sentence_case(model.note)}".strip()
        )

    def set_live(self, live: LiveState) -> None:
        """Show whether the live head is on, what it is at, and what it waits for."""
        on = live.phase != "off"
        if live.phase != self.live.phase or self.live_button.icon().isNull():
            self.live_button.setIcon(swatch(LIVE_LIGHTS[live.phase], 12))
        self.live = live
        self.live_button.setChecked(on)
        self.live_label.setVisible(on)
        self.live_label.setText(live_text(live))
        self.live_label.setToolTip(live.hint)

    def set_run(self, run: RunState) -> None:
        """Show progress while a run is going, the button otherwise."""
        self.train_button.setEnabled(not run.is_active)
        self.progress.setVisible(run.is_active)
        self.stop_button.setVisible(run.is_active)
        self.stop_button.setEnabled(run.phase != Phase.CANCELLING)
        self.progress.setRange(0, run.n_iterations if run.phase == Phase.RUNNING else 0)
        self.progress.setUpdatesEnabled(False)  # setValue would repaint at once, and the whole window with it
        self.progress.setValue(run.iteration)
        self.progress.setUpdatesEnabled(True)
        self.progress.setFormat(progress_text(run))

    def _build_stop_button(self) -> QPushButton:
        stop = QPushButton("Stop  ")
        stop.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        stop.setToolTip("Ways to end the running fine-tune. What is learnt so far is kept.")
        menu = QMenu(stop)
        menu.setToolTipsVisible(True)
        for text, tip, signal in (
            ("Stop early", "Keep the best checkpoint so far and finish the run.", self.stop_early_requested),
            ("Cancel", "End the run and bank its last checkpoint; it can be resumed.", self.cancel_requested),
            (
                "Kill",
                "End the process at once. The last checkpoint on disk stays and can be resumed.",
                self.kill_requested,
            ),
        ):
            menu.addAction(text, signal.emit).setToolTip(tip)
        stop.setMenu(menu)
        return stop

    def _lay_out(self) -> None:
        layout = QGridLayout(self)
        layout.setContentsMargins(2, 0, 2, 0)
        layout.setVerticalSpacing(4)
        top = QHBoxLayout()
        top.addWidget(self.tile_label)
        top.addStretch(1)
        top.addWidget(self.iou_label)
        layout.addLayout(top, 0, 0, 1, 4)
        for column, widget in enumerate((self.previous_button, self.next_button, self.live_button, self.train_button)):
            layout.addWidget(widget, 1, column)
        layout.addWidget(self.live_label, 2, 0, 1, 4)
        running = QHBoxLayout()
        running.addWidget(self.progress, 1)
        running.addWidget(self.stop_button)
        layout.addLayout(running, 3, 0, 1, 4)


def live_text(live: LiveState) -> str:
    """One line below the buttons; of a fault also the way out."""
    if live.phase == "off":
        return ""
    line = f"Live: {live.message}"
    return f"{line} {live.hint}".rstrip() if live.phase == "failed" else line


def progress_text(run: RunState) -> str:
    """What stands on the progress bar: "63 % · 0:41 left"."""
    if run.phase == Phase.STARTING:
        return "Starting …"
    if run.phase == Phase.CANCELLING:
        return "Banking the run …"
    left = f" · {clock(run.seconds_left)} left" if run.seconds_left is not None else ""
    word = "Finishing · " if run.stopping_early else ""
    return f"{word}{round(100 * run.fraction)} %{left}"
