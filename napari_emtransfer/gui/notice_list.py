"""What should be pointed out about the project, each with a button that mends it where one can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_emtransfer.gui.messages import MessageRow

if TYPE_CHECKING:
    from napari_emtransfer.session.state import ProjectNotice

MENDS: Final = {
    "no_classes": "Name the classes",
    "no_pixel_size": "Enter the pixel size …",
    "mixed_pixel_sizes": "Match the scales",
    "missing_file": "Find the file …",
    "one_specimen": "Add files …",
}


class NoticeList(QWidget):
    """One row per notice; a row that was dismissed stays away until its sentence changes. Emits (code, stems)."""

    mend_requested = Signal(str, tuple)

    def __init__(self) -> None:
        super().__init__()
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(4)
        self._dismissed: set[str] = set()
        self.rows: list[MessageRow] = []
        self.hide()

    def set_notices(self, notices: Sequence[ProjectNotice]) -> None:
        """Show these notices."""
        wanted = [notice for notice in notices if notice.message not in self._dismissed]
        if [row.message for row in self.rows] == [notice.message for notice in wanted]:
            return
        for row in self.rows:
            self._layout.removeWidget(row)
            row.hide()
            row.deleteLater()
        self.rows = [self._row(notice) for notice in wanted]
        for row in self.rows:
            self._layout.addWidget(row)
        self.setVisible(bool(self.rows))

    def _row(self, notice: ProjectNotice) -> MessageRow:
        action = None
        if notice.code in MENDS:
            action = (MENDS[notice.code], lambda: self.mend_requested.emit(notice.code, notice.stems))
        return MessageRow(
            notice.message,
            notice.hint,
            is_error=False,
            on_dismiss=self._dismiss,
            action=action,
            dismiss_on_action=False,
        )

    def _dismiss(self, row: MessageRow) -> None:
        self._dismissed.add(row.message)
        if row in self.rows:
            self.rows.remove(row)
            self._layout.removeWidget(row)
            row.hide()
            row.deleteLater()
        self.setVisible(bool(self.rows))
