"""The live head, without a process: strokes → saved → asked → pasted, and never behind the user's back."""

import threading
import time

import numpy as np
import pytest
from session_helpers import Recorder, finish

from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.events import EngineReady, ProgressMade, RegionPredicted, RunFailed, RunFinished
from napari_emtransfer.session.live_place import place_in_view
from napari_emtransfer.worker.protocol import LIVE_RUN, LiveRequest

STROKE = Window(y0=4, x0=4, y1=12, x1=40)


@pytest.fixture
def warm(session, runner):
    runner.engine.say(EngineReady(run_id="warm", device="CPU", memory_free_gb=3.5))
    finish(session)
    session.labelling.go_to_point("m0", 0, 0)
    painted_before(session)
    return session


def painted_before(session):
    """Strokes of an earlier day, on another micrograph."""
    session.labelling.annotation("m2")[:4, :4] = 1
    session.labelling.mark_dirty(Window(y0=0, x0=0, y1=4, x1=4), stem="m2")
    assert session.labelling.save_now()
    finish(session)


@pytest.fixture
def live(warm, runner):
    """Live is on, its first answer there: everything is class 1."""
    warm.live.set_enabled(True)
    answer(warm, runner, 1)
    return warm


def stroke(session, value=1, window=STROKE):
    """What the canvas does when the mouse is released."""
    session.live.stroke_begun()
    session.labelling.annotation(session.current)[window.slices] = value
    session.labelling.mark_dirty(window)
    session.live.stroke_ended()


def saved(session):
    """Wait for the strokes to be on disk, and for what follows."""
    deadline = time.monotonic() + 10
    while session.labelling.unsaved:
        assert time.monotonic() < deadline
        session.drain(0.01)
    finish(session)


def predict(session, runner, value, request=None):
    """Pixels into the store, and the event that says so."""
    request = request or runner.engine.requests[-1]
    store, stem, window = session.project.predictions, request.micrograph, request.window
    if not store.exists(LIVE_RUN, stem):
        store.create(LIVE_RUN, stem, (128, 192))
    ones = np.ones(window.shape, np.float16)
    store.write(
        LIVE_RUN, stem, window, mask=np.full(window.shape, value, np.uint8), entropy=0.5 * ones, confidence=ones
    )
    runner.engine.say(
        RegionPredicted(
            run_id=request.run_id,
            micrograph=stem,
            model_run=LIVE_RUN,
            generation=request.generation,
            **window.model_dump(),
        )
    )


def answer(session, runner, value, request=None):
    request = request or runner.engine.requests[-1]
    predict(session, runner, value, request)
    runner.engine.say(RunFinished(run_id=request.run_id, result={"n_pixels": 288}))
    finish(session)


def refuse(session, runner, kind="label", message="Only the class 'matrix' is labelled."):
    runner.engine.say(RunFailed(run_id=runner.engine.requests[-1].run_id, kind=kind, message=message, hint="Paint."))
    finish(session)


def asked(runner):
    return [r for r in runner.engine.requests if isinstance(r, LiveRequest)]


def test_switched_on_it_asks_for_the_tile_in_view_and_shows_the_answer(warm, runner):
    recorder = Recorder(warm.signals)
    warm.live.toggle()
    (request,) = asked(runner)
    assert (request.micrograph, request.window) == ("m0", warm.tile.window)
    assert warm.live.state.phase == "updating"
    answer(warm, runner, 2)
    mask = warm.prediction.mask("m0")
    assert (mask[warm.tile.window.slices] == 2).all()
    assert not mask[:, 64:].any()
    assert (warm.prediction.entropy("m0")[warm.tile.window.slices] == 0.5).all()
    assert (warm.live.state.phase, warm.live.state.n_pixels) == ("ready", 288)
    assert recorder.of("prediction_changed") == [("m0", warm.tile.window)]


