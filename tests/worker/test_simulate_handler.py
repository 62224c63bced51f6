"""Playing the labelling of small known sets, tidy and untidy."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from skimage.io import imsave
from worker_projects import COMPUTE, micrograph

from napari_emtransfer.core.config import RankConfig
from napari_emtransfer.core.events import NoticePosted, ProgressMade, RunCancelled, RunFailed, RunFinished
from napari_emtransfer.core.nn.features import FrozenNetwork
from napari_emtransfer.worker.handlers import RunControl, handle
from napari_emtransfer.worker.protocol import SimulateRequest
from napari_emtransfer.worker.simulate_ground import divided, known_set

TINY = RankConfig(weights="none", encoder="tu-test_resnet", compute=COMPUTE)


@pytest.fixture
def quick(monkeypatch):
    """A network that gives the intensities and their squares."""

    def maps(_self, view, window):
        values = view.read(window)
        return np.stack([values, values**2])

    monkeypatch.setattr(FrozenNetwork, "__call__", maps)


def write_set(folder, shapes=((96, 96),) * 4, groups=None, **about):
    """Bright squares on a matrix; each micrograph is its own specimen unless `groups` says otherwise."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for i, shape in enumerate(shapes):
        image, mask = micrograph(i, shape)
        tifffile.imwrite(folder / "images" / f"m{i}.tif", image)
        imsave(folder / "masks" / f"m{i}.png", mask, check_contrast=False)
    known = {"classes": {"1": "matrix", "2": "particle"}} | ({"groups": groups} if groups else {})
    (folder / "dataset.json").write_text(json.dumps(known | about))
    return folder


def simulate(dataset, control=None, **changes):
    events = []
    wanted = {"rounds": 3, "query_size": 2, "seeds": (0, 1), "tile_px": 32, "config": TINY} | changes
    handle(SimulateRequest(run_id="simulate", dataset=dataset, **wanted), events.append, control or RunControl())
    return events


def played(dataset, **changes):
    events = simulate(dataset, **changes)
    assert isinstance(events[-1], RunFinished), events[-1]
    return events[-1].result


def game(dataset, split=None, seed=0, tile_px=32):
    with known_set(dataset, tile_px, lambda: False, lambda *_: None, lambda *_: None) as project:
        return divided(project, split, seed)


def test_curves_are_of_every_acquisition_and_of_random(tmp_path, quick):
    events = simulate(write_set(tmp_path), acquisitions=("default", "kcenter"))
    assert isinstance(events[-1], RunFinished), events[-1]
    result = events[-1].result
    assert set(result["curves"]) == {"default", "kcenter", "random"}
    for curve in result["curves"].values():
        assert curve["n_tiles"] == [2, 4, 6]
        assert set(curve["seeds"]) == {"0", "1"}
        assert all(0 <= value <= 1 for value in curve["mean_iou"])
        bounds = zip(curve["low"], curve["mean_iou"], curve["high"], strict=True)
        assert all(low <= mean <= high for low, mean, high in bounds)
    assert result["curves"]["random"]["mean_iou"][-1] > 0.7, "squares that are twice as bright are easily told"
    assert result["target"] == result["curves"]["random"]["mean_iou"][-1]
    assert result["tiles_to_target"]["random"] <= 6
    assert set(result["gains"]) == {"default", "kcenter"}
    assert result["resolved"]["default"][0] == "typiclust"
    assert "clasp" in result["resolved"]["default"]
    assert "held-out specimens: half of 4" in result["note"]
    rounds = [e for e in events if isinstance(e, ProgressMade) and e.what == "rounds"]
    assert rounds[-1].done == rounds[-1].total == 3 * 3 * 2


def test_the_same_seed_gives_the_same_curve(tmp_path, quick):
    dataset = write_set(tmp_path)
    first, again = (played(dataset, seeds=(3,), acquisitions=("random",)) for _ in range(2))
    assert first["curves"] == again["curves"]
    assert played(dataset, seeds=(4,), acquisitions=("random",))["curves"] != first["curves"]


