"""Fixtures for all tests, and an environment in which they run alike on a laptop and on a small server."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

# Before any test imports numpy, torch or Qt: one thread each, and no spinning while another test computes.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("QT_API", "pyqt6")
# What the person at this computer has imported is not to change what the program proposes in a test.
os.environ["EMTRANSFER_CACHE"] = tempfile.mkdtemp(prefix="emtransfer-tests-")


@pytest.fixture
def no_bundled_weights(monkeypatch) -> None:
    """As if no weights had come with the program: for tests of what else there is."""
    from napari_emtransfer.core.nn import registry

    monkeypatch.setattr(registry, "bundled_entries", list)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; tests that need it are skipped where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("EMTRANSFER_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set EMTRANSFER_DATA)")
    return folder
