"""The micrographs of the project as a table: picture, name, specimen, domain, pixel size, labelled part."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QFont, QResizeEvent
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

from napari_emtransfer.gui import thumbnails

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project_records import MicrographRecord


class Column(IntEnum):
    """Columns from left to right."""

    NAME = 0
    SPECIMEN = 1
    DOMAIN = 2
    PIXEL_SIZE = 3
    LABELLED = 4


HEADERS = {
    Column.NAME: ("Name", "Micrograph. Double-click to show it on the canvas."),
    Column.SPECIMEN: (
        "Specimen",
        "What was in the microscope. Training and held-out data never share one. Double-click to correct.",
    ),
    Column.DOMAIN: ("Domain", "Imaging condition: instrument, voltage, detector. Double-click to correct."),
    Column.PIXEL_SIZE: ("nm/px", "Pixel size in nanometres. Double-click to correct; empty where it is unknown."),
    Column.LABELLED: ("Labels", "Labelled part of the micrograph."),
}
EDITABLE = {Column.SPECIMEN: "specimen", Column.DOMAIN: "domain", Column.PIXEL_SIZE: "pixel_size_nm"}
SYNTHETIC = "Synthetic: made by the program with exact labels. Trained on; measured on only where nothing real can be."
STEM = Qt.ItemDataRole.UserRole


class MicrographTable(QTableWidget):
    """Emits `show_requested(stem)` and `edited(stem, field, value)`; changes nothing in the project itself."""

    show_requested = Signal(str)
    edited = Signal(str, str, object)

    def __init__(self) -> None:
        super().__init__(0, len(Column))
        self._rows: dict[str, int] = {}
        self._filling = False
        for column, (title, tip) in HEADERS.items():
            item = QTableWidgetItem(title)
            item.setToolTip(tip)
            self.setHorizontalHeaderItem(column, item)
        self._set_up_header()
        self.verticalHeader().hide()
        self.setIconSize(QSize(thumbnails.EDGE, thumbnails.EDGE))
        self.verticalHeader().setDefaultSectionSize(thumbnails.EDGE + 4)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setToolTip("Drop image files here to add them to the project.")
        self.itemChanged.connect(self._on_item_changed)
        self.itemDoubleClicked.connect(self._on_double_click)

    def set_records(self, records: Sequence[MicrographRecord]) -> None:
        """Show these micrographs; pictures and labelled parts that are known already stay."""
        known = {
            stem: (self.item(row, Column.NAME).icon(), self.item(row, Column.LABELLED).text())
            for stem, row in self._rows.items()
        }
        self._filling = True
        self.setRowCount(len(records))
        self._rows = {record.stem: row for row, record in enumerate(records)}
        # One domain for all is the rule, and the names need the room; synthetic ones are told apart by their script.
        self.setColumnHidden(Column.DOMAIN, len({record.domain for record in records if not record.synthetic}) <= 1)
        for row, record in enumerate(records):
            self._fill_row(row, record)
            if record.stem in known:
                self.item(row, Column.NAME).setIcon(known[record.stem][0])
                self.item(row, Column.LABELLED).setText(known[record.stem][1])
        self._filling = False
        self._share_room()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802, D102
        super().resizeEvent(event)
        self._share_room()

    def set_thumbnail(self, stem: str, picture: NDArray[np.uint8]) -> None:
        """Put a picture in front of the name."""
        if stem in self._rows:
            self._filling = True
            self.item(self._rows[stem], Column.NAME).setIcon(thumbnails.icon(picture))
            self._filling = False

    def set_labelled(self, stem: str, fraction: float) -> None:
        """Show the labelled part, 0..1."""
        if stem in self._rows:
            self._filling = True
            shown = "" if fraction == 0 else "< 1 %" if fraction < 0.01 else f"{100 * fraction:.0f} %"
            self.item(self._rows[stem], Column.LABELLED).setText(shown)
            self._filling = False

    def set_current(self, stem: str | None) -> None:
        """Mark the micrograph that is on the canvas."""
        if stem in self._rows:
            self.selectRow(self._rows[stem])

    def stems_without_thumbnail(self) -> list[str]:
        """Micrographs that still want a picture."""
        return [stem for stem, row in self._rows.items() if self.item(row, Column.NAME).icon().isNull()]

    def selected_stems(self) -> list[str]:
        """Micrographs of the selected rows."""
        rows = {index.row() for index in self.selectedIndexes()}
        return [stem for stem, row in self._rows.items() if row in rows]

    def _fill_row(self, row: int, record: MicrographRecord) -> None:
        size = "" if record.pixel_size_nm is None else f"{record.pixel_size_nm:.4g}"
        texts = {
            Column.NAME: record.stem,
            Column.SPECIMEN: record.specimen,
            Column.DOMAIN: record.domain,
            Column.PIXEL_SIZE: size,
            Column.LABELLED: "",
        }
        for column, text in texts.items():
            item = QTableWidgetItem(text)
            item.setData(STEM, record.stem)
            what = f"\n{SYNTHETIC} Domain: {record.domain}." if record.synthetic else ""
            item.setToolTip(f"{text or 'unknown'}\n{HEADERS[column][1]}{what}")
            if record.synthetic:
                item.setFont(italic(item.font()))
            if column not in EDITABLE:
                item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEditable)
            self.setItem(row, column, item)

    def _on_item_changed(self, item: QTableWidgetItem) -> None:
        if self._filling or item.column() not in EDITABLE:
            return
        field, text = EDITABLE[Column(item.column())], item.text().strip()
        value = parse_pixel_size(text) if field == "pixel_size_nm" else text
        self.edited.emit(item.data(STEM), field, value)

    def _on_double_click(self, item: QTableWidgetItem) -> None:
        if item.column() not in EDITABLE:
            self.show_requested.emit(item.data(STEM))

    def _set_up_header(self) -> None:
        header = self.horizontalHeader()
        header.setMinimumSectionSize(36)
        header.setTextElideMode(Qt.TextElideMode.ElideRight)
        for column in Column:
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(Column.NAME, QHeaderView.ResizeMode.Stretch)
        for column in (Column.SPECIMEN, Column.DOMAIN):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)

    def _share_room(self) -> None:
        """Names, specimens and domains may be long: each gets what it needs, at most as much as leaves all the same."""
        header = self.horizontalHeader()
        long = [column for column in (Column.SPECIMEN, Column.DOMAIN) if not self.isColumnHidden(column)]
        numbers = sum(header.sectionSize(c) for c in Column if c not in (Column.NAME, Column.SPECIMEN, Column.DOMAIN))
        share = (self.viewport().width() - numbers - thumbnails.EDGE) // (1 + len(long))
        for column in long:
            wanted = max(self.sizeHintForColumn(column), header.sectionSizeHint(column))
            header.resizeSection(column, max(header.minimumSectionSize(), min(wanted, share)))


def italic(font: QFont) -> QFont:
    """The same font, slanted."""
    font.setItalic(True)
    return font


def parse_pixel_size(text: str) -> float | None:
    """Read "2.5" or "2,5"; empty → None; anything else → NaN, which the project refuses with a sentence."""
    if not text:
        return None
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return float("nan")