def test_specimens_are_held_out_whole_and_others_for_each_seed(tmp_path):
    groups = {f"m{i}": "ABCD"[i // 2] for i in range(8)}
    dataset = write_set(tmp_path, ((48, 48),) * 8, groups)
    held = set()
    for seed in range(4):
        found = game(dataset, seed=seed)
        assert sorted(found.pool + found.test) == sorted(groups)
        assert not {groups[stem] for stem in found.pool} & {groups[stem] for stem in found.test}
        assert len(found.test) == 4
        held.add(found.test)
    assert len(held) > 1


def test_of_one_specimen_micrographs_are_held_out_and_it_says_so(tmp_path, quick):
    dataset = write_set(tmp_path, groups={f"m{i}": "only" for i in range(4)})
    assert len(game(dataset).test) == 2
    assert "one specimen" in played(dataset)["note"]


def test_a_named_split_is_played_on_its_own_parts(tmp_path, quick):
    splits = {"given": {"train": ["m0", "m1"], "test": ["m3"], "val": ["m2"]}, "lame": {"train": ["m0"]}}
    dataset = write_set(tmp_path, groups={"m0": "A", "m3": "A"}, splits=splits)
    found = game(dataset, "given")
    assert (set(found.pool), set(found.test)) == ({"m0", "m1"}, {"m3"})
    assert "1 specimen(s) of theirs are in the training part too" in played(dataset, split="given")["note"]
    for split, words in (("other", "'given'"), ("lame", "half of the specimens")):
        (failed,) = [e for e in simulate(dataset, split=split) if isinstance(e, RunFailed)]
        assert failed.kind == "split"
        assert words in failed.hint


def test_an_untidy_set_is_played_as_far_as_it_goes(tmp_path, quick):
    """Two sizes and pixel sizes, grey stored as colour, a hole in the labels, no mask, a mask of another size, a tile
    that is larger than its micrograph."""
    sizes = {"m0": 5.0, "m1": 10.0, "m2": 5.0, "m3": 5.0, "m4": 5.0, "m5": 5.0}
    dataset = write_set(tmp_path, ((96, 96), (48, 56), (96, 96), (24, 28), (64, 64), (64, 64)), pixel_size_nm=sizes)
    grey = tifffile.imread(dataset / "images" / "m2.tif")
    (dataset / "images" / "m2.tif").unlink()
    imsave(dataset / "images" / "m2.png", np.stack([grey] * 3, axis=-1), check_contrast=False)
    mask = micrograph(2, (96, 96))[1]
    mask[20:60, :50] = 0
    imsave(dataset / "masks" / "m2.png", mask, check_contrast=False)
    (dataset / "masks" / "m4.png").unlink()
    imsave(dataset / "masks" / "m5.png", np.ones((10, 10), np.uint8), check_contrast=False)
    events = simulate(dataset, seeds=(0,))
    assert isinstance(events[-1], RunFinished), events[-1]
    told = " ".join(e.message for e in events if isinstance(e, NoticePosted))
    assert "m4 is left out: it has no mask." in told
    assert "m5" in told
    assert "half of 4" in events[-1].result["note"]
    with known_set(dataset, 32, lambda: False, lambda *_: None, lambda *_: None) as project:
        assert project.settings.working_pixel_size_nm == 5.0
        assert project.working_view("m1").shape == (96, 112)


def test_the_network_itself_is_fine_tuned_and_measured(tmp_path):
    dataset = write_set(tmp_path, ((64, 64),) * 2)
    result = played(dataset, iterations=12, rounds=1, query_size=3, seeds=(0,), acquisitions=("random",))
    (value,) = result["curves"]["random"]["mean_iou"]
    assert 0.3 < value <= 1


def test_a_budget_beyond_the_pool_ends_with_it(tmp_path, quick):
    result = played(write_set(tmp_path, ((64, 64),) * 2), rounds=5, query_size=3, seeds=(0,))
    assert result["curves"]["random"]["n_tiles"] == [3, 4]


def test_it_can_be_stopped(tmp_path, quick):
    control, events = RunControl(), []

    def stop(event):
        events.append(event)
        if isinstance(event, ProgressMade) and event.what == "rounds":
            control.cancel()

    request = SimulateRequest(run_id="s", dataset=write_set(tmp_path), rounds=50, query_size=1, tile_px=32, config=TINY)
    handle(request, stop, control)
    assert isinstance(events[-1], RunCancelled)
    assert sum(isinstance(e, ProgressMade) and e.what == "rounds" for e in events) == 1


def test_faults_name_what_is_wrong(tmp_path):
    (tmp_path / "empty").mkdir()
    for dataset, kind in (
        (tmp_path / "nowhere", "label"),
        (tmp_path / "empty", "label"),
        (write_set(tmp_path / "one", ((64, 64),)), "split"),
    ):
        (failed,) = [e for e in simulate(dataset) if isinstance(e, RunFailed)]
        assert failed.kind == kind
        assert failed.hint
    flat = write_set(tmp_path / "flat", ((64, 64),) * 2)
    for mask in (flat / "masks").iterdir():
        imsave(mask, np.ones((64, 64), np.uint8), check_contrast=False)
    (failed,) = [e for e in simulate(flat) if isinstance(e, RunFailed)]
    assert "fewer than two classes" in failed.message
