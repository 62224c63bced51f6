"""When the engine is asked to rank, with what on disk, and what becomes of its answer."""

import numpy as np
import pytest
from loop_helpers import Hands, answer, asked, proposals, saved
from session_helpers import finish, label

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.events import NoticePosted, ProgressMade, RunFailed, RunFinished, RunStarted
from napari_emtransfer.session.queue_ranking import QUIET_SECONDS, SLICE_SECONDS, WORKING_SLICE_SECONDS


@pytest.fixture
def ranked(session, runner):
    session.queue.refresh()
    answer(session, runner)
    return session


def refuse(session, runner, message="The weights are gone."):
    runner.engine.say(RunFailed(run_id=asked(runner)[-1].run_id, kind="weights", message=message, hint="Import them."))
    finish(session)


def test_nothing_is_ranked_before_anybody_goes_by_the_queue(session, runner):
    session.show("m0")
    session.labelling.go_to_point("m0", 0, 0)
    session.labelling.mark_done()
    session.set_classes(["matrix", "pore", "carbide"])
    saved(session)
    assert not asked(runner)
    assert not session.queue.state.ranked


def test_looking_at_the_queue_ranks_once_and_again_only_when_told(ranked, runner):
    ranked.queue.refresh()
    assert len(asked(runner)) == 1
    ranked.queue.refresh(again=True)
    assert len(asked(runner)) == 2
    assert ranked.queue.state.phase == "ranking"


def test_going_on_by_the_queue_ranks_after_the_tile_is_shown(session, runner, recorder):
    tile = session.queue.next()
    (request,) = asked(runner)
    assert (request.first, request.seconds) == (tile.micrograph, WORKING_SLICE_SECONDS)
    assert recorder.names.index("tile_changed") < recorder.names.index("queue_changed")


def test_what_was_done_is_on_disk_before_the_engine_is_asked(ranked, runner):
    on_disk, send = [], runner.engine.request
    tile, entry = ranked.queue.next(), ranked.queue.state.current
    ranked.labelling.annotation(tile.micrograph)[tile.window.slices] = 1
    ranked.labelling.mark_dirty(tile.window)

    def request(sent):
        project = ranked.project
        on_disk.append(
            (
                bool(project.annotations.read(tile.micrograph, tile.window).all()),
                project.tile_states(tile.micrograph)[tile.row, tile.column],
                next(e.state for e in project.active.queue() if e.number == entry.number),
            )
        )
        send(sent)

    runner.engine.request = request
    ranked.queue.done()
    assert not on_disk  # nobody waited for the disk
    saved(ranked)
    assert on_disk == [(True, "done", "done")]


def test_the_engine_is_not_asked_while_the_strokes_cannot_be_saved(ranked, runner, monkeypatch):
    monkeypatch.setattr(ranked.project, "set_tile_state", lambda *_: 1 / 0)
    ranked.queue.next()
    ranked.queue.done()
    assert not ranked.labelling.save_now(timeout=1)
    finish(ranked)
    assert len(asked(runner)) == 1
    monkeypatch.undo()
    saved(ranked)
    assert len(asked(runner)) == 2


def test_fast_work_does_not_starve_the_ranking(ranked, runner):
    ranked.queue.next()
    ranked.queue.done()
    saved(ranked)
    under_way = asked(runner)[-1]
    ranked.queue.done()
    saved(ranked)
    assert asked(runner)[-1] == under_way
    assert not runner.engine.words
    answer(ranked, runner)
    assert asked(runner)[-1].generation == under_way.generation + 1  # for the tile that was done meanwhile


def test_another_question_overtakes_and_the_old_answer_is_dropped(session, runner):
    session.queue.refresh()
    (old,) = asked(runner)
    session.queue.set_acquisition("entropy")
    saved(session)
    assert f"cancel {old.run_id}" in runner.engine.words
    new = asked(runner)[-1]
    assert (new.config.acquisition, new.generation) == ("entropy", old.generation + 1)
    runner.engine.say(RunFinished(run_id=old.run_id, result={"n_tiles": 7, "n_scored": 7}))
    finish(session)
    assert (session.queue.state.phase, session.queue.state.n_tiles) == ("ranking", 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda session: session.set_classes(["matrix", "pore", "carbide"]),
        lambda session: session.use_model(None),
        lambda session: session.update_micrograph("m0", specimen="z"),
        lambda session: session.remove_micrograph("m2"),
        lambda session: (add_another(session), finish(session)),
    ],
    ids=["classes", "model", "specimen", "removed", "added"],
)
def test_another_project_is_ranked_anew(ranked, runner, change):
    change(ranked)
    saved(ranked)
    assert len(asked(runner)) == 2


def add_another(session):
    path = session.project.root.parent / "another.npy"
    np.save(path, np.zeros((128, 128), np.float32))
    session.add_micrographs([path])


def test_what_is_left_is_scored_slice_by_slice_while_the_user_pauses(session, runner):
    hands = Hands(session)
    session.queue.next()
    answer(session, runner, n_left=10)
    assert (session.queue.state.n_scored, session.queue.state.progress) == (8, 8 / 18)
    session.tick()
    assert len(asked(runner)) == 1  # the tile has just been shown
    hands.now += QUIET_SECONDS
    session.tick()
    assert len(asked(runner)) == 2
    assert asked(runner)[-1].seconds == SLICE_SECONDS
    answer(session, runner, n_left=4)
    session.queue.count_click()
    session.tick()
    assert len(asked(runner)) == 2
    hands.now += QUIET_SECONDS
    session.tick()
    answer(session, runner, n_left=4)  # no nearer: nothing would bring it there
    session.tick()
    assert len(asked(runner)) == 3
    assert session.queue.state.phase == "ready"


