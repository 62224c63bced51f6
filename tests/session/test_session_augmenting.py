"""Previews of the augmentation, with an engine whose words the test says."""

import numpy as np
import pytest
from session_helpers import Recorder, finish

from napari_emtransfer.core.errors import AugmentationError
from napari_emtransfer.core.events import RunFailed, RunFinished


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "preview.npz"
    np.savez(path, images=np.full((9, 8, 8), 7, np.uint8), masks=np.ones((9, 8, 8), np.uint8))
    return path


def ask(session, **changes):
    given = []
    session.augmenting.preview(
        **{"micrograph": "m0", "preset": "basic", "illegal": (), "crop_px": 64, "done": given.append} | changes
    )
    return given


def test_the_crops_reach_whoever_asked(session, runner, file):
    given = ask(session, preset="extended", illegal=("rotation",))
    request = runner.engine.requests[-1]
    assert (request.micrograph, request.preset, request.illegal, request.crop_px) == (
        "m0",
        "extended",
        ("rotation",),
        64,
    )
    runner.engine.say(RunFinished(run_id=request.run_id, result={"file": str(file)}))
    finish(session)
    (preview,) = given
    assert preview.micrograph == "m0"
    assert (preview.images == 7).all()
    assert (preview.masks == 1).all()


def test_each_preview_is_another_sample_and_the_newest_wins(session, runner, file):
    first, second = ask(session), ask(session)
    old, new = runner.engine.requests[-2:]
    assert old.seed != new.seed
    for request in (old, new):
        runner.engine.say(RunFinished(run_id=request.run_id, result={"file": str(file)}))
    finish(session)
    assert (len(first), len(second)) == (0, 1)


def test_a_fault_is_told_once_and_ends_the_waiting(session, runner, tmp_path):
    recorder = Recorder(session.signals)
    given = ask(session)
    runner.engine.say(
        RunFailed(run_id=runner.engine.requests[-1].run_id, kind="augmentation", message="Nothing is labelled.")
    )
    finish(session)
    given += ask(session)
    assert given == [None]
    assert recorder.of("failed") == [("Nothing is labelled.", "")]


def test_a_file_that_is_gone_is_told(session, runner, tmp_path):
    recorder = Recorder(session.signals)
    given = ask(session)
    request = runner.engine.requests[-1]
    runner.engine.say(RunFinished(run_id=request.run_id, result={"file": str(tmp_path / "none.npz")}))
    finish(session)
    assert given == [None]
    assert "could not be read" in recorder.of("failed")[0][0]


def test_without_a_micrograph_there_is_no_preview(session, runner):
    with pytest.raises(AugmentationError, match="No micrograph is shown"):
        ask(session, micrograph=None)
