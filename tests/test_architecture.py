"""The floors hold: import direction, no torch in the window or the command line, short files and functions."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "napari_emtransfer"
SOURCES = sorted(PACKAGE.rglob("*.py"))
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
SHORT_FUNCTION_LINES = 25
SHORT_FUNCTIONS_AT_LEAST = 0.85
HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "segmentation_models_pytorch",
    "lightning_fabric",
    "albumentations",
    "rsciio",
    "abtem",
}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {code}", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture
def copied_package(tmp_path):
    pytest.importorskip("importlinter")
    shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_import_contracts_are_kept(copied_package):
    result = lint_imports(copied_package)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("core/data/tiles.py", "napari_emtransfer.worker.protocol"),
        ("session/state.py", "torch"),
    ],
)
def test_a_forbidden_import_breaks_a_contract(copied_package, module, forbidden):
    path = copied_package / PACKAGE.name / module
    path.write_text(path.read_text(encoding="utf-8") + f"\nimport {forbidden}\n", encoding="utf-8")
    result = lint_imports(copied_package)
    assert result.returncode == 1
    assert "BROKEN" in result.stdout
    assert forbidden in result.stdout


@pytest.mark.parametrize("module", ["napari_emtransfer.cli", "napari_emtransfer.gui.dock", "napari_emtransfer.session"])
def test_start_up_imports_no_torch(module):
    if module.startswith("napari_emtransfer.gui"):
        pytest.importorskip("qtpy.QtCore")
    code = f"import sys, {module}; found = {HEAVY} & set(sys.modules); sys.exit(', '.join(found) if found else 0)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


def test_the_command_line_starts_without_qt_and_napari():
    code = "import sys, napari_emtransfer.cli; sys.exit(any(m in sys.modules for m in ('napari', 'qtpy', 'vispy')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_files_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE_LINES
    long = {name: n for name, n in function_lengths(text) if n > MAX_FUNCTION_LINES}
    assert not long


def test_most_functions_are_very_short():
    lengths = [n for path in SOURCES for _, n in function_lengths(path.read_text(encoding="utf-8"))]
    assert sum(n <= SHORT_FUNCTION_LINES for n in lengths) / len(lengths) >= SHORT_FUNCTIONS_AT_LEAST


def function_lengths(text: str):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.end_lineno - node.lineno + 1


def test_nothing_prints():
    """Stdout belongs to the event lines of the worker and the one JSON object of the command line."""
    calls = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not calls
