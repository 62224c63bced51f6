"""What a verb says: one JSON object on stdout, or lines for people; faults on stderr in one line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel


@dataclass(frozen=True)
class Outcome:
    """What a verb returns: `result` for programs, `text` for people, and the exit code."""

    result: Mapping[str, Any]
    text: str
    exit_code: int = 0


def jsonable(value: Any) -> Any:
    """Anything a verb reports → what JSON can hold; a number that is not finite becomes None."""
    match value:
        case BaseModel():
            return jsonable(value.model_dump(mode="json"))
        case Mapping():
            return {str(k): jsonable(v) for k, v in value.items()}
        case str() | bool() | int() | None:
            return value
        case float():
            return value if math.isfinite(value) else None
        case Path():
            return str(value)
        case Sequence() | set() | frozenset():
            return [jsonable(v) for v in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return jsonable(value.tolist())
    return str(value)


def print_outcome(outcome: Outcome, *, as_json: bool) -> None:
    """The last line of stdout with --json, else the text."""
    if as_json:
        typer.echo(json.dumps(jsonable(outcome.result), allow_nan=False))
    elif outcome.text:
        typer.echo(outcome.text)


def print_fault(message: str, hint: str, *, as_json: bool) -> None:
    """One line on stderr; with --json the same as an object on stdout."""
    line = " ".join(f"error: {message} {hint}".split())
    typer.echo(line, err=True)
    if as_json:
        typer.echo(json.dumps({"error": message, "hint": hint}))


def format_iou(value: float | None) -> str:
    """IoU for a reader; a class absent from label and prediction has none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def describe_ground(ground: str) -> str:
    """What keeps the measured pixels apart from the training data, for a reader."""
    return f"held out by {ground}" if ground in ("specimen", "micrograph", "block") else f"on {ground}, not held out"


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words → lines with aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
