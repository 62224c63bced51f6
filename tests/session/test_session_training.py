"""A training run from the button to its terminal event, without a process."""

import threading

import pytest
from session_helpers import FakeProcess, FakeRunner, Recorder, finish, label, make_project

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.split import Region, Split
from napari_emtransfer.core.errors import LabelError, ProjectError, SplitError, StorageError
from napari_emtransfer.core.events import (
    IterationEnded,
    NoticePosted,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunStarted,
    ValidationEnded,
)
from napari_emtransfer.session.session import Session
from napari_emtransfer.session.state import Phase

RESULT = {
    "run": "?",
    "mean_iou": 0.8,
    "iou": {"matrix": 0.9, "pore": 0.7},
    "iterations": 20,
    "seconds": 3.0,
    "device": "cpu",
    "ci95": [0.7, 0.9],
    "ground": "specimen",
    "note": "2 specimens held out",
}


@pytest.fixture
def labelled(session):
    for stem in ("m0", "m1"):
        label(session.project, stem)
    return session


def start(session, runner, **config):
    run_id = session.training.start(TrainConfig(iterations=20, **config))
    runner.job.say(RunStarted(run_id=run_id, n_steps=20, device="CPU, 2 threads"))
    finish(session)
    return run_id


def say(session, runner, *events):
    for event in events:
        runner.job.say(event)
    finish(session)


def bank(session, run_id, *which):
    """What a worker leaves on disk: checkpoints with these names."""
    for name in which:
        session.project.run(run_id).checkpoint_path(name).write_bytes(b"weights")


def whole_split(*, train, validation):
    regions = [(Region(micrograph=stem),) for stem in (train, validation)]
    return Split(name="s", train=regions[0], validation=regions[1], ground="specimen", note="")


def died(run_id):
    return RunFailed(run_id=run_id, kind="died", message="The worker process was killed (signal 9).", hint="h")


def test_a_run_goes_through_its_phases_in_order(labelled, runner):
    recorder = Recorder(labelled.signals)
    run_id = start(labelled, runner)
    say(
        labelled,
        runner,
        IterationEnded(run_id=run_id, iteration=10, loss=0.5, learning_rates={"all": 1e-3}, seconds_left=4.0),
        ValidationEnded(
            run_id=run_id, iteration=10, loss=0.6, mean_iou=0.7, iou={"pore": 0.7}, is_best=True, ground="specimen"
        ),
        RunFinished(run_id=run_id, result=RESULT),
    )
    phases = [state.phase for (state,) in recorder.of("run_changed")]
    assert phases == [Phase.STARTING, Phase.RUNNING, Phase.RUNNING, Phase.RUNNING, Phase.FINISHED]
    curves = labelled.training.curves
    assert (curves.iterations, curves.losses, curves.learning_rates) == ([10], [0.5], {"all": [1e-3]})
    assert [point.mean_iou for point in curves.validations] == [0.7]
    state = labelled.training.state
    assert (state.mean_iou, state.ci95, state.note, state.device) == (0.8, (0.7, 0.9), "2 specimens held out", "cpu")
    assert state.seconds_left is None
    assert not state.is_active


def test_time_left_and_fraction_while_it_runs(labelled, runner):
    run_id = start(labelled, runner)
    say(labelled, runner, IterationEnded(run_id=run_id, iteration=5, loss=1, learning_rates={}, seconds_left=9.0))
    state = labelled.training.state
    assert (state.fraction, state.seconds_left, state.device) == (0.25, 9.0, "CPU, 2 threads")


def test_strokes_are_on_disk_before_the_process_starts(labelled, runner, monkeypatch):
    labelled.labelling.annotation("m2")[:10, :10] = 2
    labelled.labelling.mark_dirty(stem="m2")
    seen = []

    def look(request, sink):
        seen.append(labelled.project.annotations.read("m2")[0, 0])
        return FakeProcess(sink)

    monkeypatch.setattr(runner, "start", look)
    labelled.training.start(TrainConfig())
    assert seen == [2]


def test_unsavable_strokes_refuse_the_start(labelled, runner, monkeypatch):
    monkeypatch.setattr(labelled.project.annotations, "write", lambda *_: 1 / 0)
    labelled.labelling.annotation("m2")[:10, :10] = 2
    labelled.labelling.mark_dirty(stem="m2")
    with pytest.raises(StorageError, match="could not be saved"):
        labelled.training.start(TrainConfig())
    assert runner.jobs == []


