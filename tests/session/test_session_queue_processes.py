"""The labelling loop with a real engine: every answer is of what was labelled just before."""

import time

import pytest
from session_helpers import make_project

from napari_emtransfer.session.session import Session

TIMEOUT = 120


def until(session, condition):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, session.queue.state
        session.drain(0.05)
        session.tick()


def paint(session):
    """Matrix above, pore below."""
    tile = session.tile
    labels, (y0, y1) = session.labelling.annotation(tile.micrograph), (tile.window.y0, tile.window.y1)
    labels[tile.window.slices] = 1
    labels[(y0 + y1) // 2 : y1, tile.window.x0 : tile.window.x1] = 2
    session.queue.count_click()
    session.labelling.mark_dirty(tile.window)


@pytest.mark.slow
def test_tiles_are_queued_labelled_and_queued_anew(tmp_path):
    session = Session()
    session.open_project(make_project(tmp_path / "project", shape=(256, 256)))
    queue = session.queue
    queue.refresh()
    until(session, lambda: queue.state.phase != "ranking" and queue.state.n_scored == queue.state.n_tiles)
    assert (queue.state.phase, queue.state.n_tiles, queue.state.error) == ("ready", 48, "")
    assert any(entry.control for entry in queue.state.entries)
    done = set()
    queue.next()
    for _ in range(3):
        paint(session)
        done.add(queue.state.current.tile)
        queue.done()
        assert queue.state.current is not None  # without waiting for anything
        until(session, lambda: queue.state.phase == "ready")
        assert not done & {entry.tile for entry in queue.state.entries}
    assert (queue.state.resolved, queue.state.facts.n_labelled_tiles) == ("clasp", 3)
    ended = session.project.active.queue(("done",))
    assert {entry.tile for entry in ended} == done
    assert all(entry.clicks == 1 and entry.seconds is not None for entry in ended)
    assert queue.state.facts.seconds_labelling == pytest.approx(sum(entry.seconds for entry in ended), abs=0.01)
    session.close()
