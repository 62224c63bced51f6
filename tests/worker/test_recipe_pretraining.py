"""Pretraining by a recipe: in pieces as in one go, what it writes, what it says, and how it is stopped."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from napari_emtransfer.cli import main
from napari_emtransfer.core.config import ComputeConfig, ModelConfig
from napari_emtransfer.core.events import IterationEnded, NoticePosted, RunCancelled, RunFailed, RunFinished, RunStarted
from napari_emtransfer.core.nn import pretraining, store
from napari_emtransfer.core.nn.model import build_model
from napari_emtransfer.core.nn.tensors import read_metadata
from napari_emtransfer.core.nn.weights import initialise
from napari_emtransfer.core.recipe import PretrainRecipe, PretrainStage
from napari_emtransfer.worker.handlers import RunControl, handle
from napari_emtransfer.worker.protocol import RecipeRequest
from napari_emtransfer.worker.recipe_handler import log_path, n_generating, state_path

TINY = PretrainRecipe(
    name="tiny",
    encoder="test_resnet",
    embedding=8,
    warm_up=2,
    cool_down=3,
    stages=(PretrainStage(steps=3, tile_px=64, episodes=2), PretrainStage(steps=2, tile_px=96, episodes=1)),
)
COMPUTE = ComputeConfig(device="cpu", threads=1)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def do(out, control=None, emit=None, **changes):
    events = []

    def collect(event):
        events.append(event)
        if emit is not None:
            emit(event)

    request = RecipeRequest(**{"run_id": "p", "recipe": TINY, "out": out, "compute": COMPUTE, **changes})
    handle(request, collect, control or RunControl())
    return events


def longer(recipe=TINY, **changes):
    return recipe.model_copy(update=changes)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "tiny.safetensors"
    return out, do(out)


def test_it_says_what_it_does_and_what_came_of_it(unbroken):
    out, events = unbroken
    started, finished = events[0], events[-1]
    assert isinstance(started, RunStarted)
    assert (started.n_steps, started.first_step) == (5, 0)
    (told,) = [e for e in events if isinstance(e, IterationEnded)]
    assert (told.iteration, told.seconds_left) == (5, 0)
    assert isinstance(finished, RunFinished), finished
    result = finished.result
    assert (result["weights"], result["iterations"], result["complete"]) == (str(out), 5, True)
    assert result["seconds"] > 0
    assert 0 <= result["waited"] < 1
    assert result["loss"] == pytest.approx(told.loss)
    assert 0 < result["accuracy"] < 1
    assert result["sha256"] == store.sha256_of(out)
    (line,) = [json.loads(line) for line in log_path(out).read_text().splitlines()]
    assert line["loss"] == told.loss
    assert {"step", "episodic", "accuracy", "phases", "boundaries", "clean", "rate", "seconds_per_step"} < line.keys()


def test_the_file_is_half_precision_and_fills_encoder_and_decoder(unbroken):
    out, _ = unbroken
    tensors = load_file(out)
    assert {t.dtype for t in tensors.values() if t.is_floating_point()} == {torch.float16}
    assert {k.split(".")[0] for k in tensors} == {"encoder", "decoder"}
    model = build_model(ModelConfig(encoder="test_resnet", n_classes=3))
    report = initialise(model, str(out))
    assert report.loaded == ("encoder", "decoder")
    assert report.new == ("segmentation_head",)
    state = model.state_dict()
    assert all(torch.equal(state[k].float(), v.float()) for k, v in tensors.items())


def test_the_file_and_its_card_say_what_it_is(unbroken):
    out, _ = unbroken
    said = read_metadata(out)
    assert (said[store.ENCODER_KEY], said[store.ARCHITECTURE_KEY]) == ("test_resnet", "Unet")
    record = json.loads(said["pretraining"])
    assert PretrainRecipe.model_validate(record["recipe"]) == TINY
    assert record["licence"] == "BSD-3-Clause"
    assert {"torch", "python"} <= record["versions"].keys()
    card = out.with_suffix(".md").read_text()
    for words in ("No real micrograph", "sha256 " + store.sha256_of(out), "BSD-3-Clause", '"seed": 0', "5 steps in"):
        assert words in card


def test_pieces_give_the_same_weights_as_one_go(unbroken, tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "_REPORT_EVERY", 1)
    out, control = tmp_path / "tiny.safetensors", RunControl()

    def cancel_after_two(event):
        if isinstance(event, IterationEnded) and event.iteration == 2:
            control.cancel()

    events = do(out, control, cancel_after_two)
    assert isinstance(events[-1], RunCancelled)
    assert (events[-1].result["iterations"], events[-1].result["weights"]) == (2, None)
    assert state_path(out).is_file()
    assert not out.exists()
    # A kill between two states leaves lines of steps that will be done again, and half a line.
    with log_path(out).open("a") as log:
        log.write('{"step": 3, "loss": 9, "seconds_per_step": 1, "waited": 0}\n{"step": 4, "lo')
    events = do(out, resume=True)
    assert events[0].first_step == 2
    assert isinstance(events[-1], RunFinished), events[-1]
    lines = [json.loads(line) for line in log_path(out).read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    whole, pieces = load_file(unbroken[0]), load_file(out)
    assert whole.keys() == pieces.keys()
    assert all(torch.equal(whole[k], pieces[k]) for k in whole)


def test_a_finished_recipe_can_be_made_longer(unbroken, tmp_path):
    out = tmp_path / "longer.safetensors"
    state_path(out).write_bytes(state_path(unbroken[0]).read_bytes())
    more = longer(stages=(*TINY.stages, PretrainStage(steps=1, tile_px=64, episodes=1)))
    events = do(out, recipe=more)
    assert events[0].first_step == 5
    assert events[-1].result["iterations"] == 6
    assert load_file(out).keys() == load_file(unbroken[0]).keys()


def test_a_finished_state_alone_gives_the_weights_again(unbroken, tmp_path):
    out = tmp_path / "again.safetensors"
    state_path(out).write_bytes(state_path(unbroken[0]).read_bytes())
    result = do(out)[-1].result
    assert (result["iterations"], result["loss"], result["waited"]) == (5, None, None)
    whole, again = load_file(unbroken[0]), load_file(out)
    assert all(torch.equal(whole[k], again[k]) for k in whole)


def test_fresh_does_not_look_at_the_state(tmp_path):
    out = tmp_path / "tiny.safetensors"
    state_path(out).write_bytes(b"rubbish")
    event = do(out)[-1]
    assert isinstance(event, RunFailed)
    assert "is no state of a pretraining" in event.message
    events = do(out, recipe=longer(stages=TINY.stages[:1]), resume=False)
    assert events[0].first_step == 0
    assert isinstance(events[-1], RunFinished), events[-1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seed": 3}, "another seed"),
        ({"objective": "episodic"}, "another objective"),
        ({"stages": TINY.stages[:1]}, "5 steps, more than the recipe's"),
    ],
)
def test_a_state_of_something_else_is_refused(unbroken, tmp_path, changes, says):
    out = tmp_path / "other.safetensors"
    state_path(out).write_bytes(state_path(unbroken[0]).read_bytes())
    event = do(out, recipe=longer(**changes))[-1]
    assert isinstance(event, RunFailed)
    assert says in event.message
    assert not out.exists()


def test_what_cannot_be_written_or_gone_on_from_is_said_first(unbroken, tmp_path):
    (failed,) = do(unbroken[0])
    assert "exists already" in failed.message
    (failed,) = do(tmp_path / "new.safetensors", resume=True)
    assert "no state" in failed.message
    (failed,) = do(tmp_path / "new.pth")
    assert "does not end in .safetensors" in failed.message


def test_minutes_end_a_piece_and_keep_the_state(tmp_path):
    out = tmp_path / "piece.safetensors"
    events = do(out, recipe=longer(stages=(PretrainStage(steps=100_000, tile_px=64, episodes=1),)), minutes=0.03)
    result = events[-1].result
    assert isinstance(events[-1], RunFinished)
    assert (result["complete"], result["weights"]) == (False, None)
    assert 0 < result["iterations"] < 1000
    assert state_path(out).is_file()
    assert not out.exists()


def test_a_trainer_that_waits_for_micrographs_says_so_once(tmp_path, monkeypatch):
    make = pretraining.make_episode

    def slowly(*args):
        time.sleep(0.05)
        return make(*args)

    # Inherited by the process that makes micrographs, which is a fork of this one.
    monkeypatch.setattr(pretraining, "make_episode", slowly)
    monkeypatch.setattr(pretraining, "_REPORT_EVERY", 1)
    monkeypatch.setattr(pretraining.Pretraining, "_train", lambda *_: {"loss": 1.0})
    if sys.platform != "linux":
        pytest.skip("processes do not inherit here")
    notices = [e for e in do(tmp_path / "slow.safetensors") if isinstance(e, NoticePosted)]
    assert len(notices) == 1
    assert "waits for micrographs" in notices[0].message


def test_an_accelerator_gets_more_processes_for_micrographs():
    assert n_generating("cpu", 16) == 1
    assert n_generating("cuda", 1) == 1
    assert n_generating("cuda", 12) == 11
    assert n_generating("cuda", 128) == 16


def write_recipe(path, steps):
    head = 'name = "tiny"\nencoder = "test_resnet"\nembedding = 8\n'
    path.write_text(f"{head}[[stages]]\nsteps = {steps}\ntile_px = 64\nepisodes = 1\n")
    return path


def test_the_verb_takes_a_recipe(tmp_path, capsys):
    recipe, out = write_recipe(tmp_path / "tiny.toml", 2), tmp_path / "verb.safetensors"
    words = ["pretrain", str(recipe), "--out", str(out), "--device", "cpu", "--threads", "1"]
    with pytest.raises(SystemExit) as left:
        main([*words, "--json"])
    assert left.value.code == 0
    result = json.loads(capsys.readouterr().out)
    assert {"weights", "iterations", "seconds", "waited", "sha256"} <= result.keys()
    for wrong, says in (
        ([*words, "--encoder", "resnet18"], "--encoder has no effect"),
        (["pretrain", str(tmp_path), "--out", str(out), "--fresh"], "--resume or --fresh has no effect"),
        (["pretrain", str(tmp_path / "none.toml"), "--out", str(out)], "cannot be read"),
    ):
        with pytest.raises(SystemExit) as left:
            main(wrong)
        assert left.value.code == 1
        assert says in capsys.readouterr().err


def test_ctrl_c_keeps_the_state_and_says_how_to_go_on(tmp_path):
    recipe, out = write_recipe(tmp_path / "long.toml", 100_000), tmp_path / "long.safetensors"
    command = [sys.executable, "-c", "from napari_emtransfer.cli import main; main()", "pretrain", str(recipe)]
    with subprocess.Popen(
        [*command, "--out", str(out), "--device", "cpu", "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not (log_path(out).is_file() and log_path(out).read_text()) and time.monotonic() < deadline:
            time.sleep(0.1)
        # As a terminal does: to the trainer and to those that make micrographs for it.
        os.killpg(process.pid, signal.SIGINT)
        said, faults = process.communicate(timeout=60)
    assert process.returncode == 130, faults
    assert state_path(out).is_file()
    assert f"Go on with: emtransfer pretrain {recipe} --out {out}" in said
    assert "Traceback" not in faults
    assert faults.count("Stopping") == 1
