"""Atomic writing, locks, and faults of the disk in plain words."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading

import pytest

from napari_emtransfer.core.data.storage import file_lock, storage_error, write_atomic, write_text
from napari_emtransfer.core.errors import StorageError


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "the disk is read-only"),
        (errno.EACCES, "permission is denied"),
        (errno.ENOENT, "the folder is gone"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_faults_are_explained(tmp_path, code, words):
    fault = storage_error(OSError(code, "Input/output error"), tmp_path / "x")
    assert words in fault.message
    assert str(tmp_path / "x") in fault.message
    assert fault.hint


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "settings.json"
    write_atomic(path, b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        write_text(path, "new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_place_of_a_folder_is_told(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(StorageError, match="Cannot write"):
        write_text(tmp_path / "x" / "y", "")


def test_a_lock_keeps_others_out_and_is_freed(tmp_path):
    with file_lock(tmp_path / "lock"):
        faults = []

        def wait():
            try:
                with file_lock(tmp_path / "lock", seconds=0.05):
                    faults.append(None)
            except StorageError as error:
                faults.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
        assert "Another program has been writing" in faults[0].message
    with file_lock(tmp_path / "lock", seconds=0.05):
        pass


def test_a_killed_holder_frees_its_lock(tmp_path):
    code = (
        "import sys, pathlib; from napari_emtransfer.core.data.storage import file_lock\n"
        "with file_lock(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline().strip() == b"held"
    child.kill()
    with file_lock(tmp_path / "lock", seconds=5):
        pass
    child.communicate()
