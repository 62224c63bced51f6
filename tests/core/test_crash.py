"""Kill -9 at any moment, a full disk, two writers at once: nothing acknowledged is lost, the project opens."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import StorageError

STROKE_PX, PER_ROW, EDGE_PX = 40, 25, 1000  # strokes cross the chunks' edges, which lie at multiples of 256

# Forks painters from one process that has imported everything: a kill each 100 ms instead of each 2 s.
NURSERY = """
import os, sys
import numpy as np
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.tiles import Window

def paint(root, first):
    project = Project.open(root)
    for i in range(first, 625):
        y, x = i // 25 * 40, i % 25 * 40
        project.annotations.write("a", Window(y0=y, x0=x, y1=y + 40, x1=x + 40), np.full((40, 40), 1 + i % 4, np.uint8))
        project.set_tile_state("a", i // 25, i % 25, "done")
        os.write(1, f"{i}\\n".encode())

for line in sys.stdin:
    root, first = sys.argv[1], int(line)
    pid = os.fork()
    if pid == 0:
        paint(root, first)
        os._exit(0)
    os.write(1, f"pid {pid}\\n".encode())
    os.waitpid(pid, 0)
    os.write(1, b"reaped\\n")
"""


def make_project(root, image_folder, edge=EDGE_PX):
    image = np.random.default_rng(0).integers(0, 255, (edge, edge), dtype=np.uint8)
    Image.fromarray(image).save(image_folder / "a.png")
    project = Project.create(root, classes=["a", "b", "c", "d"])
    project.add_micrograph(image_folder / "a.png")
    return project


def stroke(i):
    y, x = i // PER_ROW * STROKE_PX, i % PER_ROW * STROKE_PX
    return Window(y0=y, x0=x, y1=y + STROKE_PX, x1=x + STROKE_PX)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="painters are forked")
def test_no_acknowledged_stroke_is_lost_by_kill_9(tmp_path):
    make_project(tmp_path / "p", tmp_path).close()
    chance = random.Random(7)
    command = [sys.executable, "-c", NURSERY, str(tmp_path / "p")]
    nursery = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    acknowledged: list[int] = []
    for _ in range(16):
        acknowledged += _paint_and_kill(nursery, len(acknowledged), chance)
        with Project.open(tmp_path / "p") as project:
            labels, states = project.annotations.read("a"), project.tile_states("a")
            lost = [i for i in acknowledged if (labels[stroke(i).slices] != 1 + i % 4).any()]
            assert not lost
            assert all(states[divmod(i, PER_ROW)] == "done" for i in acknowledged)
            assert project.class_counts("a").sum() == EDGE_PX**2
    nursery.stdin.close()
    nursery.wait(timeout=20)
    nursery.stdout.close()
    assert acknowledged == list(range(len(acknowledged)))
    assert len(acknowledged) >= 16


def _paint_and_kill(nursery, first, chance):
    nursery.stdin.write(f"{first}\n")
    wanted, pid, acknowledged = chance.randint(1, 25), None, []
    for line in nursery.stdout:
        if line.startswith("pid"):
            pid = int(line.split()[1])
        elif line == "reaped\n":
            break
        else:
            acknowledged.append(int(line))
        if pid and len(acknowledged) >= wanted:
            time.sleep(chance.uniform(0, 0.01))
            os.kill(pid, signal.SIGKILL)
            wanted = 10**9
    return acknowledged


WRITER = """
import sys
import numpy as np
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.tiles import Window
root, mine = sys.argv[1], int(sys.argv[2])
project = Project.open(root)
print("ready", flush=True)
sys.stdin.readline()
for i in range(60):
    y, x = divmod(2 * i + mine, 20)
    project.annotations.write("a", Window(y0=y, x0=x, y1=y + 1, x1=x + 1), np.array([[1 + mine]], np.uint8))
    project.set_tile_state("a", i, mine, "done")
    if i % 6 == 0:
        project.create_run("train", {"writer": mine})
"""


def test_two_processes_may_write_at_once(tmp_path):
    make_project(tmp_path / "p", tmp_path, edge=120).close()
    command = [sys.executable, "-c", WRITER, str(tmp_path / "p")]
    writers = [
        subprocess.Popen([*command, str(i)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for i in range(2)
    ]
    for writer in writers:
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:  # both begin now
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
    faults = [writer.communicate(timeout=60)[1].decode() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], faults
    with Project.open(tmp_path / "p") as project:
        pixels = project.annotations.read("a", Window(y0=0, x0=0, y1=6, x1=20)).ravel()
        assert pixels.tolist() == [1, 2] * 60  # every pixel of both, though all lie in one chunk
        assert len(project.tile_states("a")) == 120
        assert len({run.id for run in project.runs()}) == 20


@contextmanager
def small_disk(folder, size):
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a small disk can be mounted by root on Linux only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_loses_nothing_and_the_project_still_opens(tmp_path):
    with small_disk(tmp_path / "disk", "500k") as disk:
        project = make_project(disk / "p", tmp_path)
        project.annotations.write("a", stroke(0), np.full((40, 40), 2, np.uint8))
        (disk / "ballast").write_bytes(bytes(150_000))
        with pytest.raises(StorageError, match="the disk is full") as fault:
            _write_noise(project)
        assert "Free some space" in fault.value.hint
        _fill(disk)
        with pytest.raises(StorageError, match="disk is full"):
            _mark_tiles(project)
        project.close()
        with Project.open(disk / "p") as again:
            assert again.annotations.read("a")[stroke(0).slices].all()
            assert again.schema.names == ("a", "b", "c", "d")
        (disk / "ballast").unlink()
        with Project.open(disk / "p") as again:
            again.annotations.write("a", stroke(0), np.full((40, 40), 3, np.uint8))
            again.set_tile_state("a", 0, 0, "unsure")
            assert again.tile_states("a")[0, 0] == "unsure"


def _fill(disk):
    with (disk / "ballast").open("ab", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    if file.write(b"x" * size) < size:
                        break
            except OSError:
                continue


def _write_noise(project):
    noise = np.random.default_rng(1).integers(1, 5, (EDGE_PX, EDGE_PX), dtype=np.uint8)  # hardly compressible
    for _ in range(4):
        project.annotations.write("a", None, noise)
        noise = np.rot90(noise)


def _mark_tiles(project):
    for row in range(5000):
        project.set_tile_state("a", row, 0, "done")


LIMITED = """
import resource, sys
import numpy as np
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.errors import StorageError
project = Project.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    labels = np.random.default_rng(0).integers(1, 5, project.record("a").shape, dtype=np.uint8)
    project.annotations.write("a", None, labels)
except StorageError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limits")
def test_a_file_size_limit_is_told_and_earlier_labels_stay(tmp_path):
    project = make_project(tmp_path / "p", tmp_path, edge=300)
    project.annotations.write("a", stroke(0), np.full((40, 40), 2, np.uint8))
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "p")]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "exceed the size allowed here" in child.stdout
    assert (project.annotations.read("a")[:40, :40] == 2).all()
    assert not list((tmp_path / "p").rglob(".tmp-*"))
    project.close()


