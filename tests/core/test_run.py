"""Runs: their records, frozen labels, events that survive a kill, and what latest and best mean."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.project_process import is_alive, process_start, this_process
from napari_emtransfer.core.data.split import Split, whole
from napari_emtransfer.core.errors import ProjectError
from napari_emtransfer.core.events import NoticePosted, RunFinished


@pytest.fixture
def project(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (80, 90), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    with Project.create(tmp_path / "p", classes=["m", "q"]) as made:
        made.add_micrograph(tmp_path / "a.png")
        yield made


def test_a_run_keeps_what_it_was_given(project):
    run = project.create_run("train", {"iterations": 3}, parent="0000-train")
    run.update("running", device="cpu")
    run.update("finished", mean_iou=0.5, iterations=3, seconds=1.5, message="done")
    record = project.run(run.id).record
    assert (record.status, record.mean_iou, record.iterations, record.parent) == ("finished", 0.5, 3, "0000-train")
    assert project.run(run.id).config == {"iterations": 3}
    split = Split(name="s", train=whole(["a"]), validation=whole(["a"]), ground="block", note="n")
    run.write_split(split)
    run.write_result({"mean_iou": 0.5})
    assert project.run(run.id).split() == split
    assert project.run(run.id).result() == {"mean_iou": 0.5}
    with pytest.raises(ProjectError, match=r"no result\.json"):
        project.create_run("train", {}).result()


def test_labels_are_frozen(project):
    project.annotations.write("a", None, np.ones((80, 90), np.uint8))
    run = project.create_run("train", {})
    run.snapshot_labels(["a"])
    project.annotations.write("a", None, np.full((80, 90), 2, np.uint8))
    assert project.run(run.id).labels.read("a").max() == 1


def test_events_survive_a_torn_line(project):
    run = project.create_run("train", {})
    run.append_event(NoticePosted(run_id=run.id, message="before – µm"))
    with (run.root / "events.jsonl").open("ab") as file:
        file.write(b'{"event":"Iterat')
    run.append_event(RunFinished(run_id=run.id))
    assert [type(event) for event in run.events()] == [NoticePosted, RunFinished]


def test_runs_are_found_by_prefix_latest_and_best(project):
    runs = [project.create_run("train", {}) for _ in range(3)]
    with pytest.raises(ProjectError, match="no trained model"):
        project.run("latest")
    for run, iou in zip(runs[:2], (0.9, 0.4), strict=True):
        run.checkpoint_path("best").write_bytes(b"x")
        run.update("finished", mean_iou=iou)
    assert project.run("best").id == runs[0].id
    assert project.run("latest").id == runs[1].id  # the third has no model to use
    assert project.run("0003").id == runs[2].id
    with pytest.raises(ProjectError, match="ambiguous"):
        project.run("000")
    with pytest.raises(ProjectError, match="no run 'x'") as fault:
        project.run("x")
    assert "0003-train" in fault.value.hint


DYING = """
import sys
from napari_emtransfer.core.data.project import Project
run = Project.open(sys.argv[1]).create_run("train", {})
run.update("running")
print(run.id, flush=True)
sys.stdin.read()
"""


def test_a_run_whose_process_is_gone_is_interrupted(project):
    mine = project.create_run("train", {})
    mine.update("running")
    command = [sys.executable, "-c", DYING, str(project.root)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    run_id = child.stdout.readline().strip()
    with Project.open(project.root) as again:
        assert again.run(run_id).record.status == "running"
    child.kill()
    child.communicate()
    with Project.open(project.root) as again:
        assert again.run(run_id).record.status == "interrupted"
        assert again.run(mine.id).record.status == "running"


def test_a_process_number_used_again_is_another_process():
    pid, started = this_process()
    assert is_alive(pid, started)
    assert not is_alive(pid, started + "0")
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert process_start(child.pid) is None


def test_the_model_of_a_run_with_folds_is_that_of_its_folds(project):
    run = project.create_run("train", {})
    assert (run.model_paths(), run.starting_point(), run.is_resumable) == ([], None, False)
    for fold, name in ((0, "best"), (1, "best"), (2, "last"), (10, "best")):
        run.fold_folder(fold).mkdir()
        (run.fold_folder(fold) / f"{name}.safetensors").write_bytes(b"x")
    assert [p.parent.name for p in run.model_paths()] == ["fold-0", "fold-1", "fold-2", "fold-10"]
    (run.fold_folder(1) / "result.json").write_text('{"mean_iou": 0.7}')
    (run.fold_folder(10) / "result.json").write_text('{"mean_iou": null}')
    assert list(run.fold_folders()) == [0, 1, 2, 10]
    assert [p.parent.name for p in run.model_paths()] == ["fold-1", "fold-10"]  # the finished ones
    assert run.starting_point() == run.fold_folder(1) / "best.safetensors"
    assert run.is_resumable
    assert run.has_checkpoint


def test_the_last_checkpoint_is_the_model_until_there_is_a_best(project):
    run = project.create_run("train", {})
    run.checkpoint_path("last").write_bytes(b"x")
    assert (run.model_paths(), run.starting_point()) == ([run.checkpoint_path("last")], None)
    run.checkpoint_path("best").write_bytes(b"x")
    assert run.model_paths() == [run.checkpoint_path("best")] == [run.starting_point()]
