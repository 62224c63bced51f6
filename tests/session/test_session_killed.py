"""kill -9 of the viewer loses no stroke older than a second, and the project opens."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from session_helpers import FakeRunner, make_project

from napari_emtransfer.session.session import Session

N_KILLS = 8
PAINTER = Path(__file__).with_name("killed_painter.py")


class Painter:
    """The process that paints, seen from outside."""

    def __init__(self, root):
        command = [sys.executable, str(PAINTER), str(root)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def paint_and_kill(self, first, seconds):
        """Strokes as {i: time}, from `first` on, and the time of the kill, `seconds` after the first stroke."""
        self.process.stdin.write(f"{first}\n")
        self.process.stdin.flush()
        pid, strokes = self.read("painter")[0], {}
        i, when = self.read("stroke")
        strokes[i] = when
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        while (word := self.process.stdout.readline().split())[0] == "stroke":
            strokes[int(word[1])] = float(word[2])
        return strokes, killed

    def read(self, expected):
        kind, number, when = self.process.stdout.readline().split()
        assert kind == expected
        return int(number), float(when)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the process that paints")
def test_no_stroke_older_than_a_second_is_lost(tmp_path, record_property):
    root = make_project(tmp_path / "project", shape=(300, 600))
    painter, strokes, oldest_lost = Painter(root), {}, 0.0
    for kill in range(N_KILLS):
        fresh, killed = painter.paint_and_kill(len(strokes), random.Random(kill).uniform(0.3, 1.8))
        strokes |= fresh
        session = Session(FakeRunner())
        session.open_project(root)
        on_disk = session.project.annotations.read("m0").ravel()
        lost = [i for i in strokes if on_disk[i] != 1 + i % 2]
        oldest_lost = max([oldest_lost, *(killed - strokes[i] for i in lost)])
        assert not [i for i in lost if killed - strokes[i] > 1.0]
        # The next one paints them again, so that a loss is counted once.
        labels = session.labelling.annotation("m0")
        labels.ravel()[list(strokes)] = [1 + i % 2 for i in strokes]
        session.labelling.mark_dirty(stem="m0")
        session.close()
    painter.process.stdin.close()
    assert painter.process.wait(10) == 0
    painter.process.stdout.close()
    assert len(strokes) > 20 * N_KILLS
    record_property("oldest_lost_seconds", round(oldest_lost, 2))
