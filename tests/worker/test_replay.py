"""Runs repeated from what they wrote down: identical on the CPU, refused where something has changed."""

import json
import shutil

import pytest
import tifffile
import torch
from safetensors.torch import load_file
from worker_projects import COMPUTE, QUICK, make_project, micrograph, new_run

from napari_emtransfer.cli import main
from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.errors import EMTransferError, ProjectError, WeightsError
from napari_emtransfer.core.events import RunFailed, RunFinished
from napari_emtransfer.worker import card, provenance
from napari_emtransfer.worker.handlers import RunControl, handle
from napari_emtransfer.worker.protocol import TrainRequest
from napari_emtransfer.worker.provenance import provenance_of
from napari_emtransfer.worker.replay import replay_request

CONFIG = QUICK.model_copy(update={"strategy": "auto", "augment": "basic", "batch_size": 3})


def do(request) -> RunFinished:
    events = []
    handle(request, events.append, RunControl())
    assert isinstance(events[-1], RunFinished), events[-1]
    return events[-1]


def train(root, config: TrainConfig) -> str:
    run_id = new_run(root, config)
    do(TrainRequest(run_id=run_id, project=root, config=config))
    return run_id


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project with two runs: one from scratch, one that went on from its best and adapted its norms."""
    root = make_project(tmp_path_factory.mktemp("replayed"))
    first = train(root, CONFIG)
    second = train(root, CONFIG.model_copy(update={"weights": f"run:{first}", "normalization": "adabn"}))
    return root, first, second


@pytest.fixture
def root(trained, tmp_path):
    """A copy that a test may change, with images of its own."""
    copied = shutil.copytree(trained[0].parent, tmp_path / "copy") / "project"
    with Project.open(copied) as project:
        for record in project.micrographs():
            project.relocate(record.stem, tmp_path / "copy" / "files" / record.path.name)
    return copied


def replay(root, ref):
    with Project.open(root) as project:
        request = replay_request(project, ref)
    return request, do(request).result


def weights(root, run_id):
    return load_file(root / "runs" / run_id / "best.safetensors")


@pytest.mark.parametrize("which", [1, 2])
def test_a_repeated_run_is_bit_for_bit_the_same_whatever_was_painted_since(trained, root, which, tmp_path):
    run_id = trained[which]
    with Project.open(root) as project:
        labels = project.annotations.read("a1")
        labels[:40] = 2  # today's labels are others, and there is one more micrograph to adapt to
        project.annotations.write("a1", None, labels)
        tifffile.imwrite(tmp_path / "e1.tif", micrograph(9)[0])
        project.add_micrograph(tmp_path / "e1.tif", specimen="e", pixel_size_nm=5.0)
    request, result = replay(root, run_id)
    assert request.run_id != run_id
    assert result["replay"]["identical"] is True
    assert f"bit for bit that of {run_id}" in result["replay"]["words"]
    old, new = weights(root, run_id), weights(root, request.run_id)
    assert all(torch.equal(old[key], new[key]) for key in old)
    with Project.open(root) as project:
        before, after = project.run(run_id), project.run(request.run_id)
        assert after.split() == before.split()
        assert (after.labels.read("a1") == before.labels.read("a1")).all()
        assert result["mean_iou"] == before.result()["mean_iou"]
        card = (after.root / "card.md").read_text()
    assert f"this run repeats {run_id}. Identical" in card


def test_all_networks_of_a_run_with_folds_are_repeated(root):
    config = CONFIG.model_copy(update={"folds": 2, "train": (), "validation": (), "iterations": 2})
    run_id = train(root, config)
    request, result = replay(root, run_id)
    assert result["replay"]["identical"] is True
    for fold in ("fold-0", "fold-1"):
        old, new = (load_file(root / "runs" / i / fold / "best.safetensors") for i in (run_id, request.run_id))
        assert all(torch.equal(old[key], new[key]) for key in old)
    card = (root / "runs" / run_id / "card.md").read_text()
    assert "- fold 0 holds out: " in card
    assert "- fold 1 holds out: " in card


def test_the_difference_is_said_where_it_is_not_the_same(trained, root):
    with Project.open(root) as project:
        request = replay_request(project, trained[1])
    other = request.config.model_copy(update={"learning_rate": 3e-3})
    path = root / "runs" / request.run_id / "config.json"
    path.write_text(other.model_dump_json())
    result = do(request.model_copy(update={"config": other})).result
    assert result["replay"]["identical"] is False
    assert result["replay"]["largest_difference"] > 0
    assert f"Not identical to {trained[1]}" in result["replay"]["words"]


def test_a_card_holds_what_a_reader_needs(trained):
    root, first, second = trained
    with Project.open(root) as project:
        run = project.run(second)
        card, made_of = (run.root / "card.md").read_text(), provenance_of(run)
        parent = project.run(first).root / "best.safetensors"
    assert made_of.data_hash in card
    assert made_of.parent_sha256 in card
    assert parent.is_file()
    for words in (
        "strategy: fine-tune",
        "- why: ",
        "- rule: go-on-from-a-run; source: Ash & Adams",
        "adabn (measured once on this project's micrographs, then frozen)",
        "adapted to: a1, b1, d1\n",
        "| part | parameters | learning rate | weight decay |",
        "| decoder |",
        "- training: a1, b1",
        "- validation: c1",
        "seed: 0, 1 processor threads",
        "torch ",
        f"--replay {second}",
        "calibration: ",
        "4 iterations in",
    ):
        assert words in card, words
    assert "git" not in card


def test_a_card_says_how_many_of_many_micrographs_the_norms_saw(trained, monkeypatch):
    root, _, second = trained
    monkeypatch.setattr(provenance, "MAX_ADAPTATION_VIEWS", 2)
    with Project.open(root) as project:
        run = project.run(second)
        words = card._adapted_to(project, provenance_of(run), run.split())
    assert words == "2 of 3 micrographs, evenly chosen"


def test_illegal_augmentation_is_on_the_card_with_its_reason(root):
    with Project.open(root) as project:
        project.update_settings(modality="ebsd")
    run_id = train(root, CONFIG.model_copy(update={"illegal_augment": ("quarter-turn",)}))
    card = (root / "runs" / run_id / "card.md").read_text()
    assert "allowed by hand, though not legal here: quarter-turn (" in card


def test_what_has_changed_is_named_and_refused(trained, root):
    run_id = trained[1]
    with Project.open(root) as project:
        project.update_micrograph("a1", pixel_size_nm=7.0)
        with pytest.raises(EMTransferError, match="'a1' is not what they were") as caught:
            replay_request(project, run_id)
        assert "clone" in caught.value.hint
        project.update_micrograph("a1", pixel_size_nm=5.0)
        tifffile.imwrite(project.record("b1").path, micrograph(5)[0])
        with pytest.raises(EMTransferError, match="'b1' is not what they were"):
            replay_request(project, run_id)
        project.remove_micrograph("c1")
        with pytest.raises(EMTransferError, match="'c1' is no longer in the project"):
            replay_request(project, run_id)
        assert len(project.runs()) == 2  # nothing was begun


def test_other_weights_are_refused(trained, root):
    _, first, second = trained
    path = root / "runs" / first / "best.safetensors"
    path.write_bytes(path.read_bytes() + b"\0")
    with Project.open(root) as project:
        with pytest.raises(WeightsError, match="gone or have changed") as caught:
            replay_request(project, second)
        assert "emtransfer weights list" in caught.value.hint
        path.unlink()
        with pytest.raises(WeightsError, match=f"Run {second} started from the weights 'run:{first}'"):
            replay_request(project, second)


def test_another_project_setting_is_refused_with_both_values(trained, root):
    with Project.open(root) as project:
        project.update_settings(modality="hrtem")
        with pytest.raises(EMTransferError, match=r"the modality of the project was \w+ and is hrtem"):
            replay_request(project, trained[1])


def test_a_run_that_never_began_cannot_be_repeated(root):
    run_id = new_run(root)
    with Project.open(root) as project, pytest.raises(ProjectError, match="has not written down"):
        replay_request(project, run_id)


def test_a_failed_start_is_no_replay(root):
    run_id = new_run(root, CONFIG.model_copy(update={"weights": "nonsuch"}))
    events = []
    handle(
        TrainRequest(run_id=run_id, project=root, config=CONFIG.model_copy(update={"weights": "nonsuch"})),
        events.append,
        RunControl(),
    )
    assert isinstance(events[-1], RunFailed)


def test_the_verb(trained, root, capsys):
    with pytest.raises(SystemExit) as left:
        main(["train", str(root), "--replay", trained[1], "--device", "cpu", "--json"])
    assert left.value.code == 0
    result = json.loads(capsys.readouterr().out)
    assert result["replay"]["identical"] is True
    assert result["replay"]["of"] == trained[1]
    with pytest.raises(SystemExit) as left:
        main(["train", str(root), "--replay", trained[1], "--resume", trained[1]])
    assert left.value.code == 1
    assert "exclude each other" in capsys.readouterr().err
    assert COMPUTE.threads == 1
