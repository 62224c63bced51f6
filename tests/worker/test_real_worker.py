"""The real worker process on a small real project: what a user's clicks, a crash and a closed window do to a run."""

import os
import signal
import time

import pytest
from worker_projects import COMPUTE, ENDLESS, PREDICT, QUICK, new_run

from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.events import (
    TERMINAL,
    CheckpointSaved,
    EngineReady,
    IterationEnded,
    RegionPredicted,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunStarted,
    ValidationEnded,
)
from napari_emtransfer.worker.protocol import PredictRequest, TrainRequest, WarmRequest
from napari_emtransfer.worker.runners import LocalProcessRunner

pytestmark = pytest.mark.slow


class Listener:
    """Keeps events with the time of their arrival."""

    def __init__(self):
        self.events = []

    def __call__(self, event):
        self.events.append(event)

    def until(self, kind, run_id=None, seconds=120):
        """The first event of `kind` (of `run_id`); fails when none comes."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for event in list(self.events):
                if isinstance(event, kind) and run_id in (None, event.run_id):
                    return event
            time.sleep(0.005)
        raise AssertionError(f"no {kind} within {seconds} s; heard {self.events[-5:]}")

    @property
    def terminals(self):
        return [e for e in self.events if isinstance(e, TERMINAL)]


@pytest.fixture
def start():
    """Start the real worker on a request; whatever still runs at the end is killed."""
    processes = []

    def begin(request=None):
        listener = Listener()
        runner = LocalProcessRunner()
        process = runner.start_engine(listener) if request is None else runner.start(request, listener)
        processes.append(process)
        return process, listener

    yield begin
    for process in processes:
        process.kill()
        assert process.wait(10)


def request_for(root, config, *, resume=None):
    run_id = resume or new_run(root, config)
    return TrainRequest(run_id=run_id, project=root, config=config, resume=resume is not None)


def test_a_run_from_start_to_end(start, project_root):
    request = request_for(project_root, QUICK)
    process, heard = start(request)
    assert process.wait(120)
    assert [type(e) for e in heard.terminals] == [RunFinished]
    with Project.open(project_root) as project:
        run = project.run(request.run_id)
        assert run.events() == heard.events
        assert run.record.status == "finished"
        assert (run.root / "worker.log").is_file()
        assert (run.root / "card.md").is_file()


def test_cancel_banks_and_ends_in_one_event(start, project_root):
    process, heard = start(request_for(project_root, ENDLESS))
    heard.until(ValidationEnded)
    process.cancel()
    assert process.wait(20)
    assert [type(e) for e in heard.terminals] == [RunCancelled]
    last = [e for e in heard.events if isinstance(e, CheckpointSaved) and e.which == "last"][-1]
    assert last.iteration == heard.terminals[0].result["iterations"]
    with Project.open(project_root) as project:
        assert project.run("latest").record.status == "cancelled"


def test_stop_early_finishes_with_the_best(start, project_root):
    process, heard = start(request_for(project_root, ENDLESS))
    heard.until(ValidationEnded)
    process.stop_early()
    assert process.wait(30)
    (end,) = heard.terminals
    assert isinstance(end, RunFinished)
    assert end.result["iterations"] < ENDLESS.iterations
    assert end.result["mean_iou"] is not None


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no signal 9")
def test_a_killed_run_is_told_and_resumes(start, project_root):
    config = QUICK.model_copy(update={"iterations": 12, "validate_every": 3})
    process, heard = start(request_for(project_root, config))
    saved = heard.until(CheckpointSaved)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(20)
    (died,) = heard.terminals
    assert isinstance(died, RunFailed)
    assert died.kind == "died"
    assert "killed (signal 9)" in died.message
    with Project.open(project_root) as project:
        record = project.run(saved.run_id).record
        assert record.status == "interrupted"
        last = project.run(saved.run_id).checkpoint_path("last")
        begun = last.is_file()
    process, heard = start(request_for(project_root, config, resume=saved.run_id))
    assert process.wait(120)
    assert (heard.until(RunStarted).first_step > 0) == begun
    (end,) = heard.terminals
    assert isinstance(end, RunFinished)
    assert end.result["iterations"] == 12


def test_a_closed_window_leaves_a_resumable_run_within_two_seconds(start, project_root):
    request = request_for(project_root, ENDLESS)
    process, heard = start(request)
    heard.until(IterationEnded)
    begin = time.perf_counter()
    process.close()
    assert process.wait(10)
    assert time.perf_counter() - begin < 2
    with Project.open(project_root) as project:
        run = project.run(request.run_id)
        assert run.record.status == "interrupted"
        assert run.checkpoint_path("last").is_file()
        assert not any(isinstance(e, TERMINAL) for e in run.events())


def test_engine_warms_up_answers_and_lets_the_newest_win(start, project_root):
    config = QUICK.model_copy(update={"iterations": 1})
    train, trained = start(request_for(project_root, config))
    engine, heard = start()
    ready = heard.until(EngineReady)
    assert ready.run_id == WarmRequest().run_id
    assert ready.device.startswith(("cpu", "cuda", "mps"))
    assert train.wait(120)
    assert isinstance(trained.terminals[0], RunFinished), trained.terminals

    for generation in (1, 2, 3):
        engine.request(
            PredictRequest(
                run_id=f"p{generation}",
                project=project_root,
                generation=generation,
                micrographs=("d1",),
                config=PREDICT,
            )
        )
    heard.until(RunFinished, "p3")
    outcome = {e.run_id: type(e) for e in heard.terminals}
    assert set(outcome) == {"warm", "p1", "p2", "p3"}
    assert len(heard.terminals) == 4
    # The first may have been done before the others came; the second never runs beside a third.
    assert outcome["p1"] in (RunCancelled, RunFinished)
    region = [e for e in heard.events if isinstance(e, RegionPredicted)][-1]
    assert (region.generation, region.micrograph) == (3, "d1")

    engine.request(PredictRequest(run_id="bad", project=project_root, model_run="0099", config=PREDICT))
    assert heard.until(RunFailed, "bad").kind == "project"
    engine.request(WarmRequest(run_id="warm2", compute=COMPUTE.model_copy(update={"device": "cuda:7"})))
    assert heard.until(RunFailed, "warm2").kind == "device"
    engine.close()
    assert engine.wait(2)
    assert engine.alive is False
