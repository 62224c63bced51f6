"""The real engine, killed while it ranks: scores, queue and rounds are whole, and the next ranking goes on."""

import os
import signal
import threading

import numpy as np
import pytest
import torch
from worker_projects import CLASSES, COMPUTE, SHAPE, make_project, micrograph

from napari_emtransfer.core.config import ModelConfig, RankConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.events import TERMINAL, ProgressMade, RunFailed, RunFinished
from napari_emtransfer.core.nn.checkpoint import Checkpoint, CheckpointMeta
from napari_emtransfer.core.nn.model import build_model
from napari_emtransfer.worker.protocol import RankRequest
from napari_emtransfer.worker.runners import LocalProcessRunner

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no signal 9"),
]
N_TILES = 48


class Engine:
    """The engine process, and all that it says; `until` waits for an event."""

    def __init__(self):
        self.events, self._heard = [], threading.Condition()
        self.process = LocalProcessRunner().start_engine(self)

    def __call__(self, event):
        with self._heard:
            self.events.append(event)
            self._heard.notify_all()

    def until(self, wanted, seconds=120):
        with self._heard:
            assert self._heard.wait_for(lambda: any(map(wanted, self.events)), seconds), self.events[-3:]
            return next(event for event in self.events if wanted(event))

    def rank(self, root, run_id="rank"):
        config = RankConfig(n_tiles=5, compute=COMPUTE)
        self.process.request(RankRequest(run_id=run_id, project=root, config=config))
        return lambda event: isinstance(event, TERMINAL) and event.run_id == run_id

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        assert self.process.wait(20)


@pytest.fixture
def engine():
    engines = []

    def start():
        engines.append(Engine())
        return engines[-1]

    yield start
    for one in engines:
        one.process.kill()
        assert one.process.wait(10)


@pytest.fixture
def root(tmp_path):
    made = make_project(tmp_path)
    torch.manual_seed(0)
    model = ModelConfig(encoder="tu-test_resnet", n_classes=2)
    with Project.open(made) as project:
        project.update_settings(tile_size_px=32)
        for record in project.micrographs():
            project.annotations.write(record.stem, None, np.zeros(SHAPE, np.uint8))
        run = project.create_run("train", {})
        state = build_model(model).state_dict()
        Checkpoint(CheckpointMeta(model=model, classes=CLASSES), state).save(run.checkpoint_path("best"))
        run.update("finished")
    return made


def label_queue(root):
    masks = dict(zip(("a1", "b1", "c1", "d1"), (micrograph(seed)[1] for seed in range(4)), strict=True))
    with Project.open(root) as project:
        for entry in project.active.queue(("waiting",)):
            window = project.tile_grid(entry.stem).tile(entry.row, entry.column).window
            project.annotations.write(entry.stem, window, masks[entry.stem][window.slices])
            project.set_tile_state(entry.stem, entry.row, entry.column, "done")
            project.active.end(entry.number, "done", seconds=1.0, clicks=1)


def kept(root):
    """(tiles per model, queue as (tile, state), rounds) as they lie in the database."""
    with Project.open(root) as project:
        models, counts = np.unique(project.active.read_scores().models, return_counts=True)
        queue = [(entry.tile, entry.state) for entry in project.active.queue()]
        return dict(zip(models.tolist(), counts.tolist(), strict=True)), queue, project.active.rounds()


def test_a_kill_at_any_step_leaves_whole_scores_and_an_intact_queue(root, engine):
    first = engine()
    done = first.rank(root)
    first.until(lambda event: isinstance(event, ProgressMade) and event.what == "tiles")
    first.kill()
    assert isinstance(first.until(done), RunFailed)
    assert kept(root) == ({}, [], ())

    second = engine()
    assert isinstance(second.until(second.rank(root)), RunFinished)
    before = kept(root)
    assert [state for _, state in before[1]] == ["waiting"] * 5
    label_queue(root)
    labelled = kept(root)[1]
    second.rank(root, "again")
    second.until(lambda event: isinstance(event, ProgressMade) and event.what == "scores")
    second.kill()
    scores, queue, rounds = kept(root)
    assert sum(scores.values()) in (0, N_TILES), "scores are written in whole batches"
    assert queue[:5] == labelled, "what was done stays done"
    assert len(queue) in (5, 10)
    assert len(rounds) in (1, 2)

    third = engine()
    end = third.until(third.rank(root))
    assert isinstance(end, RunFinished), end
    scores, queue, rounds = kept(root)
    assert scores == {end.result["facts"]["model"]: N_TILES}
    assert queue[:5] == labelled
    assert [tile for tile, _ in queue[5:]] == [(t["micrograph"], t["row"], t["column"]) for t in end.result["tiles"]]
    assert [one.number for one in rounds] == [1, 2]
