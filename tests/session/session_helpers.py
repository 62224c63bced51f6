"""A small project, a runner that starts nothing and says what the test tells it to, and a recorder of signals."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from napari_emtransfer.core.data.project import Project


@dataclass
class FakeProcess:
    """Stands for a training process or the engine: remembers what it was told; its events are said by the test."""

    sink: object
    requests: list = field(default_factory=list)
    words: list = field(default_factory=list)
    leaves: bool = True

    def say(self, event):
        self.sink(event)

    def request(self, request):
        self.requests.append(request)

    def cancel(self, run_id=None):
        self.words.append("cancel" if run_id is None else f"cancel {run_id}")

    def stop_early(self):
        self.words.append("stop_early")

    def kill(self):
        self.words.append("kill")
        self.leaves = True

    def close(self):
        self.words.append("close")

    def wait(self, timeout):
        return self.leaves


class FakeRunner:
    def __init__(self):
        self.jobs: list[FakeProcess] = []
        self.engines: list[FakeProcess] = []
        self.helpers: list[FakeProcess] = []

    def start(self, request, sink):
        self.jobs.append(FakeProcess(sink, [request]))
        return self.jobs[-1]

    def start_engine(self, sink):
        self.engines.append(FakeProcess(sink))
        return self.engines[-1]

    def start_helper(self, request, sink):
        self.helpers.append(FakeProcess(sink, [request]))
        return self.helpers[-1]

    @property
    def helper(self):
        return self.helpers[-1]

    @property
    def job(self):
        return self.jobs[-1]

    @property
    def engine(self):
        return self.engines[-1]


class Recorder:
    """All signals of a session in the order of their emission, as (name, args)."""

    def __init__(self, signals):
        self.log = []
        signals.connect(lambda info: self.log.append((info.signal.name, info.args)))

    @property
    def names(self):
        return [name for name, _ in self.log]

    def of(self, name):
        return [args for n, args in self.log if n == name]

    def clear(self):
        self.log.clear()


def make_project(root, *, n=3, specimens=("a", "b", "c"), shape=(128, 192), tile_size_px=64):
    """`n` micrographs named m0, m1, … on the given specimens in turn, classes matrix and pore, nothing labelled."""
    images = root.parent / f"{root.name}-images"
    images.mkdir(parents=True)
    with Project.create(root, classes=["matrix", "pore"], tile_size_px=tile_size_px) as project:
        for i in range(n):
            path = images / f"m{i}.npy"
            np.save(path, np.random.default_rng(i).normal(size=shape).astype(np.float32))
            project.add_micrograph(path, specimen=specimens[i % len(specimens)])
    return root


def label(project, stem, *, classes=(1, 2)):
    """Paint the left part of a micrograph with each of the classes in turn, on disk."""
    labels = project.annotations.read(stem)
    for i, value in enumerate(classes):
        labels[:, 32 * i : 32 * (i + 1)] = value
    project.annotations.write(stem, None, labels)


def finish(session, timeout=3.0):
    """Apply messages until none comes for a while."""
    while session.drain(0.03):
        pass
