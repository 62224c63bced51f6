"""Somewhere to draw when there is no screen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SCREEN = "1600x1100x24"


def has_display() -> bool:
    """Whether a window could be seen; Windows and macOS always have a screen to draw on."""
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@contextmanager
def drawing_environment() -> Iterator[dict[str, str]]:
    """Environment for a child that opens windows: the screen, else an Xvfb of its own, else off screen."""
    environment = dict(os.environ)
    if has_display() or "QT_QPA_PLATFORM" in environment:
        yield environment
    elif (xvfb := shutil.which("Xvfb")) is not None:
        with _xvfb(xvfb) as display:
            # xcb: a QT_QPA_PLATFORM that suits the user's session would not draw on Xvfb.
            yield environment | {"DISPLAY": display, "QT_QPA_PLATFORM": "xcb"}
    else:
        yield environment | {"QT_QPA_PLATFORM": "offscreen"}


@contextmanager
def _xvfb(program: str) -> Iterator[str]:
    # -displayfd makes the server choose a free number itself and say it once it is ready.
    command = [program, "-displayfd", "1", "-screen", "0", SCREEN, "-nolisten", "tcp"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None  # noqa: S101 - for the type checker: stdout is a pipe
        yield f":{server.stdout.readline().strip()}"
    finally:
        server.terminate()
        server.wait(timeout=10)
