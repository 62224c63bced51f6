"""Paints in a session until it is killed; one child per line on stdin, so that the imports are paid for once."""

import os
import sys
import time
from itertools import count

from session_helpers import FakeRunner

from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.session.session import Session

TICK = 0.25
PAUSE = 0.02


def paint(root: str, first: int) -> None:
    """Stroke i labels pixel i of m0 (in reading order) with 1 + i % 2 and tells when."""
    session = Session(FakeRunner())
    session.open_project(root)
    session.show("m0")
    labels = session.labelling.annotation("m0")
    next_tick = time.monotonic() + TICK
    for i in count(first):
        y, x = divmod(i, labels.shape[1])
        labels[y, x] = 1 + i % 2
        session.labelling.mark_dirty(Window(y0=y, x0=x, y1=y + 1, x1=x + 1))
        say("stroke", i, time.monotonic())
        if time.monotonic() >= next_tick:
            session.tick()
            next_tick += TICK
        session.drain()
        time.sleep(PAUSE)


def say(kind: str, number: int, when: float = 0.0) -> None:
    sys.stdout.write(f"{kind} {number} {when}\n")
    sys.stdout.flush()


def main(root: str) -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            paint(root, int(line))
            os._exit(1)
        say("painter", child)
        os.waitpid(child, 0)
        say("gone", child)


if __name__ == "__main__":
    main(sys.argv[1])
