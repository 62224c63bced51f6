"""What an installation needs: the manifest, the entry points, the constraints."""

from __future__ import annotations

import importlib
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from napari_emtransfer.core.config import DEFAULT_ENCODER, TrainConfig
from napari_emtransfer.core.nn import registry, store
from napari_emtransfer.core.rates import resolve_weights

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]


def test_the_manifest_is_valid_and_every_command_exists():
    npe2 = pytest.importorskip("npe2")
    pytest.importorskip("qtpy.QtCore")
    manifest = npe2.PluginManifest.from_file(ROOT / "napari_emtransfer" / "napari.yaml")
    manifest.validate_imports()
    assert manifest.name == "napari-emtransfer"
    assert manifest.contributions.widgets
    assert manifest.contributions.readers
    assert manifest.contributions.sample_data
    for command in manifest.contributions.commands:
        module, _, name = command.python_name.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_the_command_is_installed():
    (script,) = [e for e in entry_points(group="console_scripts") if e.name == "emtransfer"]
    assert callable(script.load())


def test_napari_finds_the_manifest():
    assert [e.value for e in entry_points(group="napari.manifest") if e.name == "napari-emtransfer"] == [
        "napari_emtransfer:napari.yaml"
    ]


def test_constraints_pin_what_is_required_and_nothing_local():
    lines = [x for x in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if x and x[0] != "#"]
    pins = {canonicalize_name(r.name): r for r in map(Requirement, lines)}
    assert all(str(pin.specifier).startswith("==") and "+" not in str(pin) and not pin.url for pin in pins.values())
    assert not any(name.startswith(("nvidia-", "cuda-")) for name in pins)
    for required in map(Requirement, PROJECT["dependencies"]):
        (pin,) = pins[canonicalize_name(required.name)].specifier
        assert pin.version in required.specifier, required


def test_no_qt_in_the_base_dependencies():
    names = {canonicalize_name(Requirement(r).name) for r in PROJECT["dependencies"]}
    assert not names & {"pyqt5", "pyqt6", "pyside2", "pyside6", "rosettasciio"}
    assert not any(r.extras for r in map(Requirement, PROJECT["dependencies"]) if r.name == "napari")


def test_weights_come_with_the_program_and_are_its_default():
    (row,) = registry.bundled_entries()
    path = store.path_of(row)
    assert store.sha256_of(path) == row.sha256
    assert path.stat().st_size < 12e6
    assert (row.channels, row.licence, row.architecture) == (1, PROJECT["license"], TrainConfig().architecture)
    assert row.encoder == DEFAULT_ENCODER
    assert resolve_weights(TrainConfig()) == row.name
    assert row.notes
    assert row.sha256 in path.with_suffix(".md").read_text(encoding="utf-8")


def test_a_wheel_takes_the_weights_along():
    """All of the package goes in but for what git ignores; hatchling looks at nothing else."""
    targets = PYPROJECT["tool"]["hatch"]["build"]["targets"]
    assert targets["wheel"] == {"packages": ["napari_emtransfer"]}
    left_out = targets["sdist"]["exclude"]
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    folder = store.path_of(registry.bundled_entries()[0]).relative_to(ROOT)
    parts = {*folder.parts, folder.as_posix(), folder.parent.as_posix()}
    assert not parts & {pattern.strip("/") for pattern in (*left_out, *ignored)}
    assert not any(folder.match(pattern) for pattern in (*left_out, *ignored) if pattern)