def test_a_stroke_is_on_disk_before_the_engine_is_asked_to_learn_from_it(live, runner):
    on_disk = []
    send = runner.engine.request

    def request(sent):
        on_disk.append(live.project.annotations.read("m0", STROKE))
        send(sent)

    runner.engine.request = request
    stroke(live, 2)
    saved(live)  # without a tick: not after the pause that ends a stroke, but at once
    assert (on_disk[0] == 2).all()
    answer(live, runner, 2)
    assert (live.prediction.mask("m0")[live.tile.window.slices] == 2).all()


def test_the_thread_that_paints_never_waits_for_the_disk(live, runner, monkeypatch):
    gate = threading.Event()
    write = live.project.annotations.write
    monkeypatch.setattr(live.project.annotations, "write", lambda *args: (gate.wait(5), write(*args)))
    stroke(live)
    finish(live)
    assert len(asked(runner)) == 1, "it came back although nothing is written"
    gate.set()
    saved(live)
    assert len(asked(runner)) == 2


def test_half_a_stroke_is_saved_but_not_learnt_from(live, runner):
    live.live.stroke_begun()
    live.labelling.annotation("m0")[STROKE.slices] = 1
    live.labelling.mark_dirty(STROKE)
    live.labelling.save_now()
    finish(live)
    assert len(asked(runner)) == 1
    live.live.stroke_ended()
    saved(live)
    assert len(asked(runner)) == 2


def test_painting_without_a_pause_does_not_put_the_overlay_off(live, runner):
    for _ in range(5):
        stroke(live)
        live.live.stroke_begun()
        live.labelling.annotation("m0")[60, 60] += 1
        live.labelling.mark_dirty(Window(y0=60, x0=60, y1=61, x1=61))
        wanted = len(asked(runner)) + 1
        deadline = time.monotonic() + 5
        while len(asked(runner)) < wanted:
            assert time.monotonic() < deadline, "the next stroke is being painted, and nothing is asked for"
            live.drain(0.01)
        answer(live, runner, 2)


def test_strokes_during_an_update_are_answered_together_by_the_next(live, runner):
    for value in (1, 2, 1):
        stroke(live, value)
        saved(live)
    assert len(asked(runner)) == 2, "a running update is not thrown away: fast strokes would starve the overlay"
    answer(live, runner, 2)
    assert (live.prediction.mask("m0")[live.tile.window.slices] == 2).all()
    assert len(asked(runner)) == 3
    answer(live, runner, 1)
    assert len(asked(runner)) == 3
    assert live.live.state.phase == "ready"


def test_another_tile_overtakes_and_the_old_window_goes(live, runner):
    first = live.tile.window
    stroke(live)
    saved(live)
    late = asked(runner)[-1]
    live.labelling.go_to_point("m0", 100, 100)
    newest = asked(runner)[-1]
    assert newest.window == live.tile.window
    assert newest.generation > late.generation
    answer(live, runner, 2, late)
    assert (live.prediction.mask("m0")[first.slices] == 1).all(), "a late answer"
    answer(live, runner, 2, newest)
    mask = live.prediction.mask("m0")
    assert (mask[newest.window.slices] == 2).all()
    assert not mask[first.slices].any(), "an older head's pixels beside a newer one's would look like one opinion"


def test_a_view_dragged_away_from_the_tile_is_followed_once_it_stands_still(warm, runner):
    now = [0.0]
    warm.live._clock = lambda: now[0]
    warm.live.set_enabled(True)
    answer(warm, runner, 1)
    for x0 in (10, 70, 130):
        warm.look_at(Window(y0=64, x0=x0, y1=128, x1=x0 + 60))
        now[0] += 0.1
        warm.tick()
    assert len(asked(runner)) == 1
    now[0] += 0.3
    warm.tick()
    assert asked(runner)[-1].window == Window(y0=64, x0=128, y1=128, x1=192)
    answer(warm, runner, 2)
    for _ in range(3):
        now[0] += 1
        warm.tick()
    assert len(asked(runner)) == 2


def test_another_micrograph_keeps_nothing_of_an_older_head(live, runner):
    live.labelling.go_to_point("m1", 0, 0)
    assert asked(runner)[-1].micrograph == "m1"
    answer(live, runner, 2)
    assert not live.prediction.mask("m0").any()


