"""The Measure tab: how good, on what ground; what is in this tile; which classes are mixed up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGroupBox, QHeaderView, QTableWidget, QTableWidgetItem, QVBoxLayout, QWidget

from napari_emtransfer.gui.confusion_table import ConfusionTable
from napari_emtransfer.gui.reliability import ReliabilityDiagram
from napari_emtransfer.gui.widgets import interval_text, iou_text, sentence_case, swatch, wrapped_label

if TYPE_CHECKING:
    from napari_emtransfer.gui.viewer_session import ViewerSession
    from napari_emtransfer.session.state import ModelReadout, Readouts, TileReadout

HEADERS = (
    ("Class", "The classes of the project."),
    (
        "Held-out",
        "IoU of the newest model on the held-out ground. – where the class is absent from labels and prediction.",
    ),
    ("This tile", "IoU on the labelled pixels of the current tile."),
    ("Fraction", "Part of the current tile that the model assigns to the class."),
)


class MeasurePanel(QWidget):
    """Readouts of the newest model; every number says on what ground it stands."""

    def __init__(self, owner: ViewerSession) -> None:
        super().__init__()
        self._session, self._bridge = owner.session, owner.bridge
        self.model_label = wrapped_label(name="model-readout")
        self.tile_label = wrapped_label(name="tile-readout")
        self.table = QTableWidget(0, len(HEADERS))
        self.confusion = ConfusionTable()
        self.confusion_label = wrapped_label()
        self._lay_out()
        connect, signals = self._bridge.connect, self._session.signals
        connect(signals.readouts_changed, self._on_readouts)
        connect(signals.schema_changed, lambda: self._on_readouts(self._session.readouts))
        connect(signals.project_changed, self._on_model)
        connect(signals.model_changed, lambda _run: self._on_model())
        self._on_model()

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 6, 4, 4)
        for column, (title, tip) in enumerate(HEADERS):
            item = QTableWidgetItem(title)
            item.setToolTip(tip)
            self.table.setHorizontalHeaderItem(column, item)
        self.table.verticalHeader().hide()
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        header = self.table.horizontalHeader()
        for column in range(1, len(HEADERS)):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        layout.addWidget(self.model_label)
        layout.addWidget(self.tile_label)
        layout.addWidget(self.table)
        self.confusion_box = QGroupBox("Confusion matrix")
        inside = QVBoxLayout(self.confusion_box)
        inside.addWidget(self.confusion_label)
        inside.addWidget(self.confusion)
        layout.addWidget(self.confusion_box)
        self.reliability = ReliabilityDiagram()
        self.reliability_box = QGroupBox("How far its confidence can be trusted")
        QVBoxLayout(self.reliability_box).addWidget(self.reliability)
        layout.addWidget(self.reliability_box)
        layout.addStretch(1)

    def showEvent(self, event: Any) -> None:  # noqa: N802, D102
        super().showEvent(event)
        self._show(self._session.readouts)

    def _on_readouts(self, readouts: Readouts) -> None:
        if self.isVisible():
            self._show(readouts)

    def _show(self, readouts: Readouts) -> None:
        self.model_label.setText(model_text(readouts.model))
        self.tile_label.setText(tile_text(readouts.tile))
        self._fill(readouts)

    def _fill(self, readouts: Readouts) -> None:
        classes = self._session.schema.classes
        self.table.setRowCount(len(classes))
        for row, label_class in enumerate(classes):
            name = QTableWidgetItem(swatch(label_class.color), label_class.name)
            name.setToolTip(label_class.name)
            self.table.setItem(row, 0, name)
            model, tile = readouts.model, readouts.tile
            texts = (
                "" if model is None else iou_text(model.iou.get(label_class.name)),
                "" if tile is None or not tile.labelled_fraction else iou_text(tile.iou.get(label_class.name)),
                "" if tile is None else f"{100 * tile.phase_fractions.get(label_class.name, 0.0):.1f} %",
            )
            for column, text in enumerate(texts, start=1):
                item = QTableWidgetItem(text)
                item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                self.table.setItem(row, column, item)
        height = self.table.horizontalHeader().sizeHint().height() + 31 * max(len(classes), 1) + 4
        self.table.setFixedHeight(height)

    def _on_model(self) -> None:
        self._on_readouts(self._session.readouts)
        self.confusion_box.hide()
        self.reliability_box.hide()
        project, run_id = self._session.project, self._session.prediction.model_run
        if project is not None and run_id is not None:
            self._bridge.run(lambda: find_confusion(project, run_id), done=self._show_confusion, failed=lambda *_: None)

    def _show_confusion(self, found: dict[str, Any] | None) -> None:
        names = self._session.schema.names
        if found is None or len(found["confusion"]) != len(names):
            return
        self.confusion_box.show()
        self.confusion_label.setText(
            f"Rows are the labels, columns the prediction of run {found.get('run', '')}, held out; in % of the row."
        )
        self.confusion.set_matrix(found["confusion"], names)
        calibration = found.get("calibration")
        self.reliability_box.setVisible(bool(calibration))
        if calibration:
            self.reliability.set_calibration(calibration)


def find_confusion(project: Any, model_run: str) -> dict[str, Any] | None:
    """The newest stored result of a model that holds a confusion matrix; None where there is none. Reads files."""
    for record in reversed(project.runs()):
        is_of_model = record.id == model_run or record.kind == "evaluate"
        path = project.run(record.id).root / "result.json"
        if not is_of_model or not path.is_file():
            continue
        result = project.run(record.id).result()
        if result.get("confusion") and (record.id == model_run or result.get("run") == model_run):
            return result
    return None


def model_text(model: ModelReadout | None) -> str:
    """The held-out IoU in a sentence, with its ground and note."""
    if model is None:
        return "No model yet: paint a few strokes of each class, then Fine-tune."
    if model.mean_iou is None:
        return f"Run {model.run_id} has no IoU: nothing was held out. {model.note}".strip()
    score = f"IoU {iou_text(model.mean_iou)} {interval_text(model.ci95)}".strip()
    return f"{score} of run {model.run_id}. {sentence_case(model.note or model.ground)}".strip()


def tile_text(tile: TileReadout | None) -> str:
    """The current tile in a sentence: how much is labelled, on what ground its IoU stands."""
    if tile is None:
        return "For the figures of a tile choose one (Next N) that the model has predicted."
    if not tile.labelled_fraction:
        return "No labels on this tile, so no IoU there; the fractions are the model's."
    part = "less than 1 %" if tile.labelled_fraction < 0.01 else f"{100 * tile.labelled_fraction:.0f} %"
    ground = f"{tile.ground}, synthetic" if tile.synthetic else tile.ground
    return f"This tile: IoU {iou_text(tile.mean_iou)} on its labelled pixels ({part} of it), {ground}."
