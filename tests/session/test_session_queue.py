"""The labelling loop without a window or an engine: which tile comes next, what is kept of it, and what it cost."""

import pytest
from loop_helpers import Hands, answer, asked, proposal, proposals, rank_on_disk, saved, stored
from session_helpers import FakeRunner, finish, label, make_project

from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import ProjectError
from napari_emtransfer.core.events import RunFailed
from napari_emtransfer.session.queue_clock import IDLE_SECONDS, TileClock
from napari_emtransfer.session.session import Session


@pytest.fixture
def queued(session, runner):
    """A session whose queue holds four tiles."""
    session.queue.refresh()
    answer(session, runner)
    assert len(session.queue.state.entries) == 4
    return session


def cell(tile_or_entry):
    stem = getattr(tile_or_entry, "stem", None) or tile_or_entry.micrograph
    return stem, tile_or_entry.row, tile_or_entry.column


def stroke(session, value=1):
    window = session.tile.window
    part = Window(y0=window.y0, x0=window.x0, y1=window.y0 + 4, x1=window.x0 + 4)
    session.labelling.annotation(session.current)[part.slices] = value
    session.queue.count_click()
    session.labelling.mark_dirty(part)


# ---- which tile comes next


def test_without_a_queue_next_walks(session):
    assert session.queue.next() is not None
    assert session.queue.state.current is None


def test_next_goes_through_the_queue_in_its_order(queued):
    order = [cell(entry) for entry in queued.queue.state.entries]
    assert [cell(queued.labelling.next_tile()) for _ in range(4)] == order


def test_the_tile_that_is_shown_is_the_current_entry(queued):
    first = queued.queue.state.entries[0]
    queued.queue.next()
    assert queued.queue.state.current.number == first.number
    queued.labelling.go_to_point("m0", 0, 0)
    assert queued.queue.state.current is None


def test_previous_goes_back_through_what_was_shown_and_next_comes_again(queued):
    first, second = queued.queue.next(), queued.queue.next()
    assert queued.labelling.previous_tile() == first
    assert queued.queue.next() == second


def test_done_ends_the_entry_and_shows_the_next_one(queued):
    first, second = queued.queue.state.entries[:2]
    queued.queue.next()
    assert cell(queued.queue.done()) == cell(second)
    assert first.number not in [entry.number for entry in queued.queue.state.entries]
    saved(queued)
    assert stored(queued, first.number).state == "done"
    assert stored(queued, first.number).ended


def test_what_the_label_tab_does_counts_too(queued):
    done, unsure, skipped, left = queued.queue.state.entries
    tiles = [queued.labelling.find_tile(e.stem, e.grid, e.row, e.column) for e in (done, unsure, skipped)]
    queued.labelling.mark_done(tiles[0])
    queued.labelling.mark_unsure(tiles[1])
    queued.labelling.mark_skipped(tiles[2])
    assert [(e.number, e.state) for e in queued.queue.state.entries] == [
        (left.number, "waiting"),
        (unsure.number, "deferred"),
    ]
    saved(queued)
    assert [stored(queued, e.number).state for e in (done, unsure, skipped)] == ["done", "deferred", "skipped"]


def test_skipping_another_tile_leaves_the_shown_one_in_place(queued):
    tile, other = queued.queue.next(), queued.queue.state.entries[2]
    assert queued.queue.skip(other.number) == tile
    assert queued.tile == tile
    assert other.number not in [entry.number for entry in queued.queue.state.entries]


def test_deferring_the_shown_tile_goes_on_and_it_is_last(queued):
    first, second = queued.queue.state.entries[:2]
    queued.queue.next()
    assert cell(queued.queue.defer()) == cell(second)
    assert queued.queue.state.entries[-1].number == first.number
    assert queued.queue.state.waiting == queued.queue.state.entries[:-1]


def test_a_tile_that_was_passed_over_comes_after_the_others(queued):
    first = queued.queue.next()
    assert [queued.queue.next() for _ in range(4)][-1] == first


def test_going_to_an_entry_and_to_one_that_is_gone(queued):
    entry = queued.queue.state.entries[2]
    assert cell(queued.queue.go(entry.number)) == cell(entry)
    with pytest.raises(ProjectError, match="no entry 99"):
        queued.queue.go(99)


def test_a_mind_that_changes_about_a_done_tile_reopens_its_entry(queued):
    first = queued.queue.state.entries[0]
    tile = queued.queue.next()
    queued.queue.done()
    queued.labelling.mark_unsure(tile)
    saved(queued)
    assert (stored(queued, first.number).state, stored(queued, first.number).ended) == ("deferred", None)


