"""Projects, files and classes through the session."""

import json
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image
from session_helpers import FakeRunner, Recorder, finish, make_project

from napari_emtransfer.core.data.project_records import MicrographRecord
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import LabelError, ProjectError, StorageError
from napari_emtransfer.session.notices import project_notices
from napari_emtransfer.session.session import Session
from napari_emtransfer.session.state import Readouts


def image(path, shape=(64, 64), seed=0):
    np.save(path, np.random.default_rng(seed).normal(size=shape).astype(np.float32))
    return path


def test_importing_the_session_brings_no_torch_no_napari_no_qt():
    code = (
        "import sys, napari_emtransfer.session.session; "
        "print({m.split('.')[0] for m in sys.modules} & {'torch', 'napari', 'qtpy', 'PyQt6'})"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_creating_and_closing_tell_the_views(tmp_path, runner):
    session = Session(runner)
    recorder = Recorder(session.signals)
    session.create_project(tmp_path / "p", ["matrix", "pore"])
    assert session.schema.names == ("matrix", "pore")
    assert recorder.names == ["project_changed", "queue_changed", "engine_changed"]
    recorder.clear()
    session.close_project()
    assert session.project is None
    assert session.records == ()
    assert recorder.names == ["queue_changed", "project_changed"]
    session.close_project()
    assert recorder.names[2:] == []
    session.close()


def test_a_project_that_does_not_open_leaves_the_open_one_alone(session, tmp_path):
    root = session.project.root
    with pytest.raises(ProjectError, match="does not exist"):
        session.open_project(tmp_path / "nowhere")
    assert session.project.root == root
    assert session.labelling.next_tile() is not None


def test_a_bad_file_never_stops_the_good_ones(session, tmp_path):
    torn = tmp_path / "torn.tif"
    torn.write_bytes(b"II*\0 and nothing more")
    photo = tmp_path / "photo.npy"
    np.save(photo, np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8))
    paths = [image(tmp_path / "a.npy", seed=11), torn, tmp_path / "gone.npy", photo, image(tmp_path / "b.npy", seed=12)]
    seen = []
    report = session.add_micrographs(paths, specimen="s", progress=lambda *step: seen.append(step))
    assert report.added == ("a", "b")
    assert [failure.path.name for failure in report.failures] == ["torn.tif", "gone.npy", "photo.npy"]
    assert all(failure.message and failure.message.endswith(".") for failure in report.failures)
    assert seen[-1] == (5, 5, "b.npy")
    finish(session)
    assert {r.stem: r.specimen for r in session.records}["b"] == "s"


def test_what_the_reader_noticed_is_reported(session, tmp_path):
    np.save(tmp_path / "flat.npy", np.full((32, 32), 7, np.float32))
    report = session.add_micrographs([tmp_path / "flat.npy"])
    assert report.added == ("flat",)
    assert len(report.notices) == 1
    assert report.notices[0].startswith("flat: ")


def test_files_added_on_another_thread_are_announced_by_apply(session, recorder, tmp_path):
    path = image(tmp_path / "late.npy", seed=9)
    thread = threading.Thread(target=lambda: session.add_micrographs([path]))
    thread.start()
    thread.join()
    assert recorder.names == []
    assert len(session.records) == 3
    finish(session)
    assert recorder.names == ["micrographs_changed"]
    assert [r.stem for r in session.records] == ["m0", "m1", "m2", "late"]
    assert session.labelling.grid("late").n_rows == 1


def test_importing_labels_shows_them_even_on_the_current_micrograph(session, recorder, tmp_path):
    original = session.records[0].path
    for name in ("images", "masks"):
        (tmp_path / "set" / name).mkdir(parents=True)
    shutil.copy(original, tmp_path / "set" / "images")
    Image.fromarray(np.full((128, 192), 5, np.uint8)).save(tmp_path / "set" / "masks" / "m0.png")
    (tmp_path / "set" / "dataset.json").write_text(json.dumps({"classes": {"5": "oxide"}}))
    session.show("m0")
    assert not session.labelling.annotation("m0").any()
    recorder.clear()
    report = session.import_dataset(tmp_path / "set")
    finish(session)
    assert report.labelled == ("m0",)
    assert recorder.names == ["schema_changed", "current_changed", "micrographs_changed"]
    assert session.schema.names == ("matrix", "pore", "oxide")
    assert (session.labelling.annotation("m0") == 3).all()


def test_the_sample_project_is_ready_to_label(tmp_path, runner):
    session = Session(runner)
    session.create_sample_project(tmp_path / "sample")
    assert len({r.specimen for r in session.records}) == 3
    assert len(session.schema) == 2
    assert session.notices() == []
    tile = session.labelling.next_tile()
    assert not session.labelling.annotation(tile.micrograph).any()
    session.close()


