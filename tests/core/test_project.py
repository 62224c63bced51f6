"""The project folder: what it keeps, what it refuses, and how moved files are found again."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import text

from napari_emtransfer.core.data import project_database, project_schema
from napari_emtransfer.core.data.labels import LabelSchema
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.readers import read_micrograph
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import LabelError, ProjectError, UnreadableFileError


def image(path, seed=0, shape=(80, 90)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def project(tmp_path):
    with Project.create(tmp_path / "work" / "p", classes=["matrix", "pore"], pixel_size_nm=2.0) as made:
        yield made


def test_everything_is_there_after_reopening(project, tmp_path):
    project.add_micrograph(image(tmp_path / "x" / "a.png"), specimen="S1", domain="15 kV", pixel_size_nm=4.0)
    project.set_tile_state("a", 0, 0, "unsure")
    project.set_named_splits({"one": {"train": ["a"], "odd part": ["a"]}})
    project.close()
    with Project.open(project.root) as again:
        record = again.record("a")
        assert (record.specimen, record.domain, record.pixel_size_nm, record.shape) == ("S1", "15 kV", 4.0, (80, 90))
        assert again.settings.working_pixel_size_nm == 2.0
        assert again.scale("a") == 2.0
        assert again.working_view("a").shape == (160, 180)
        assert again.schema.names == ("matrix", "pore")
        assert again.tile_states("a") == {(0, 0): "unsure"}
        assert again.named_splits() == {"one": {"train": ["a"], "odd part": ["a"]}}
        assert again.labelled() == {"a": 0.0}


def test_tile_states_belong_to_their_grid(project, tmp_path):
    project.add_micrograph(image(tmp_path / "a.png", shape=(600, 600)))
    project.set_tile_state("a", 1, 1, "done")
    project.update_settings(tile_size_px=100)
    assert project.tile_states("a") == {}
    project.update_settings(tile_size_px=256)
    assert project.tile_states("a") == {(1, 1): "done"}


def test_what_is_no_project_is_said(tmp_path):
    with pytest.raises(ProjectError, match="does not exist"):
        Project.open(tmp_path / "none")
    with pytest.raises(ProjectError, match=r"has no project\.sqlite") as fault:
        Project.open(tmp_path)
    assert "emtransfer init" in fault.value.hint
    (tmp_path / "project.sqlite").write_bytes(b"this is text, not a database" * 100)
    with pytest.raises(ProjectError, match="no readable project database"):
        Project.open(tmp_path)


def test_create_leaves_other_folders_alone(project, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with pytest.raises(ProjectError, match="is not empty and no project"):
        Project.create(tmp_path / "full")
    assert [f.name for f in (tmp_path / "full").iterdir()] == ["thesis.txt"]
    with pytest.raises(ProjectError, match="holds a project already"):
        Project.create(project.root)
    with pytest.raises(ProjectError, match="tile_size_px = 3"):
        Project.create(tmp_path / "new", tile_size_px=3)
    with pytest.raises(LabelError, match="share a name"):
        Project.create(tmp_path / "new", classes=["a", "a"])
    assert not (tmp_path / "new").exists()


def test_a_newer_project_is_refused_and_untouched(project):
    project.close()
    with closing(sqlite3.connect(project.root / "project.sqlite")) as database:
        database.execute("INSERT INTO schema_version VALUES (99)")
        database.commit()
    with pytest.raises(ProjectError, match=r"newer version of napari-emtransfer \(schema 99"):
        Project.open(project.root)


def test_an_older_project_is_migrated_once(project, monkeypatch):
    project.close()

    def add_column(connection):
        connection.execute(text("ALTER TABLE runs ADD COLUMN colour VARCHAR"))

    steps = (*project_schema.MIGRATIONS, add_column)
    for module in (project_schema, project_database):
        monkeypatch.setattr(module, "MIGRATIONS", steps)
    for _ in range(2):
        Project.open(project.root).close()
    with closing(sqlite3.connect(project.root / "project.sqlite")) as database:
        assert [row[0] for row in database.execute("SELECT version FROM schema_version")] == [*range(1, len(steps) + 1)]
        assert "colour" in [row[1] for row in database.execute("PRAGMA table_info(runs)")]


def test_a_project_from_before_synthetic_micrographs_has_none(project, tmp_path):
    project.add_micrograph(image(tmp_path / "old.png"))
    project.close()
    with closing(sqlite3.connect(project.root / "project.sqlite")) as database:
        database.execute("ALTER TABLE micrographs DROP COLUMN synthetic")
        database.execute("DELETE FROM schema_version WHERE version > 1")
        database.commit()
    with Project.open(project.root) as again:
        assert [record.synthetic for record in again.micrographs()] == [False]
        made = again.register(read_micrograph(image(tmp_path / "new.png", seed=1)), synthetic=True)
        assert again.record(made.stem).synthetic


def test_where_write_ahead_logs_fail_a_plain_journal_is_used(project, monkeypatch):
    assert _journal(project) == "wal"
    project.close()

    class NoSharedMemory(sqlite3.Connection):
        def execute(self, statement, *values):
            if statement == "PRAGMA journal_mode = WAL":
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(statement, *values)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, factory=NoSharedMemory, **k))
    with Project.open(project.root) as again:
        assert _journal(again) == "delete"
        again.update_settings(tile_size_px=128)


def _journal(project):
    with closing(sqlite3.connect(project.root / "project.sqlite")) as database:
        return database.execute("PRAGMA journal_mode").fetchone()[0]


def test_the_same_file_twice_is_refused_and_the_same_name_is_numbered(project, tmp_path):
    project.add_micrograph(image(tmp_path / "x" / "a.png", seed=0))
    shutil.copy(tmp_path / "x" / "a.png", tmp_path / "copy.png")
    with pytest.raises(ProjectError, match="in the project already, as 'a'"):
        project.add_micrograph(tmp_path / "copy.png")
    second = project.add_micrograph(image(tmp_path / "y" / "A.png", seed=1))
    assert (second.stem, second.specimen) == ("A (2)", "A (2)")
    assert [r.stem for r in project.micrographs()] == ["a", "A (2)"]
    with pytest.raises(UnreadableFileError):
        project.add_micrograph(tmp_path / "missing.png")


def test_whoever_reads_a_new_micrograph_finds_its_labels(tmp_path, monkeypatch):
    image = tmp_path / "a.png"
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(image)
    seen = []
    with Project.create(tmp_path / "p", classes=("a", "b")) as project, Project.open(tmp_path / "p") as other:
        create = project.annotations.create

        def watched(stem, shape):
            seen.append([record.stem for record in other.micrographs()])
            create(stem, shape)

        monkeypatch.setattr(project.annotations, "create", watched)
        project.add_micrograph(image)
        assert seen == [[]]
        assert [other.annotations.shape(record.stem) for record in other.micrographs()] == [(64, 64)]


def test_records_are_changed_and_removed(project, tmp_path):
    project.add_micrograph(image(tmp_path / "a.png"))
    bar = Window(y0=70, x0=0, y1=80, x1=90)
    project.update_micrograph("a", specimen="S", pixel_size_nm=3.5, info_bar=bar)
    assert (project.record("a").specimen, project.record("a").info_bar) == ("S", bar)
    with pytest.raises(ProjectError, match="pixel_size_nm = -1"):
        project.update_micrograph("a", pixel_size_nm=-1)
    with pytest.raises(ProjectError, match="checksum of a micrograph cannot be changed"):
        project.update_micrograph("a", checksum="x")
    project.set_tile_state("a", 0, 0, "done")
    project.remove_micrograph("a")
    assert project.micrographs() == []
    assert (tmp_path / "a.png").exists()
    with pytest.raises(ProjectError, match="has no micrograph 'a'"):
        project.record("a")
    assert project.add_micrograph(tmp_path / "a.png").stem == "a"
    assert project.tile_states("a") == {}
    with pytest.raises(ProjectError, match="has no micrograph 'zz'"):
        project.set_named_splits({"s": {"train": ["zz"]}})


def test_painted_classes_are_not_lost(project, tmp_path):
    project.add_micrograph(image(tmp_path / "a.png"))
    project.annotations.write("a", None, np.full((80, 90), 2, np.uint8))
    with pytest.raises(LabelError, match="'pore' is painted in a"):
        project.set_schema(LabelSchema.from_names(["matrix"]))
    with pytest.raises(LabelError, match="'pore' is painted in a"):
        project.set_schema(LabelSchema.from_names(["pore", "matrix"]))
    project.set_schema(LabelSchema.from_names(["matrix", "void", "crack"]))
    assert project.class_counts("a").tolist() == [0, 0, 7200, 0]


@pytest.mark.parametrize("place", ["work/p", "work/p/images", "work/elsewhere", "data/deeper"])
def test_a_moved_file_is_found_by_its_content(project, tmp_path, place):
    path = image(tmp_path / "data" / "a.png")
    image(tmp_path / "data" / "b.png", seed=1)
    project.add_micrograph(path)
    target = tmp_path / place / "renamed.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    image(target.with_name("a.png"), seed=2)  # the old name, another image
    assert project.open_micrograph("a").path == target
    assert project.record("a").path == target


def test_files_moved_together_follow_the_first(project, tmp_path):
    for seed, name in enumerate("ab"):
        project.add_micrograph(image(tmp_path / "data" / f"{name}.png", seed=seed))
    far = tmp_path / "far" / "away" / "from" / "here"
    far.mkdir(parents=True)
    for name in "ab":
        (tmp_path / "data" / f"{name}.png").rename(far / f"{name}.png")
    with pytest.raises(ProjectError, match=r"no longer at '.*data.a\.png'") as fault:
        project.open_micrograph("a")
    assert "Locate" in fault.value.hint
    with pytest.raises(ProjectError, match="its content differs"):
        project.relocate("a", far / "b.png")
    project.relocate("a", far / "a.png")
    assert project.open_micrograph("b").path == far / "b.png"


def test_a_project_moved_with_its_images_opens_them(project, tmp_path):
    project.add_micrograph(image(tmp_path / "work" / "images" / "a.png"))
    project.close()
    (tmp_path / "work").rename(tmp_path / "moved")
    with Project.open(tmp_path / "moved" / "p") as again:
        assert again.record("a").path == tmp_path / "moved" / "images" / "a.png"
        assert again.open_micrograph("a").shape == (80, 90)
