"""Synthetic micrographs from the session: previews of the engine, and a process of their own that the test plays."""

from __future__ import annotations

import numpy as np
import pytest
from session_helpers import finish, label

from napari_emtransfer.core.errors import SynthesisError
from napari_emtransfer.core.events import ProgressMade, RunCancelled, RunFailed, RunFinished
from napari_emtransfer.session import classes
from napari_emtransfer.session.generators import SynthesisSpec, catalogue
from napari_emtransfer.session.synthesis import MADE
from napari_emtransfer.worker.protocol import AddSyntheticRequest, SynthesisPreviewRequest
from napari_emtransfer.worker.synthetic_project_handler import ADDING

SPEC = SynthesisSpec("voronoi", "equiaxed", n=6, edge_px=128, seed=3)
CLASSES = {"grain interior": "matrix", "grain boundary": None}


@pytest.fixture
def shown(tmp_path):
    """The result of a preview of two micrographs."""
    file = tmp_path / "preview.npz"
    np.savez(file, images=np.full((2, 8, 8), 7, np.uint8), masks=np.ones((2, 8, 8), np.uint8))
    return {"file": str(file), "classes": ["a", "b"], "omits": ["no twins"], "detector": "measured", "seconds": 3.0}


def ask(session, spec=SPEC):
    given = []
    session.synthesis.preview(spec, given.append, lambda message, hint: given.append((message, hint)))
    return given


def add(session, spec=SPEC, chosen=CLASSES):
    session.synthesis.add(spec, chosen)


def say(session, runner, event_type, **values):
    runner.job.say(event_type(run_id=runner.job.requests[0].run_id, **values))
    finish(session)


def result(stems):
    return {"micrographs": stems, "domain": "synthetic equiaxed", "specimens": [], "classes": [], "folder": ""}


def test_everything_that_can_be_made_has_a_sentence():
    entries = catalogue()
    assert {entry.kind for entry in entries} == {"voronoi", "hrtem"}
    assert len({(entry.kind, entry.preset) for entry in entries}) == len(entries)
    assert all(entry.what.endswith((".", "!")) and len(entry.what) < 200 for entry in entries)
    titles = {entry.title for entry in entries}
    assert len(titles) == len(entries)
    assert {"Equiaxed", "Core shell", "HAADF", "Defocus −25 nm", "Dose 30 e/Å²", "Structure ZnS small"} <= titles


def test_a_preview_is_a_few_of_the_same_and_reaches_whoever_asked(session, runner, shown):
    given = ask(session, SynthesisSpec("voronoi", "equiaxed", n=40, edge_px=2048, seed=3, pixel_size_nm=7.0))
    request = runner.helper.requests[-1]
    assert isinstance(request, SynthesisPreviewRequest)
    assert (request.make.n, request.make.shape, request.make.seed) == (4, (512, 512), 3)
    assert (request.make.presets, request.make.pixel_size_nm, request.make.per_specimen) == (("equiaxed",), 7.0, 1)
    runner.helper.say(RunFinished(run_id=request.run_id, result=shown))
    finish(session)
    (preview,) = given
    assert (preview.images == 7).all()
    assert (preview.classes, preview.omits, preview.seconds) == (("a", "b"), ("no twins",), 1.5)


def test_the_newest_question_is_answered(session, runner, shown):
    first, second = ask(session), ask(session)
    for request in runner.helper.requests[-2:]:
        runner.helper.say(RunFinished(run_id=request.run_id, result=shown))
    finish(session)
    assert (len(first), len(second)) == (0, 1)


def test_previews_neither_wait_for_the_engine_nor_start_a_process_each(session, runner, shown):
    n_engine = len(runner.engine.requests)
    ask(session)
    ask(session)
    assert len(runner.engine.requests) == n_engine
    assert len(runner.helpers) == 1
    first, _ = runner.helper.requests
    assert runner.helper.words == [f"cancel {first.run_id}"]
    session.synthesis.stop_preview()
    assert runner.helper.words[-1] == "close"
    ask(session)
    assert len(runner.helpers) == 2


