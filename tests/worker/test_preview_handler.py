import os
from pathlib import Path

import numpy as np
import pytest
from worker_projects import make_project

from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.events import RunCancelled, RunFailed, RunFinished
from napari_emtransfer.worker.control import RunControl
from napari_emtransfer.worker.handlers import handle
from napari_emtransfer.worker.protocol import PreviewRequest


@pytest.fixture
def root(tmp_path):
    return make_project(tmp_path)


def ask(root, control=None, **changes):
    request = PreviewRequest(
        **{"run_id": "preview-1", "project": root, "micrograph": "a1", "preset": "extended", "crop_px": 64} | changes
    )
    events = []
    handle(request, events.append, control or RunControl())
    return events[-1]


def arrays(event):
    assert isinstance(event, RunFinished), event
    with np.load(event.result["file"]) as stored:
        return stored["images"], stored["masks"]


def test_nine_crops_with_their_labels(root):
    event = ask(root)
    images, masks = arrays(event)
    assert images.shape == masks.shape == (9, 64, 64)
    assert images.dtype == masks.dtype == np.uint8
    assert set(np.unique(masks)) <= {0, 1, 2}
    # Particles are bright: image and mask still belong together.
    assert images[masks == 2].mean() > images[masks == 1].mean() + 50
    assert event.result["left_out"] == {}


def test_each_class_is_seen_and_every_crop_holds_a_label(root):
    _, masks = arrays(ask(root, preset="none"))
    assert all(mask.any() for mask in masks)
    assert (masks == 2).any()


def test_the_seed_decides(root):
    first, again, other = (arrays(ask(root, seed=seed))[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_the_modality_forbids_is_left_out_and_said(root):
    with Project.open(root) as project:
        project.update_settings(modality="ebsd")
    plain, basic = ask(root, preset="none"), ask(root, preset="basic")
    np.testing.assert_array_equal(arrays(plain)[0], arrays(basic)[0])
    assert "another orientation" in basic.result["left_out"]["brightness"]
    forced = ask(root, preset="basic", illegal=("vertical-flip",))
    assert "vertical-flip" not in forced.result["left_out"]
    assert not np.array_equal(arrays(plain)[1], arrays(forced)[1])


def test_micrographs_smaller_than_the_crop_are_mirrored_and_unlabelled_there(root):
    images, masks = arrays(ask(root, preset="none", crop_px=160))
    assert not masks[:, 96:].any()
    assert images[:, 96:].std() > 10


def test_old_files_go(root):
    old = Path(ask(root).result["file"])
    os.utime(old, (0, 0))
    new = Path(ask(root).result["file"])
    assert sorted(new.parent.iterdir()) == [new]
    assert new.is_relative_to(root)


def test_nothing_labelled_is_said(root):
    with Project.open(root) as project:
        project.annotations.write("b1", None, np.zeros((96, 128), np.uint8))
    event = ask(root, micrograph="b1")
    assert isinstance(event, RunFailed)
    assert event.kind == "augmentation"
    assert event.message.startswith("Nothing of b1 is labelled")


def test_an_unknown_override_is_said(root):
    event = ask(root, illegal=("rotate",))
    assert isinstance(event, RunFailed)
    assert "'rotate'" in event.message


def test_it_can_be_cancelled(root):
    control = RunControl()
    control.cancel()
    assert isinstance(ask(root, control), RunCancelled)
