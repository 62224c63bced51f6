"""The session over real processes: train, predict, measure; cancel, kill, resume."""

import time

import pytest
from session_helpers import label, make_project

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.session.session import Session
from napari_emtransfer.session.state import Phase

QUICK = TrainConfig(iterations=6, validate_every=3, batch_size=2, crop_px=64, augment="none")
LONG = QUICK.model_copy(update={"iterations": 5000, "validate_every": 2})


def until(session, condition, timeout=120.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"still {session.training.state}, {session.prediction.engine}"
        session.drain(0.05)
        session.tick()


@pytest.mark.slow
def test_train_predict_cancel_kill_and_resume(tmp_path):
    pytest.importorskip("torch")
    root = make_project(tmp_path / "project", shape=(96, 128))
    with Project.open(root) as project:
        for stem in ("m0", "m1"):
            label(project, stem)
    session = Session()
    training, prediction = session.training, session.prediction
    session.open_project(root)
    session.labelling.go_to_point("m2", 0, 0)

    training.start(QUICK)
    until(session, lambda: not training.state.is_active)
    assert training.state.phase is Phase.FINISHED, training.state
    assert training.state.iteration == 6
    assert set(training.state.iou) == {"matrix", "pore"}
    assert len(training.curves.validations) == 2
    finished = training.state.run_id
    assert session.readouts.model.run_id == finished
    until(session, lambda: prediction.mask("m2").all())
    assert session.text_overlay.endswith("no labels on this tile")
    until(session, lambda: prediction.engine.phase == "ready")

    training.start(LONG)
    until(session, lambda: len(training.curves.validations) > 2)
    training.kill()
    until(session, lambda: not training.state.is_active)
    killed = training.state
    assert (killed.phase, killed.resumable) == (Phase.CANCELLED, True)
    assert killed.run_id in [r.id for r in training.interrupted_runs()]

    training.resume(killed.run_id)
    until(session, lambda: training.state.iteration > killed.iteration)
    iterations = training.curves.iterations
    assert iterations == sorted(set(iterations))  # it went on from its checkpoint, with the curves it had
    assert iterations[0] <= 2
    assert len(training.curves.validations) > 2
    training.cancel()
    until(session, lambda: not training.state.is_active)
    assert training.state.phase is Phase.CANCELLED
    assert prediction.model_run == killed.run_id

    started = time.monotonic()
    session.close()
    assert time.monotonic() - started < 5
