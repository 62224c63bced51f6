"""kill -9 anywhere in the labelling loop: queue, order and scores are there, and no done tile is proposed again."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from session_helpers import FakeRunner, finish, make_project

from napari_emtransfer.session.session import Session

N_KILLS = 6
LOST_SECONDS = 0.5
LABELLER = Path(__file__).with_name("killed_labeller.py")


class Labeller:
    """The process that labels, seen from outside."""

    def __init__(self, root):
        command = [sys.executable, str(LABELLER), str(root)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def label_and_kill(self, seconds):
        """{(stem, row, column): when it was called done}, and the time of the kill, `seconds` after the first one."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        pid, done = int(self.read("labeller")[1]), {}
        while not done:
            self.note(self.process.stdout.readline().split(), done)
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        while (words := self.process.stdout.readline().split())[0] != "gone":
            self.note(words, done)
        return done, killed

    def read(self, expected):
        kind, *words = self.process.stdout.readline().split()
        assert kind == expected
        return words

    @staticmethod
    def note(words, done):
        if words[0] == "done":
            done[words[2], int(words[3]), int(words[4])] = float(words[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the process that labels")
def test_a_kill_anywhere_in_the_loop_leaves_a_queue_to_go_on_with(tmp_path, record_property):
    root = make_project(tmp_path / "project", n=4, shape=(768, 768))
    labeller, oldest_lost, done_for_good = Labeller(root), 0.0, set()
    for kill in range(N_KILLS):
        done, killed = labeller.label_and_kill(random.Random(kill).uniform(0.0, 0.5))
        session = Session(FakeRunner())
        session.open_project(root)
        finish(session)
        entries, states = session.project.active.queue(), _states(session)
        lost = [cell for cell in done if states.get(cell) != "done"]
        oldest_lost = max([oldest_lost, *(killed - done[cell] for cell in lost)])
        done_for_good |= done.keys() - set(lost)
        n_ended = _check_queue(session, entries, done_for_good)
        session.close()
    labeller.process.stdin.close()
    assert labeller.process.wait(10) == 0
    labeller.process.stdout.close()
    assert n_ended >= N_KILLS
    assert oldest_lost <= LOST_SECONDS
    record_property("oldest_lost_seconds", round(oldest_lost, 2))


def _states(session):
    stems = [record.stem for record in session.records]
    return {(stem, *cell): state for stem in stems for cell, state in session.project.tile_states(stem).items()}


def _check_queue(session, entries, done):
    """Returns how many entries are ended; those, and only those, whose tile is done on disk."""
    ended = [entry for entry in entries if entry.state == "done"]
    shown = session.queue.state.entries
    assert not done & {entry.tile for entry in shown}
    assert len({entry.tile for entry in entries}) == len(entries)
    assert all(entry.tile in done and entry.seconds is not None for entry in ended)
    waiting = [entry.number for entry in entries if entry.state == "waiting" and entry.tile not in done]
    assert [entry.number for entry in shown] == waiting
    scores = session.project.active.read_scores()
    assert (scores.locate(*zip(*(entry.tile for entry in entries), strict=True)) >= 0).all()
    assert len(session.queue.state.rounds) >= 1
    return len(ended)
