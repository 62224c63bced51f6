"""Questions to the user that stop the work: folders, files, numbers, one confirmation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QInputDialog, QMessageBox, QWidget

from napari_emtransfer.core.data.readers import supported_suffixes


def ask_folder(parent: QWidget, title: str) -> Path | None:
    """An existing folder, or None."""
    chosen = QFileDialog.getExistingDirectory(parent, title)
    return Path(chosen) if chosen else None


def ask_new_folder(parent: QWidget) -> Path | None:
    """A folder for a new project; it need not exist yet."""
    chosen, _ = QFileDialog.getSaveFileName(
        parent, "Folder for the new project", str(Path.home() / "emtransfer-project"), "Folder (*)"
    )
    return Path(chosen) if chosen else None


def ask_image_files(parent: QWidget) -> list[Path]:
    """Image files of the formats that can be read."""
    patterns = " ".join(f"*{suffix}" for suffix in sorted(supported_suffixes()))
    chosen, _ = QFileDialog.getOpenFileNames(parent, "Add micrographs", "", f"Micrographs ({patterns});;All files (*)")
    return [Path(name) for name in chosen]


def ask_flat_field(parent: QWidget) -> list[Path]:
    """Images of an even area, of the user's own instrument."""
    patterns = " ".join(f"*{suffix}" for suffix in sorted(supported_suffixes()))
    chosen, _ = QFileDialog.getOpenFileNames(parent, "Flat field", "", f"Images ({patterns});;All files (*)")
    return [Path(name) for name in chosen]


def ask_moved_file(parent: QWidget, stem: str) -> Path | None:
    """Where a file is now."""
    chosen, _ = QFileDialog.getOpenFileName(parent, f"Where is {stem} now?")
    return Path(chosen) if chosen else None


def ask_pixel_size(parent: QWidget, stems: Sequence[str]) -> float | None:
    """A pixel size in nm for these micrographs."""
    text, accepted = QInputDialog.getText(parent, "Pixel size", f"nm per pixel of {', '.join(stems[:5])}:")
    try:
        size = float(text.replace(",", "."))
    except ValueError:
        return None
    return size if accepted and size > 0 else None


def ask_frame(parent: QWidget, name: str, n_frames: int) -> int | None:
    """Which image of a stack, counted from 0; the user counts from 1."""
    question = f"{name} holds {n_frames} images. Which one is to be added?"
    number, accepted = QInputDialog.getInt(parent, "Image of a stack", question, 1, 1, n_frames)
    return number - 1 if accepted else None


def confirm_removal(parent: QWidget, stems: Sequence[str]) -> bool:
    """Whether micrographs and their labels may leave the project."""
    named = ", ".join(stems[:5]) + (f" and {len(stems) - 5} more" if len(stems) > 5 else "")
    question = f"Take {named} and their labels out of the project? The image files stay."
    return QMessageBox.question(parent, "Remove micrographs", question) == QMessageBox.StandardButton.Yes


def confirm_rate(parent: QWidget, message: str) -> bool:
    """Whether a pretrained encoder may learn as fast as the decoder; No is what Return chooses."""
    buttons = QMessageBox.StandardButton
    way_out = "A tenth of the decoder's rate is usual: “… of the encoder”, under Advanced, Optimiser."
    question = f"{message}\n\n{way_out}\n\nTrain with this rate all the same?"
    return QMessageBox.question(parent, "Learning rate", question, buttons.Yes | buttons.No, buttons.No) == buttons.Yes
