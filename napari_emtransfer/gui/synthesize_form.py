"""What is to be synthesised: kind, structure, number, size, scale, seed, detector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QGridLayout, QHBoxLayout, QLabel, QSpinBox, QWidget
from superqt.utils import signals_blocked

from napari_emtransfer.gui import dialogs
from napari_emtransfer.gui.log_spin_box import LogSpinBox
from napari_emtransfer.gui.widgets import ElidedLabel, button, small_button, wrapped_label
from napari_emtransfer.session.generators import GeneratorEntry, Instrument, SynthesisSpec

KINDS = {
    "voronoi": (
        "Microstructures",
        "Grains, phases, precipitates, pores, particles, as a scanning microscope shows them.",
    ),
    "hrtem": ("HRTEM", "Nanoparticles on a support, as a high-resolution transmission microscope shows them."),
}
MEASURED = "measured"
DETECTORS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "voronoi": (
        ("", "Any, drawn for each", "Settings of another microscope for each micrograph: the widest variety."),
        ("sem", "Scanning (SEM), drawn", "Noise, contrast, charging and drift of a scanning microscope."),
        ("fib-sem", "Ion-milled (FIB-SEM), drawn", "As SEM, with the streaks that ion milling leaves."),
        ("camera", "Camera, drawn", "A camera: noise that is correlated between pixels, no scan faults."),
        (MEASURED, "As my flat field …", "Noise as measured on images of your own instrument; all else is drawn."),
    ),
    "hrtem": (
        ("", "Any, drawn for each", "Dose and camera, or scan, are drawn for each micrograph."),
        (MEASURED, "As my flat field …", "The camera as measured on images of your own instrument; all else is drawn."),
    ),
}
EDGES = (128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096)
MAX_SEED = 999_999
USUAL_EDGE = 512


class SynthesizeForm(QWidget):
    """Emits `changed` when anything that changes the pixels does; `spec` is what stands there."""

    changed = Signal()

    def __init__(self, entries: Sequence[GeneratorEntry]) -> None:
        super().__init__()
        self._entries = tuple(entries)
        self._flat_field: tuple[Path, ...] = ()
        self._build_fields()
        self._lay_out()
        for kind in dict.fromkeys(entry.kind for entry in entries):
            self.kind.addItem(KINDS[kind][0], kind)
            self.kind.setItemData(self.kind.count() - 1, KINDS[kind][1], Qt.ItemDataRole.ToolTipRole)
        self._on_kind()
        self._connect()

    # ---- what stands there

    @property
    def entry(self) -> GeneratorEntry:
        """The structure that is chosen."""
        return self.preset.currentData()

    @property
    def spec(self) -> SynthesisSpec:
        """Everything that was chosen."""
        chosen = self.detector.currentData()
        instrument: Instrument | None = None if chosen in ("", MEASURED) else chosen
        return SynthesisSpec(
            kind=self.entry.kind,
            preset=self.entry.preset,
            n=self.n.value(),
            edge_px=self.edge.currentData(),
            pixel_size_nm=self.pixel_size.value(),
            seed=self.seed.value(),
            instrument=instrument,
            flat_field=self._flat_field if chosen == MEASURED else (),
        )

    def set_omits(self, omits: Sequence[str]) -> None:
        """What the structure that is chosen leaves out."""
        self.omits.setVisible(bool(omits))
        self.omits.setText("Leaves out: " + "; ".join(omits) + "." if omits else "")

    def suggest(self, kind: str, pixel_size_nm: float | None) -> None:
        """Begin with this kind, and with the pixel size of the project where it is one that suits the kind."""
        index = self.kind.findData(kind)
        with signals_blocked(self.kind):
            self.kind.setCurrentIndex(max(0, index))
        self._on_kind()
        if pixel_size_nm is not None and kind == self.kind.currentData():
            self.pixel_size.setValue(pixel_size_nm)

    def choose_preset(self, preset: str) -> None:
        """Choose a structure by name."""
        self.preset.setCurrentIndex([entry.preset for entry in self._of_kind()].index(preset))

    def use_flat_field(self, paths: Sequence[Path]) -> None:
        """Measure the noise on these; without any the detector is drawn."""
        self._flat_field = tuple(paths)
        names = ", ".join(path.name for path in self._flat_field)
        self.flat_field_label.set_full_text(names or "no file chosen")
        if not self._flat_field:
            with signals_blocked(self.detector):
                self.detector.setCurrentIndex(0)
        self._show_flat_field()
        self.changed.emit()

    # ---- building

    def _build_fields(self) -> None:
        self.kind, self.preset, self.edge, self.detector = (_combo() for _ in range(4))
        self.kind.setToolTip("What is imaged, and by which microscope.")
        self.preset.setToolTip("The structure. Its sentence and what it leaves out stand below.")
        self.what, self.omits = wrapped_label(name="synthesize-what"), wrapped_label(name="synthesize-omits")
        self.n = _spin(1, 1000, 8, "How many micrographs; each shows a specimen of its own.")
        for edge in EDGES:
            self.edge.addItem(f"{edge} × {edge} px", edge)
        self.edge.setCurrentIndex(EDGES.index(USUAL_EDGE))
        self.edge.setToolTip("Size of each micrograph in pixels.")
        self.pixel_size = LogSpinBox(minimum=1e-3, maximum=1e5)
        self.pixel_size.setToolTip("Pixel size in nanometres. That of the project makes the scales comparable.")
        self.scale_note = wrapped_label(name="synthesize-scale")
        self.seed = _spin(0, MAX_SEED, 0, "The same seed and settings make the same micrographs, pixel by pixel.")
        self.other_seed = small_button("↻", "Takes the next seed: other micrographs of the same kind.", self._next_seed)
        self.seed_row = _row(self.seed, self.other_seed)
        self.detector.setToolTip("What noise, contrast and scan faults the micrographs get.")
        self.flat_field_label = ElidedLabel("no file chosen")
        self.flat_field_button = button(
            "Choose files …",
            "One image of an even area whose brightness changes across it, or pairs of images of one field. Gain and "
            "read noise are measured on them; nothing else of them is used.",
            self._ask_flat_field,
        )
        self.flat_field_row = _row(self.flat_field_label, self.flat_field_button)

    def _lay_out(self) -> None:
        # A grid, because a form gives text that breaks into lines too little height.
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(5)
        grid.setColumnStretch(1, 1)
        rows: tuple[tuple[str, QWidget], ...] = (
            ("Kind", self.kind),
            ("Structure", self.preset),
            ("", self.what),
            ("", self.omits),
            ("Micrographs", self.n),
            ("Size", self.edge),
            ("nm/px", self.pixel_size),
            ("", self.scale_note),
            ("Detector", self.detector),
            ("", self.flat_field_row),
            ("Seed", self.seed_row),
        )
        for row, (title, widget) in enumerate(rows):
            if title:
                grid.addWidget(QLabel(title), row, 0)
                grid.addWidget(widget, row, 1)
            else:
                grid.addWidget(widget, row, 0, 1, 2)

    def _connect(self) -> None:
        self.kind.currentIndexChanged.connect(lambda _i: self._on_kind())
        self.preset.currentIndexChanged.connect(lambda _i: self._on_preset())
        self.detector.currentIndexChanged.connect(lambda _i: self._on_detector())
        self.edge.currentIndexChanged.connect(lambda _i: self.changed.emit())
        for field in (self.n, self.seed, self.pixel_size):
            field.valueChanged.connect(lambda _value: self.changed.emit())

    # ---- inside

    def _of_kind(self) -> list[GeneratorEntry]:
        return [entry for entry in self._entries if entry.kind == self.kind.currentData()]

    def _on_kind(self) -> None:
        with signals_blocked(self.preset), signals_blocked(self.detector), signals_blocked(self.pixel_size):
            self.preset.clear()
            for index, entry in enumerate(self._of_kind()):
                self.preset.addItem(entry.title, entry)
                self.preset.setItemData(index, entry.what, Qt.ItemDataRole.ToolTipRole)
            self.detector.clear()
            for index, (value, title, tip) in enumerate(DETECTORS[self.kind.currentData()]):
                self.detector.addItem(title, value)
                self.detector.setItemData(index, tip, Qt.ItemDataRole.ToolTipRole)
            self.pixel_size.setValue(self.entry.pixel_size_nm)
        self._show_flat_field()
        self._on_preset()

    def _on_preset(self) -> None:
        self.what.setText(self.entry.what)
        self.set_omits(())
        self.changed.emit()

    def _on_detector(self) -> None:
        self._show_flat_field()
        if self.detector.currentData() == MEASURED and not self._flat_field:
            self._ask_flat_field()
        else:
            self.changed.emit()

    def _show_flat_field(self) -> None:
        self.flat_field_row.setVisible(self.detector.currentData() == MEASURED)

    def _ask_flat_field(self) -> None:
        chosen = dialogs.ask_flat_field(self)
        self.use_flat_field(chosen or self._flat_field)

    def _next_seed(self) -> None:
        self.seed.setValue((self.seed.value() + 1) % (MAX_SEED + 1))


def _combo() -> QComboBox:
    box = QComboBox()
    # Long names may be cut off in the closed box; the open list shows all of them.
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(8)
    return box


def _row(wide: QWidget, narrow: QWidget) -> QWidget:
    """Two fields side by side."""
    row = QWidget()
    layout = QHBoxLayout(row)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.addWidget(wide, 1)
    layout.addWidget(narrow)
    return row


def _spin(low: int, high: int, value: int, tip: str) -> QSpinBox:
    box = QSpinBox()
    box.setRange(low, high)
    box.setValue(value)
    box.setKeyboardTracking(False)
    box.setToolTip(tip)
    return box
