"""The engine and the overlay, without a process."""

import numpy as np
import pytest
from session_helpers import Recorder, finish

from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.events import EngineReady, RegionPredicted, RunCancelled, RunFailed, RunFinished

TOP = Window(y0=0, x0=0, y1=64, x1=192)
REST = Window(y0=64, x0=0, y1=128, x1=192)


@pytest.fixture
def trained(session, runner):
    """A session with a model, its engine warm, and nothing shown."""
    run = session.project.create_run("train", {})
    run.checkpoint_path("best").write_bytes(b"weights")
    run.update("finished", mean_iou=0.8)
    session.use_model(run.id)
    runner.engine.say(EngineReady(run_id="warm", device="CPU, 2 threads", memory_free_gb=3.5))
    runner.engine.say(RunFinished(run_id="warm"))
    finish(session)
    return session


def predict(session, runner, window, value, *, generation=None):
    """What the engine does for the last request: pixels into the store, and an event."""
    request = runner.engine.requests[-1]
    store, (stem,) = session.project.predictions, request.micrographs
    if not store.exists(request.model_run, stem):
        store.create(request.model_run, stem, (128, 192))
    ones = np.ones(window.shape, np.float16)
    mask = np.full(window.shape, value, np.uint8)
    store.write(request.model_run, stem, window, mask=mask, entropy=0.5 * ones, confidence=ones)
    runner.engine.say(
        RegionPredicted(
            run_id=request.run_id,
            micrograph=stem,
            model_run=request.model_run,
            generation=request.generation if generation is None else generation,
            **window.model_dump(),
        )
    )


def end(session, runner, kind=RunFinished):
    runner.engine.say(kind(run_id=runner.engine.requests[-1].run_id))
    finish(session)


def test_the_engine_is_warm_from_the_opening_of_a_project(session, runner):
    assert session.prediction.engine.phase == "starting"
    recorder = Recorder(session.signals)
    runner.engine.say(EngineReady(run_id="warm", device="CPU", memory_free_gb=3.5))
    finish(session)
    state = session.prediction.engine
    assert (state.phase, state.device, state.memory_free_gb) == ("ready", "CPU", 3.5)
    assert recorder.names == ["engine_changed"]


def test_without_a_model_nothing_is_asked(session, runner):
    session.show("m0")
    assert session.predict_current() is None
    assert runner.engine.requests == []


def test_the_visible_window_comes_first_then_the_whole(trained, runner):
    tile = trained.labelling.go_to_point("m0", 0, 0)
    first = runner.engine.requests[-1]
    assert (first.micrographs, first.window) == ((tile.micrograph,), tile.window)
    assert trained.prediction.engine.phase == "busy"
    predict(trained, runner, tile.window, 2)
    end(trained, runner)
    assert len(runner.engine.requests) == 2
    assert runner.engine.requests[-1].window is None
    assert runner.engine.requests[-1].generation == first.generation
    predict(trained, runner, TOP, 1)
    predict(trained, runner, REST, 2)
    end(trained, runner)
    mask = trained.prediction.mask(tile.micrograph)
    assert (mask[TOP.slices] == 1).all()
    assert (mask[REST.slices] == 2).all()
    assert (trained.prediction.entropy(tile.micrograph) == 0.5).all()
    assert trained.prediction.engine.phase == "ready"


def test_what_is_predicted_or_asked_for_already_is_not_asked_again(trained, runner):
    trained.show("m0")
    assert trained.predict_current() is None
    predict(trained, runner, TOP, 1)
    predict(trained, runner, REST, 1)
    end(trained, runner)
    assert trained.predict_current() is None
    assert len(runner.engine.requests) == 1
    assert (trained.prediction.mask("m0") == 1).all()


def test_a_new_model_predicts_again_and_the_array_stays_the_same(trained, runner):
    trained.show("m0")
    predict(trained, runner, TOP, 1)
    end(trained, runner)
    mask = trained.prediction.mask("m0")
    trained.use_model(trained.project.create_run("train", {}).id)
    assert len(runner.engine.requests) == 2
    predict(trained, runner, TOP, 2)
    finish(trained)
    assert trained.prediction.mask("m0") is mask
    assert (mask[TOP.slices] == 2).all()


def test_two_models_are_never_mixed_in_one_overlay(trained, runner):
    trained.show("m0")
    height, width = trained.prediction.mask("m0").shape
    predict(trained, runner, Window(y0=0, x0=0, y1=height, x1=width), 1)
    end(trained, runner)
    trained.use_model(trained.project.create_run("train", {}).id)
    recorder = Recorder(trained.signals)
    predict(trained, runner, TOP, 2)
    finish(trained)
    mask = trained.prediction.mask("m0")
    assert set(np.unique(mask)) == {0, 2}
    assert recorder.of("prediction_changed")[-1][1].shape == mask.shape