def test_one_class_is_no_error_but_a_hint(warm, runner):
    recorder = Recorder(warm.signals)
    warm.live.set_enabled(True)
    refuse(warm, runner)
    assert warm.live.state.phase == "waiting"
    assert "second class" in warm.live.state.message
    assert "Only the class 'matrix'" in warm.live.state.hint
    assert recorder.of("failed") == []
    stroke(warm, 2)
    saved(warm)
    answer(warm, runner, 2)
    assert warm.live.state.phase == "ready"


def test_with_the_second_class_erased_its_overlay_goes(live, runner):
    stroke(live, 0)
    saved(live)
    refuse(live, runner)
    assert not live.prediction.mask("m0").any()


def test_a_fault_stands_in_the_state_and_the_next_stroke_tries_again(live, runner):
    recorder = Recorder(live.signals)
    stroke(live)
    saved(live)
    refuse(live, runner, kind="weights", message="The weights do not fit.")
    assert (live.live.state.phase, live.live.state.message) == ("failed", "The weights do not fit.")
    assert recorder.of("failed") == [], "not one pop-up per stroke"
    stroke(live, 2)
    saved(live)
    answer(live, runner, 2)
    assert live.live.state.phase == "ready"


def test_an_engine_that_dies_is_asked_again(live, runner):
    stroke(live)
    saved(live)
    lost = asked(runner)[-1]
    runner.engine.say(RunFailed(run_id="engine", kind="died", message="killed"))
    finish(live)
    assert asked(runner) == [lost]
    assert live.live.state.phase == "updating"
    answer(live, runner, 2)
    assert live.live.state.phase == "ready"


def test_before_the_first_stroke_it_says_what_to_do_and_not_what_the_engine_does(session, runner):
    session.labelling.go_to_point("m0", 0, 0)
    session.live.set_enabled(True)
    assert (session.live.state.phase, session.live.state.message) == ("waiting", "paint a few strokes of each class")
    assert asked(runner), "the engine gets ready meanwhile"
    refuse(session, runner)
    assert session.live.state.message == "paint a few strokes of each class"
    stroke(session)
    saved(session)
    assert session.live.state.phase == "updating"
    refuse(session, runner)
    assert session.live.state.message == "paint a second class to see an overlay"


def test_the_first_update_says_what_takes_so_long(session, runner):
    session.labelling.go_to_point("m0", 0, 0)
    painted_before(session)
    now = [0.0]
    session.live._clock = lambda: now[0]
    session.live.set_enabled(True)
    assert session.live.state.message == "starting the engine …"
    runner.engine.say(EngineReady(run_id="warm", device="CPU"))
    finish(session)
    now[0] = 4
    session.tick()
    assert session.live.state.message == "preparing features … 4 s"
    runner.engine.say(ProgressMade(run_id=runner.engine.requests[-1].run_id, done=3, total=10, what="tiles"))
    finish(session)
    assert session.live.state.message == "preparing features … 3 of 10 tiles, 4 s"
    answer(session, runner, 1)
    stroke(session, 2)
    saved(session)
    assert session.live.state.message == "updating …"


def test_seconds_count_from_the_end_of_the_stroke_to_its_pixels(live, runner):
    now = [10.0]
    live.live._clock = lambda: now[0]
    stroke(live, 2)
    now[0] += 0.1
    saved(live)
    now[0] += 0.3
    predict(live, runner, 2)
    finish(live)
    now[0] += 5.0  # what the worker tidies up afterwards keeps nobody waiting
    runner.engine.say(RunFinished(run_id=runner.engine.requests[-1].run_id))
    finish(live)
    assert live.live.state.seconds == pytest.approx(0.4)


def make_model(session):
    run = session.project.create_run("train", {})
    run.checkpoint_path("best").write_bytes(b"weights")
    run.update("finished", mean_iou=0.8)
    return run.id


