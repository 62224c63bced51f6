"""Projects opened lately, kept in Qt's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from qtpy.QtCore import QSettings

MAX_RECENT: Final = 6
KEY: Final = "recent_projects"


def settings() -> QSettings:
    """The settings of this plugin and this user."""
    return QSettings(QSettings.Format.IniFormat, QSettings.Scope.UserScope, "napari-emtransfer", "napari-emtransfer")


def recent_projects() -> list[Path]:
    """Folders that still exist, newest first."""
    stored = settings().value(KEY, [])
    names = [stored] if isinstance(stored, str) else list(stored or [])
    return [path for path in map(Path, names) if path.is_dir()]


def remember_project(root: Path) -> None:
    """Put a folder first in the list."""
    root = Path(root).resolve()
    others = [path for path in recent_projects() if path != root]
    settings().setValue(KEY, [str(path) for path in (root, *others)][:MAX_RECENT])
