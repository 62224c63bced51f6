"""Scores, queue and rounds in the database: whole or not at all, stale rows unread, what was done never lost."""

from __future__ import annotations

import errno
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_emtransfer.core.data import project_schema
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.queue_records import QueueEntry
from napari_emtransfer.core.data.score_table import ScoreTable
from napari_emtransfer.core.errors import ProjectError, StorageError

GRID = "4x5"


@pytest.fixture
def project(tmp_path):
    with make_project(tmp_path / "p", tmp_path) as made:
        yield made


def make_project(root, folder, names=("a", "b")):
    project = Project.create(root, classes=["x", "y"], tile_size_px=32)
    for i, name in enumerate(names):
        pixels = np.random.default_rng(i).integers(0, 255, (128, 160), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
        project.add_micrograph(folder / f"{name}.png")
    return project


def scores(stem="a", n=20, *, model="m", grid=GRID, n_classes=2, seed=0):
    rng = np.random.default_rng(seed)
    entropy, margin, bald = rng.random((3, n), dtype=np.float32)
    return ScoreTable(
        np.full(n, stem),
        np.arange(n) // 5,
        np.arange(n) % 5,
        np.full(n, grid),
        np.full(n, model),
        entropy,
        margin,
        bald,
        np.full(n, np.nan, np.float32),
        rng.random((n, n_classes)).astype(np.float16),
        np.where(rng.random((n, n_classes)) < 0.3, np.nan, rng.random((n, n_classes))).astype(np.float16),
        rng.random((n, 8)).astype(np.float16),
    )


def entry(row, column=0, *, stem="a", **changes):
    values = {
        "score": 0.5,
        "reason": "uncertain x",
        "acquisition": "clasp",
        "model": "m",
        "query_round": 1,
        "grid": GRID,
    }
    return QueueEntry(stem=stem, row=row, column=column, **(values | changes))


def cells(entries):
    return [(e.stem, e.row, e.column) for e in entries]


# --- scores


def test_scores_are_read_as_they_were_written(project):
    assert len(project.active.read_scores()) == 0
    written = scores()
    project.active.write_scores(written, batch_rows=7)
    read = project.active.read_scores()
    read = read.take(read.locate(written.stems, written.rows, written.columns))
    for name in ("stems", "rows", "columns", "grids", "models"):
        assert (getattr(read, name) == getattr(written, name)).all()
    for name in ("entropy", "margin", "bald", "novelty", "shares", "class_entropy", "embeddings"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
        assert getattr(read, name).dtype == getattr(written, name).dtype
    project.active.write_scores(scores(n=5, model="newer", seed=1))
    again = project.active.read_scores()
    assert len(again) == 20
    assert sorted(again.models.tolist()) == ["m"] * 15 + ["newer"] * 5


def test_scores_of_another_list_of_classes_are_read_beside_the_new_ones(project):
    project.active.write_scores(scores())
    project.active.write_scores(scores("b", n_classes=3))
    read = project.active.read_scores()
    assert read.shares.shape == (40, 3)
    assert np.isnan(read.shares[read.stems == "a", 2]).all()
    assert not np.isnan(read.shares[read.stems == "b"]).any()


def test_cells_are_located_and_unknown_ones_are_not():
    table = scores()
    assert table.locate(["a", "b", "a", "a"], [1, 1, 9, 3], [2, 2, 0, 4]).tolist() == [7, -1, -1, 19]
    assert table.take(slice(0, 0)).locate(["a"], [0], [0]).tolist() == [-1]
    assert table.locate([], [], []).tolist() == []


def test_rows_of_a_grid_that_is_gone_are_not_read(project):
    project.active.write_scores(scores())
    project.active.replace_waiting([entry(0), entry(1, control=True)])
    done, _ = project.active.queue()
    project.active.end(done.number, "done", 30.0)
    project.update_settings(tile_size_px=64)
    assert len(project.active.read_scores()) == 0
    assert project.active.queue() == ()
    assert project.active.labelling_time().seconds == 30.0  # that time was spent
    assert project.active.replace_waiting([entry(0)]) == ()  # of the former grid
    project.update_settings(tile_size_px=32)
    assert len(project.active.read_scores()) == 20
    assert [e.state for e in project.active.queue()] == ["done"]  # what waited was cleared away, what was done stays


def test_removing_a_micrograph_removes_its_rows(project):
    project.active.write_scores(scores())
    project.active.write_scores(scores("b"))
    project.active.replace_waiting([entry(0), entry(0, stem="b")])
    project.remove_micrograph("a")
    assert set(project.active.read_scores().stems) == {"b"}
    assert cells(project.active.queue()) == [("b", 0, 0)]
    project.active.write_scores(scores())  # a ranking that has not heard of it yet
    assert project.active.replace_waiting([entry(1), entry(1, stem="b")])[0].stem == "b"
    assert set(project.active.read_scores().stems) == {"b"}
    with sqlite3.connect(project.root / "project.sqlite") as database:
        assert database.execute("SELECT count(*) FROM tile_scores WHERE stem = 'a'").fetchone() == (0,)


# --- queue


def test_waiting_entries_are_replaced_and_all_others_stay(project):
    store = project.active
    first = store.replace_waiting([entry(i) for i in range(4)] + [entry(0, 1, control=True), entry(1, 1), entry(2, 1)])
    assert [e.position for e in first] == list(range(7))
    store.end(first[0].number, "done", 12.5, 3)
    store.end(first[1].number, "skipped", 2.0)
    store.end(first[2].number, "deferred")
    store.keep(replace(first[3], seconds=0.0))  # on somebody's screen
    control = first[4]
    second = store.replace_waiting([entry(3, 3, query_round=2), control, entry(3, 4, query_round=2)])
    assert cells(second) == [("a", 3, 3), ("a", 0, 1), ("a", 3, 4), ("a", 3, 0)]
    assert second[1].number == control.number
    states = {(e.row, e.column): e.state for e in store.queue()}
    assert states == {
        (0, 0): "done", (1, 0): "skipped", (2, 0): "deferred", (3, 0): "waiting",
        (0, 1): "waiting", (3, 3): "waiting", (3, 4): "waiting",
    }  # fmt: skip
    assert [e.state for e in store.queue()][:3] == ["done", "skipped", "deferred"]
    numbers = [e.number for e in (*first, *second)]
    assert max(numbers) == len(set(numbers)) == 9  # no number is given out twice


def test_a_control_that_a_ranking_did_not_know_of_stays(project):
    (control,) = project.active.replace_waiting([entry(0, control=True)])
    after = project.active.replace_waiting([entry(1), entry(2)])
    assert cells(after) == [("a", 1, 0), ("a", 2, 0), ("a", 0, 0)]
    assert after[-1].number == control.number


def test_a_tile_is_not_queued_twice_nor_after_it_was_dealt_with(project):
    store = project.active
    kept, other = store.replace_waiting([entry(0, control=True), entry(1)])
    store.end(other.number, "done")
    project.set_tile_state("a", 2, 0, "done")  # without the queue
    project.set_tile_state("a", 3, 0, "started")
    after = store.replace_waiting([entry(0), entry(1), entry(2), entry(3), entry(3)])
    assert cells(after) == [("a", 3, 0), ("a", 0, 0)]
    assert after[-1].number == kept.number
    # An entry that was ended while the ranking went on is not brought back by it.
    store.end(kept.number, "skipped")
    assert cells(store.replace_waiting([kept, after[0]])) == [("a", 3, 0)]


def test_entries_end_with_their_tile(project):
    a, b, c = project.active.replace_waiting([entry(0), entry(1, control=True), entry(2, control=True)])
    project.set_tile_state("a", 0, 0, "done")
    project.set_tile_state("a", 1, 0, "skipped")
    project.active.replace_waiting([])
    states = {e.number: e.state for e in project.active.queue()}
    assert states == {a.number: "done", b.number: "skipped", c.number: "waiting"}
    assert project.active.queue(["done"])[0].ended


def test_seconds_and_clicks_of_all_visits_are_added(project):
    store = project.active
    assert store.labelling_time().seconds is None
    a, b, c = store.replace_waiting([entry(0), entry(1), entry(2)])
    store.end(a.number, "deferred", 10.0, 2)
    ended = store.end(a.number, "done", 5.0, 1)
    assert (ended.seconds, ended.clicks, ended.state) == (15.0, 3, "done")
    assert ended.ended
    store.end(b.number, "skipped", 4.0)
    store.end(c.number, "done")
    time_spent = store.labelling_time()
    assert (time_spent.seconds, time_spent.clicks, time_spent.n_done, time_spent.n_timed) == (19.0, 3, 2, 1)
    again = store.end(a.number, "waiting")
    assert (again.state, again.ended, again.seconds) == ("waiting", None, 15.0)
    assert store.queue(["waiting"]) == (again,)
    with pytest.raises(ProjectError, match="no entry 99"):
        store.end(99, "done")


def test_what_was_done_to_a_replaced_entry_is_kept(project):
    store = project.active
    old, _ = store.replace_waiting([entry(0), entry(1)])
    (new,) = store.replace_waiting([entry(2)])
    store.keep(replace(old, state="done", seconds=8.0, ended="2026-01-01T00:00:00+00:00"))
    assert [(e.number, e.state) for e in store.queue()] == [(old.number, "done"), (new.number, "waiting")]
    store.keep(replace(old, stem="gone", number=50, seconds=1.0))
    assert len(store.queue()) == 2


# --- rounds


def test_rounds_are_kept_with_what_was_predicted(project):
    store = project.active
    stop_set = np.arange(300, dtype=np.uint8) % 3
    first = store.add_round({"n_labelled_tiles": 3, "kappa": None}, stop_set)
    second = store.add_round({"n_labelled_tiles": 4})
    assert store.rounds() == (first, second)
    assert first.facts == {"n_labelled_tiles": 3, "kappa": None}
    assert (store.stop_set(first.number) == stop_set).all()
    assert store.stop_set(second.number) is None
    assert store.stop_set(77) is None


# --- older projects


def test_a_project_of_schema_2_gets_the_tables_and_keeps_everything(tmp_path):
    with make_project(tmp_path / "p", tmp_path) as project:
        project.set_tile_state("a", 1, 2, "done")
    # A database as its old steps left it: without the tables that came later.
    new = [t.name for t in (project_schema.tile_scores, project_schema.queue, project_schema.query_rounds)]
    with sqlite3.connect(tmp_path / "p" / "project.sqlite") as database:
        for name in new:
            database.execute(f"DROP TABLE {name}")
        database.execute("DELETE FROM schema_version WHERE version > 2")
    with Project.open(tmp_path / "p") as project:
        assert project.tile_states("a") == {(1, 2): "done"}
        assert [r.stem for r in project.micrographs()] == ["a", "b"]
        project.active.write_scores(scores())
        assert cells(project.active.replace_waiting([entry(0)])) == [("a", 0, 0)]
        project.active.add_round({"n_labelled_tiles": 1})
    with sqlite3.connect(tmp_path / "p" / "project.sqlite") as database:
        assert database.execute("SELECT max(version) FROM schema_version").fetchone() == (3,)
    with Project.open(tmp_path / "p") as project:
        assert len(project.active.read_scores()) == 20
        assert len(project.active.queue()) == len(project.active.rounds()) == 1


# --- kills, full disks, several writers

# Forks writers from one process that has imported everything.
NURSERY = """
import os, sys
sys.path.insert(0, sys.argv[2])
from test_active_store import GRID, entry, scores
from napari_emtransfer.core.data.project import Project

def write(root, first):
    project = Project.open(root)
    for i in range(first, 10**6):
        project.active.write_scores(scores(model=f"m{i}", seed=i))
        rows = [(i + k) % 4 for k in range(4)]
        project.active.replace_waiting([entry(r, i % 5, query_round=i, model=f"m{i}") for r in rows])
        project.active.add_round({"n_labelled_tiles": i})
        os.write(1, f"{i}\\n".encode())

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        write(sys.argv[1], int(line))
        os._exit(0)
    os.write(1, f"pid {pid}\\n".encode())
    os.waitpid(pid, 0)
    os.write(1, b"reaped\\n")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="writers are forked")
def test_a_kill_leaves_scores_and_queue_old_or_new_but_never_mixed(tmp_path):
    make_project(tmp_path / "p", tmp_path).close()
    chance = random.Random(3)
    command = [sys.executable, "-c", NURSERY, str(tmp_path / "p"), str(Path(__file__).parent)]
    nursery = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    done, outcomes = 0, set()
    for _ in range(20):
        done = _write_and_kill(nursery, done, chance)
        with Project.open(tmp_path / "p") as project:
            table, waiting = project.active.read_scores(), project.active.queue()
            (of_scores,) = {int(m[1:]) for m in table.models}
            (of_queue,) = {e.query_round for e in waiting}
            newest = project.active.rounds()[-1].facts["n_labelled_tiles"]
            np.testing.assert_array_equal(table.entropy, scores(seed=of_scores).entropy)
            assert cells(waiting) == [("a", (of_queue + k) % 4, of_queue % 5) for k in range(4)]
        # Nothing acknowledged is lost, and what came after is there in the order of writing.
        assert done <= newest <= of_queue <= of_scores <= done + 1
        outcomes.add((of_scores - done, of_queue - done, newest - done))
        done = newest + 1
    nursery.stdin.close()
    nursery.wait(timeout=20)
    nursery.stdout.close()
    assert len(outcomes) >= 2, outcomes  # kills between writes, too


def _write_and_kill(nursery, first, chance):
    nursery.stdin.write(f"{first}\n")
    wanted, pid, acknowledged = chance.randint(1, 4), None, []
    for line in nursery.stdout:
        if line.startswith("pid"):
            pid = int(line.split()[1])
        elif line == "reaped\n":
            break
        else:
            acknowledged.append(int(line))
        if pid and len(acknowledged) == wanted:
            time.sleep(chance.uniform(0, 0.03))
            os.kill(pid, signal.SIGKILL)
    return acknowledged[-1]


def test_a_full_disk_is_told_and_the_queue_stays_as_it_was(project):
    before = project.active.replace_waiting([entry(0), entry(1)])
    pages = _limit_pages(project, extra=4)
    with pytest.raises(StorageError, match="the disk is full") as fault:
        project.active.write_scores(_wide_scores())
    assert "Free some space" in fault.value.hint
    with pytest.raises(StorageError, match="the disk is full"):
        project.active.replace_waiting([entry(i % 4, i % 5, reason="x" * 9000) for i in range(20)])
    assert project.active.queue() == before
    _limit_pages(project, extra=10**6, start=pages)
    assert len(project.active.replace_waiting([entry(2)])) == 1


def _wide_scores():
    table = scores()
    return replace(table, embeddings=np.ones((20, 4096), np.float16))


def _limit_pages(project, extra, start=None):
    """SQLite says "database or disk is full" at this many pages, as on a disk without space."""
    with project._database.reading() as connection:
        start = start or connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {start + extra}")
    return start


WRITER = """
import sys
from dataclasses import replace
sys.path.insert(0, sys.argv[3])
from test_active_store import entry, scores
from napari_emtransfer.core.data.project import Project
project, mine = Project.open(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for i in range(30):
    project.active.write_scores(scores(mine, model=str(i), seed=i))
    waiting = project.active.replace_waiting([entry(r, i % 5, stem=mine, query_round=i) for r in range(3)])
    for e in waiting:  # the other one's ranking may have replaced them by now
        if e.stem == mine and i % 10 == 9:
            project.active.keep(replace(e, state="done", seconds=1.0, clicks=1))
"""


def test_two_processes_may_rank_and_label_at_once(tmp_path):
    make_project(tmp_path / "p", tmp_path).close()
    command = [sys.executable, "-c", WRITER, str(tmp_path / "p")]
    writers = [
        subprocess.Popen(
            [*command, stem, str(Path(__file__).parent)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for stem in ("a", "b")
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
    faults = [writer.communicate(timeout=60)[1].decode() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], faults
    with Project.open(tmp_path / "p") as project:
        table = project.active.read_scores()
        assert set(table.models) == {"29"}
        assert len(table) == 40
        done = project.active.queue(["done"])
        assert sorted(cells(done)) == [(stem, row, 4) for stem in ("a", "b") for row in range(3)]
        assert project.active.labelling_time().seconds == 6.0
        assert len(set(cells(project.active.queue()))) == len(project.active.queue())


def test_a_read_only_project_is_read(project, monkeypatch):
    project.active.write_scores(scores())
    monkeypatch.setattr(project._database, "read_only", os.strerror(errno.EROFS).lower())
    assert len(project.active.read_scores()) == 20
    for write in (
        lambda: project.active.write_scores(scores()),
        lambda: project.active.replace_waiting([entry(0)]),
        lambda: project.active.add_round({}),
    ):
        with pytest.raises(StorageError, match="read-only"):
            write()


# --- speed


def test_a_hundred_thousand_tiles_are_written_and_read_fast(tmp_path):
    project = Project.create(tmp_path / "p", classes=["x", "y"], tile_size_px=32)
    Image.fromarray(np.zeros((3200, 3200), np.uint8)).save(tmp_path / "m0.png")
    for i in range(10):
        (tmp_path / f"m{i}.png").write_bytes((tmp_path / "m0.png").read_bytes() + bytes([i]))
        project.add_micrograph(tmp_path / f"m{i}.png")
    n = 100_000
    number, cell = np.divmod(np.arange(n), 10_000)
    one = scores(n=n)
    table = replace(
        one,
        stems=np.char.add("m", number.astype(str)),
        rows=cell // 100,
        columns=cell % 100,
        grids=np.full(n, "100x100"),
    )
    seconds = {}
    for name, act in (
        ("write", lambda: project.active.write_scores(table)),
        ("again", lambda: project.active.write_scores(table)),
        ("read", project.active.read_scores),
    ):
        start = time.perf_counter()
        result = act()
        seconds[name] = time.perf_counter() - start
    assert len(result) == n
    project.close()
    # Wanted: 3 s and 0.7 s. Other work goes on while tests run, so only a multiple would be a fault.
    assert seconds["write"] < 9, seconds
    assert seconds["again"] < 9, seconds
    assert seconds["read"] < 2.5, seconds
