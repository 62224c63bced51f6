"""Tiles as arrays: the same cells, windows and pixels as grids and views give them one by one."""

from __future__ import annotations

import numpy as np
import pytest
from worker_projects import SHAPE, make_project

from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.worker.rank_tiles import PIECE_TILES, TileTable, in_turn


@pytest.fixture
def project(tmp_path):
    with Project.open(make_project(tmp_path)) as opened:
        opened.update_settings(tile_size_px=32)
        opened.update_micrograph("b1", pixel_size_nm=3.0)
        yield opened


@pytest.mark.parametrize("working_nm", [None, 5.0, 4.1, 12.0])
def test_windows_are_those_of_grid_and_view(project, working_nm):
    table = TileTable.of(project, working_nm)
    place = 0
    for record in project.micrographs():
        view = project.working_view(record.stem)
        if working_nm is not None:
            project.update_settings(working_pixel_size_nm=working_nm)
            view = project.working_view(record.stem)
            project.update_settings(working_pixel_size_nm=5.0)
        for tile in project.tile_grid(record.stem):
            assert table.index(record.stem, tile.row, tile.column) == place
            assert (table.stems[place], table.rows[place], table.columns[place]) == (record.stem, tile.row, tile.column)
            assert table.windows[place].tolist() == list(tile.window.model_dump().values())
            expected = tile.window if working_nm is None else view.to_working(tile.window)
            assert table.working_window(place) == expected
            place += 1
    assert place == len(table)
    assert table.index("a1", 99, 0) is None
    assert table.index("nobody", 0, 0) is None


def test_pieces_cover_every_tile_once_and_stay_in_a_row(project):
    project.update_micrograph("a1", pixel_size_nm=5.0)
    table = TileTable.of(project, 5.0)
    seen = []
    for piece in table.pieces():
        here = range(piece.start, piece.stop)
        assert 0 < len(here) <= PIECE_TILES
        assert len({(table.micrographs[i], table.rows[i]) for i in here}) == 1
        assert {int(table.micrographs[i]) for i in here} == {piece.micrograph}
        seen += here
    assert seen == list(range(len(table)))


def test_native_and_working_pixels_are_each_others_inverse_on_a_coarser_view(project):
    table = TileTable.of(project, 12.0)
    height, width = table.shapes[0]
    points = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=-1)
    native = table.native_pixels(0, points)
    assert native.min() >= 0
    assert (native < SHAPE).all()
    np.testing.assert_array_equal(table.working_pixels(0, native), points)


def test_a_data_bar_is_no_specimen(project):
    bar = Window(y0=60, x0=0, y1=SHAPE[0], x1=SHAPE[1])
    project.update_micrograph("a1", info_bar=bar)
    table = TileTable.of(project, 5.0)
    windows = table.windows[table.stems == "a1"]
    expected = windows[:, 0] + (windows[:, 2] - windows[:, 0]) / 2 <= bar.y0
    np.testing.assert_array_equal(table.shows_specimen[table.stems == "a1"], expected)
    assert not expected.all()
    shown = np.clip((bar.y0 - windows[:, 0]) / (windows[:, 2] - windows[:, 0]), 0, 1)
    np.testing.assert_allclose(table.share_shown[table.stems == "a1"], shown)
    assert table.shows_specimen[table.stems != "a1"].all()
    points = np.array([[59, 5], [60, 5], [95, 127]])
    assert table.outside_bar(0, points).tolist() == [True, False, False]
    assert table.outside_bar(1, points).all()


def test_synthetic_micrographs_have_no_tiles(project):
    from napari_emtransfer.core.data.readers import read_micrograph

    path = project.record("a1").path
    project.remove_micrograph("a1")
    project.register(read_micrograph(path), specimen="made", synthetic=True)
    table = TileTable.of(project, 5.0)
    assert [record.stem for record in table.records] == ["b1", "c1", "d1"]
    assert table.index("a1", 0, 0) is None


def test_specimens_take_turns_behind_the_one_in_view(project):
    project.update_micrograph("b1", specimen="a")
    records = project.micrographs()
    assert [records[i].stem for i in in_turn(records, None)] == ["a1", "c1", "d1", "b1"]
    assert [records[i].stem for i in in_turn(records, "d1")] == ["d1", "a1", "c1", "b1"]
