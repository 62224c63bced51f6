"""One resident process for every question: each asker hears of its own request only, and always hears an end."""

import pytest
from session_helpers import Recorder, finish

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.events import EngineReady, ProgressMade, RunCancelled, RunFailed, RunFinished
from napari_emtransfer.worker.protocol import RecommendRequest


@pytest.fixture
def warm(session, runner):
    runner.engine.say(EngineReady(run_id="warm", device="CPU", memory_free_gb=3.5))
    runner.engine.say(RunFinished(run_id="warm"))
    finish(session)
    return session


def question(session, name):
    return RecommendRequest(run_id=name, project=session.project.root, config=TrainConfig())


def ask(session, name, key=None):
    """Ask, and return the list that the answers will stand in."""
    answers = []
    session.engine.ask(question(session, name), answers.append, key=key)
    return answers


def died(name="engine"):
    return RunFailed(run_id=name, kind="died", message="The worker process was killed (signal 9).")


def test_everybody_hears_the_events_of_his_own_request(warm, runner):
    first, second = ask(warm, "a"), ask(warm, "b")
    assert [r.run_id for r in runner.engine.requests] == ["a", "b"]
    events = [
        ProgressMade(run_id="a", done=1, total=2, what="tiles"),
        RunFinished(run_id="b", result={"n": 1}),
        RunFinished(run_id="a"),
        ProgressMade(run_id="a", done=2, total=2, what="tiles"),
    ]
    for event in events:
        runner.engine.say(event)
    finish(warm)
    assert first == [events[0], events[2]], "nothing after the terminal event"
    assert second == [events[1]]


def test_the_light_is_busy_while_anybody_waits(warm, runner):
    recorder = Recorder(warm.signals)
    ask(warm, "a")
    ask(warm, "b")
    runner.engine.say(RunFinished(run_id="a"))
    finish(warm)
    assert warm.engine.state.phase == "busy"
    runner.engine.say(RunFailed(run_id="b", kind="bug", message="No."))
    finish(warm)
    assert [state.phase for (state,) in recorder.of("engine_changed")] == ["busy", "ready"]
    assert recorder.of("failed") == [], "a fault is for the asker to tell"


def test_a_newer_question_takes_the_place_of_the_older(warm, runner):
    old, other, new = ask(warm, "a", "live"), ask(warm, "b", "preview"), ask(warm, "c", "live")
    assert runner.engine.words == ["cancel a"]
    for name in "abc":
        runner.engine.say(RunCancelled(run_id=name) if name == "a" else RunFinished(run_id=name))
    finish(warm)
    assert (old, len(other), len(new)) == ([], 1, 1)


def test_what_an_engine_died_over_is_sent_once_more_and_then_answered(warm, runner):
    recorder = Recorder(warm.signals)
    first, second = ask(warm, "a"), ask(warm, "b")
    for name in ("a", "b", "engine"):
        runner.engines[0].say(died(name))
    finish(warm)
    assert [r.run_id for r in runner.engine.requests] == ["a", "b"]
    assert (len(runner.engines), first, second) == (2, [], [])
    assert recorder.of("failed") == []
    runner.engine.say(died("a"))
    finish(warm)
    assert [(e.run_id, e.kind) for e in (*first, *second)] == [("a", "died"), ("b", "died")]
    assert (len(runner.engines), warm.engine.state.phase) == (2, "dead")
    assert len(recorder.of("failed")) == 1
    ask(warm, "c")
    assert [r.run_id for r in runner.engine.requests] == ["c"], "the next question starts it again"


def test_one_deadly_question_does_not_take_the_others_along_for_ever(warm, runner):
    deadly = ask(warm, "deadly")
    for i in range(3):
        harmless = ask(warm, f"harmless-{i}")
        runner.engine.say(RunFinished(run_id=f"harmless-{i}"))
        runner.engine.say(died())
        finish(warm)
        assert len(harmless) == 1
    assert [e.kind for e in deadly] == ["died"]


def test_an_engine_that_cannot_be_started_answers_at_once(warm, runner, monkeypatch):
    recorder = Recorder(warm.signals)
    warm.engine.end()

    def refuse(_sink):
        raise OSError("no memory")

    monkeypatch.setattr(runner, "start_engine", refuse)
    answers = ask(warm, "a")
    assert "no memory" in answers[0].message
    assert len(recorder.of("failed")) == 1


def test_nobody_is_answered_about_a_project_that_is_closed(warm, runner):
    answers = ask(warm, "a")
    warm.close_project()
    runner.engine.say(RunFinished(run_id="a"))
    finish(warm)
    assert answers == []
    assert warm.engine.state.phase == "ready"
