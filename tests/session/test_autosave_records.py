"""Records that say what is on disk: written after it, in order, once."""

import pytest
from session_helpers import finish

from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import StorageError


@pytest.fixture
def written():
    return []


def test_a_record_is_written_after_strokes_and_states(session, written):
    def look():
        project = session.project
        written.append((int(project.annotations.read("m0")[0, 0]), project.tile_states("m0").get((0, 0))))

    session.labelling.record(("m0", 1), look)
    session.labelling.annotation("m0")[0, 0] = 2
    session.labelling.mark_dirty(Window(y0=0, x0=0, y1=1, x1=1), stem="m0")
    session.labelling.mark_done(session.labelling.grid("m0").tile(0, 0))
    assert not written
    assert session.labelling.save_now()
    assert written == [(2, "done")]


def test_of_one_key_only_the_newest_is_written_in_the_place_of_the_first(session, written):
    record = session.labelling.record
    for key, word in ((("m0", 1), "old"), (("m1", 2), "other"), (("m0", 1), "new")):
        record(key, lambda word=word: written.append(word))
    assert session.labelling.save_now()
    assert written == ["new", "other"]


def test_a_record_that_cannot_be_written_waits_for_its_turn_again(session, written, recorder):
    faults = [StorageError("Cannot write: the disk is full.", "Free some space.")]

    def first():
        if faults:
            raise faults.pop()
        written.append("first")

    session.labelling.record(("m0", 1), first)
    session.labelling.record(("m0", 2), lambda: written.append("second"))
    assert not session.labelling.save_now(timeout=1)
    finish(session)
    assert recorder.of("failed") == [("Cannot write: the disk is full.", "Free some space.")]
    assert session.labelling.save_now()
    assert written == ["first", "second"]


def test_records_of_a_removed_micrograph_go_with_it(session, written, monkeypatch):
    monkeypatch.setattr(session.labelling, "save_now", lambda: True)
    session.labelling.record(("m0", 1), lambda: written.append("m0"))
    session.labelling.record(("m1", 1), lambda: written.append("m1"))
    session.labelling.forget("m0")
    monkeypatch.undo()
    assert session.labelling.save_now()
    assert written == ["m1"]


def test_closing_writes_what_waits(session, written):
    session.labelling.record(("", 0), lambda: written.append("settings"))
    session.close_project()
    assert written == ["settings"]


def test_a_project_that_cannot_be_written_is_looked_at_and_closed(session, written, monkeypatch):
    monkeypatch.setattr(session.project._database, "read_only", "the disk is read-only")
    session.labelling.record(("m0", 1), lambda: written.append("entry"))
    session.queue.set_target(0.1)
    session.close_project()
    assert session.project is None
    assert not written
