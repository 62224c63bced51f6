"""Results of a long benchmark on disk, so that it can be run in pieces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks._common import say


class Rows:
    """Results on disk, one JSON object per line, known by cell, seed and arm."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.all = [json.loads(line) for line in lines if line.strip()]

    def find(self, cell: str, seed: int, arm: str) -> dict[str, Any] | None:
        """The row, if it is there."""
        wanted = (cell, seed, arm)
        return next((row for row in self.all if (row["cell"], row["seed"], row["arm"]) == wanted), None)

    def add(self, **row: Any) -> dict[str, Any]:
        """Append at once."""
        self.all.append(row)
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        say("  " + ", ".join(f"{k} {v}" for k, v in row.items()))
        return row
