"""Faults of a project as a whole, pointed out before they spoil a result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_emtransfer.session.state import ProjectNotice

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project_records import MicrographRecord

_SHOWN = 3


def project_notices(
    records: Sequence[MicrographRecord], n_classes: int, working_pixel_size_nm: float | None
) -> list[ProjectNotice]:
    """All that should be pointed out, the gravest first. Reads no pixels."""
    found = [
        _no_classes(n_classes),
        _missing_files(records),
        _missing_sizes(records),
        _mixed_sizes(records, working_pixel_size_nm),
        _one_specimen(records),
        _info_bars(records),
    ]
    return [notice for notice in found if notice is not None]


def _no_classes(n_classes: int) -> ProjectNotice | None:
    if n_classes >= 2:
        return None
    has = "no class" if n_classes == 0 else "only one class"
    return ProjectNotice("no_classes", f"The project has {has}.", "Name at least two; the background is a class too.")


def _missing_files(records: Sequence[MicrographRecord]) -> ProjectNotice | None:
    stems = tuple(r.stem for r in records if not Path(r.path).exists())
    if not stems:
        return None
    message = f"{_named(stems)} {_is(stems)} not where the file was when it was added."
    return ProjectNotice("missing_file", message, "Show the program where the file is now; labels are kept.", stems)


def _missing_sizes(records: Sequence[MicrographRecord]) -> ProjectNotice | None:
    stems = tuple(r.stem for r in records if r.pixel_size_nm is None)
    if not stems:
        return None
    message = f"{_named(stems)} {_has(stems)} no pixel size; scale cannot be matched and sizes cannot be measured."
    return ProjectNotice("no_pixel_size", message, "Enter it in nm per pixel in the table.", stems)


def _mixed_sizes(records: Sequence[MicrographRecord], working: float | None) -> ProjectNotice | None:
    sizes = sorted(r.pixel_size_nm for r in records if r.pixel_size_nm is not None)
    if len(sizes) < 2 or sizes[-1] <= 1.05 * sizes[0]:  # calibration itself is known to a few per cent
        return None
    message = f"Pixel sizes differ, from {sizes[0]:.4g} to {sizes[-1]:.4g} nm."
    if working is None:
        hint = "Choose a working pixel size, and the network sees all micrographs at the same scale."
    else:
        hint = f"The network sees all of them at {working:.4g} nm per pixel."
    return ProjectNotice("mixed_pixel_sizes", message, hint)


def _one_specimen(records: Sequence[MicrographRecord]) -> ProjectNotice | None:
    specimens = {r.specimen for r in [r for r in records if not r.synthetic] or records}
    if len(specimens) != 1 or not records:
        return None
    only = next(iter(specimens))
    message = f"All micrographs show one specimen, {only!r}: the held-out IoU says nothing about another."
    return ProjectNotice("one_specimen", message, "Add a micrograph of a second one, or correct the specimen names.")


def _info_bars(records: Sequence[MicrographRecord]) -> ProjectNotice | None:
    stems = tuple(r.stem for r in records if r.info_bar is not None and not r.synthetic)
    if not stems:
        return None
    message = f"{_named(stems)} {_has(stems)} an information bar; it is left out of the contrast."
    return ProjectNotice("info_bar", message, "Leave it unpainted, and it is left out of training, too.", stems)


def _named(stems: Sequence[str]) -> str:
    shown = ", ".join(stems[:_SHOWN])
    return shown if len(stems) <= _SHOWN else f"{shown} and {len(stems) - _SHOWN} more"


def _has(stems: Sequence[str]) -> str:
    return "has" if len(stems) == 1 else "have"


def _is(stems: Sequence[str]) -> str:
    return "is" if len(stems) == 1 else "are"