@pytest.mark.parametrize(("how", "state"), [("mark_done", "done"), ("mark_unsure", "deferred")])
def test_a_skipped_tile_can_be_gone_back_to(queued, how, state):
    tile, entry = queued.queue.next(), queued.queue.state.current
    queued.queue.skip()
    assert queued.labelling.previous_tile() == tile
    getattr(queued.labelling, how)()
    saved(queued)
    assert stored(queued, entry.number).state == state


def test_done_on_a_tile_that_was_never_queued_is_ranked_again_and_recorded_nowhere(queued, runner):
    before = queued.project.active.queue()
    queued.labelling.go_to_point("m0", 0, 0)
    n = len(asked(runner))
    queued.labelling.mark_done()
    saved(queued)
    assert len(asked(runner)) == n + 1
    assert queued.project.active.queue() == before


def test_tiles_of_synthetic_micrographs_are_never_proposed(session, runner):
    with session.project._database.writing() as connection:
        connection.exec_driver_sql("UPDATE micrographs SET synthetic = 1 WHERE stem = 'm0'")
    session._micrographs_changed()
    session.queue.refresh()
    answer(session, runner, [proposal(session.project, "m0", 0, 0), proposal(session.project, "m1", 0, 0)])
    assert [cell(entry) for entry in session.queue.state.entries] == [("m1", 0, 0)]


def test_the_next_micrograph_is_read_before_it_is_shown(queued, monkeypatch):
    queued.queue.next()
    finish(queued)
    monkeypatch.setattr(queued.project.annotations, "read", lambda *_: pytest.fail("read while the user waits"))
    before = queued.current
    assert queued.queue.next() is not None
    assert queued.current != before


def test_what_is_read_ahead_gives_way_to_newer_labels(queued):
    stem = queued.queue.state.entries[1].stem
    queued.queue.next()  # its successor is being read now
    queued.labelling.annotation(stem)[:4] = 2
    finish(queued)
    assert (queued.labelling.annotation(stem)[:4] == 2).all()


# ---- a new queue


def test_a_new_queue_leaves_the_user_where_he_is(queued, runner):
    shown = queued.queue.next()
    entry = queued.queue.state.current
    saved(queued)
    queued.queue.refresh(again=True)
    fresh = proposals(queued.project, 3, skip=6)
    answer(queued, runner, fresh)
    assert queued.tile == shown
    assert queued.queue.state.current.number == entry.number
    assert [cell(e) for e in queued.queue.state.entries if e != queued.queue.state.current] == [cell(e) for e in fresh]
    assert cell(queued.queue.next()) == cell(fresh[0])


def test_an_entry_that_a_ranking_replaced_unaware_is_kept_with_what_was_done_to_it(queued):
    """The ranking writes its queue before it can know which tile is on the screen."""
    queued.queue.next()
    entry = queued.queue.state.current
    rank_on_disk(queued.project, proposals(queued.project, 3, skip=6))
    queued.queue.outdated()
    finish(queued)
    stroke(queued)
    queued.queue.done()
    saved(queued)
    kept = stored(queued, entry.number)
    assert (kept.state, kept.clicks, kept.reason) == ("done", 1, entry.reason)


def test_a_shown_tile_that_is_proposed_anew_has_one_entry(queued):
    queued.queue.next()
    entry = queued.queue.state.current
    with queued.project._database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM queue")
    rank_on_disk(queued.project, [proposal(queued.project, *entry.tile)])
    queued.queue.outdated()
    finish(queued)
    stroke(queued)
    queued.queue.done()
    saved(queued)
    ((number, state, clicks),) = [(e.number, e.state, e.clicks) for e in queued.project.active.queue()]
    assert (state, clicks) == ("done", 1)
    assert number != entry.number


def test_a_tile_that_is_proposed_a_second_time_is_not_listed_twice(queued, runner):
    """It was looked at and left, so its first entry was replaced by a ranking; a later one proposed it again."""
    first = queued.queue.state.entries[0]
    queued.queue.next()
    queued.queue.next()
    saved(queued)
    for chosen in (proposals(queued.project, 2, skip=6), [proposal(queued.project, *first.tile)]):
        queued.queue.refresh(again=True)
        answer(queued, runner, chosen)
    (again,) = [entry for entry in queued.queue.state.entries if cell(entry) == cell(first)]
    assert again.number != first.number
    queued.queue.go(again.number)
    assert queued.queue.state.current.number == again.number
    assert [cell(entry) for entry in queued.queue.state.entries].count(cell(first)) == 1


def test_an_entry_of_a_micrograph_that_is_removed_is_no_obstacle(queued):
    queued.queue.next()
    stem = queued.current
    queued.remove_micrograph(stem)
    assert all(entry.stem != stem for entry in queued.queue.state.entries)
    queued.queue.next()
    queued.queue.done()
    saved(queued)


