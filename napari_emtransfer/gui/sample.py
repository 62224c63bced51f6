"""The sample micrographs: as napari sample data, and as a project to begin with."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from qtpy.QtCore import QStandardPaths


def sample_project_folder() -> Path:
    """Where the sample project of this user lies."""
    base = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.GenericDataLocation)
    return Path(base) / "napari-emtransfer" / "sample-project"


def ensure_sample_project(root: Path | None = None) -> Path:
    """Make the sample project unless it is there already, and return its folder. Slow: for a background thread."""
    from napari_emtransfer.session.importing import make_sample_project

    root = root or sample_project_folder()
    if not (root / "project.sqlite").is_file():
        root.parent.mkdir(parents=True, exist_ok=True)
        make_sample_project(root).close()
    return root


def two_phase_micrographs() -> list[tuple[Any, dict[str, Any], str]]:
    """Synthetic dual-phase micrographs of three specimens with their scale in nm, as napari layers."""
    from napari_emtransfer.core.synth.sample import write_sample_dataset
    from napari_emtransfer.gui.readers import read_layers

    folder = write_sample_dataset(Path(tempfile.mkdtemp(prefix="emtransfer-sample-")))
    return read_layers([str(path) for path in sorted((folder / "images").iterdir())[::2]])