def test_a_helper_that_died_is_started_again(session, runner):
    given = ask(session)
    run_id = runner.helper.requests[-1].run_id
    for name in (run_id, "engine"):
        runner.helper.say(RunFailed(run_id=name, kind="died", message="Killed.", hint="h"))
    finish(session)
    assert given == [("Killed.", "h")]
    ask(session)
    runner.helpers[0].say(RunFailed(run_id="engine", kind="died", message="Killed, again."))
    finish(session)
    ask(session)
    assert len(runner.helpers) == 2, "the late word of the first one does not count"


def test_a_fault_of_a_preview_comes_with_its_way_out(session, runner, shown, recorder):
    given = ask(session)
    runner.helper.say(
        RunFailed(run_id=runner.helper.requests[-1].run_id, kind="flat_field", message="Too even.", hint="Another.")
    )
    finish(session)
    assert given == [("Too even.", "Another.")]
    assert recorder.of("failed") == [], "whoever asked shows it"
    given = ask(session)
    gone = RunFinished(run_id=runner.helper.requests[-1].run_id, result=shown | {"file": "/gone.npz"})
    runner.helper.say(gone)
    finish(session)
    assert given[0][0].startswith("The preview could not be read")


def test_micrographs_are_added_by_a_process_of_its_own(session, runner, recorder):
    n_engine = len(runner.engine.requests)
    add(session)
    assert len(runner.engine.requests) == n_engine
    (request,) = runner.job.requests
    assert isinstance(request, AddSyntheticRequest)
    assert (request.project, request.domain, request.classes) == (session.project.root, "synthetic equiaxed", CLASSES)
    assert request.make.out.parent == session.project.root
    assert not request.replace_classes, "matrix and pore are its own"
    say(session, runner, ProgressMade, done=2, total=6, what=MADE)
    say(session, runner, ProgressMade, done=1, total=6, what=ADDING)
    states = [state for (state,) in recorder.of("synthesis_changed")]
    assert [(s.phase, s.done, s.total) for s in states] == [("making", 0, 6), ("making", 2, 6), ("adding", 1, 6)]
    recorder.clear()
    say(session, runner, RunFinished, result=result(["e1", "e2"]))
    assert not session.synthesis.state.is_active
    assert {"schema_changed", "micrographs_changed"} <= set(recorder.names)
    ((message, _),) = recorder.of("notice_posted")
    assert "2 synthetic micrographs added" in message


def test_one_at_a_time_and_never_without_labels(session, runner):
    with pytest.raises(SynthesisError, match="No class"):
        add(session, chosen={"grain interior": None})
    add(session)
    with pytest.raises(SynthesisError, match="already"):
        add(session)
    assert len(runner.jobs) == 1


def test_cancelling_is_passed_on_and_ends_in_nothing(session, runner, recorder):
    add(session)
    session.synthesis.cancel()
    session.synthesis.cancel()
    assert runner.job.words == ["cancel"]
    assert session.synthesis.state.phase == "cancelling"
    say(session, runner, ProgressMade, done=2, total=6, what=MADE)
    assert session.synthesis.state.phase == "cancelling"
    say(session, runner, RunCancelled)
    assert not session.synthesis.state.is_active
    assert recorder.of("notice_posted") == [("No synthetic micrographs were added.", "")]
    assert "micrographs_changed" not in recorder.names
    add(session)


def test_a_fault_is_told_and_leaves_the_way_free(session, runner, recorder):
    add(session)
    say(session, runner, RunFailed, kind="storage", message="The disk is full.", hint="Free some space.")
    assert recorder.of("failed") == [("The disk is full.", "Free some space.")]
    add(session)


def test_closing_the_project_ends_it_and_late_words_are_dropped(session, runner, recorder):
    add(session)
    job = runner.job
    session.close_project()
    assert job.words == ["cancel"]
    recorder.clear()
    job.say(RunFinished(run_id=job.requests[0].run_id, result=result(["e1"])))
    finish(session)
    assert recorder.names == []


def test_classes_of_a_new_project_give_way_until_they_are_painted(session, runner):
    session.set_classes(classes.PLACEHOLDER_CLASSES)
    assert not classes.has_classes_of_its_own(session.project)
    add(session)
    assert runner.job.requests[0].replace_classes
    label(session.project, "m0")
    assert classes.has_classes_of_its_own(session.project)
