"""What the augmentation does to the training crops, what physics forbids, and a look at nine samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QGridLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_emtransfer.core.config import AugmentPreset, Modality
from napari_emtransfer.core.legality import MODALITIES, PRESETS, Verdict, transform_entry, verdict
from napari_emtransfer.gui.augment_sheet import PreviewSheet
from napari_emtransfer.gui.widgets import button, wrapped_label

if TYPE_CHECKING:
    from napari_emtransfer.gui.viewer_session import ViewerSession
    from napari_emtransfer.session.augmenting import AugmentPreview

COLUMNS = 2
INDENT_PX = 22


class ForbiddenRow(QWidget):
    """A transform that the modality forbids: greyed, until the user allows it all the same."""

    def __init__(self, transform: str, why: Verdict, allowed: bool) -> None:
        super().__init__()
        entry = transform_entry(transform)
        self._title = entry.name
        self.name = QLabel()
        self.name.setToolTip(f"{entry.what} Illegal here: {why.reason}\nSource: {why.source}")
        self.tick = QCheckBox("allow anyway")
        self.tick.setChecked(allowed)
        self.tick.setToolTip("Does it all the same; the run records that you allowed it.")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.name, 1)
        layout.addWidget(self.tick)
        self.tick.toggled.connect(self._show)
        self._show(allowed)

    def _show(self, allowed: bool) -> None:
        self.name.setEnabled(allowed)
        self.name.setText(f"{'⚠' if allowed else '✗'} {self._title}")


class AugmentBox(QWidget):
    """The transforms of a preset for a modality.

    `edited(illegal)` follows when the user allows, or no longer allows, what is forbidden: the names for
    `TrainConfig.illegal_augment`. `preview_requested(preset, illegal)` asks for samples; `show_preview` shows them.
    """

    edited = Signal(tuple)
    preview_requested = Signal(str, tuple)

    def __init__(self) -> None:
        super().__init__()
        self._state: tuple[Modality, AugmentPreset, tuple[str, ...]] = ("sem", "none", ())
        self.sheet: PreviewSheet | None = None
        self.rows: dict[str, ForbiddenRow] = {}
        self.reasons: dict[str, QLabel] = {}
        self.heading = wrapped_label(name="augment-heading")
        self.preview_button = button(
            "Preview the augmentation",
            "Shows nine training crops of this micrograph as the network would see them, with their labels.",
            self.request_preview,
            name="augment-preview",
        )
        self._list = QWidget()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.heading)
        layout.addWidget(self._list)
        layout.addWidget(self.preview_button)
        self._refill()

    # ---- what is shown

    def set_state(self, modality: Modality, preset: AugmentPreset, illegal: Sequence[str]) -> None:
        """Show a preset for a modality; `illegal` names what the user allows although it is forbidden."""
        state = (modality, preset, tuple(illegal))
        if state != self._state:
            self._state = state
            self._refill()

    @property
    def illegal(self) -> tuple[str, ...]:
        """What the user allows although it is forbidden; what other presets or modalities would forbid is kept."""
        return self._state[2]

    def request_preview(self) -> None:
        """Ask for nine samples of what the box shows."""
        self.set_waiting(True)
        self.preview_requested.emit(self._state[1], self.illegal)

    def set_waiting(self, waiting: bool) -> None:
        """While samples are made, more cannot be asked for."""
        self.preview_button.setEnabled(not waiting)
        if self.sheet is not None:
            self.sheet.again_button.setEnabled(not waiting)

    def show_preview(
        self, images: NDArray[np.uint8], masks: NDArray[np.uint8], colors: Sequence[str], title: str = ""
    ) -> None:
        """Show samples, images (n, h, w) and masks (n, h, w) of label values, with outlines in the class colours."""
        self.set_waiting(False)
        if self.sheet is None:
            self.sheet = PreviewSheet(self.window())
            self.sheet.again_requested.connect(self.request_preview)
        self.sheet.set_samples(images, masks, colors, title)
        self.sheet.show()
        self.sheet.raise_()

    # ---- inside

    def _refill(self) -> None:
        modality, preset, illegal = self._state
        verdicts = {name: verdict(modality, name) for name in PRESETS[preset]}
        forbidden = {name: why for name, why in verdicts.items() if not why.legal}
        self.rows = {name: ForbiddenRow(name, why, name in illegal) for name, why in forbidden.items()}
        for name, row in self.rows.items():
            row.tick.toggled.connect(lambda on, name=name: self._allow(name, on))
        self.reasons = {}
        fresh = QWidget()
        grid = QGridLayout(fresh)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(2)
        legal = [name for name in verdicts if name not in forbidden]
        for index, name in enumerate(legal):
            grid.addWidget(_done_label(name, verdicts[name]), index // COLUMNS, index % COLUMNS)
        for why in dict.fromkeys(forbidden.values()):
            self._add_group(grid, [name for name in forbidden if forbidden[name] == why], why)
        self.layout().replaceWidget(self._list, fresh)
        self._list.deleteLater()
        fresh.show()
        self._list = fresh
        self.heading.setText(_heading(modality, preset, len(forbidden)))

    def _add_group(self, grid: QGridLayout, names: Sequence[str], why: Verdict) -> None:
        """Transforms that are forbidden for the same reason, which is said once, below them."""
        reason = wrapped_label(why.reason)
        reason.setToolTip(f"Source: {why.source}")
        reason.setContentsMargins(INDENT_PX, 0, 0, 4)
        for widget in (*(self.rows[name] for name in names), reason):
            grid.addWidget(widget, grid.rowCount(), 0, 1, COLUMNS)
        self.reasons |= dict.fromkeys(names, reason)

    def _allow(self, name: str, allowed: bool) -> None:
        others = tuple(other for other in self.illegal if other != name)
        self._state = (*self._state[:2], (*others, name) if allowed else others)
        self.edited.emit(self.illegal)


def attach(box: AugmentBox, owner: ViewerSession, crop_px: Callable[[], int] = lambda: 256) -> None:
    """Let the session make the previews that a box asks for, of the micrograph that is shown, at the form's crop."""
    session = owner.session

    def show(preview: AugmentPreview | None) -> None:
        if preview is None:
            box.set_waiting(False)
        else:
            colors = [c.color for c in session.schema.classes]
            box.show_preview(preview.images, preview.masks, colors, preview.micrograph)

    def ask(preset: AugmentPreset, illegal: tuple[str, ...]) -> None:
        if not owner.bridge.attempt(
            lambda: session.augmenting.preview(session.current, preset, illegal, crop_px(), show)
        ):
            box.set_waiting(False)

    box.preview_requested.connect(ask)


def _done_label(transform: str, why: Verdict) -> QLabel:
    entry = transform_entry(transform)
    label = QLabel(f"✓ {entry.name}")
    label.setToolTip(f"{entry.what} {why.reason}\nSource: {why.source}")
    return label


def _heading(modality: Modality, preset: AugmentPreset, n_forbidden: int) -> str:
    if preset == "none":
        return "The training crops stay as they are."
    name = next(entry.name for entry in MODALITIES if entry.id == modality)
    if not n_forbidden:
        return f"Done at random to the training crops; all of it is possible for {name}:"
    return f"Done at random to the training crops; {n_forbidden} of {len(PRESETS[preset])} are impossible for {name}:"