def test_a_read_only_project_can_be_read(tmp_path):
    with small_disk(tmp_path / "disk", "4m") as disk:
        project = make_project(disk / "p", tmp_path, edge=300)
        project.annotations.write("a", stroke(0), np.full((40, 40), 2, np.uint8))
        run = project.create_run("train", {})
        project.close()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with Project.open(disk / "p") as again:
            assert "read-only" in again.read_only
            assert again.class_counts("a").tolist() == [300**2 - 1600, 0, 1600, 0, 0]
            assert again.open_micrograph("a").shape == (300, 300)
            assert again.run(run.id).record.status == "starting"
            for write in (
                lambda: again.annotations.write("a", stroke(0), np.zeros((40, 40), np.uint8)),
                lambda: again.set_tile_state("a", 0, 0, "done"),
                lambda: again.create_run("train", {}),
                lambda: again.update_settings(tile_size_px=512),
            ):
                with pytest.raises(StorageError, match="read-only"):
                    write()


def test_a_read_only_project_left_by_a_kill_shows_its_last_transactions(tmp_path):
    with small_disk(tmp_path / "disk", "4m") as disk:
        project = make_project(disk / "p", tmp_path, edge=300)
        project.set_tile_state("a", 0, 0, "done")
        # The connection is still open, as after a kill: the newest transactions lie in the log beside the database.
        assert (disk / "p" / "project.sqlite-wal").stat().st_size > 0
        files = {f.name: f.read_bytes() for f in (disk / "p").glob("project.sqlite*") if not f.name.endswith("shm")}
        project.close()
        for name, content in files.items():
            (disk / "p" / name).write_bytes(content)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with Project.open(disk / "p") as again:
            assert again.tile_states("a") == {(0, 0): "done"}