def test_no_labels_and_one_class_are_refused_before_a_process(session, runner):
    with pytest.raises(LabelError, match="Nothing is labelled"):
        session.training.start(TrainConfig())
    label(session.project, "m0", classes=(2,))
    with pytest.raises(LabelError, match="Only the class 'pore' is labelled"):
        session.training.start(TrainConfig())
    assert runner.jobs == []
    assert session.project.runs() == []


def test_unknown_names_are_refused(labelled):
    with pytest.raises(SplitError, match="no split named 'Super9'"):
        labelled.training.start(TrainConfig(split="Super9"))
    with pytest.raises(SplitError, match="no micrograph named 'x'"):
        labelled.training.start(TrainConfig(train=("m0", "x")))


def test_a_second_start_is_refused_and_the_first_goes_on(labelled, runner):
    run_id = start(labelled, runner)
    with pytest.raises(ProjectError, match=f"Run {run_id} is still training"):
        labelled.training.start(TrainConfig())
    with pytest.raises(ProjectError, match="still training"):
        labelled.training.resume(run_id)
    assert len(runner.jobs) == 1
    assert labelled.training.state.phase is Phase.RUNNING


def test_events_of_another_run_and_after_the_end_are_dropped(labelled, runner):
    run_id = start(labelled, runner)
    before = labelled.training.state
    say(labelled, runner, IterationEnded(run_id="old", iteration=3, loss=1, learning_rates={}))
    say(labelled, runner, RunFailed(run_id="old", kind="bug", message="no"))
    assert labelled.training.state == before
    say(labelled, runner, RunFinished(run_id=run_id, result=RESULT), RunCancelled(run_id=run_id), died(run_id))
    assert labelled.training.state.phase is Phase.FINISHED
    assert labelled.training.curves.iterations == []


def test_exactly_one_terminal_event_counts(labelled, runner):
    recorder = Recorder(labelled.signals)
    run_id = start(labelled, runner)
    say(labelled, runner, RunCancelled(run_id=run_id), RunFinished(run_id=run_id, result=RESULT))
    assert [s.phase for (s,) in recorder.of("run_changed")][-1] is Phase.CANCELLED


def test_cancel_banks_and_the_banked_model_predicts(labelled, runner):
    run_id = start(labelled, runner)
    labelled.show("m0")
    labelled.training.cancel()
    labelled.training.cancel()
    assert runner.job.words == ["cancel"]
    assert labelled.training.state.phase is Phase.CANCELLING
    bank(labelled, run_id, "last", "best")
    labelled.project.run(run_id).update("cancelled")
    say(labelled, runner, RunCancelled(run_id=run_id))
    state = labelled.training.state
    assert (state.phase, state.resumable) == (Phase.CANCELLED, True)
    assert labelled.prediction.model_run == run_id
    assert [r.micrographs for r in runner.engine.requests] == [("m0",)]


def test_a_started_event_while_cancelling_does_not_undo_it(labelled, runner):
    run_id = labelled.training.start(TrainConfig(iterations=20))
    labelled.training.cancel()
    say(labelled, runner, RunStarted(run_id=run_id, n_steps=20))
    assert labelled.training.state.phase is Phase.CANCELLING


def test_stop_early_is_another_word_than_cancel(labelled, runner):
    run_id = start(labelled, runner)
    labelled.training.stop_early()
    assert runner.job.words == ["stop_early"]
    assert labelled.training.state.stopping_early
    bank(labelled, run_id, "last", "best")
    labelled.project.run(run_id).update("finished")
    say(labelled, runner, RunFinished(run_id=run_id, result=RESULT))
    assert labelled.training.state.phase is Phase.FINISHED
    assert not labelled.training.state.stopping_early


def test_a_dead_worker_fails_with_its_sentence_and_offers_to_resume(labelled, runner):
    recorder = Recorder(labelled.signals)
    run_id = start(labelled, runner)
    labelled.project.run(run_id).update("running")
    bank(labelled, run_id, "last")
    say(labelled, runner, died(run_id))
    state = labelled.training.state
    assert (state.phase, state.resumable) == (Phase.FAILED, True)
    assert "signal 9" in state.message
    assert "Resume" in state.hint
    assert recorder.of("failed") == [(state.message, state.hint)]
    assert [r.id for r in labelled.training.interrupted_runs()] == [run_id]

    assert labelled.training.resume(run_id) == run_id
    request = runner.job.requests[0]
    assert (request.run_id, request.resume, request.config.iterations) == (run_id, True, 20)
    assert labelled.training.state.phase is Phase.STARTING


