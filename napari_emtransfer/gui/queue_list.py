"""The queued tiles as rows of picture, reason, class and score, in the order in which they come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from qtpy.QtCore import QModelIndex, QPoint, QRect, QSize, Qt, QTimer, Signal
from qtpy.QtGui import (
    QAbstractTextDocumentLayout,
    QColor,
    QPainter,
    QPalette,
    QPen,
    QPixmap,
    QTextDocument,
    QTextOption,
)
from qtpy.QtWidgets import (
    QAbstractItemView,
    QListWidget,
    QListWidgetItem,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
)

from napari_emtransfer.gui.tile_layers import CHOSEN_COLOR, CONTROL_COLOR
from napari_emtransfer.gui.tile_pictures import EDGE
from napari_emtransfer.gui.widgets import sentence_case

if TYPE_CHECKING:
    from napari_emtransfer.core.data.queue_records import QueueEntry

MARGIN: Final = 5
FRAME: Final = 2
MOST_ROWS: Final = 60
"""More than anybody labels between two rankings; the rest is said in a line."""
HEIGHT_PX: Final = 310
REST_MS: Final = 60
CONTROL_TIP: Final = (
    "A random control: drawn by chance from all tiles. Only on such tiles can the IoU and the phase fractions be "
    "measured without bias, because the others were chosen for being difficult. Skip it only if it cannot be labelled."
)
_ENTRY: Final = Qt.ItemDataRole.UserRole


class QueueList(QListWidget):
    """A click emits `chosen(number)`; the row of the tile on the canvas is the selected one.

    Where the pointer rests, a click may follow: `expected(number)`.

    Parameters
    ----------
    picture
        The picture of an entry's tile, None while it is made.
    """

    chosen = Signal(int)
    expected = Signal(int)

    def __init__(self, picture: Callable[[QueueEntry], QPixmap | None]) -> None:
        super().__init__()
        self._entries: tuple[QueueEntry, ...] = ()
        self._colors: dict[str, str] = {}
        self._current: int | None = None
        self.setObjectName("queue-list")
        self.setToolTip("Tiles worth labelling next, the first one first. A click goes there; strokes are saved.")
        self.setItemDelegate(_RowPainter(self, picture))
        self.setFixedHeight(HEIGHT_PX)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)  # a click leaves the keys with the canvas
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setResizeMode(QListWidget.ResizeMode.Adjust)
        self.setMouseTracking(True)
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MS)
        self._rest.timeout.connect(self._expect)
        self._under_pointer: int | None = None
        self.itemEntered.connect(self._entered)
        # Not itemClicked: a ranking that fills the list anew between press and release would swallow the click.
        self.itemPressed.connect(self._choose)
        self.itemActivated.connect(self._choose)

    def set_entries(self, entries: Sequence[QueueEntry], colors: Mapping[str, str], current: int | None) -> None:
        """Show these, with classes in their colours; `current` is the number of the one on the canvas."""
        entries = tuple(entries[:MOST_ROWS])
        if (entries, dict(colors)) != (self._entries, self._colors):
            self._entries, self._colors = entries, dict(colors)
            self._fill()
        self._mark(current)

    @property
    def entries(self) -> tuple[QueueEntry, ...]:
        """What is shown, from above."""
        return self._entries

    @property
    def current(self) -> int | None:
        """Number of the marked entry."""
        item = self.currentItem()
        return None if item is None or not item.isSelected() else item.data(_ENTRY).number

    def item_of(self, number: int) -> QListWidgetItem | None:
        """The row of an entry."""
        rows = (self.item(row) for row in range(self.count()))
        return next((item for item in rows if item.data(_ENTRY).number == number), None)

    def resizeEvent(self, event) -> None:  # noqa: ANN001, N802, D102
        super().resizeEvent(event)
        self.scheduleDelayedItemsLayout()  # rows break anew, so their heights change

    def _fill(self) -> None:
        place = self.verticalScrollBar().value()
        self.clear()
        for place_in_queue, entry in enumerate(self._entries, start=1):
            item = QListWidgetItem(row_html(entry, place_in_queue, self._colors))
            item.setData(_ENTRY, entry)
            item.setToolTip(row_tip(entry))
            item.setData(Qt.ItemDataRole.AccessibleTextRole, f"{place_in_queue}. {entry.reason}, {_cell(entry)}")
            self.addItem(item)
        self._current = None
        self.verticalScrollBar().setValue(place)

    def _mark(self, number: int | None) -> None:
        item = None if number is None else self.item_of(number)
        if item is None:
            self.clearSelection()
        elif item is not self.currentItem() or not item.isSelected():
            self.setCurrentItem(item)
        if item is not None and number != self._current:
            self.scrollToItem(item)
        self._current = number

    def _entered(self, item: QListWidgetItem) -> None:
        self._under_pointer = item.data(_ENTRY).number
        self._rest.start()

    def _expect(self) -> None:
        if self._under_pointer is not None and self.item_of(self._under_pointer) is not None:
            self.expected.emit(self._under_pointer)

    def _choose(self, item: QListWidgetItem) -> None:
        self.chosen.emit(item.data(_ENTRY).number)


class _RowPainter(QStyledItemDelegate):
    """Picture at the left, text that breaks into lines beside it; ground and selection as the style draws them."""

    def __init__(self, view: QueueList, picture: Callable[[QueueEntry], QPixmap | None]) -> None:
        super().__init__(view)
        self._view, self._picture = view, picture

    def sizeHint(self, _option: QStyleOptionViewItem, index: QModelIndex) -> QSize:  # noqa: N802
        width = self._view.viewport().width()
        height = self._text(index.data(), width - _text_left() - MARGIN).size().height()
        return QSize(width, max(EDGE + 2 * FRAME, int(height) + 1) + 2 * MARGIN)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        plain = QStyleOptionViewItem(option)
        self.initStyleOption(plain, index)
        plain.text = ""
        self._view.style().drawControl(QStyle.ControlElement.CE_ItemViewItem, plain, painter, self._view)
        self._paint_picture(painter, option.rect, index.data(_ENTRY))
        document = self._text(index.data(), option.rect.width() - _text_left() - MARGIN)
        context = QAbstractTextDocumentLayout.PaintContext()
        is_selected = bool(option.state & QStyle.StateFlag.State_Selected)
        role = QPalette.ColorRole.HighlightedText if is_selected else QPalette.ColorRole.Text
        context.palette.setColor(QPalette.ColorRole.Text, self._view.palette().color(role))
        painter.save()
        painter.translate(option.rect.topLeft() + QPoint(_text_left(), MARGIN))
        document.documentLayout().draw(painter, context)
        painter.restore()

    def _paint_picture(self, painter: QPainter, rect: QRect, entry: QueueEntry) -> None:
        frame = QRect(rect.topLeft() + QPoint(MARGIN, MARGIN), QSize(EDGE + 2 * FRAME, EDGE + 2 * FRAME))
        inside = frame.adjusted(FRAME, FRAME, -FRAME, -FRAME)
        picture = self._picture(entry)
        painter.save()
        if picture is not None:
            size = picture.size().scaled(inside.size(), Qt.AspectRatioMode.KeepAspectRatio)
            place = QRect(inside.topLeft(), size)
            place.moveCenter(inside.center())
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
            painter.drawPixmap(place, picture)
        painter.setPen(QPen(QColor(color_of(entry)), FRAME))
        painter.drawRect(frame.adjusted(1, 1, -1, -1))
        painter.restore()

    def _text(self, html: str, width: int) -> QTextDocument:
        document = QTextDocument()
        document.setDocumentMargin(0)
        document.setDefaultFont(self._view.font())
        option = document.defaultTextOption()
        option.setWrapMode(QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere)  # names of files have no spaces
        document.setDefaultTextOption(option)
        document.setHtml(html)
        document.setTextWidth(max(width, 60))
        return document


def _text_left() -> int:
    return EDGE + 2 * FRAME + 2 * MARGIN + 3


def color_of(entry: QueueEntry) -> str:
    """The colour of its outline on the canvas and of its frame in the list."""
    return CONTROL_COLOR if entry.control else CHOSEN_COLOR


def legend_html() -> str:
    """What the two colours mean, as rich text."""
    kinds = ((CHOSEN_COLOR, "chosen"), (CONTROL_COLOR, "random control"))
    return " &nbsp;".join(f'<span style="color:{color}">■</span>&nbsp;{word}' for color, word in kinds)


def row_html(entry: QueueEntry, place: int, colors: Mapping[str, str]) -> str:
    """Reason; the class that was guessed, in its colour; score; where it is."""
    reason = f"<b>{place}&nbsp; {escape(sentence_case(entry.reason))}</b>"
    facts = []
    if entry.class_name:
        color = colors.get(entry.class_name)
        square = f'<span style="color:{color}">■</span>&nbsp;' if color else ""
        facts.append(f"{square}{escape(entry.class_name)}?")
    facts.append("score&nbsp;" + ("–" if entry.score is None else f"{entry.score:.2f}"))
    if entry.state == "deferred":
        facts.append("put aside")
    lines = [reason, " · ".join(facts), escape(_cell(entry))]
    return "<br>".join(line for line in lines if line)


def row_tip(entry: QueueEntry) -> str:
    """Why it is in the queue, at length, as rich text that breaks."""
    if entry.control:
        return f"<p>{CONTROL_TIP}</p>"
    drawn = "" if entry.probability is None else f" It was drawn with probability {entry.probability:.2g}."
    kind = f"Chosen by {escape(entry.acquisition)}: {escape(entry.reason)}." if entry.acquisition else ""
    return f"<p>{kind}{drawn} Chosen tiles teach the model; it is measured on random ones.</p>"


def _cell(entry: QueueEntry) -> str:
    return f"{entry.stem}, row {entry.row + 1}, column {entry.column + 1}"
