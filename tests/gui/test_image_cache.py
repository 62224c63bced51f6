"""Micrographs are fetched before they are asked for, within bounds."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from napari_emtransfer.core.data.micrograph import Micrograph
from napari_emtransfer.core.data.tiles import Tile, Window
from napari_emtransfer.core.errors import UnreadableFileError
from napari_emtransfer.gui import image_cache
from napari_emtransfer.gui.bridge import Bridge
from napari_emtransfer.gui.image_cache import ImageCache
from napari_emtransfer.gui.tile_pictures import TilePictures


class Shelf:
    """Stands for a session with micrographs of 100 × 100 bytes."""

    def __init__(self, n):
        self.records = tuple(SimpleNamespace(stem=f"m{i}", pixel_size_nm=None, height=100, width=100) for i in range(n))
        self.opened = []

    def open_micrograph(self, stem):
        self.opened.append(stem)
        if stem == "m1":
            raise UnreadableFileError("m1 is gone.")
        return Micrograph(stem, np.zeros((100, 100), np.uint8))


@pytest.fixture
def bridge(qtbot):
    bridge = Bridge(lambda *_: pytest.fail("prefetching must not complain"))
    yield bridge
    bridge.close()


def test_what_fits_is_fetched(qtbot, bridge):
    shelf = Shelf(1)
    cache = ImageCache(shelf, bridge)
    cache.prefetch()
    cache.prefetch()
    qtbot.waitUntil(lambda: cache.get("m0") is not None)
    assert shelf.opened == ["m0"]


def test_what_does_not_fit_is_left(qtbot, bridge, monkeypatch):
    monkeypatch.setattr(image_cache, "PREFETCHED_BYTES", 4 * 100 * 100)
    shelf = Shelf(3)
    cache = ImageCache(shelf, bridge)
    cache.prefetch()
    qtbot.waitUntil(lambda: cache.get("m0") is not None)
    qtbot.waitUntil(lambda: cache._prefetcher is None)
    assert shelf.opened == ["m0"]


def test_a_file_that_is_gone_waits_until_it_is_asked_for(qtbot, bridge):
    shelf, told = Shelf(3), []
    cache = ImageCache(shelf, bridge)
    cache.prefetch()
    qtbot.waitUntil(lambda: cache._prefetcher is None)
    assert cache.get("m2") is not None
    cache.load("m1", done=told.append, failed=lambda message, hint: told.append(message))
    qtbot.waitUntil(lambda: told == ["m1 is gone."])


def test_the_oldest_gives_way(qtbot, bridge, monkeypatch):
    monkeypatch.setattr(image_cache, "KEPT_BYTES", 2 * 100 * 100)
    shelf, ready = Shelf(5), []
    cache = ImageCache(shelf, bridge)
    for stem in ("m0", "m2", "m3"):
        cache.load(stem, done=ready.append, failed=lambda *_: None)
        qtbot.waitUntil(lambda stem=stem: bool(ready) and ready[-1].stem == stem)
    assert cache.get("m0") is None
    assert cache.get("m3") is not None
    cache.keep_only(shelf.records[:3])
    assert cache.get("m3") is None
    cache.clear()
    assert cache.get("m2") is None


def test_those_that_are_named_come_first(qtbot, bridge, monkeypatch):
    monkeypatch.setattr(image_cache, "PREFETCHED_BYTES", 2 * 4 * 100 * 100)
    shelf = Shelf(9)
    cache = ImageCache(shelf, bridge)
    cache.prefetch(["m7", "m5", "m7", "gone", "m1"])
    qtbot.waitUntil(lambda: cache._prefetcher is None)
    assert shelf.opened == ["m7", "m5"]
    cache.prefetch(["m8"])
    cache.prefetch()  # another micrograph is shown meanwhile: what was named still comes first
    qtbot.waitUntil(lambda: cache.get("m8") is not None)
    assert shelf.opened[2] == "m8"


def test_those_named_while_others_are_read_take_their_turn(qtbot, bridge):
    shelf = Shelf(9)
    cache = ImageCache(shelf, bridge)
    cache.prefetch()
    qtbot.waitUntil(lambda: bool(shelf.opened))
    cache.prefetch(["m8", "m6"])
    qtbot.waitUntil(lambda: cache.get("m3") is not None)
    assert {"m8", "m6"} <= set(shelf.opened[: shelf.opened.index("m3")])


def test_what_is_named_stays_when_others_give_way(qtbot, bridge, monkeypatch):
    monkeypatch.setattr(image_cache, "KEPT_BYTES", 2 * 100 * 100)
    monkeypatch.setattr(image_cache, "PREFETCHED_BYTES", 2 * 4 * 100 * 100)
    shelf, ready = Shelf(5), []
    cache = ImageCache(shelf, bridge)
    for stem in ("m0", "m2"):
        cache.load(stem, done=ready.append, failed=lambda *_: None)
    qtbot.waitUntil(lambda: len(ready) == 2)
    cache.prefetch(["m0", "m3"])
    qtbot.waitUntil(lambda: cache.get("m3") is not None)
    assert cache.get("m0") is not None
    assert cache.get("m2") is None


def test_what_another_project_was_reading_is_dropped(qtbot, bridge):
    """Micrographs of two projects often have the same names."""
    shelf, read = Shelf(1), threading.Event()
    cache = ImageCache(shelf, bridge)

    def open_slowly(stem):
        assert read.wait(5)
        return Micrograph(stem, np.full((100, 100), 7, np.uint8))

    shelf.open_micrograph = open_slowly
    seen = []
    cache.prefetch()
    cache.load("m0", done=seen.append, failed=lambda *_: None)
    qtbot.wait(80)
    cache.clear()
    read.set()
    qtbot.waitUntil(lambda: bool(seen) and not bridge._workers)
    assert cache.get("m0") is None
    shelf.open_micrograph = lambda stem: Micrograph(stem, np.zeros((100, 100), np.uint8))
    cache.prefetch()
    qtbot.waitUntil(lambda: cache.get("m0") is not None)
    assert not cache.get("m0").data.any()


def test_pictures_of_another_project_are_dropped_and_unreadable_ones_tried_again(qtbot, bridge):
    shelf, read = Shelf(2), threading.Event()
    pictures = TilePictures(shelf, bridge, ImageCache(shelf, bridge))
    window = Window(y0=0, x0=0, y1=50, x1=50)
    tiles = [Tile(micrograph=f"m{i}", row=0, column=0, window=window) for i in range(2)]

    def open_slowly(stem):
        assert read.wait(5)
        return Micrograph(stem, np.zeros((100, 100), np.uint8))

    at_once, shelf.open_micrograph = shelf.open_micrograph, open_slowly
    pictures.want(tiles[:1])
    pictures.clear()
    shelf.open_micrograph = at_once
    pictures.want(tiles[1:])  # does not wait for what was cleared
    qtbot.waitUntil(lambda: tiles[1] in pictures._pictures)
    read.set()
    qtbot.waitUntil(lambda: not bridge._workers)
    assert list(pictures._pictures.items()) == [(tiles[1], None)]  # m1 cannot be read
    pictures.keep_only({"m0", "m1"})
    shelf.open_micrograph = lambda stem: Micrograph(stem, np.zeros((100, 100), np.uint8))
    pictures.want(tiles)
    qtbot.waitUntil(lambda: all(pictures.get(tile) is not None for tile in tiles))
    pictures.keep_only({"m1"})
    assert pictures.get(tiles[0]) is None