def test_a_random_control_with_too_few_labels_is_told_at_once(queued, recorder):
    """Half of what shows the specimen has to be labelled: the rule that the ranking measures by."""
    cells = [cell(entry) for entry in queued.queue.state.entries[:3]]
    known = [{"control": True, "reason": "random control"}, {"control": True, "reason": "random control"}, {}]
    new = [proposal(queued.project, *c, **facts) for c, facts in zip(cells, known, strict=True)]
    with queued.project._database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM queue")
    queued.project.active.replace_waiting(new)
    queued.queue.outdated()
    finish(queued)
    for n_marked, is_told in ((0.4, True), (0.6, False), (0.0, False)):  # the last one was chosen
        tile = queued.queue.next()
        height = int(n_marked * tile.window.shape[0])
        part = Window(y0=tile.window.y0, x0=tile.window.x0, y1=tile.window.y0 + max(1, height), x1=tile.window.x1)
        queued.labelling.annotation(queued.current)[part.slices] = 1
        queued.labelling.mark_dirty(part)
        before = len(recorder.of("notice_posted"))
        queued.labelling.mark_done()
        assert len(recorder.of("notice_posted")) - before == is_told


# ---- what a tile costs


def test_the_clock_counts_until_the_user_walks_off():
    now = [0.0]
    clock = TileClock(lambda: now[0])
    clock.start()
    now[0] = 20.0
    clock.act(1)
    now[0] = 20.0 + 10 * IDLE_SECONDS
    clock.act(2)
    now[0] += 5.0
    assert clock.so_far() == (20.0 + IDLE_SECONDS + 5.0, 3)
    clock.stop()
    now[0] += 5.0
    assert clock.so_far().seconds == 25.0 + IDLE_SECONDS


def test_seconds_and_clicks_are_written_with_the_end(queued):
    hands, entry = Hands(queued), queued.queue.state.entries[0]
    queued.queue.next()
    hands.now += 7
    stroke(queued)
    stroke(queued)
    hands.now += 3
    queued.queue.done()
    saved(queued)
    assert (stored(queued, entry.number).seconds, stored(queued, entry.number).clicks) == (10.0, 2)


def test_visits_add_up_also_over_a_restart(queued, runner):
    hands, entry = Hands(queued), queued.queue.state.entries[0]
    queued.queue.next()
    stroke(queued)
    hands.now += 4
    queued.queue.next()
    hands.now += 30
    queued.queue.go(entry.number)
    hands.now += 5
    root = queued.project.root
    queued.close_project()
    queued.open_project(root)
    finish(queued)
    assert (stored(queued, entry.number).seconds, stored(queued, entry.number).clicks) == (9.0, 1)
    queued.queue.go(entry.number)
    hands.now += 1
    stroke(queued)
    queued.queue.done()
    saved(queued)
    assert (stored(queued, entry.number).seconds, stored(queued, entry.number).clicks) == (10.0, 2)


def test_a_tile_that_was_only_looked_at_may_be_replaced_but_the_look_counts(queued):
    hands, entry = Hands(queued), queued.queue.state.entries[0]
    queued.queue.next()
    saved(queued)
    assert stored(queued, entry.number).shown
    hands.now += 8
    queued.queue.next()
    saved(queued)
    assert not stored(queued, entry.number).shown
    queued.queue.go(entry.number)
    hands.now += 2
    queued.queue.done()
    saved(queued)
    assert stored(queued, entry.number).seconds == 10.0


def test_a_prediction_that_arrives_is_no_work(queued):
    """Nobody has touched the tile: it may be replaced, and tiles may be scored meanwhile."""
    hands = Hands(queued)
    queued.queue.next()
    entry = queued.queue.state.current
    hands.now += 7.0
    queued.overlays.tell(queued.current, queued.tile.window)
    assert queued.queue._visits.quiet_seconds == 7.0
    queued.queue.next()
    saved(queued)
    assert stored(queued, entry.number).seconds is None


def test_painting_without_a_tile_is_work_too(queued):
    hands = Hands(queued)
    queued.show("m1")
    hands.now += 7.0
    queued.labelling.mark_dirty(Window(y0=0, x0=0, y1=4, x1=4))
    assert queued.queue._visits.quiet_seconds == 0.0


def test_a_tile_that_is_worked_on_for_long_has_its_time_written_on_the_way(queued):
    hands, entry = Hands(queued), queued.queue.state.entries[0]
    queued.queue.next()
    hands.now += 30
    stroke(queued)
    saved(queued)
    assert stored(queued, entry.number).seconds == 30.0


# ---- left and resumed


