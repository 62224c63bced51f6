"""Data sets of synthetic micrographs: whole, or not there; and the program reads what it wrote."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_emtransfer.core.data.import_dataset import import_dataset
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.errors import LabelError, StorageError, SynthesisError
from napari_emtransfer.core.synth import dataset_files
from napari_emtransfer.core.synth.dataset import new_dataset, plan
from napari_emtransfer.core.synth.generate import realize, regenerate

SHAPE = (64, 80)


def write(folder, n=6, *, presets=("equiaxed", "columnar"), per_specimen=2, seed=0, kind="voronoi"):
    with new_dataset(folder, kind, seed) as writer:
        for one in plan(kind, presets, n=n, seed=seed, per_specimen=per_specimen, shape=SHAPE):
            writer.add(one, realize(one.recipe))
    return json.loads((folder / "dataset.json").read_text())


def test_everything_is_there_and_says_where_it_came_from(tmp_path):
    said = write(tmp_path / "set")
    stems = list(said["groups"])
    assert len(stems) == 6
    assert len(set(said["groups"].values())) == 3
    assert said["classes"] == {"1": "grain interior", "2": "grain boundary"}
    assert said["synthetic"] is True
    assert said["omits"].keys() == {"equiaxed", "columnar"}
    for stem in stems:
        image = tifffile.imread(tmp_path / "set" / "images" / f"{stem}.tif")
        made = regenerate(said["recipes"][stem])
        full = 255 if image.dtype == np.uint8 else 65535
        np.testing.assert_allclose(image / full, made.image, atol=0.5 / full + 1e-6)
        mask = np.asarray(Image.open(tmp_path / "set" / "masks" / f"{stem}.png"))
        np.testing.assert_array_equal(mask, made.mask)
        boundaries = np.asarray(Image.open(tmp_path / "set" / "boundaries" / f"{stem}.png"))
        np.testing.assert_array_equal(boundaries, 255 * made.boundaries)
        instances = tifffile.imread(tmp_path / "set" / "instances" / f"{stem}.tif")
        np.testing.assert_array_equal(instances, made.instances)
        assert said["pixel_size_nm"][stem] == made.pixel_size_nm
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_the_program_imports_what_it_wrote(tmp_path):
    said = write(tmp_path / "set", n=12)
    project = Project.create(tmp_path / "project")
    report = import_dataset(project, tmp_path / "set")
    assert len(report.micrographs) == len(report.labelled) == 12
    assert report.skipped == ()
    assert report.splits == ("synthetic",)
    record = project.record(report.micrographs[0])
    assert record.synthetic
    assert record.specimen == said["groups"][record.stem]
    assert record.pixel_size_nm == 25.0
    mask = np.asarray(Image.open(tmp_path / "set" / "masks" / f"{record.stem}.png"))
    np.testing.assert_array_equal(project.annotations.read(record.stem), mask)


def test_a_series_of_one_specimen_shares_the_material(tmp_path):
    said = write(tmp_path / "set", n=4, per_specimen=4, presets=("twins",))
    materials = [recipe["material"] for recipe in said["recipes"].values()]
    assert all(material == materials[0] for material in materials)
    assert len({recipe["seed"] for recipe in said["recipes"].values()}) == 4
    assert said["splits"] == {}  # one specimen: nothing could be held out


def test_classes_of_several_presets_are_told_apart_by_name(tmp_path):
    said = write(tmp_path / "set", n=2, per_specimen=1, presets=("equiaxed", "cuboidal"))
    names = said["classes"]
    assert len(set(names.values())) == len(names)
    for stem, recipe in said["recipes"].items():
        made = regenerate(recipe)
        mask = np.asarray(Image.open(tmp_path / "set" / "masks" / f"{stem}.png"))
        for value in np.unique(mask[mask > 0]):
            here = np.unique(made.mask[mask == value])
            assert [made.classes[k - 1] for k in here] == [names[str(value)]]


def test_splits_hold_out_specimens_whose_preset_is_trained_on(tmp_path):
    said = write(tmp_path / "set", n=22, per_specimen=1, presets=("equiaxed", "columnar"))
    split = said["splits"]["synthetic"]
    assert {part: len(stems) for part, stems in split.items()} == {"train": 14, "val": 4, "test": 4}
    assert sorted(stem for stems in split.values() for stem in stems) == sorted(said["groups"])
    presets = {part: {stem.split("-")[0] for stem in stems} for part, stems in split.items()}
    assert presets["test"] <= presets["train"]


def test_a_longer_plan_begins_like_a_shorter_one():
    short, long = (list(plan("voronoi", n=n, seed=3, shape=SHAPE)) for n in (5, 9))
    assert long[:5] == short


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, n=2)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 9
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


def test_names_of_files_are_possible_everywhere(tmp_path):
    said = write(tmp_path / "set", n=1, presets=("dose:75",), kind="hrtem")
    assert not any(character in stem for stem in said["groups"] for character in '<>:"/\\|?*')
    assert said["classes"] == {"1": "support", "2": "nanoparticle"}


# --- what can go wrong


def test_a_folder_in_use_is_refused_and_an_empty_one_taken(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(SynthesisError, match="not empty"):
        write(tmp_path / "full")
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"
    with pytest.raises(SynthesisError, match="is a file"):
        write(tmp_path / "full" / "thesis.txt")
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", n=1)
    assert (tmp_path / "empty" / "dataset.json").exists()


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    whole = dataset_files.write_atomic
    written = []

    def full(path, data):
        if len(written) == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        whole(path, data)

    monkeypatch.setattr(dataset_files, "write_atomic", full)
    with pytest.raises(StorageError, match="disk is full"):
        write(tmp_path / "set")
    assert len(written) == 6
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing(tmp_path):
    def interrupted():
        with new_dataset(tmp_path / "set", "voronoi", 0) as writer:
            for one in plan("voronoi", n=1, shape=SHAPE):
                writer.add(one, realize(one.recipe))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_given_back_when_nothing_comes_of_it(tmp_path):
    (tmp_path / "set").mkdir()
    with new_dataset(tmp_path / "set", "voronoi", 0):
        assert not (tmp_path / "set").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_a_folder_that_cannot_be_replaced_is_found_out_at_once(tmp_path, monkeypatch):
    def busy(path):
        raise OSError(errno.EBUSY, "Device or resource busy")

    (tmp_path / "set").mkdir()
    monkeypatch.setattr("pathlib.Path.rmdir", busy)
    with pytest.raises(StorageError, match="cannot be replaced"), new_dataset(tmp_path / "set", "voronoi", 0):
        pass


def test_the_folder_may_be_where_one_stands(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    said = write(Path("inner"), n=1)
    assert len(said["groups"]) == 1
    assert (tmp_path / "here" / "inner" / "dataset.json").is_file()


def test_nothing_made_is_no_data_set(tmp_path):
    with new_dataset(tmp_path / "set", "voronoi", 0):
        pass
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys
from pathlib import Path
from napari_emtransfer.core.synth.dataset import new_dataset, plan
from napari_emtransfer.core.synth.generate import realize
with new_dataset(Path(sys.argv[1]), "voronoi", 0) as writer:
    for one in plan("voronoi", ("equiaxed",), n=999, shape=(64, 64)):
        writer.add(one, realize(one.recipe))
        print(one.stem, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_killed_run_leaves_nothing_that_looks_whole_and_the_next_one_cleans_up(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "set")], stdout=subprocess.PIPE, text=True)
    for _ in range(3):
        assert child.stdout.readline()
    with pytest.raises(StorageError, match="Another program"), new_dataset(tmp_path / "set", "voronoi", 0):
        pass
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert [p.name for p in tmp_path.iterdir()] == ["set.partial"]
    with pytest.raises(LabelError):
        import_dataset(Project.create(tmp_path / "project"), tmp_path / "set.partial")
    with new_dataset(tmp_path / "set", "voronoi", 0) as writer:
        assert writer.found_partial
        for one in plan("voronoi", n=1, shape=SHAPE):
            writer.add(one, realize(one.recipe))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["project", "set"]
    assert len(list((tmp_path / "set" / "images").iterdir())) == 1
