"""Stands for the engine's ranking: writes a queue into the project's database and says that it is there."""

from __future__ import annotations

import numpy as np
from session_helpers import finish

from napari_emtransfer.core.active.queue import merged
from napari_emtransfer.core.data.queue_records import QueueEntry
from napari_emtransfer.core.data.score_table import ScoreTable
from napari_emtransfer.core.events import RunFinished
from napari_emtransfer.worker.protocol import RankRequest

FACTS = {"n_labelled_tiles": 3, "acquisition": "clasp", "model": "m"}


def proposal(project, stem, row, column, **known):
    values = {"query_round": 1, "score": 0.5, "reason": "uncertain pore", "acquisition": "clasp", "model": "m"}
    return QueueEntry(stem=stem, grid=project.tile_grid(stem).key, row=row, column=column, **(values | known))


def proposals(project, n, skip=0):
    """The last cells of the micrographs in turn, which are the last that the walk would come to: none done already."""
    cells = [
        (record.stem, *divmod(len(grid) - 1 - i, grid.n_columns))
        for i in range(6)
        for record in project.micrographs()
        if not record.synthetic
        for grid in [project.tile_grid(record.stem)]
    ]
    free = [c for c in cells if project.tile_states(c[0]).get(c[1:], "") not in ("done", "skipped")]
    return [proposal(project, *cell) for cell in free[skip : skip + n]]


def rank_on_disk(project, chosen, **facts):
    """What a ranking leaves behind: scores, a queue, a round."""
    project.active.write_scores(scores(chosen))
    waiting = project.active.queue(("waiting",))
    project.active.replace_waiting(merged(waiting, chosen, [], every=5, since=0))
    project.active.add_round(FACTS | facts)


def scores(chosen):
    n, half = len(chosen), np.float16
    return ScoreTable(
        np.array([e.stem for e in chosen], np.str_),
        np.array([e.row for e in chosen], np.int64),
        np.array([e.column for e in chosen], np.int64),
        np.array([e.grid for e in chosen], np.str_),
        np.array([e.model for e in chosen], np.str_),
        *(np.full(n, value, np.float32) for value in (0.1, 0.2, 0.3, 0.4)),
        *(np.full((n, 2), 0.5, half) for _ in range(3)),
    )


def asked(runner):
    return [r for r in runner.engine.requests if isinstance(r, RankRequest)]


def answer(session, runner, chosen=None, *, n_left=0, **facts):
    """The engine has done what it was asked last."""
    chosen = proposals(session.project, 4) if chosen is None else chosen
    rank_on_disk(session.project, chosen, **facts)
    result = {"n_tiles": 18, "n_scored": 18 - n_left, "n_left": n_left, "acquisition": "clasp"}
    runner.engine.say(RunFinished(run_id=asked(runner)[-1].run_id, result=result))
    finish(session)


def saved(session):
    """Everything is on disk, and what follows has happened."""
    assert session.labelling.save_now()
    finish(session)


def stored(session, number):
    return next(entry for entry in session.project.active.queue() if entry.number == number)


class Hands:
    """A clock that the test moves."""

    def __init__(self, session):
        self.now = 1000.0
        visits = session.queue._visits
        visits._time = visits._clock._clock = self

    def __call__(self):
        return self.now