def test_a_session_is_resumed_where_it_was_left(queued, tmp_path):
    queued.queue.next()
    queued.queue.done()
    queued.queue.set_acquisition("entropy")
    queued.queue.set_target(0.02)
    queued.queue.set_finetune_every(5)
    order = [entry.number for entry in queued.queue.state.entries]
    root = queued.project.root
    queued.close()
    session = Session(runner := FakeRunner())
    session.open_project(root)
    finish(session)
    state = session.queue.state
    assert [entry.number for entry in state.entries] == order
    assert (state.acquisition, state.target_half_width, state.finetune_every) == ("entropy", 0.02, 5)
    assert len(state.rounds) == 1
    assert not asked(runner)
    assert cell(session.queue.next()) == cell(state.entries[0])
    session.close()


def test_impossible_settings_are_refused_in_a_sentence(session):
    for command, value in (("set_acquisition", "guess"), ("set_target", 2.0), ("set_finetune_every", 0)):
        with pytest.raises(ProjectError, match=str(value)):
            getattr(session.queue, command)(value)
    assert session.queue.state.acquisition == "default"


def test_settings_written_by_the_loop_leave_the_others_alone(session):
    with session.project.open(session.project.root) as elsewhere:
        session.queue.set_acquisition("random")
        elsewhere.update_settings(tile_size_px=96)
        saved(session)
        assert (elsewhere.settings.tile_size_px, elsewhere.settings.loop.acquisition) == (96, "random")


def test_advice_to_stop_is_for_the_target(session, runner):
    phases = {"pore": {"fraction": 0.2, "low": 0.17, "high": 0.23, "half_width": 0.03}}
    control = {"mean_iou": 0.8, "n_tiles": 9, "n_specimens": 3, "ground": "9 random tiles"}
    session.queue.refresh()
    answer(session, runner, phases=phases, control=control)
    assert not session.queue.state.advice.stop
    for half_width, stop in ((0.01, False), (0.05, True)):
        session.queue.set_target(half_width)
        finish(session)
        assert (session.queue.state.advice.stop, session.queue.state.target_half_width) == (stop, half_width)
    assert session.queue.state.facts.control.mean_iou == 0.8


# ---- training by itself


@pytest.fixture
def labelled(tmp_path, runner):
    root = make_project(tmp_path / "labelled")
    session = Session(runner)
    session.open_project(root)
    for stem in ("m0", "m1", "m2"):
        label(session.project, stem)
    yield session
    session.close()


def finish_tiles(session, n):
    for _ in range(n):
        session.queue.next()
        session.queue.done()
    wait_for_proposal(session)


def wait_for_proposal(session):
    for _ in range(100):
        session.drain(0.02)
        if not session.queue._finetuning._proposing:
            break
    finish(session)


def test_after_so_many_done_tiles_a_training_starts_with_the_proposal(labelled, runner):
    labelled.queue.set_finetune_every(2)
    finish_tiles(labelled, 1)
    assert (len(runner.jobs), labelled.queue.state.n_until_finetune) == (0, 1)
    finish_tiles(labelled, 1)
    (request,) = runner.job.requests
    assert request.config == labelled.training.proposed_config()[0]
    finish_tiles(labelled, 3)
    assert len(runner.jobs) == 1  # while that one runs
    assert labelled.queue.state.n_until_finetune == 0


def test_what_cannot_be_trained_is_told_and_the_loop_goes_on(session, runner):
    session.queue.set_finetune_every(1)
    finish_tiles(session, 1)
    assert not runner.jobs
    assert "labelled" in session.queue.state.error
    assert session.queue.next() is not None


def test_a_training_that_fails_is_not_started_again_before_as_many_more_tiles(labelled, runner):
    labelled.queue.set_finetune_every(2)
    finish_tiles(labelled, 2)
    runner.job.say(RunFailed(run_id=labelled.training.state.run_id, kind="error", message="The memory is full."))
    wait_for_proposal(labelled)
    assert (len(runner.jobs), labelled.queue.state.n_until_finetune) == (1, 2)
    finish_tiles(labelled, 1)
    assert len(runner.jobs) == 1
    finish_tiles(labelled, 1)
    assert len(runner.jobs) == 2


def test_done_tiles_that_leave_with_their_micrograph_do_not_put_the_next_training_off(labelled):
    for tile in labelled.labelling.grid("m0"):
        labelled.labelling.mark_done(tile)
    labelled.queue.set_finetune_every(2)
    labelled.remove_micrograph("m0")
    assert labelled.queue.state.n_until_finetune == 2


def test_a_training_started_by_hand_counts_too(labelled, runner):
    labelled.queue.set_finetune_every(2)
    finish_tiles(labelled, 1)
    labelled.training.start(labelled.training.proposed_config()[0])
    assert labelled.queue.state.n_until_finetune == 2
