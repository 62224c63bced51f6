import logging
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "session"))

from gui_helpers import Hands, open_dock
from qtpy.QtCore import QSettings
from session_helpers import FakeRunner, make_project


@pytest.fixture(autouse=True)
def _own_settings(tmp_path):
    """Recent projects of a test stay with the test."""
    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, str(tmp_path / "settings"))


@pytest.fixture(autouse=True)
def _no_unexpected_faults(caplog):
    """The bridge turns bugs into messages for the user; here they must fail the test."""
    with caplog.at_level(logging.ERROR, logger="napari_emtransfer.gui.bridge"):
        yield
    faults = [r for r in caplog.get_records("call") if r.name == "napari_emtransfer.gui.bridge"]
    assert not faults, "\n".join(str(r.exc_info) for r in faults)


@pytest.fixture
def runner():
    return FakeRunner()


@pytest.fixture
def window(make_napari_viewer, runner):
    """Hands on a shown window with the dock; training and engine are said by the test."""
    viewer = make_napari_viewer(show=True)
    dock = open_dock(viewer, runner, size=(1000, 800))
    yield Hands(viewer, dock)
    dock.owner.close()


@pytest.fixture
def project(window, tmp_path):
    """Hands on a window with a small open project whose first tile is on the canvas."""
    window.dock.project_panel.open_project(make_project(tmp_path / "project"))
    window.shown()
    return window
