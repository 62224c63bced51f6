"""Annotations on their way to disk, and the walk from tile to tile."""

import time

import numpy as np
import pytest
from session_helpers import FakeRunner, finish, label, make_project

from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import ProjectError, StorageError
from napari_emtransfer.session.autosave import AutoSaver
from napari_emtransfer.session.messages import SaveFailed, StrokesSaved
from napari_emtransfer.session.session import Session


def paint(session, stem, window, value):
    session.labelling.annotation(stem)[window.slices] = value
    session.labelling.mark_dirty(window, stem=stem)


def on_disk(session, stem):
    with Project.open(session.project.root) as project:
        return project.annotations.read(stem)


def wait_until(condition, timeout=3.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


STROKE = Window(y0=10, x0=20, y1=30, x1=90)


def test_a_stroke_is_on_disk_half_a_second_after_it_ended(session):
    session.show("m0")
    paint(session, "m0", STROKE, 2)
    ended = time.monotonic()
    while not (on_disk(session, "m0") == session.labelling.annotation("m0")).all():
        session.tick()
        time.sleep(0.05)
    assert on_disk(session, "m0")[STROKE.slices].all()
    assert time.monotonic() - ended < 0.5


def test_painting_without_a_pause_is_saved_within_a_second(session):
    session.show("m0")
    started = time.monotonic()
    while not on_disk(session, "m0").any():
        paint(session, "m0", STROKE, 1)
        session.tick()
        time.sleep(0.01)
        assert time.monotonic() - started < 1.0


def test_saving_emits_state_then_saved_and_then_nothing_is_unsaved(session, recorder):
    session.show("m0")
    recorder.clear()
    paint(session, "m0", STROKE, 1)
    assert recorder.names == ["tile_states_changed", "save_state_changed"]
    assert session.labelling.save_state.unsaved
    assert session.labelling.save_now()
    finish(session)
    assert recorder.names[2:] == ["save_state_changed", "annotation_saved"]
    assert not session.labelling.save_state.unsaved


def test_unsaved_until_the_writer_has_answered_even_over_many_strokes(session):
    for i in range(50):
        paint(session, "m0", Window(y0=i, x0=i, y1=i + 3, x1=i + 3), 1 + i % 2)
    session.labelling.save_now()
    assert (on_disk(session, "m0") == session.labelling.annotation("m0")).all()


def test_a_full_disk_keeps_the_strokes_says_so_once_and_tries_again(session, recorder, monkeypatch):
    annotations = session.project.annotations
    write = annotations.write

    def full(*args):
        raise StorageError("Cannot write 'annotations.zarr': the disk is full.", "Free some space.")

    monkeypatch.setattr(annotations, "write", full)
    monkeypatch.setattr("napari_emtransfer.session.autosave.RETRY_SECONDS", 0.2)
    paint(session, "m0", STROKE, 2)
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        session.tick()
        session.drain(0.05)
    state = session.labelling.save_state
    assert (state.unsaved, state.failing) == (True, True)
    assert "disk is full" in state.message
    assert recorder.of("failed") == [("Cannot write 'annotations.zarr': the disk is full.", "Free some space.")]
    assert not session.labelling.save_now(timeout=1.0)

    monkeypatch.setattr(annotations, "write", write)
    wait_until(lambda: session.tick() or session.drain(0.02) is None or not session.labelling.save_state.unsaved)
    assert on_disk(session, "m0")[STROKE.slices].all()
    assert not session.labelling.save_state.failing


def test_an_unexpected_fault_of_the_writer_loses_nothing_either(session, monkeypatch):
    monkeypatch.setattr(session.project.annotations, "write", lambda *_: 1 / 0)
    paint(session, "m0", STROKE, 2)
    assert not session.labelling.save_now(timeout=1.0)
    monkeypatch.undo()
    assert session.labelling.save_now()
    assert on_disk(session, "m0")[STROKE.slices].all()


def test_the_thread_that_paints_never_waits_for_a_slow_disk(session, monkeypatch):
    monkeypatch.setattr(session.project.annotations, "write", lambda *_: time.sleep(0.5))
    slowest = 0.0
    for _ in range(40):
        started = time.monotonic()
        paint(session, "m0", STROKE, 1)
        session.tick()
        slowest = max(slowest, time.monotonic() - started)
        time.sleep(0.02)
    assert slowest < 0.1


def test_a_stroke_during_the_write_of_its_chunk_is_written_too():
    array = np.zeros((64, 64), np.uint8)
    written = []

    class Slow:
        annotations = property(lambda self: self)

        def write(self, stem, window, labels):
            if not written:
                array[0, 0] = 7  # lands after the copy was taken
                saver.mark("m", array, Window(y0=0, x0=0, y1=1, x1=1))
            written.append(labels)

    saver = AutoSaver(Slow(), lambda message: None)
    saver.mark("m", array, Window(y0=0, x0=0, y1=64, x1=64))
    assert saver.close(2.0)
    assert [labels[0, 0] for labels in written] == [0, 7]


def test_only_the_chunks_touched_are_written():
    windows = []

    class Store:
        annotations = property(lambda self: self)

        def write(self, stem, window, labels):
            assert labels.shape == window.shape
            windows.append(window)

    saver = AutoSaver(Store(), lambda message: None)
    array = np.zeros((600, 1000), np.uint8)
    saver.mark("m", array, Window(y0=250, x0=10, y1=260, x1=20))
    saver.mark("m", array, Window(y0=0, x0=900, y1=1, x1=1000))
    assert saver.close(2.0)
    assert [(w.y0, w.x0, w.y1, w.x1) for w in windows] == [
        (0, 0, 256, 256),
        (0, 768, 256, 1000),
        (256, 0, 512, 256),
    ]


def test_messages_of_the_writer():
    posted = []

    class Store:
        annotations = property(lambda self: self)
        fails = True

        def write(self, stem, window, labels):
            if self.fails:
                raise OSError(28, "No space left on device")

    store = Store()
    saver = AutoSaver(store, posted.append)
    saver.mark("m", np.zeros((4, 4), np.uint8), Window(y0=0, x0=0, y1=4, x1=4))
    assert not saver.flush(1.0)
    store.fails = False
    assert saver.flush(1.0)
    saver.close(1.0)
    assert [type(message) for message in posted] == [SaveFailed, StrokesSaved]
    assert "No space left on device" in posted[0].message


def test_signals_come_in_order_and_after_both_values_are_set(session, recorder):
    seen = []
    session.signals.current_changed.connect(lambda stem: seen.append((stem, session.tile and session.tile.micrograph)))
    tile = session.labelling.next_tile()
    assert recorder.names[:2] == ["current_changed", "tile_changed"]
    assert seen == [(tile.micrograph, tile.micrograph)]


def test_next_goes_specimen_by_specimen(session):
    stems = [session.labelling.next_tile().micrograph for _ in range(6)]
    assert stems == ["m0", "m1", "m2", "m0", "m1", "m2"]


def test_next_skips_done_and_skipped_tiles_and_ends_when_nothing_is_left(session):
    labelling = session.labelling
    visited = set()
    for i in range(labelling.n_tiles):
        tile = labelling.next_tile()
        visited.add(tile)
        labelling.mark_done() if i % 2 else labelling.mark_skipped()
    assert len(visited) == labelling.n_tiles == 18
    assert labelling.n_tiles_done == 9
    assert labelling.next_tile() is None


def test_tiles_with_labels_come_after_empty_ones_and_unsure_ones_last(tmp_path):
    root = make_project(tmp_path / "p", n=2, specimens=("a",), shape=(64, 64))
    with Project.open(root) as project:
        label(project, "m0", classes=(1,))
    session = Session(FakeRunner())
    session.open_project(root)
    assert session.labelling.next_tile().micrograph == "m1"
    session.labelling.mark_unsure()
    assert session.labelling.next_tile().micrograph == "m0"
    session.labelling.mark_done()
    assert session.labelling.next_tile().micrograph == "m1"
    session.close()


def test_pressing_next_walks_through_all_tiles_before_one_comes_again(session):
    walked = [session.labelling.next_tile() for _ in range(session.labelling.n_tiles)]
    assert len(set(walked)) == session.labelling.n_tiles
    assert session.labelling.next_tile() is not None


def test_previous_and_next_walk_through_the_history(session):
    labelling = session.labelling
    first, second, third = (labelling.next_tile() for _ in range(3))
    assert labelling.previous_tile() == second
    assert labelling.previous_tile() == first
    assert labelling.previous_tile() is None
    assert session.tile == first
    assert labelling.next_tile() == second
    assert labelling.next_tile() == third
    assert labelling.next_tile() not in (first, second, third)


def test_a_done_tile_in_the_history_is_passed_over(session):
    labelling = session.labelling
    _first, second, third = (labelling.next_tile() for _ in range(3))
    labelling.previous_tile(), labelling.previous_tile()
    labelling.mark_done(second)
    assert labelling.next_tile() == third


def test_painting_begins_the_tiles_it_touches(session):
    paint(session, "m0", Window(y0=60, x0=0, y1=70, x1=10), 1)
    states = session.labelling.tile_states("m0")
    assert {cell for cell, state in states.items() if state == "started"} == {(0, 0), (1, 0)}
    session.labelling.mark_done(session.labelling.grid("m0").tile(0, 0))
    paint(session, "m0", Window(y0=60, x0=0, y1=70, x1=10), 2)
    assert session.labelling.tile_states("m0")[0, 0] == "done"


def test_states_and_labels_are_there_after_reopening(session):
    root = session.project.root
    tile = session.labelling.next_tile()
    paint(session, "m0", STROKE, 1)
    session.labelling.mark_done(tile)
    session.open_project(root)
    assert session.labelling.n_tiles_done == 1
    assert session.labelling.tile_state(tile) == "done"
    assert session.labelling.annotation("m0")[STROKE.slices].all()


def test_labelled_fraction_follows_the_brush(session):
    tile = session.labelling.grid("m0").tile(0, 0)
    assert session.labelling.labelled_fraction(tile) == 0
    paint(session, "m0", Window(y0=0, x0=0, y1=32, x1=64), 1)
    assert session.labelling.labelled_fraction(tile) == 0.5


def test_many_micrographs_keep_unsaved_strokes_in_memory(tmp_path, monkeypatch):
    session = Session(FakeRunner())
    session.open_project(make_project(tmp_path / "p", n=8, shape=(64, 64)))
    monkeypatch.setattr(session.project.annotations, "write", lambda *_: 1 / 0)
    paint(session, "m0", Window(y0=0, x0=0, y1=8, x1=8), 1)
    for i in range(8):
        session.show(f"m{i}")
    assert session.labelling.annotation("m0")[0, 0] == 1
    monkeypatch.undo()
    session.close()


def test_a_micrograph_that_comes_wholly_labelled_is_done(tmp_path):
    root = make_project(tmp_path / "p", n=2, shape=(128, 128))
    with Project.open(root) as project:
        project.annotations.write("m0", None, np.ones((128, 128), np.uint8))
    session = Session(FakeRunner())
    session.open_project(root)
    assert (session.labelling.n_tiles_done, session.labelling.n_tiles) == (4, 8)
    assert {session.labelling.next_tile().micrograph for _ in range(4)} == {"m1"}
    session.labelling.mark_unsure(session.labelling.grid("m0").tile(0, 0))
    assert session.labelling.n_tiles_done == 3
    session.close()


def test_another_pixel_size_makes_another_grid(session, recorder):
    session.project.update_settings(working_pixel_size_nm=2.0)
    tile = session.labelling.go_to_point("m0", 100, 100)
    session.update_micrograph("m0", pixel_size_nm=1.0)
    assert session.tile is None
    assert recorder.of("tile_changed") == [(tile,), (None,)]
    assert session.current == "m0"
    assert len(session.labelling.grid("m0")) < 6


def test_removing_a_micrograph_forgets_its_tiles(session, recorder):
    session.labelling.go_to_point("m0", 0, 0)
    paint(session, "m0", STROKE, 1)
    session.remove_micrograph("m0")
    assert session.current is None
    assert session.tile is None
    assert session.labelling.n_tiles == 12
    assert session.labelling.next_tile().micrograph == "m1"
    assert session.labelling.save_now()
    assert recorder.of("failed") == []


def test_without_a_project_a_command_says_what_to_do(tmp_path):
    session = Session(FakeRunner())
    with pytest.raises(ProjectError, match="No project is open"):
        session.labelling.next_tile()
    assert session.labelling.n_tiles == 0
    session.labelling.tick()
    session.close()
