"""What the random controls have shown: learning curve, advice to go on or stop, phase fractions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QDoubleSpinBox,
    QFormLayout,
    QGroupBox,
    QHeaderView,
    QSpinBox,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_emtransfer.gui.queue_curve import TIP, LearningCurve
from napari_emtransfer.gui.queue_words import (
    advice_text,
    advice_tip,
    difference_sentence,
    iou_sentence,
    phase_rows,
    phases_sentence,
)
from napari_emtransfer.gui.widgets import calm, swatch, wrapped_label

if TYPE_CHECKING:
    from napari_emtransfer.session.queue_state import QueueState

HEADERS: Final = (
    ("Class", "The classes of the project."),
    (
        "Share",
        "Area of the class in the whole project in %: the model's share on all tiles, corrected by what it gets wrong "
        "on random ones. In brackets the 95 % interval; more random controls make it narrower.",
    ),
    ("IoU", "IoU of the class on the random controls."),
)
MOST_PERCENT: Final = 25.0
MOST_TILES: Final = 999
_LEAST_STEP: Final = 1e-6


class QueueFindings(QWidget):
    """Emits `target_changed(half width or None)` and `finetune_every_changed(tiles or None)`."""

    target_changed = Signal(object)
    finetune_every_changed = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._known: object = None
        self.iou_label = wrapped_label(name="control-iou")
        self.iou_label.setToolTip(TIP)
        self.curve = LearningCurve()
        self.difference_label = wrapped_label(name="chosen-against-random")
        self.difference_label.setToolTip(
            "Two models on equally many tiles, one on chosen, one on random ones, tested on the same random tiles that "
            "neither learnt from; difference of their mean IoU with its 95 % interval."
        )
        self.advice_label = wrapped_label(name="stop-advice")
        self.target_box, self.finetune_box = self._boxes()
        self.finetune_label = wrapped_label(name="until-finetune")
        self.table = self._table()
        self.phases_label = wrapped_label(name="phases-ground")
        self._lay_out()

    def set_state(self, state: QueueState, colors: Mapping[str, str]) -> None:
        """Show what is known after the newest ranking; classes in their colours."""
        known = (state.rounds, state.advice, state.target_half_width, state.finetune_every, state.n_until_finetune)
        if (known, dict(colors)) == self._known:
            return
        self._known = known, dict(colors)
        rounds = [one.facts for one in state.rounds]
        newest = rounds[-1] if rounds else None
        self.iou_label.setText(iou_sentence(newest))
        self.curve.set_rounds(rounds)
        self.iou_label.setVisible(bool(self.curve.points))  # else the curve says what is missing
        self.difference_label.setText(difference_sentence(newest))
        self.advice_label.setText(advice_text(state.advice))
        self.advice_label.setToolTip(advice_tip(state.advice))
        _set_value(self.target_box, 100 * (state.target_half_width or 0.0))
        _set_value(self.finetune_box, state.finetune_every or 0)
        left = state.n_until_finetune
        self.finetune_label.setVisible(left is not None)
        self.finetune_label.setText("" if left is None else f"The next fine-tune starts {_after(left)}.")
        self.phases_label.setText(phases_sentence(newest))
        self._fill(phase_rows(newest, tuple(colors)), colors)

    # ---- building

    def _boxes(self) -> tuple[QDoubleSpinBox, QSpinBox]:
        target, every = QDoubleSpinBox(), QSpinBox()
        target.setRange(0.0, MOST_PERCENT)
        target.setSingleStep(0.5)
        target.setDecimals(1)
        target.setSuffix(" %")
        target.setSpecialValueText("no matter")
        target.setToolTip(
            "How well the phase fractions must be known: half the width of their 95 % intervals. Labelling may stop "
            "once all are as narrow. Changes no labels; 0: no matter."
        )
        target.valueChanged.connect(lambda value: self.target_changed.emit(value / 100 or None))
        every.setRange(0, MOST_TILES)
        every.setSpecialValueText("off")
        every.setSuffix(" tiles")
        every.setToolTip(
            "Starts a fine-tune with the proposed settings by itself, each time that so many more tiles are done. "
            "Painting goes on meanwhile. 0: only when you ask."
        )
        every.valueChanged.connect(lambda value: self.finetune_every_changed.emit(value or None))
        for box in (target, every):
            box.setKeyboardTracking(False)
            calm(box)
        return target, every

    def _table(self) -> QTableWidget:
        table = QTableWidget(0, len(HEADERS))
        for column, (title, tip) in enumerate(HEADERS):
            item = QTableWidgetItem(title)
            item.setToolTip(tip)
            table.setHorizontalHeaderItem(column, item)
        table.verticalHeader().hide()
        table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        table.setSelectionMode(QTableWidget.SelectionMode.NoSelection)
        table.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        table.setWordWrap(True)
        table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        table.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = table.horizontalHeader()
        for column in range(1, len(HEADERS)):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(30)
        header.sectionResized.connect(lambda *_: self._fit_table())
        return table

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for title, widgets in (
            ("How good, on random tiles", (self.iou_label, self.curve, self.difference_label)),
            ("Phase fractions of the whole project", (self.table, self.phases_label)),
            ("Go on or stop", (self.advice_label, self._form(), self.finetune_label)),
        ):
            box = QGroupBox(title)
            column = QVBoxLayout(box)
            column.setContentsMargins(4, 4, 4, 4)
            for widget in widgets:
                column.addWidget(widget)
            layout.addWidget(box)

    def _form(self) -> QWidget:
        form = QWidget()
        rows = QFormLayout(form)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setVerticalSpacing(4)
        rows.addRow("Phase fractions to ±", self.target_box)
        rows.addRow("Fine-tune every", self.finetune_box)
        return form

    # ---- the table

    def _fill(self, rows: list[tuple[str, str, str]], colors: Mapping[str, str]) -> None:
        self.table.setVisible(bool(rows))
        self.table.setRowCount(len(rows))
        for row, texts in enumerate(rows):
            for column, text in enumerate(texts):
                item = QTableWidgetItem(text)
                item.setToolTip(texts[0] if column == 0 else HEADERS[column][1])
                if column == 0:
                    item.setIcon(swatch(colors[text]))
                else:
                    item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                self.table.setItem(row, column, item)
        self._fit_table()

    def _fit_table(self) -> None:
        """As high as its rows: names break into lines where the dock is narrow."""
        self.table.resizeRowsToContents()
        height = sum(self.table.rowHeight(row) for row in range(self.table.rowCount()))
        self.table.setFixedHeight(self.table.horizontalHeader().sizeHint().height() + height + 4)


def _set_value(box: QDoubleSpinBox | QSpinBox, value: float) -> None:
    """Show a value; what is being typed stays where the value is the old one."""
    if abs(box.value() - value) > _LEAST_STEP:
        with signals_blocked(box):
            box.setValue(value)


def _after(n_tiles: int) -> str:
    return "after this tile" if n_tiles <= 1 else f"after {n_tiles} more done tiles"
