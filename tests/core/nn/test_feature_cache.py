import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from napari_emtransfer.core.nn import feature_cache
from napari_emtransfer.core.nn.feature_cache import FeatureCache, feature_key


def features(value, n=3):
    return np.full((n, 16, 16), value, np.float16)


class Counting:
    """Computes features and counts how often."""

    def __init__(self, value=1.0):
        self.value, self.n = value, 0

    def __call__(self):
        self.n += 1
        return features(self.value)


FILE_BYTES = features(0).nbytes + 64


def test_what_was_computed_once_is_mapped_by_the_next_process(tmp_path):
    compute = Counting(0.25)
    FeatureCache(tmp_path / "features").get("a", compute)
    again = FeatureCache(tmp_path / "features").get("a", compute)
    assert compute.n == 1
    assert not again.flags.owndata
    assert again.dtype == np.float16
    np.testing.assert_array_equal(again, features(0.25))
    with pytest.raises(ValueError):
        again[0, 0, 0] = 1


@pytest.mark.parametrize("damage", ["torn", "empty", "flipped", "foreign", "huge"])
def test_a_damaged_file_is_computed_anew(tmp_path, damage):
    cache, compute = FeatureCache(tmp_path), Counting()
    cache.get("a", compute)
    path = tmp_path / "a.f16"
    data = bytearray(path.read_bytes())
    match damage:
        case "torn":
            data = data[: len(data) // 2]
        case "empty":
            data = bytearray()
        case "flipped":
            data[200] ^= 1
        case "foreign":
            data[:4] = b"what"
        case "huge":
            data[6:18] = b"\xff" * 12
    path.write_bytes(data)
    np.testing.assert_array_equal(cache.get("a", compute), features(1))
    assert compute.n == 2
    cache.get("a", compute)
    assert compute.n == 2, "the damaged file was not replaced"


def test_the_least_recently_used_file_goes_first(tmp_path):
    cache = FeatureCache(tmp_path, limit_bytes=int(3.5 * FILE_BYTES))
    for age, key in enumerate("abc"):
        cache.get(key, Counting())
        os.utime(tmp_path / f"{key}.f16", (age, age))
    cache.get("a", Counting())  # used again: b is now the oldest
    cache.get("d", Counting())
    assert sorted(p.stem for p in tmp_path.glob("*.f16")) == ["a", "c", "d"]


def test_the_limit_holds_for_many_files_and_for_files_of_others(tmp_path):
    limit = 5 * FILE_BYTES
    first, second = FeatureCache(tmp_path, limit_bytes=limit), FeatureCache(tmp_path, limit_bytes=limit)
    for i in range(12):
        (first if i % 2 else second).get(f"k{i}", Counting())
    # A cache counts what others write when it next passes the limit by itself.
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 2 * limit
    for i in range(6):
        first.get(f"n{i}", Counting())
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= limit


def test_a_file_larger_than_the_limit_is_given_all_the_same(tmp_path):
    cache = FeatureCache(tmp_path, limit_bytes=10)
    np.testing.assert_array_equal(cache.get("a", Counting(2)), features(2))


def test_a_full_disk_is_told_once_and_stops_nothing(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    told, compute = [], Counting()
    cache = FeatureCache(tmp_path, on_fault=told.append)
    monkeypatch.setattr(feature_cache.tempfile, "mkstemp", full)
    for key in "ab":
        np.testing.assert_array_equal(cache.get(key, compute), features(1))
    assert compute.n == 2
    assert len(told) == 1
    assert "the disk is full" in told[0]
    assert list(tmp_path.iterdir()) == []


def test_the_folder_may_be_deleted_at_any_time(tmp_path):
    cache, compute = FeatureCache(tmp_path / "f"), Counting()
    cache.get("a", compute)
    cache.clear()
    (tmp_path / "f").rmdir()
    np.testing.assert_array_equal(cache.get("a", compute), features(1))
    assert compute.n == 2
    assert [p.name for p in (tmp_path / "f").iterdir()] == ["a.f16"]


def test_many_at_once_never_see_half_a_file(tmp_path):
    wrong = []

    def work(seed):
        cache = FeatureCache(tmp_path, limit_bytes=4 * FILE_BYTES)
        drawn = np.random.default_rng(seed).integers(0, 8, 60)
        wrong.extend(i for i in drawn if not (cache.get(f"k{i}", Counting(float(i))) == i).all())

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    assert not list(tmp_path.glob(".tmp-*"))


def test_without_a_folder_nothing_is_kept():
    compute = Counting()
    cache = FeatureCache(None)
    cache.get("a", compute)
    cache.get("a", compute)
    assert compute.n == 2


def test_the_key_tells_every_part_apart_whatever_their_order():
    parts = {"weights": "w", "norm": "n", "checksum": "c", "scale": 1.0, "tile": [0, 0, 4, 4]}
    assert feature_key(**parts) == feature_key(**dict(reversed(parts.items())))
    others = {feature_key(**(parts | {name: "other"})) for name in parts}
    assert len(others | {feature_key(**parts)}) == len(parts) + 1


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not list open files")
def test_what_is_mapped_keeps_no_file_open(tmp_path):
    cache = FeatureCache(tmp_path)
    for number in range(50):
        cache.get(str(number), lambda number=number: np.full((1, 2, 3), number, np.float16))
    n_before = len(list(Path("/proc/self/fd").iterdir()))
    mapped = [cache.find(str(number)) for number in range(50)]
    assert [int(values[0, 1, 2]) for values in mapped] == list(range(50))
    assert len(list(Path("/proc/self/fd").iterdir())) - n_before < 10
