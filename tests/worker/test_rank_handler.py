"""Ranking the tiles of a small project: what is proposed, kept, measured and told."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from worker_projects import CLASSES, COMPUTE, SHAPE, make_project, micrograph

from napari_emtransfer.core.config import ModelConfig, RankConfig
from napari_emtransfer.core.data import project_database
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.readers import read_micrograph
from napari_emtransfer.core.data.split import Split, whole
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.events import NoticePosted, ProgressMade, RunCancelled, RunFailed, RunFinished
from napari_emtransfer.core.nn.checkpoint import Checkpoint, CheckpointMeta
from napari_emtransfer.core.nn.features import FrozenNetwork
from napari_emtransfer.core.nn.model import build_model
from napari_emtransfer.core.nn.pool_features import PoolFeatures
from napari_emtransfer.core.nn.pool_head import PoolHead
from napari_emtransfer.worker import rank_handler, rank_measure, rank_round, rank_scores
from napari_emtransfer.worker.handlers import RunControl, handle
from napari_emtransfer.worker.protocol import RankRequest

N_TILES = 48
CONFIG = RankConfig(n_tiles=5, compute=COMPUTE)


@pytest.fixture(autouse=True)
def fresh():
    rank_handler.forget()
    yield
    rank_handler.forget()


@pytest.fixture
def quick(monkeypatch):
    """A network that gives the intensities and their squares: what is tested here does not depend on it."""

    def maps(_self, view, window):
        values = view.read(window)
        return np.stack([values, values**2])

    monkeypatch.setattr(FrozenNetwork, "__call__", maps)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """48 tiles without labels, and a run with a tiny network."""
    root = make_project(tmp_path_factory.mktemp("made"))
    with Project.open(root) as project:
        project.update_settings(tile_size_px=32)
        for record in project.micrographs():
            project.annotations.write(record.stem, None, np.zeros(SHAPE, np.uint8))
    new_run(root)
    return root


@pytest.fixture
def bare(made, tmp_path, quick):
    """`made`, to be written to."""
    shutil.copytree(made.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / made.name


def new_run(root, seed=0):
    torch.manual_seed(seed)
    model = ModelConfig(encoder="tu-test_resnet", n_classes=2)
    with Project.open(root) as project:
        run = project.create_run("train", {})
        state = build_model(model).state_dict()
        Checkpoint(CheckpointMeta(model=model, classes=CLASSES), state).save(run.checkpoint_path("best"))
        run.update("finished")
        return run.id


@pytest.fixture
def sampled(monkeypatch):
    """Number of tiles whose features were computed, per call."""
    counts = []
    sample = PoolFeatures.sample

    def counting(self, view, windows):
        counts.append(len(windows))
        return sample(self, view, windows)

    monkeypatch.setattr(PoolFeatures, "sample", counting)
    return counts


def rank(root, control=None, **changes):
    events = []
    request = RankRequest(run_id="rank-1", project=root, **({"config": CONFIG} | changes))
    handle(request, events.append, control or RunControl())
    return events


def ranked(root, **changes):
    events = rank(root, **changes)
    assert isinstance(events[-1], RunFinished), events[-1]
    return events[-1].result


def truths():
    return dict(zip(("a1", "b1", "c1", "d1"), (micrograph(seed)[1] for seed in range(4)), strict=True))


def label(root, n=None, stems=("a1", "b1", "c1", "d1")):
    """Label the next n tiles of the queue as they are, in full; returns the entries."""
    masks = truths()
    with Project.open(root) as project:
        entries = [e for e in project.active.queue(("waiting",)) if e.stem in stems][:n]
        for entry in entries:
            window = project.tile_grid(entry.stem).tile(entry.row, entry.column).window
            project.annotations.write(entry.stem, window, masks[entry.stem][window.slices])
            project.set_tile_state(entry.stem, entry.row, entry.column, "done")
            project.active.end(entry.number, "done", seconds=10.0, clicks=3)
        return entries


def label_until(root, n_controls):
    """Rank and label round by round, until so many controls are done."""
    controls = []
    while len(controls) < n_controls:
        result = ranked(root)
        controls += [entry for entry in label(root) if entry.control]
    return ranked(root) | {"before": result}


def notices(events):
    return [event.message for event in events if isinstance(event, NoticePosted)]


# --- what is proposed


def test_without_labels_typical_tiles_and_a_random_control_are_queued(bare, sampled):
    events = rank(bare)
    result = events[-1].result
    assert result["acquisition"] == "typiclust"
    assert (result["n_tiles"], result["n_scored"], result["n_left"]) == (N_TILES, N_TILES, 0)
    assert sum(sampled) == N_TILES
    tiles = result["tiles"]
    assert len(tiles) == 5
    assert [tile["control"] for tile in tiles] == [False] * 4 + [True]
    assert tiles[4]["reason"] == "random control"
    assert all(0 < tile["y"] < SHAPE[0] and 0 < tile["x"] < SHAPE[1] for tile in tiles)
    assert result["facts"]["control"] is None
    progress = [e for e in events if isinstance(e, ProgressMade) and e.what == "tiles"]
    assert progress[-1].done == progress[-1].total == N_TILES
    with Project.open(bare) as project:
        assert [e.tile for e in project.active.queue()] == [(t["micrograph"], t["row"], t["column"]) for t in tiles]
        assert len(project.active.read_scores()) == 0, "nothing is known of tiles before two classes are labelled"

    again = ranked(bare)
    assert again["tiles"] == tiles
    assert again["query_round"] == result["query_round"]
    assert sum(sampled) == N_TILES, "features are computed once"


def test_labels_make_a_head_that_scores_every_tile(bare):
    ranked(bare)
    done = label(bare)
    result = ranked(bare)
    assert result["acquisition"] == "clasp"
    assert result["weights"].startswith("run:")
    proposed = {(t["micrograph"], t["row"], t["column"]) for t in result["tiles"]}
    assert not proposed & {entry.tile for entry in done}
    with Project.open(bare) as project:
        scores = project.active.read_scores()
        truth = {record.stem: truths()[record.stem] for record in project.micrographs()}
        grids = project.tile_grids()
    assert len(scores) == N_TILES
    assert set(scores.models) == {result["facts"]["model"]}
    np.testing.assert_allclose(scores.shares.astype(float).sum(axis=1), 1, atol=0.01)
    area = [
        (truth[s][grids[s].tile(r, c).window.slices] == 2).mean()
        for s, r, c in zip(scores.stems.tolist(), scores.rows.tolist(), scores.columns.tolist(), strict=True)
    ]
    assert np.corrcoef(area, scores.shares[:, 1].astype(float))[0, 1] > 0.8
    labelled = scores.locate(*zip(*(entry.tile for entry in done), strict=True))
    assert np.isnan(scores.entropy[labelled]).all(), "what is labelled is not uncertain"
    assert np.isfinite(np.delete(scores.entropy, labelled)).all()
    assert (scores.bald[np.isfinite(scores.bald)] >= 0).all()
    np.testing.assert_allclose(scores.novelty[labelled], 0, atol=2e-3)


def test_one_class_is_no_model(bare):
    with Project.open(bare) as project:
        project.annotations.write("a1", Window(y0=0, x0=0, y1=8, x1=8), np.ones((8, 8), np.uint8))
    result = ranked(bare)
    assert result["acquisition"] == "typiclust"
    assert result["facts"]["n_labelled_tiles"] == 1


def test_what_is_done_skipped_unsure_or_came_labelled_is_not_proposed(bare):
    with Project.open(bare) as project:
        project.annotations.write("a1", None, truths()["a1"])
        for state, row in (("done", 0), ("skipped", 1), ("unsure", 2)):
            for column in range(4):
                project.set_tile_state("b1", row, column, state)
        project.set_tile_state("c1", 0, 0, "started")
    result = ranked(bare, config=CONFIG.model_copy(update={"n_tiles": 100}))
    proposed = [(t["micrograph"], t["row"], t["column"]) for t in result["tiles"]]
    assert len(proposed) == len(set(proposed)) == N_TILES - 24
    assert {stem for stem, *_ in proposed} == {"c1", "d1"}


def test_a_data_bar_is_neither_proposed_nor_looked_at(bare):
    with Project.open(bare) as project:
        project.update_micrograph("a1", info_bar=Window(y0=60, x0=0, y1=SHAPE[0], x1=SHAPE[1]))
    result = ranked(bare, config=CONFIG.model_copy(update={"n_tiles": 100}))
    rows = {tile["row"] for tile in result["tiles"] if tile["micrograph"] == "a1"}
    assert rows == {0, 1}
    state = rank_handler._Kept.state
    kept = state.features.kept(np.array([0, state.table.index("a1", 1, 0), state.table.index("a1", 2, 0)]))
    assert kept[0].all()
    assert 0 < kept[1].sum() < kept[1].size
    assert not kept[2].any()


def test_what_somebody_looks_at_and_what_was_put_off_is_left_alone(bare):
    ranked(bare)
    with Project.open(bare) as project:
        first, second = project.active.queue(("waiting",))[:2]
        project.active.end(first.number, "waiting", seconds=2.0)
        project.active.end(second.number, "deferred", seconds=2.0)
    result = ranked(bare)
    with Project.open(bare) as project:
        waiting, deferred = project.active.queue(("waiting",)), project.active.queue(("deferred",))
    assert waiting[0].number == first.number
    assert [entry.number for entry in deferred] == [second.number]
    assert len(result["tiles"]) == 5
    assert second.tile not in {(t["micrograph"], t["row"], t["column"]) for t in result["tiles"]}


# --- little by little


def test_time_is_kept_and_asking_again_goes_on_with_the_micrograph_in_view_first(bare, sampled):
    nothing = ranked(bare, seconds=0)
    assert (nothing["n_scored"], nothing["n_left"]) == (0, N_TILES)
    assert [tile["control"] for tile in nothing["tiles"]] == [True], "controls need no features"
    control = RunControl()
    events = []

    def stop_after_three(event):
        events.append(event)
        if isinstance(event, ProgressMade) and event.what == "tiles" and event.done >= 12:
            control.cancel()

    handle(RankRequest(run_id="rank", project=bare, first="c1", config=CONFIG), stop_after_three, control)
    assert isinstance(events[-1], RunCancelled)
    state = rank_handler._Kept.state
    assert {state.table.stems[tile] for tile in np.flatnonzero(state.features.sampled)} == {"c1"}
    assert ranked(bare)["n_left"] == 0
    assert sum(sampled) == N_TILES


def test_what_a_new_head_has_no_time_for_keeps_the_scores_of_the_one_before(bare, monkeypatch):
    ranked(bare)
    label(bare)
    before = ranked(bare)
    label(bare)
    monkeypatch.setattr(rank_round, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(rank_scores, "_BLOCK", 4)
    result = ranked(bare, seconds=0)
    assert result["n_left"] == N_TILES
    assert result["facts"]["model"] != before["facts"]["model"]
    assert result["acquisition"] == "clasp"
    ends, deadline = iter([False] * 3 + [True] * 99), rank_round.RankingRound._deadline
    monkeypatch.setattr(rank_round.RankingRound, "_deadline", lambda _self: lambda: next(ends))
    assert ranked(bare, first="c1")["n_left"] == N_TILES - 12
    with Project.open(bare) as project:
        scores = project.active.read_scores()
    new = scores.models == result["facts"]["model"]
    assert set(scores.stems[new]) == {"c1"}, "the micrograph in view comes first"
    assert set(scores.models[~new]) == {before["facts"]["model"]}
    monkeypatch.setattr(rank_round.RankingRound, "_deadline", deadline)
    assert ranked(bare)["n_left"] == 0


def test_another_process_finds_features_and_scores(bare, sampled, monkeypatch):
    ranked(bare)
    label(bare)
    first = ranked(bare)
    rank_handler.forget()
    monkeypatch.setattr(PoolFeatures, "labelled", None)
    monkeypatch.setattr("napari_emtransfer.worker.rank_scores._score_block", None)
    again = ranked(bare)
    assert sum(sampled) == N_TILES
    assert {k: again[k] for k in ("tiles", "query_round", "n_scored")} == {
        k: first[k] for k in ("tiles", "query_round", "n_scored")
    }


def test_a_new_micrograph_costs_its_own_tiles_only(bare, tmp_path, sampled):
    import tifffile

    ranked(bare)
    tifffile.imwrite(tmp_path / "e1.tif", micrograph(9, (64, 64))[0])
    with Project.open(bare) as project:
        project.add_micrograph(tmp_path / "e1.tif", specimen="e", pixel_size_nm=5.0)
    result = ranked(bare)
    assert result["n_tiles"] == N_TILES + 4
    assert sum(sampled) == N_TILES + 4


def test_another_run_makes_other_features_and_a_run_that_goes_on_makes_none(bare, sampled):
    ranked(bare)
    with Project.open(bare) as project:
        busy = project.create_run("train", {})
        path = project.run("0001").checkpoint_path("best")
        busy.checkpoint_path("best").write_bytes(path.read_bytes())
    ranked(bare)
    assert sum(sampled) == N_TILES
    newest = new_run(bare, seed=1)
    result = ranked(bare)
    assert result["weights"] == f"run:{newest}"
    assert sum(sampled) == 2 * N_TILES
    assert ranked(bare, config=CONFIG.model_copy(update={"weights": "run:0001"}))["weights"] == "run:0001"
    assert sum(sampled) == 2 * N_TILES, "the features of the first run are still there"


# --- what is known


def test_controls_are_measured_without_having_been_learnt_from(bare, monkeypatch):
    left_out = []
    without = PoolHead.without
    monkeypatch.setattr(PoolHead, "without", lambda self, tile: left_out.append(tile) or without(self, tile))
    result = label_until(bare, 4)
    facts = result["facts"]
    control = facts["control"]
    assert control["n_tiles"] >= 4
    assert len(left_out) >= 4
    assert 0.5 < control["mean_iou"] <= 1
    assert control["low"] <= control["mean_iou"] <= control["high"]
    assert set(facts["phases"]) == set(CLASSES)
    truth = np.mean([mask == 2 for mask in truths().values()])
    assert abs(facts["phases"]["particle"]["fraction"] - truth) < 0.1
    assert facts["chosen_minus_random"]["n_tiles"] == control["n_tiles"]
    assert facts["kappa"] is not None
    assert facts["kappa_since"] <= facts["n_labelled_tiles"] - 5
    assert facts["seconds_labelling"] == 10.0 * facts["n_done"]
    assert facts["n_control"] == 4

    trained = new_run(bare, seed=1)
    stems = tuple(truths())
    for part, n_left in ((stems[:2], None), (stems, 0)):
        with Project.open(bare) as project:
            run = project.run(trained)
            run.snapshot_labels(stems)
            run.write_split(Split(name="s", train=whole(part), validation=(), ground="specimen", note=""))
        facts = ranked(bare)["facts"]
        assert facts["control"]["n_tiles"] < control["n_tiles"] if n_left is None else not facts["control"]["n_tiles"]
        assert "was trained on" in facts["control"]["ground"]
    assert facts["control"]["mean_iou"] is None
    assert "Labels of" in facts["phases_ground"]
    assert abs(facts["phases"]["particle"]["fraction"] - truth) < 0.2
    assert facts["chosen_minus_random"] is None


def test_a_round_is_kept_once(bare):
    ranked(bare)
    label(bare)
    numbers = [ranked(bare)["query_round"] for _ in range(2)]
    rank_handler.forget()
    numbers.append(ranked(bare)["query_round"])
    assert len(set(numbers)) == 1
    with Project.open(bare) as project:
        assert [one.number for one in project.active.rounds()] == [1, 2]
    label(bare)
    assert ranked(bare)["query_round"] == 3


def test_a_round_is_completed_when_more_tiles_are_scored(bare, monkeypatch):
    ranked(bare)
    label(bare)
    rank_handler.forget()
    monkeypatch.setattr(rank_round, "_LEAST_SECONDS", 0.0)
    unfinished = ranked(bare, seconds=0)
    ranked(bare)
    with Project.open(bare) as project:
        first, last = project.active.rounds()
        assert last.number == unfinished["query_round"] > first.number
        assert last.facts["n_scored"] == N_TILES > unfinished["facts"]["n_scored"]
        assert "all tiles" in last.facts["phases_ground"]


def test_predictions_of_other_tiles_are_not_compared(bare, monkeypatch):
    monkeypatch.setattr(rank_measure, "_STOP_TILES", 24)
    newest = lambda numbers, _now: len(numbers) - 1 if numbers else None  # noqa: E731
    monkeypatch.setattr(rank_measure.stopping, "reference_round", newest)
    ranked(bare)
    label(bare)
    ranked(bare)
    label(bare, 1)
    assert ranked(bare)["facts"]["kappa"] is not None
    label(bare, 1)
    with Project.open(bare) as project:
        project.remove_micrograph("d1")
    assert ranked(bare)["facts"]["kappa"] is None


# --- what goes wrong


def test_a_micrograph_that_cannot_be_opened_is_left_out_and_told_once(bare):
    with Project.open(bare) as project:
        path = project.record("b1").path
    away = path.rename(path.with_name("away"))
    told = [notices(rank(bare)) for _ in range(2)]
    assert [len(messages) for messages in told] == [1, 0]
    assert "b1" in told[0][0]
    result = ranked(bare)
    assert (result["n_tiles"], result["n_left"]) == (N_TILES - 12, 0)
    away.rename(path)
    assert ranked(bare)["n_tiles"] == N_TILES


def test_a_read_only_project_is_answered_and_left_as_it_is(bare, monkeypatch):
    monkeypatch.setattr(project_database.os, "access", lambda *_: False)
    before = {path: path.stat().st_mtime_ns for path in bare.rglob("*") if path.is_file()}
    events = rank(bare)
    assert isinstance(events[-1], RunFinished), events[-1]
    assert len(events[-1].result["tiles"]) == 5
    assert any("not kept" in words for words in notices(events))
    assert {path: path.stat().st_mtime_ns for path in bare.rglob("*") if path.is_file()} == before


def test_where_features_cannot_be_kept_it_says_so_and_goes_on(bare):
    (bare / "features").write_text("in the way")
    events = rank(bare)
    assert events[-1].result["n_left"] == 0
    assert len(notices(events)) == 1


def test_faults_name_what_is_wrong(bare, tmp_path, no_bundled_weights):
    (failed,) = [e for e in rank(bare, config=RankConfig(weights="run:9999")) if isinstance(e, RunFailed)]
    assert failed.kind == "project"
    with Project.create(tmp_path / "empty", classes=CLASSES) as project:
        root = project.root
    (failed,) = [e for e in rank(root) if isinstance(e, RunFailed)]
    assert "no micrograph" in failed.message
    with Project.open(root) as project, Project.open(bare) as other:
        project.register(read_micrograph(other.record("a1").path), specimen="a")
    (failed,) = [e for e in rank(root) if isinstance(e, RunFailed)]
    assert failed.kind == "weights"
