"""`emtransfer synthesize`: what it makes, what it says, and that `import` reads it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile

from napari_emtransfer.cli import main
from napari_emtransfer.cli.synthesize import parse_shape
from napari_emtransfer.core.errors import SynthesisError

SMALL = ("--shape", "64x96", "--preset", "equiaxed")


@pytest.fixture
def emtransfer(capsys):
    """Run one verb in this process → (exit code, JSON of the last line or None, stdout, stderr)."""

    def run(*words):
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return left.value.code, json.loads(out) if "--json" in words else None, out, err

    return run


def test_a_data_set_is_made_and_imported(emtransfer, tmp_path):
    code, result, _, _ = emtransfer("synthesize", "voronoi", tmp_path / "set", "-n", 3, *SMALL, "--json")
    assert code == 0
    assert len(result["images"]) == 3
    assert result["shape"] == [64, 96]
    assert result["dataset"] == str(tmp_path / "set")
    assert emtransfer("init", tmp_path / "project")[0] == 0
    code, imported, _, _ = emtransfer("import", tmp_path / "project", tmp_path / "set", "--json")
    assert code == 0
    assert len(imported["micrographs"]) == 3
    assert imported["classes"] == result["classes"]
    assert imported["skipped"] == []


def test_the_text_says_what_to_do_next_and_what_is_missing(emtransfer, tmp_path):
    code, _, out, _ = emtransfer("synthesize", "hrtem", tmp_path / "set", "-n", 1, "--shape", 64)
    assert code == 0
    assert "1 micrograph(s) of 1 specimen(s)" in out
    assert "They omit:" in out
    assert f"emtransfer import PROJECT {tmp_path / 'set'}" in out


@pytest.mark.parametrize(("generator", "name"), [("voronoi", "equiaxed"), ("hrtem", "haadf")])
def test_presets_are_listed(emtransfer, generator, name):
    code, result, _, _ = emtransfer("synthesize", generator, "--list", "--json")
    assert code == 0
    assert name in result["presets"]
    assert all(sentence for sentence in result["presets"].values())
    assert name in emtransfer("synthesize", generator, "--list")[2]


def test_seed_and_pixel_size_are_taken(emtransfer, tmp_path):
    def first(name, *more):
        assert emtransfer("synthesize", "voronoi", tmp_path / name, "-n", 1, *SMALL, *more)[0] == 0
        return tifffile.imread(next((tmp_path / name / "images").iterdir()))

    one, same, other = first("a", "--seed", 4), first("b", "--seed", 4), first("c", "--seed", 5)
    np.testing.assert_array_equal(one, same)
    assert one.dtype != other.dtype or (one != other).any()
    first("d", "--pixel-size-nm", 3)
    assert set(json.loads((tmp_path / "d" / "dataset.json").read_text())["pixel_size_nm"].values()) == {3.0}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("voronoi", "{full}"), 1, "not empty"),
        (("voronoi", "{new}", "--preset", "bubbles"), 1, "There are equiaxed"),
        (("voronoi", "{new}", "--shape", "big"), 1, "'big'"),
        (("voronoi", "{new}", "--shape", "16"), 1, "16 × 16"),
        (("voronoi", "{new}", "--flat-field", "{nowhere}"), 1, "nowhere.tif"),
        (("voronoi", "{new}", "--pixel-size-nm", "-3"), 1, "--pixel-size-nm is -3"),
        (("voronoi", "{new}", "-n", "0"), 1, "--n is 0"),
        (("voronoi",), 2, "OUT"),
        (("salt", "{new}"), 2, "salt"),
    ],
)
def test_faults_are_one_line(emtransfer, tmp_path, words, code, said):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    places = {"full": tmp_path / "full", "new": tmp_path / "new", "nowhere": tmp_path / "nowhere.tif"}
    left, _, out, err = emtransfer("synthesize", *(word.format(**places) for word in words))
    assert left == code
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_keeps_what_is_complete(tmp_path):
    command = [sys.executable, "-c", "from napari_emtransfer.cli import main; main()", "synthesize", "voronoi"]
    child = subprocess.Popen(
        [*command, str(tmp_path / "set"), "-n", "100000", *SMALL, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    images = tmp_path / "set.partial" / "images"
    deadline = time.monotonic() + 240
    while not (images.is_dir() and len(list(images.iterdir())) >= 2):
        assert child.poll() is None, child.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGINT)
    out, _ = child.communicate(timeout=240)
    assert child.returncode == 130
    result = json.loads(out)
    assert result["cancelled"] is True
    assert len(result["images"]) >= 2
    assert len(json.loads((tmp_path / "set" / "dataset.json").read_text())["groups"]) == len(result["images"])


def test_help_names_everything(emtransfer):
    out = emtransfer("synthesize", "--help")[2]
    for word in ("--preset", "--shape", "--seed", "--pixel-size-nm", "--flat-field", "--list", "--per-specimen"):
        assert word in out


@pytest.mark.parametrize(("text", "shape"), [("512", (512, 512)), ("384x512", (384, 512)), ("64×80", (64, 80))])
def test_shapes(text, shape):
    assert parse_shape(text) == shape


@pytest.mark.parametrize("text", ["", "x", "1x2x3", "-5", "12.5", "5²"])
def test_what_is_no_shape(text):
    with pytest.raises(SynthesisError, match="384x512"):
        parse_shape(text)