def test_a_resumed_run_shows_the_curves_it_had_up_to_its_checkpoint(labelled, runner):
    run_id = start(labelled, runner)
    run = labelled.project.run(run_id)
    for i in range(1, 8):
        run.append_event(IterationEnded(run_id=run_id, iteration=i, loss=1 / i, learning_rates={"all": 0.1}))
    run.append_event(
        ValidationEnded(run_id=run_id, iteration=6, loss=1, mean_iou=0.5, iou={}, is_best=True, ground="block")
    )
    say(labelled, runner, died(run_id))
    labelled.training.resume(run_id)
    assert labelled.training.curves.iterations == [1, 2, 3, 4, 5, 6, 7]
    say(
        labelled,
        runner,
        RunStarted(run_id=run_id, n_steps=20, first_step=4),
        IterationEnded(run_id=run_id, iteration=5, loss=0.2, learning_rates={"all": 0.1}),
    )
    curves = labelled.training.curves
    assert curves.iterations == [1, 2, 3, 4, 5]
    assert len(curves.losses) == len(curves.learning_rates["all"]) == 5
    assert curves.validations == []
    assert labelled.training.state.iteration == 5


def test_a_worker_that_dies_before_its_first_checkpoint_begins_anew(labelled, runner):
    run_id = start(labelled, runner)
    say(labelled, runner, died(run_id))
    assert "from the start" in labelled.training.state.hint
    assert [r.id for r in labelled.training.interrupted_runs()] == [run_id]
    labelled.training.resume(run_id)
    assert runner.job.requests[0].resume


def test_killed_by_the_user_is_no_failure(labelled, runner):
    recorder = Recorder(labelled.signals)
    run_id = start(labelled, runner)
    bank(labelled, run_id, "last")
    labelled.training.kill()
    say(labelled, runner, died(run_id))
    assert labelled.training.state.phase is Phase.CANCELLED
    assert labelled.training.state.resumable
    assert recorder.of("failed") == []


def test_an_error_of_the_worker_keeps_its_own_hint(labelled, runner):
    run_id = start(labelled, runner)
    say(labelled, runner, RunFailed(run_id=run_id, kind="split", message="No split.", hint="Label more."))
    state = labelled.training.state
    assert (state.phase, state.message, state.hint) == (Phase.FAILED, "No split.", "Label more.")


def test_a_process_that_cannot_be_started(labelled, runner, monkeypatch):
    def refuse(*_):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(runner, "start", refuse)
    with pytest.raises(StorageError, match="Cannot allocate memory"):
        labelled.training.start(TrainConfig())
    assert labelled.training.state.phase is Phase.FAILED
    monkeypatch.undo()
    labelled.training.start(TrainConfig())
    assert labelled.training.state.phase is Phase.STARTING


def test_notices_of_the_worker_reach_the_user(labelled, runner):
    recorder = Recorder(labelled.signals)
    run_id = start(labelled, runner)
    say(labelled, runner, NoticePosted(run_id=run_id, message="The batch was halved.", hint="h"))
    assert recorder.of("notice_posted") == [("The batch was halved.", "h")]


def test_the_newest_finished_run_predicts_and_the_readout_is_its_own(labelled, runner):
    labelled.labelling.go_to_point("m2", 0, 0)
    run_id = start(labelled, runner)
    bank(labelled, run_id, "last", "best")
    run = labelled.project.run(run_id)
    run.update("finished", mean_iou=0.8)
    run.write_result(RESULT)
    recorder = Recorder(labelled.signals)
    say(labelled, runner, RunFinished(run_id=run_id, result=RESULT))
    assert recorder.names == ["run_changed", "model_changed", "readouts_changed"]
    model = labelled.readouts.model
    assert (model.run_id, model.mean_iou, model.ci95, model.note) == (run_id, 0.8, (0.7, 0.9), "2 specimens held out")
    assert runner.engine.requests[0].model_run == run_id


def test_a_run_without_a_model_leaves_the_old_one_in_place(labelled, runner):
    first = start(labelled, runner)
    bank(labelled, first, "best")
    labelled.project.run(first).update("finished")
    say(labelled, runner, RunFinished(run_id=first, result=RESULT))
    second = start(labelled, runner)
    labelled.project.run(second).update("cancelled")
    say(labelled, runner, RunCancelled(run_id=second))
    assert labelled.prediction.model_run == first


