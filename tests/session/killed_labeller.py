"""Goes round the labelling loop until it is killed; one child per line on stdin: the imports are paid for once."""

import os
import sys
import time

from loop_helpers import asked, proposals, rank_on_disk
from session_helpers import FakeRunner

from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.events import RunFinished
from napari_emtransfer.session.session import Session

TICK = 0.1
STROKE_SECONDS = 0.02


def work(root: str) -> None:
    """Label one queued tile after the other; what the user saw happen is told at once, with the time."""
    runner = FakeRunner()
    session = Session(runner)
    session.open_project(root)
    session.drain(0.5)
    answered = 0
    session.queue.refresh(again=True)
    while True:
        for request in asked(runner)[answered:]:
            answered += 1
            say("ranking", str(answered))
            rank_on_disk(session.project, proposals(session.project, 4))
            result = {"n_tiles": 18, "n_scored": 18, "n_left": 0, "acquisition": "clasp"}
            runner.engine.say(RunFinished(run_id=request.run_id, result=result))
        label_tile(session)


def label_tile(session: Session) -> None:
    tile = session.queue.next() if session.tile is None else session.tile
    if tile is None:
        time.sleep(TICK)
        session.drain(TICK)
        return
    window = tile.window
    for i in range(3):
        part = Window(y0=window.y0 + i, x0=window.x0, y1=window.y0 + i + 1, x1=window.x1)
        session.labelling.annotation(tile.micrograph)[part.slices] = 1
        session.queue.count_click()
        session.labelling.mark_dirty(part)
        time.sleep(STROKE_SECONDS)
    session.tick()
    say("done", f"{tile.micrograph} {tile.row} {tile.column}")
    session.queue.done()
    session.drain(0.02)


def say(kind: str, words: str) -> None:
    sys.stdout.write(f"{kind} {time.monotonic()} {words}\n")
    sys.stdout.flush()


def main(root: str) -> None:
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            work(root)
            os._exit(1)
        say("labeller", str(child))
        os.waitpid(child, 0)
        say("gone", str(child))


if __name__ == "__main__":
    main(sys.argv[1])