def test_classes_keep_their_colours_when_one_is_added(session, recorder):
    session.set_classes(["matrix", "pore"], ["#111111", "#222222"])
    session.set_classes(["matrix", "pore", "oxide"])
    colors = [c.color for c in session.schema.classes]
    assert colors[:2] == ["#111111", "#222222"]
    assert recorder.names == ["schema_changed", "schema_changed"]


def test_two_classes_of_one_name_are_refused(session):
    with pytest.raises(LabelError, match="share a name"):
        session.set_classes(["matrix", "matrix"])
    assert session.schema.names == ("matrix", "pore")


def test_a_project_whose_strokes_cannot_be_saved_stays_open(session, tmp_path, monkeypatch):
    other = make_project(tmp_path / "other")
    root = session.project.root
    monkeypatch.setattr(session.project.annotations, "write", lambda *_: 1 / 0)
    session.labelling.annotation("m0")[:] = 1
    session.labelling.mark_dirty(stem="m0")
    for leave in (session.close_project, lambda: session.open_project(other)):
        with pytest.raises(StorageError, match="stays open"):
            leave()
    assert session.project.root == root
    assert session.labelling.annotation("m0").all()
    monkeypatch.undo()
    session.open_project(other)
    session.open_project(root)
    assert session.labelling.annotation("m0").all()


def test_closing_empties_the_readouts(session):
    session.use_model(session.project.create_run("train", {}).id)
    session.labelling.next_tile()
    assert session.readouts.model is not None
    session.close_project()
    assert session.readouts == Readouts()


def test_a_painted_class_cannot_be_taken_away_even_before_its_strokes_are_saved(session):
    session.labelling.annotation("m0")[:5, :5] = 2
    session.labelling.mark_dirty(Window(y0=0, x0=0, y1=5, x1=5), stem="m0")
    with pytest.raises(LabelError, match="'pore' is painted in m0"):
        session.set_classes(["matrix"])


def test_a_correction_reaches_records_and_views(session, recorder):
    session.update_micrograph("m0", specimen="b", pixel_size_nm=2.5)
    assert (session.records[0].specimen, session.records[0].pixel_size_nm) == ("b", 2.5)
    assert recorder.names == ["micrographs_changed"]


def test_closing_saves_strokes_and_is_idempotent(tmp_path, runner):
    root = make_project(tmp_path / "p")
    session = Session(runner)
    session.open_project(root)
    session.labelling.annotation("m1")[:] = 2
    session.labelling.mark_dirty(stem="m1")
    session.close()
    session.close()
    again = Session(FakeRunner())
    again.open_project(root)
    assert (again.labelling.annotation("m1") == 2).all()
    again.close()


def record(stem, **changes):
    values = {"path": __file__, "checksum": stem, "height": 10, "width": 10, "pixel_size_nm": 1.0, "specimen": stem}
    return MicrographRecord(stem=stem, **(values | changes))


def codes(records, n_classes=2, working=None):
    return [notice.code for notice in project_notices(records, n_classes, working)]


def test_a_sound_project_has_no_notices():
    assert codes([record("a"), record("b", pixel_size_nm=1.02)]) == []
    assert codes([]) == []


def test_faults_of_a_project_are_pointed_out_with_their_micrographs():
    bar = Window(y0=8, x0=0, y1=10, x1=10)
    records = [
        record("a", specimen="s", path="/nowhere/a.tif"),
        record("b", specimen="s", pixel_size_nm=None, info_bar=bar),
        record("c", specimen="s", pixel_size_nm=4.0),
    ]
    found = {notice.code: notice for notice in project_notices(records, 1, 2.0)}
    assert set(found) == {
        "no_classes",
        "missing_file",
        "no_pixel_size",
        "mixed_pixel_sizes",
        "one_specimen",
        "info_bar",
    }
    assert found["missing_file"].stems == ("a",)
    assert found["no_pixel_size"].message.startswith("b has no pixel size")
    assert "from 1 to 4 nm" in found["mixed_pixel_sizes"].message
    assert "2 nm per pixel" in found["mixed_pixel_sizes"].hint
    assert "'s'" in found["one_specimen"].message


def test_many_names_are_cut_short():
    records = [record(f"m{i}", pixel_size_nm=None) for i in range(7)]
    (notice,) = project_notices(records, 2, None)
    assert notice.message.startswith("m0, m1, m2 and 4 more have no pixel size")
    assert len(notice.stems) == 7
