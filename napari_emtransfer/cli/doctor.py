"""The checks behind `emtransfer doctor`: each says what it found, and what to do about a fault."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from napari_emtransfer.cli.display import drawing_environment, has_display

Level = Literal["ok", "advice", "fault"]
PACKAGES = (
    "napari-emtransfer",
    "napari",
    "numpy",
    "torch",
    "segmentation-models-pytorch",
    "timm",
    "zarr",
    "SQLAlchemy",
)
PROBE_TIMEOUT_S = 120
ENOUGH_DISK_GB = 5.0
_GB = 2**30


class Check(BaseModel):
    """One finding. `advice` does not stop the program from working; a `fault` does."""

    model_config = ConfigDict(frozen=True)
    name: str
    level: Level
    found: str
    remedy: str = ""


def run_checks() -> Iterator[Check]:
    """All checks, the quick ones first."""
    checks: tuple[Callable[[], Check], ...] = (
        check_versions,
        check_formats,
        check_weights,
        check_disk,
        check_plugin,
        check_torch,
        check_window,
    )
    return (check() for check in checks)


def check_versions() -> Check:
    """Python, the system, and the versions of what matters."""
    found, missing = [f"Python {platform.python_version()} on {platform.platform()}"], []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    if missing:
        remedy = f"pip install {' '.join(missing)}"
        return Check(name="versions", level="fault", found=f"{', '.join(missing)} not installed", remedy=remedy)
    return Check(name="versions", level="ok", found=", ".join(found))


def check_formats() -> Check:
    """The reader of dm3, dm4, emd, ser, bcf and hspy is an extra, because of its licence."""
    if importlib.util.find_spec("rsciio") is None:
        return Check(
            name="formats",
            level="advice",
            found="rosettasciio is not installed: dm3, dm4, emd, ser, bcf and hspy files cannot be opened",
            remedy="pip install 'napari-emtransfer[formats]'",
        )
    return Check(name="formats", level="ok", found=f"rosettasciio {version('rosettasciio')}")


def check_weights() -> Check:
    """Which pretrained encoders are on this machine: all that a place without network can start from."""
    from napari_emtransfer.core.nn import store

    names = sorted(entry.name for entry in store.all_entries() if entry.file_name and store.is_here(entry))
    if not names:
        return Check(
            name="weights",
            level="advice",
            found="no pretrained encoder on this machine; training from scratch works without",
            remedy="Be online once and run: emtransfer weights fetch imagenet:resnet18",
        )
    return Check(name="weights", level="ok", found=", ".join(names))


def check_disk() -> Check:
    """Room for predictions and checkpoints in the current folder."""
    free = shutil.disk_usage(Path.cwd()).free / _GB
    found = f"{free:.0f} GB free in {Path.cwd()}"
    if free < ENOUGH_DISK_GB:
        remedy = f"Free some; {ENOUGH_DISK_GB:.0f} GB are enough for most projects."
        return Check(name="disk", level="advice", found=found, remedy=remedy)
    return Check(name="disk", level="ok", found=found)


def check_plugin() -> Check:
    """Whether napari finds the plugin's manifest, and can read it."""
    from npe2 import PluginManifest

    try:
        manifest = PluginManifest.from_distribution("napari-emtransfer")
    except Exception as error:
        remedy = "Install again: pip install --force-reinstall --no-deps napari-emtransfer"
        return Check(name="plugin", level="fault", found=f"napari cannot load the plugin: {error}", remedy=remedy)
    return Check(name="plugin", level="ok", found=f"napari finds {manifest.name} {manifest.package_version}")


def check_torch() -> Check:
    """Import torch, list its devices with their free memory."""
    found, fault = _probe("probe_torch", dict(os.environ))
    if found is None:
        remedy = "Install torch and torchvision of one release: pip install --upgrade torch torchvision"
        return Check(name="torch", level="fault", found=f"torch does not work: {fault}", remedy=remedy)
    devices = "; ".join(_describe_device(device) for device in found["devices"])
    return Check(name="torch", level="ok", found=f"torch {found['torch']}: {devices}")


def _describe_device(device: dict[str, Any]) -> str:
    parts = [device["description"], "fast bf16" if device["bf16"] else "no fast bf16"]
    if device["memory_free_gb"] is not None:
        parts.insert(1, f"{device['memory_free_gb']:.1f} GB free")
    return ", ".join(parts)


def check_window() -> Check:
    """Open a window with an OpenGL canvas, on a virtual screen if need be."""
    with drawing_environment() as environment:
        found, fault = _probe("probe_window", environment)
    where = "" if has_display() else f", on {'Xvfb' if environment.get('DISPLAY') else 'no screen at all'}"
    if found is None:
        remedy = (
            "pip install 'napari-emtransfer[all]' brings Qt; on a bare Linux, make demo as root brings its libraries."
        )
        return Check(name="window", level="fault", found=f"no Qt window can be opened: {fault}", remedy=remedy)
    if not found["opengl"]:
        remedy = "Install a graphics driver, or xvfb and libgl1-mesa-dri for a virtual screen."
        return Check(name="window", level="fault", found=f"{found['qt']} has no OpenGL{where}", remedy=remedy)
    return Check(
        name="window", level="ok", found=f"{found['qt']}, OpenGL {found['opengl']}, {found['renderer']}{where}"
    )


def _probe(module: str, environment: dict[str, str]) -> tuple[dict[str, Any] | None, str]:
    """(What the child printed, why it failed)."""
    command = [sys.executable, "-m", f"napari_emtransfer.cli.{module}"]
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer within {PROBE_TIMEOUT_S} s"
    if child.returncode != 0:
        lines = child.stderr.strip().splitlines()
        return None, lines[-1] if lines else f"it ended with code {child.returncode}"
    return json.loads(child.stdout.strip().splitlines()[-1]), ""
