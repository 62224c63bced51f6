"""Verbs for the first five minutes: doctor and demo."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_emtransfer.cli.display import drawing_environment, has_display
from napari_emtransfer.cli.doctor import Check, run_checks
from napari_emtransfer.cli.output import Outcome, format_iou
from napari_emtransfer.cli.verb import add_verb
from napari_emtransfer.core.errors import EMTransferError

PLAYER = "napari_emtransfer.gui.demo_player"
_MARKS = {"ok": "ok    ", "advice": "advice", "fault": "FAULT "}


def register(app: typer.Typer) -> None:
    """Add this module's verbs."""
    add_verb(app, "doctor", doctor)
    add_verb(app, "demo", demo)


def doctor() -> Outcome:
    """Check versions, devices, Qt and OpenGL, and say what to do about each fault."""
    checks = list(run_checks())
    ok = all(check.level != "fault" for check in checks)
    text = "\n".join(_describe(check) for check in checks)
    return Outcome({"ok": ok, "checks": checks}, text, exit_code=0 if ok else 1)


def _describe(check: Check) -> str:
    line = f"{_MARKS[check.level]}  {check.name}: {check.found}"
    return f"{line}\n        → {check.remedy}" if check.remedy else line


def demo(
    project: Annotated[
        Path | None,
        typer.Argument(metavar="[PROJECT]", help="Folder of the sample project. Default: ./emtransfer-demo."),
    ] = None,
    headless: Annotated[bool, typer.Option("--headless", help="Play a session and save screenshots.")] = False,
    out: Annotated[Path, typer.Option(help="With --headless: the folder of the screenshots.")] = Path("demo-out"),
) -> Outcome:
    """Make the sample project and open napari on it, ready to label."""
    if headless:
        return _play(project, out)
    if not has_display():
        raise EMTransferError("There is no screen to open napari on.", "With --headless a session is played unseen.")
    project = project or Path("emtransfer-demo")
    _run_player([str(project)])
    return Outcome({"project": project.resolve()}, f"The sample project is in {project}.")


def _play(project: Path | None, out: Path) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        result = _run_player([str(project or Path(folder) / "sample project"), "--headless", "--out", str(out)])
    shots = "\n".join(result["screenshots"])
    measured = f"mean IoU {format_iou(result['mean_iou'])} on {result['ground']}"
    text = f"Played a session in {result['seconds']:.0f} s; {measured}.\n{shots}"
    return Outcome(result, text)


def _run_player(arguments: list[str]) -> dict[str, Any]:
    """The window lives in a process of its own: this one never imports Qt."""
    with drawing_environment() as environment:
        child = subprocess.run(
            [sys.executable, "-m", PLAYER, *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=False
        )
    lines = child.stdout.strip().splitlines()
    result: dict[str, Any] = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    if "error" in result:
        raise EMTransferError(result["error"], result["hint"])
    if child.returncode != 0 or not result:
        raise EMTransferError(f"The window ended with code {child.returncode}.", "emtransfer doctor may know why.")
    return result