def test_answers_of_another_generation_or_micrograph_are_dropped(trained, runner):
    trained.show("m0")
    predict(trained, runner, TOP, 1, generation=99)
    finish(trained)
    assert not trained.prediction.mask("m0").any()
    predict(trained, runner, TOP, 1)  # for m0, but the user goes on before it is applied
    trained.show("m1")
    recorder = Recorder(trained.signals)
    finish(trained)
    assert not trained.prediction.mask("m1").any()
    assert recorder.of("prediction_changed") == []
    assert runner.engine.requests[-1].micrographs == ("m1",)


def test_a_superseded_request_that_ends_does_not_end_the_new_one(trained, runner):
    trained.show("m0")
    old = runner.engine.requests[-1].run_id
    trained.show("m1")
    runner.engine.say(RunCancelled(run_id=old))
    finish(trained)
    assert trained.prediction.engine.phase == "busy"


def test_the_signal_names_the_window_after_the_pixels_are_there(trained, runner):
    trained.show("m0")
    seen = []
    trained.signals.prediction_changed.connect(
        lambda stem, window: seen.append((stem, window, trained.prediction.mask(stem)[window.slices].all()))
    )
    predict(trained, runner, TOP, 1)
    finish(trained)
    assert seen == [("m0", TOP, True)]


def test_pixels_are_read_where_one_waits_and_not_where_one_applies(trained, runner, monkeypatch):
    trained.show("m0")
    predict(trained, runner, TOP, 1)
    messages = trained.wait_events(1.0)
    monkeypatch.setattr(trained.project.predictions, "read", lambda *_: pytest.fail("read while applying"))
    for message in messages:
        trained.apply(message)
    assert trained.prediction.mask("m0")[TOP.slices].all()


def test_a_whole_prediction_on_disk_is_shown_without_the_engine(trained, runner):
    root = trained.project.root
    trained.show("m0")
    predict(trained, runner, TOP, 1)
    predict(trained, runner, REST, 2)
    end(trained, runner)
    trained.open_project(root)
    asked = len(runner.engine.requests)
    trained.show("m0")
    finish(trained)
    assert (trained.prediction.mask("m0")[REST.slices] == 2).all()
    assert len(runner.engine.requests) == asked


def test_a_partial_prediction_on_disk_is_asked_for_again(trained, runner):
    root = trained.project.root
    trained.show("m0")
    predict(trained, runner, TOP, 1)
    finish(trained)
    trained.open_project(root)
    asked = len(runner.engine.requests)
    trained.show("m0")
    finish(trained)
    assert len(runner.engine.requests) == asked + 1


def test_a_cache_deleted_while_it_is_read_stops_nothing(trained, runner):
    trained.show("m0")
    predict(trained, runner, TOP, 1)
    trained.project.predictions.remove()
    finish(trained)
    assert not trained.prediction.mask("m0").any()
    predict(trained, runner, REST, 2)
    finish(trained)
    assert trained.prediction.mask("m0")[REST.slices].all()


def died():
    return RunFailed(run_id="engine", kind="died", message="The worker process was killed (signal 9).")


def test_a_dead_engine_is_restarted_once_with_what_it_died_over(trained, runner):
    recorder = Recorder(trained.signals)
    trained.show("m0")
    dead = runner.engine
    dead.say(died())
    dead.say(RunFailed(run_id=dead.requests[-1].run_id, kind="died", message="and again"))
    finish(trained)
    assert len(runner.engines) == 2
    assert runner.engine.requests[-1].micrographs == ("m0",)
    assert recorder.of("failed") == []
    runner.engine.say(died())
    finish(trained)
    assert len(runner.engines) == 2
    assert trained.prediction.engine.phase == "dead"
    assert len(recorder.of("failed")) == 1
    assert "Predict again" in trained.prediction.engine.hint


def test_after_its_second_death_the_next_request_starts_it_anew(trained, runner):
    trained.show("m0")
    for _ in range(2):
        runner.engine.say(died())
        finish(trained)
    assert trained.predict_current() is not None
    assert len(runner.engines) == 3
    predict(trained, runner, TOP, 1)
    end(trained, runner)
    assert trained.prediction.mask("m0")[TOP.slices].all()


def test_an_error_of_the_engine_is_told_and_it_stays_usable(trained, runner):
    recorder = Recorder(trained.signals)
    trained.show("m0")
    run_id = runner.engine.requests[-1].run_id
    runner.engine.say(RunFailed(run_id=run_id, kind="weights", message="The weights do not fit.", hint="Train."))
    finish(trained)
    assert recorder.of("failed") == [("The weights do not fit.", "Train.")]
    assert trained.prediction.engine.phase == "ready"


def test_closing_lets_the_engine_leave_and_kills_it_if_it_stays(session, runner):
    runner.engine.leaves = False
    session.close()
    assert runner.engine.words == ["close", "kill"]
    assert session.prediction.engine.phase == "off"