def test_what_is_left_waits_for_a_training_to_end(session, runner):
    hands = Hands(session)
    for stem in ("m0", "m1", "m2"):
        label(session.project, stem)
    session.queue.refresh()
    answer(session, runner, n_left=10)
    session.training.start(TrainConfig(iterations=10, weights="none", strategy="scratch"))
    hands.now += 60
    session.tick()
    assert len(asked(runner)) == 1
    runner.job.say(RunFailed(run_id=session.training.state.run_id, kind="label", message="No."))
    finish(session)
    session.tick()
    assert len(asked(runner)) == 2


def test_progress_is_told_while_the_engine_works(session, runner):
    session.queue.refresh()
    run_id = asked(runner)[-1].run_id
    runner.engine.say(RunStarted(run_id=run_id, n_steps=18))
    runner.engine.say(ProgressMade(run_id=run_id, done=6, total=18, what="tiles"))
    runner.engine.say(NoticePosted(run_id=run_id, message="One file cannot be read.", hint=""))
    finish(session)
    state = session.queue.state
    assert (state.phase, state.n_scored, state.n_tiles) == ("ranking", 6, 18)


def test_it_is_ready_when_its_queue_has_been_read(session, runner, recorder):
    session.queue.refresh()
    answer(session, runner)
    told = [state for (state,) in recorder.of("queue_changed")]
    assert {len(state.entries) for state in told if state.phase == "ready"} == {4}


def test_a_failure_is_a_sentence_and_the_old_queue_goes_on(ranked, runner, recorder):
    waiting = ranked.queue.state.entries
    ranked.queue.refresh(again=True)
    refuse(ranked, runner)
    state = ranked.queue.state
    assert (state.phase, state.error, state.hint) == ("failed", "The weights are gone.", "Import them.")
    assert state.entries == waiting
    assert "failed" not in recorder.names
    ranked.queue.next()
    saved(ranked)
    answer(ranked, runner)
    assert (ranked.queue.state.phase, ranked.queue.state.error) == ("ready", "")


def test_cancelled_it_rests_until_the_next_tile_is_done(session, runner):
    session.queue.next()
    session.queue.cancel()
    assert session.queue.state.phase == "ready"
    assert runner.engine.words == [f"cancel {asked(runner)[-1].run_id}"]
    session.queue.next()
    session.tick()
    assert len(asked(runner)) == 1
    session.queue.done()
    saved(session)
    assert len(asked(runner)) == 2


def test_cancelled_before_it_was_asked_it_rests_too(session, runner, monkeypatch):
    monkeypatch.setattr(session.labelling, "save_soon", lambda: 99)
    session.queue.next()
    session.queue.cancel()
    session.queue.next()
    assert session.queue.state.phase == "ready"
    assert not asked(runner)


def test_an_engine_that_dies_twice_leaves_the_queue_and_a_sentence(ranked, runner):
    ranked.queue.refresh(again=True)
    for _ in range(2):
        runner.engine.say(RunFailed(run_id="engine", kind="died", message="The prediction process has died."))
        finish(ranked)
    assert (ranked.queue.state.phase, ranked.queue.state.error) == ("failed", "The prediction process has died.")
    assert len(ranked.queue.state.entries) == 4


def test_a_skipped_tile_is_no_reason_to_rank_unless_it_was_the_last(ranked, runner):
    for entry in ranked.queue.state.entries[:3]:
        ranked.queue.skip(entry.number)
    saved(ranked)
    assert len(asked(runner)) == 1
    ranked.queue.skip(ranked.queue.state.entries[0].number)
    saved(ranked)
    assert len(asked(runner)) == 2


def test_a_training_that_ended_has_its_model_ranked_by(ranked, runner):
    for stem in ("m0", "m1", "m2"):
        label(ranked.project, stem)
    assert asked(runner)[-1].config.weights == "auto"
    run_id = ranked.training.start(TrainConfig(iterations=10, weights="none", strategy="scratch"))
    (ranked.project.run(run_id).root / "best.safetensors").write_bytes(b"weights")
    ranked.project.run(run_id).update("finished")
    runner.job.say(RunFinished(run_id=run_id, result={}))
    finish(ranked)
    assert asked(runner)[-1].config.weights == f"run:{run_id}"


def test_the_queue_of_a_project_that_is_closed_is_nobodys(ranked, runner):
    ranked.queue.refresh(again=True)
    ranked.close_project()
    assert (ranked.queue.state.phase, ranked.queue.state.entries) == ("off", ())
    finish(ranked)
    assert ranked.queue.state.phase == "off"


def test_an_unreadable_queue_is_told_and_the_walk_goes_on(session, runner, monkeypatch):
    with session.project._database.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE queue RENAME TO lost")
    session.queue.outdated()
    finish(session)
    assert "queue" in session.queue.state.error
    assert session.queue.next() is not None
    assert proposals(session.project, 1)


def test_rounds_of_an_unknown_form_are_told_and_the_events_go_on(session, recorder):
    session.project.active.add_round({"n_labelled_tiles": "many"})
    session.queue.outdated()
    finish(session)
    assert "could not be read" in session.queue.state.error
    session.queue.refresh()
    assert session.queue.state.phase == "ranking"


def test_a_project_that_cannot_be_written_is_not_ranked_and_says_so(session, runner, monkeypatch):
    monkeypatch.setattr(session.project._database, "read_only", "the disk is read-only")
    session.queue.refresh()
    assert session.queue.next() is not None
    assert not asked(runner)
    assert (session.queue.state.phase, session.queue.state.n_tiles) == ("failed", 0)
    assert session.queue.state.error == "The tiles are not ranked: the disk is read-only."