def test_the_models_overlay_gives_way_and_comes_back(warm, runner):
    run = make_model(warm)
    warm.use_model(run)
    first = runner.engine.requests[-1]
    assert first.kind == "predict"
    warm.live.set_enabled(True)
    assert f"cancel {first.run_id}" in runner.engine.words
    assert asked(runner)[-1].config.weights == f"run:{run}"
    warm.labelling.go_to_point("m1", 0, 0)
    assert [r.kind for r in runner.engine.requests].count("predict") == 1, "the model's prediction is not asked for"
    answer(warm, runner, 2)
    assert warm.overlays.of("m1").run == LIVE_RUN
    warm.live.set_enabled(False)
    assert warm.live.state.phase == "off"
    request = runner.engine.requests[-1]
    assert (request.kind, request.model_run, request.micrographs) == ("predict", run, ("m1",))


def test_without_a_model_nothing_is_left_when_it_is_switched_off(live, runner):
    recorder = Recorder(live.signals)
    live.live.toggle()
    assert not live.prediction.mask("m0").any()
    assert recorder.of("prediction_changed")
    stroke(live)
    live.labelling.save_now()
    finish(live)
    assert len(asked(runner)) == 1


def test_a_finished_training_is_what_it_stands_on_next(no_bundled_weights, live, runner):
    assert asked(runner)[-1].config.weights == "none"
    run, recorder = make_model(live), Recorder(live.signals)
    live.use_model(run)
    assert asked(runner)[-1].config.weights == f"run:{run}"
    ((message, hint),) = recorder.of("notice_posted")
    assert run in message
    assert "Live off" in hint
    assert [r.kind for r in runner.engine.requests].count("predict") == 0


def test_imported_weights_are_better_than_none(session, monkeypatch):
    from napari_emtransfer.core.nn import store
    from napari_emtransfer.core.nn.registry import WeightsEntry

    mine = WeightsEntry(name="mine", family="imported", encoder="resnet34")
    monkeypatch.setattr(store, "all_entries", lambda: [WeightsEntry(name="imagenet:x", family="imagenet"), mine])
    monkeypatch.setattr(store, "is_here", lambda entry: True)
    config = session._live_config()
    assert (config.weights, config.encoder) == ("mine", "resnet34")


def test_the_readout_names_the_live_head_and_calls_a_tile_that_it_learns_from_a_training_tile(live, runner):
    live.tick()
    assert live.text_overlay == "live head · matrix 100 % · pore 0 % — no labels on this tile"
    stroke(live, 1)
    saved(live)
    answer(live, runner, 1)
    live.tick()
    assert live.text_overlay.startswith("live head · IoU matrix 1.00 · pore – — ")
    assert live.text_overlay.endswith("of this tile labelled, training tile")
    live.labelling.go_to_point("m1", 0, 0)
    answer(live, runner, 1)
    live.tick()
    assert live.readouts.tile.ground == "held-out"


def test_the_readout_keeps_the_models_name_until_the_live_pixels_are_there(warm, runner):
    run = make_model(warm)
    warm.use_model(run)
    warm.overlays.of("m0").run = run
    warm.prediction.mask("m0")[:] = 1
    warm.live.set_enabled(True)
    warm.measuring.refresh()
    assert warm.text_overlay.startswith(f"run {run} · ")
    answer(warm, runner, 1)
    warm.tick()
    assert warm.text_overlay.startswith("live head · ")


def test_closing_the_project_switches_it_off(live, runner):
    recorder = Recorder(live.signals)
    live.close_project()
    assert not live.live.enabled
    assert [state.phase for (state,) in recorder.of("live_changed")] == ["off"]


def test_of_a_large_tile_the_part_in_view_is_asked_for(live, monkeypatch):
    large = live.tile.model_copy(update={"window": Window(y0=0, x0=0, y1=2000, x1=300)})
    monkeypatch.setattr(live.labelling, "tile", large)
    views = [Window(y0=y, x0=0, y1=y + 200, x1=300) for y in (0, 700, 720, 1900)]
    windows = [place_in_view(live.project, live.labelling, view).window for view in views]
    assert all(w.shape == (512, 300) for w in windows)
    assert windows[1] == windows[2], "a small move asks for nothing"
    assert all(w.intersection(view) is not None for w, view in zip(windows, views, strict=True))
    assert (windows[0].y0, windows[-1].y1) == (0, 2000)
