"""The augmentation box: what is done, what is forbidden and why, and the sheet of samples."""

from __future__ import annotations

import numpy as np
import pytest
from gui_helpers import SHOTS
from qtpy.QtTest import QTest

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.events import RunFailed, RunFinished
from napari_emtransfer.core.legality import PRESETS, allowed_transforms, verdict
from napari_emtransfer.gui.augment_box import AugmentBox, attach
from napari_emtransfer.gui.augment_sheet import outlined


@pytest.fixture
def box(qtbot):
    widget = AugmentBox()
    qtbot.addWidget(widget)
    widget.resize(340, 500)
    widget.show()
    return widget


def samples(n=9, edge=48):
    rng = np.random.default_rng(0)
    masks = np.ones((n, edge, edge), np.uint8)
    masks[:, 10:30, 10:30] = 2
    masks[:, :, 40:] = 0
    return rng.integers(0, 256, (n, edge, edge), dtype=np.uint8), masks


def shot(widget, name):
    if SHOTS:
        QTest.qWait(200)
        widget.grab().save(f"{SHOTS}/{name}.png")


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("modality", ["sem", "ebsd", "weld"])
def test_what_is_forbidden_is_grey_and_says_why(box, modality, preset):
    box.set_state(modality, preset, ())
    assert set(box.rows) == set(PRESETS[preset]) - allowed_transforms(modality)
    for name, row in box.rows.items():
        assert row.isVisible()
        assert not row.name.isEnabled()
        assert box.reasons[name].isVisible()
        assert box.reasons[name].text() == verdict(modality, name).reason
        assert verdict(modality, name).reason in row.name.toolTip()
        assert verdict(modality, name).source in row.name.toolTip()


def test_what_is_done_is_listed(box):
    box.set_state("weld", "extended", ())
    done = [label.text() for label in box.findChildren(type(box.heading)) if label.text().startswith("✓")]
    assert "✓ Horizontal flip" in done
    assert "✓ Vertical flip" not in done
    assert len(done) == len(PRESETS["extended"]) - 3
    assert "3 of 11 are impossible for Weld cross-section" in box.heading.text()


def test_allowing_what_is_forbidden_is_told_and_can_be_taken_back(box, qtbot):
    box.set_state("ebsd", "basic", ("rotation",))  # of another preset: kept
    row = box.rows["vertical-flip"]
    with qtbot.waitSignal(box.edited) as edited:
        row.tick.click()
    assert edited.args == [("rotation", "vertical-flip")]
    assert row.name.isEnabled()
    assert row.name.text() == "⚠ Vertical flip"
    config = TrainConfig(illegal_augment=box.illegal)
    assert "vertical-flip" in allowed_transforms("ebsd", config.illegal_augment)
    box.set_state("ebsd", "basic", config.illegal_augment)
    assert box.rows["vertical-flip"] is row, "nothing changed, nothing is built anew"
    with qtbot.waitSignal(box.edited) as edited:
        row.tick.click()
    assert edited.args == [("rotation",)]


def test_an_override_of_an_earlier_run_stands_ticked(box):
    box.set_state("ebsd", "basic", ("vertical-flip",))
    assert box.rows["vertical-flip"].tick.isChecked()
    assert not box.rows["horizontal-flip"].tick.isChecked()


def test_samples_are_asked_for_and_shown(box, qtbot):
    box.set_state("ebsd", "extended", ("rotation",))
    with qtbot.waitSignal(box.preview_requested) as asked:
        box.preview_button.click()
    assert asked.args == ["extended", ("rotation",)]
    assert not box.preview_button.isEnabled(), "one after the other"
    images, masks = samples()
    box.show_preview(images, masks, ["#56B4E9", "#E69F00"], "m0")
    assert box.preview_button.isEnabled()
    sheet = box.sheet
    assert sheet.isVisible()
    assert all(view.isVisible() for view in sheet.views)
    # The rim of the square has the second class's colour, its middle the grey of the image.
    assert sheet.views[8].pixels[10, 20].tolist() == [0xE6, 0x9F, 0x00]
    assert sheet.views[8].pixels[20, 20].tolist() == [images[8, 20, 20]] * 3
    sheet.outlines.setChecked(False)
    assert sheet.views[8].pixels[10, 20].tolist() == [images[8, 10, 20]] * 3
    with qtbot.waitSignal(box.preview_requested):
        sheet.again_button.click()
    assert not sheet.again_button.isEnabled()
    box.set_waiting(False)
    assert sheet.again_button.isEnabled()


def test_the_sheet_grows_and_shrinks(box):
    images, masks = samples()
    box.show_preview(images, masks, ["#56B4E9", "#E69F00"])
    for edge in (420, 900):
        box.sheet.resize(edge, edge)
        QTest.qWait(20)
        widths = {view.width() for view in box.sheet.views}
        assert max(widths) - min(widths) <= 1
        assert min(widths) > edge / 3 - 25


def test_rims_lie_inside_their_regions_and_nowhere_else():
    image, mask = np.full((20, 20), 100, np.uint8), np.zeros((20, 20), np.uint8)
    mask[5:15, 5:15] = 1
    rgb = outlined(image, mask, ["#FF0000"])
    red = (rgb == [255, 0, 0]).all(axis=2)
    assert red[5:7, 5:15].all()
    assert not red[7:13, 7:13].any()
    assert not red[mask == 0].any()


def test_the_session_makes_the_samples(project, runner, tmp_path, qtbot):
    box = AugmentBox()
    qtbot.addWidget(box)
    attach(box, project.dock.owner, lambda: 48)
    box.set_state("sem", "basic", ())
    box.request_preview()
    request = runner.engine.requests[-1]
    assert (request.micrograph, request.preset, request.crop_px) == (project.session.current, "basic", 48)
    images, masks = samples()
    np.savez(tmp_path / "p.npz", images=images, masks=masks)
    runner.engine.say(RunFinished(run_id=request.run_id, result={"file": str(tmp_path / "p.npz")}))
    project.wait(lambda: box.sheet is not None and box.sheet.isVisible(), "the sheet")
    assert request.micrograph in box.sheet.title.text()
    box.sheet.again_button.click()
    again = runner.engine.requests[-1]
    assert again.seed != request.seed
    runner.engine.say(RunFailed(run_id=again.run_id, kind="augmentation", message="Nothing is labelled."))
    project.wait(box.preview_button.isEnabled, "the end of waiting")
    assert any("Nothing is labelled." in text for text in project.dock.messages.texts())
    box.sheet.close()
