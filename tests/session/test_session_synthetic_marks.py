"""Synthetic micrographs in the session: never offered for labelling, never taken for real ones in a figure."""

from __future__ import annotations

import numpy as np
import pytest
from session_helpers import label, make_project

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.label_survey import survey
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.readers import read_micrograph
from napari_emtransfer.core.data.split import Split, whole
from napari_emtransfer.session.proposal import propose
from napari_emtransfer.session.readouts import model_readout, text_overlay
from napari_emtransfer.session.runs import settings_to_go_on
from napari_emtransfer.session.state import Readouts, TileReadout


def add_synthetic(project, folder, *, labels=None):
    """Micrographs s0 and s1 of specimens of their own, painted whole (or as `labels`)."""
    for i in range(2):
        path = folder / f"s{i}.npy"
        np.save(path, np.random.default_rng(90 + i).normal(size=(128, 192)).astype(np.float32))
        project.register(read_micrograph(path), specimen=f"synthetic {i}", domain="synthetic", synthetic=True)
        mask = np.ones((128, 192), np.uint8)
        mask[:, ::2] = 2
        project.annotations.write(f"s{i}", None, mask if labels is None else labels)


@pytest.fixture
def project(tmp_path):
    with Project.open(make_project(tmp_path / "p", n=2, specimens=("a", "b"))) as opened:
        add_synthetic(opened, tmp_path)
        yield opened


def trained(project, train, held_out):
    run = project.create_run("train", TrainConfig().model_dump(mode="json"))
    run.write_split(
        Split(name="x", train=whole(train), validation=whole(held_out), ground="specimen", note="held out: …")
    )
    (run.root / "best.safetensors").write_bytes(b"")
    run.write_result({"mean_iou": 0.9, "iou": {}, "ground": "specimen", "note": "n", "micrographs": held_out})
    run.update("finished", mean_iou=0.9)
    return run


@pytest.mark.parametrize("partly", [False, True])
def test_their_tiles_are_neither_offered_nor_counted(session, tmp_path, partly):
    n_before = session.labelling.n_tiles
    mask = np.zeros((128, 192), np.uint8)
    mask[:30] = 1
    add_synthetic(session.project, tmp_path, labels=mask if partly else None)
    session._micrographs_changed(("s0", "s1"), classes=True)
    assert session.labelling.n_tiles == n_before
    assert session.labelling.n_tiles_done == 0
    seen = set()
    while (tile := session.labelling.next_tile()) is not None:
        seen.add(tile.micrograph)
        session.labelling.mark_done()
    assert seen == {"m0", "m1", "m2"}
    assert session.labelling.n_tiles_done == n_before


def test_a_run_goes_on_with_its_synthetic_ground_only_until_something_real_is_labelled(project):
    run = trained(project, ["s0"], ["s1"])
    assert settings_to_go_on(project, run.id).validation == ("s1",)
    label(project, "m0")
    assert settings_to_go_on(project, run.id).validation == ()


def test_a_run_keeps_its_real_ground(project):
    label(project, "m0")
    label(project, "m1")
    run = trained(project, ["s0", "m0"], ["m1"])
    assert settings_to_go_on(project, run.id).validation == ("m1",)


def test_the_proposal_says_what_is_synthetic(project):
    found = survey(project)
    assert (found.stems, found.real_stems) == (("s0", "s1"), ())
    _, reason = propose(project)
    assert "12 labelled tiles on 2 specimens, 2 of them synthetic" in reason
    assert reason.endswith("so the IoU says nothing about real ones.")
    label(project, "m0")
    _, reason = propose(project)
    assert reason.endswith("a part of the only labelled micrograph, so the IoU says nothing about other ones.")


def test_a_figure_of_synthetic_ground_is_known_as_one(project):
    made = {"s0", "s1"}
    assert model_readout(trained(project, ["s0"], ["s1"]), made).synthetic
    assert not model_readout(trained(project, ["s0", "s1"], ["m0"]), made).synthetic
    assert not model_readout(trained(project, ["m1"], ["m0", "s1"]), made).synthetic
    tile = TileReadout({"matrix": 0.9}, 0.9, 1.0, "held-out", {"matrix": 1.0}, "run x", synthetic=True)
    assert text_overlay(Readouts(tile=tile)).endswith("100 % of this tile labelled, held-out, synthetic")
