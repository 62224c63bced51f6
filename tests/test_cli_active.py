"""`emtransfer rank` and `emtransfer simulate`: what they print, and what they say to someone who got it wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from skimage.io import imsave

from napari_emtransfer.cli import main
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.worker import rank_handler

QUICK = ("--device", "cpu", "--threads", "1")


@pytest.fixture
def emtransfer(capsys):
    """Run one verb in this process → (exit code, JSON of the last line or None, stdout, stderr)."""

    def run(*words):
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return left.value.code, json.loads(out) if "--json" in words else None, out, err

    rank_handler.forget()
    return run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "set"
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for i in range(3):
        mask = np.ones((64, 64), np.uint8)
        for y, x in rng.integers(4, 44, (3, 2)):
            mask[y : y + 14, x : x + 14] = 2
        image = 60 + 100 * (mask == 2) + rng.normal(0, 10, mask.shape)
        tifffile.imwrite(folder / "images" / f"m{i}.tif", image.clip(0, 255).astype(np.uint8))
        imsave(folder / "masks" / f"m{i}.png", mask, check_contrast=False)
    (folder / "dataset.json").write_text(json.dumps({"classes": {"1": "matrix", "2": "square"}}))
    return folder


def test_rank_queues_tiles_and_says_why(emtransfer, tmp_path, dataset):
    project = tmp_path / "project"
    emtransfer("init", project, "--class", "matrix", "--class", "square", "--tile-size", "32")
    emtransfer("add", project, dataset / "images")
    code, result, _, _ = emtransfer("rank", project, "-n", 5, *QUICK, "--json")
    assert code == 0
    assert len(result["tiles"]) == 5
    assert set(result["tiles"][0]) >= {"micrograph", "y", "x", "score", "reason"}
    assert sum(tile["control"] for tile in result["tiles"]) == 1
    assert (result["acquisition"], result["n_tiles"], result["n_left"]) == ("typiclust", 12, 0)
    with Project.open(project) as opened:
        assert len(opened.active.queue(("waiting",))) == 5

    code, _, out, _ = emtransfer("rank", project, "--acquisition", "random", "-n", 4, *QUICK)
    assert code == 0
    assert out.startswith("micrograph")
    assert "random control" in out
    assert "12 of 12 tiles" in out


def test_rank_refuses_what_is_not_there(emtransfer, tmp_path):
    emtransfer("init", tmp_path / "p", "--class", "a", "--class", "b")
    code, result, _, _ = emtransfer("rank", tmp_path / "p", "--json")
    assert code == 1
    assert "no micrograph" in result["error"]
    code, _, _, err = emtransfer("rank", tmp_path / "p", "--run", "best")
    assert code == 1
    assert "no trained model" in err
    assert emtransfer("rank", tmp_path / "p", "--acquisition", "guess")[0] == 2
    assert emtransfer("rank", tmp_path / "p", "-n", 0)[0] == 2


def test_simulate_prints_curves_and_writes_a_table(emtransfer, tmp_path, dataset):
    options = ("--rounds", 2, "--query-size", 1, "--tile-size", 32, "--seeds", 1, *QUICK)
    table = tmp_path / "curves.csv"
    code, result, _, _ = emtransfer("simulate", dataset, *options, "--csv", table, "--json")
    assert code == 0
    assert set(result["curves"]) == {"default", "random"}
    assert set(result["tiles_to_target"]) == {"default", "random"}
    assert result["csv"] == str(table)
    lines = table.read_text().splitlines()
    assert lines[0] == "acquisition,seed,n_tiles,mean_iou"
    assert len(lines) == 1 + 2 * 2
    assert lines[1].startswith("default,0,1,")

    code, _, out, _ = emtransfer("simulate", dataset, "--acquisition", "random", *options)
    assert code == 0
    assert out.splitlines()[0].split() == ["tiles", "1", "2"]
    assert "held-out specimens" in out


def test_simulate_refuses_what_it_cannot_play(emtransfer, tmp_path, dataset):
    code, _, _, err = emtransfer("simulate", dataset, "--acquisition", "guess")
    assert code == 2
    assert "clasp" in err
    code, result, _, _ = emtransfer("simulate", tmp_path / "nowhere", "--json")
    assert code == 1
    assert result["hint"]
    code, _, _, err = emtransfer("simulate", dataset, "--split", "first")
    assert code == 1
    assert "no split 'first'" in err
