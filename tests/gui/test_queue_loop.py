"""The labelling loop through the real window with the real engine: mouse, keys, closing and killing included."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gui_helpers import Hands, open_dock

from napari_emtransfer.core.config import RankConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.gui.demo_hands import DemoHands
from napari_emtransfer.gui.demo_strokes import plan_hatching

N_LABELLED = 3
WINDOW = Path(__file__).with_name("killed_window.py")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def masks():
    """Lamellae, some of each phase in every tile."""
    rows = np.arange(256)[:, None] // 32 + np.zeros((1, 256), int)
    return {f"s{i}": np.roll(rows % 2 + 1, 12 * i, axis=0).astype(np.uint8) for i in range(2)}


@pytest.fixture
def root(tmp_path, masks):
    rng = np.random.default_rng(0)
    with Project.create(tmp_path / "project", classes=["matrix", "second phase"], tile_size_px=64) as project:
        for stem, mask in masks.items():
            np.save(tmp_path / f"{stem}.npy", (mask + rng.normal(scale=0.3, size=mask.shape)).astype(np.float32))
            project.add_micrograph(tmp_path / f"{stem}.npy", specimen=f"specimen {stem}")
        return project.root


@pytest.fixture
def window(make_napari_viewer, root):
    """Opens a window on the project, its Queue tab in front; closes what was opened before."""
    opened = []

    def open_window():
        close()
        viewer = make_napari_viewer(show=True)
        user = Hands(viewer, open_dock(viewer, size=(1440, 940)))
        opened.append(user)
        user.session.open_project(root)
        user.dock.choose_tab("Queue")
        return user

    def close():
        while opened:
            user = opened.pop()
            user.dock.owner.close()
            user.viewer.close()

    yield open_window
    close()


def queue_of(user):
    return user.session.queue.state


def ranked(user, n_done=0):
    """Wait for the ranking that knows so many tiles of the queue."""
    user.wait(
        lambda: (
            queue_of(user).phase == "ready"
            and bool(queue_of(user).entries)
            and (queue_of(user).facts.n_done if queue_of(user).facts else 0) >= n_done
        ),
        f"a ranking that knows {n_done} tiles",
        60,
    )


def shown_tile(user, after=None):
    user.wait(lambda: user.session.tile not in (None, after), "a tile")
    user.shown(user.session.tile.micrograph)
    return user.session.tile


def label(user, masks):
    """Hatch the tile on the canvas, class by class, and press D; returns the entry that proposed it."""
    hands, tile, entry = DemoHands(user.viewer, user.dock), shown_tile(user), queue_of(user).current
    truth = masks[tile.micrograph][tile.window.slices]
    for value in (1, 2):
        hands.hatch(tile, plan_hatching(truth, value, share=0.9, brushes_px=(9, 3)))
    painted = user.session.labelling.annotation(tile.micrograph)[tile.window.slices]
    assert (painted > 0).mean() >= 0.5
    assert (painted == truth)[painted > 0].mean() > 0.99
    hands.press("D")
    assert entry.tile == (tile.micrograph, tile.row, tile.column)
    return entry


def listed(user):
    return [entry.tile for entry in user.dock.queue_panel.list.entries]


def test_tiles_are_labelled_in_the_order_of_the_queue_and_the_loop_goes_on_in_another_window(window, masks):
    user = window()
    ranked(user)
    hands, labelled = DemoHands(user.viewer, user.dock), []
    control = next(entry for entry in queue_of(user).waiting if entry.control)
    hands.press("N")
    for number in range(N_LABELLED):
        if number == 1:  # not the one that is shown, but the random one, by a click on its picture
            left = shown_tile(user)
            hands.click_queued(control.number)
            shown_tile(user, after=left)
            assert queue_of(user).current.number == control.number
        else:
            first = queue_of(user).waiting[0]
            shown_tile(user)
            assert queue_of(user).current.number == first.number
        labelled.append(label(user, masks))
        shown_tile(user, after=user.session.labelling.find_tile(*_place(labelled[-1])))
    ranked(user, n_done=N_LABELLED)
    done = {entry.tile for entry in labelled}
    assert not done & set(listed(user))
    facts = queue_of(user).facts
    assert (facts.n_labelled_tiles, facts.n_control) == (N_LABELLED, 1)
    assert facts.control.mean_iou > 0.3
    assert user.dock.queue_panel.findings.curve.points

    user.session.labelling.save_now()
    project = user.session.project
    ended = sorted(project.active.queue(("done",)), key=lambda entry: entry.ended)
    assert [entry.number for entry in ended] == [entry.number for entry in labelled]
    assert all(entry.seconds > 0 and entry.clicks >= 4 for entry in ended)
    assert all(project.tile_states(stem)[row, column] == "done" for stem, row, column in done)
    waiting = [entry.number for entry in queue_of(user).waiting]
    stored = [entry.number for entry in project.active.queue(("waiting",))]

    user = window()
    user.wait(lambda: bool(listed(user)), "the queue as it was left", 5)
    again = [entry.number for entry in queue_of(user).waiting]
    # A tile that was looked at and left came last in that window; in a new one it is at its place again.
    assert again == stored
    assert set(again) == set(waiting)
    hands = DemoHands(user.viewer, user.dock)
    hands.press("N")
    tile = shown_tile(user)
    first = queue_of(user).current.number
    assert first == again[0]
    hands.press("D")
    shown_tile(user, after=tile)
    user.session.labelling.save_now()
    assert first in {entry.number for entry in user.session.project.active.queue(("done",))}
    assert first not in {entry.number for entry in queue_of(user).waiting}


def test_after_a_kill_while_tiles_are_ranked_the_next_window_shows_the_whole_queue(window, root):
    process = subprocess.Popen([sys.executable, str(WINDOW), str(root)], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        phase, *numbers = line.split()
        n_entries, n_scored, n_tiles = map(int, numbers)
        if phase == "ranking" and n_entries and n_scored == n_tiles:  # everything was ranked once, now again
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    process.stdout.close()

    user = window()
    user.wait(lambda: bool(listed(user)), "the queue", 5)
    with Project.open(root) as project:
        on_disk = project.active.queue(("waiting",))
    assert [entry.tile for entry in queue_of(user).waiting] == [entry.tile for entry in on_disk] == listed(user)
    assert len(set(listed(user))) == RankConfig().n_tiles
    assert any(entry.control for entry in on_disk)
    ranked(user)
    assert (queue_of(user).error, len(set(listed(user)))) == ("", RankConfig().n_tiles)


def _place(entry):
    return entry.stem, entry.grid, entry.row, entry.column