def test_closing_banks_the_run_and_the_next_opening_offers_it(labelled, runner):
    root = labelled.project.root
    run_id = start(labelled, runner)
    bank(labelled, run_id, "last")
    labelled.close()
    labelled.close()
    assert runner.job.words == ["cancel"]
    with Project.open(root) as project:
        assert project.run(run_id).record.status == "interrupted"
    again = Session(FakeRunner())
    again.open_project(root)
    assert [r.id for r in again.training.interrupted_runs()] == [run_id]
    again.close()


def test_closing_kills_a_worker_that_does_not_leave(labelled, runner):
    start(labelled, runner)
    runner.job.leaves = False
    labelled.close()
    assert runner.job.words == ["cancel", "kill"]


def test_closing_leaves_a_run_that_had_just_finished_finished(labelled, runner):
    root = labelled.project.root
    run_id = start(labelled, runner)
    labelled.project.run(run_id).update("finished")
    labelled.close()
    with Project.open(root) as project:
        assert project.run(run_id).record.status == "finished"


def test_late_events_after_closing_the_project_are_dropped(labelled, runner):
    run_id = start(labelled, runner)
    labelled.close_project()
    say(labelled, runner, RunFinished(run_id=run_id, result=RESULT))
    assert labelled.training.state.phase is Phase.IDLE
    assert labelled.project is None


def test_proposal_from_scratch_names_numbers_then_goes_on_from_the_earlier_run(labelled, runner, no_bundled_weights):
    config, reason = labelled.training.proposed_config()
    assert config.strategy == "scratch"
    assert reason.startswith("4 labelled tiles on 2 specimens, no pretrained weights are on this machine → train")
    run_id = start(labelled, runner)
    bank(labelled, run_id, "best")
    run = labelled.project.run(run_id)
    run.write_split(whole_split(train="m0", validation="m1"))
    run.update("finished", mean_iou=0.81)
    say(labelled, runner, RunFinished(run_id=run_id, result=RESULT))
    again, reason = labelled.training.proposed_config()
    assert again.validation == ("m1",)  # never learnt from, so it stays the ground
    assert (again.architecture, again.encoder) == (config.architecture, config.encoder)
    assert again.weights == f"run:{run_id}"
    assert again.iterations < config.iterations
    assert "0.81" in reason
    second = labelled.training.start(again)
    assert labelled.project.run(second).record.parent == run_id


def test_the_proposal_warns_of_a_single_specimen(session):
    label(session.project, "m0")
    assert "only labelled micrograph" in session.training.proposed_config()[1]


def test_more_labels_more_iterations(tmp_path):
    session = Session(FakeRunner())
    session.open_project(make_project(tmp_path / "p", n=4, shape=(256, 256)))
    label(session.project, "m0")
    few = session.training.proposed_config()[0].iterations
    for stem in ("m1", "m2", "m3"):
        label(session.project, stem)
    assert session.training.proposed_config()[0].iterations > few
    session.close()


def test_signals_come_from_the_thread_that_applies(labelled, runner):
    threads = set()
    labelled.signals.connect(lambda _info: threads.add(threading.get_ident()))
    run_id = start(labelled, runner)
    speaker = threading.Thread(target=lambda: runner.job.say(RunFinished(run_id=run_id, result=RESULT)))
    speaker.start()
    speaker.join()
    waiter_got = []
    waiter = threading.Thread(target=lambda: waiter_got.extend(labelled.wait_events(1.0)))
    waiter.start()
    waiter.join()
    for message in waiter_got:
        labelled.apply(message)
    assert labelled.training.state.phase is Phase.FINISHED
    assert threads == {threading.get_ident()}


def test_held_out_and_training_tiles_are_told_apart_through_all_ancestors(labelled, runner):
    project = labelled.project
    first = project.create_run("train", {})
    first.snapshot_labels(["m0"])
    first.write_split(whole_split(train="m0", validation="m2"))
    second = project.create_run("train", {}, parent=first.id)
    second.snapshot_labels(["m1"])
    second.write_split(whole_split(train="m1", validation="m2"))
    labelled.use_model(second.id)

    def ground(stem, column):
        tile = labelled.labelling.grid(stem).tile(0, column)
        labelled.prediction.mask(stem)[:] = 1
        return labelled.measuring.tile_readout(tile).ground

    assert ground("m0", 0) == "training tile"  # seen by the run that the model went on from
    assert ground("m1", 0) == "training tile"
    assert ground("m1", 2) == "training micrograph"  # nothing was labelled there
    assert ground("m2", 0) == "held-out"
