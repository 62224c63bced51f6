"""The request that makes a data set: its events, its cancel, its faults."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_emtransfer.core.events import NoticePosted, ProgressMade, RunCancelled, RunFailed, RunFinished, RunStarted
from napari_emtransfer.core.synth import dataset_files
from napari_emtransfer.core.synth.detector import DetectorSettings, expose
from napari_emtransfer.worker.handlers import RunControl, handle
from napari_emtransfer.worker.protocol import SynthesizeRequest, from_line, to_line


def ask(out, n=3, **more):
    return SynthesizeRequest(
        run_id="s", out=out, n=n, **{"generator": "voronoi", "shape": (64, 64), "presets": ("equiaxed",)} | more
    )


def run(request, control=None, after=None):
    """Events of a request; `after` is called with each."""
    events = []

    def emit(event):
        events.append(event)
        if after is not None:
            after(event)

    handle(request, emit, control or RunControl())
    return events


def test_progress_and_result(tmp_path):
    events = run(ask(tmp_path / "set", per_specimen=2))
    assert isinstance(events[0], RunStarted)
    assert events[0].n_steps == 3
    assert [e.done for e in events if isinstance(e, ProgressMade)] == [1, 2, 3]
    finished = events[-1]
    assert isinstance(finished, RunFinished)
    result = finished.result
    assert len(result["images"]) == result["n_wanted"] == 3
    assert {Path(path).parent for path in result["images"]} == {tmp_path / "set" / "images"}
    assert all(Path(path).is_file() for path in result["images"])
    assert result["specimens"] == ["equiaxed-001", "equiaxed-002"]
    assert result["presets"] == ["equiaxed"]
    assert result["classes"] == ["grain interior", "grain boundary"]
    assert result["seconds_per_image"] > 0
    assert result["flat_field"] is None
    assert result["omits"]


def test_a_cancelled_run_keeps_what_is_complete_as_a_smaller_data_set(tmp_path):
    control = RunControl()

    def cancel_after_two(event):
        if isinstance(event, ProgressMade) and event.done == 2:
            control.cancel()

    events = run(ask(tmp_path / "set", n=50), control, cancel_after_two)
    assert isinstance(events[-1], RunCancelled)
    assert len(events[-1].result["images"]) == 2
    said = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert len(said["groups"]) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_cancelled_before_the_first_one_leaves_nothing(tmp_path):
    control = RunControl()
    events = run(ask(tmp_path / "set"), control, lambda e: control.cancel() if isinstance(e, RunStarted) else None)
    assert isinstance(events[-1], RunCancelled)
    assert events[-1].result["images"] == []
    assert list(tmp_path.iterdir()) == []


def test_the_users_own_instrument(tmp_path):
    ramp = np.tile(np.linspace(0.1, 0.8, 256), (256, 1))
    mine = DetectorSettings(dose_e_per_px=80, probe_blur_px=0, vignette=0)
    for i in range(2):
        image = expose(ramp, mine, np.random.default_rng(i))
        tifffile.imwrite(tmp_path / f"flat{i}.tif", np.round(255 * image).astype(np.uint8))
    flats = tuple(tmp_path / f"flat{i}.tif" for i in range(2))
    events = run(ask(tmp_path / "set", n=1, flat_field=flats))
    said = next(e for e in events if isinstance(e, NoticePosted))
    assert "quanta at white" in said.message
    assert "two frames" in said.hint
    result = events[-1].result
    assert result["flat_field"]["gain"] == pytest.approx(1 / 80, rel=0.06)
    recipe = next(iter(json.loads((tmp_path / "set" / "dataset.json").read_text())["recipes"].values()))
    assert recipe["detector"]["dose_e_per_px"] == pytest.approx(80, rel=0.06)


def test_a_flat_field_of_no_use_stops_before_anything_is_made(tmp_path):
    tifffile.imwrite(tmp_path / "even.tif", np.full((256, 256), 90, np.uint8))
    events = run(ask(tmp_path / "set", flat_field=(tmp_path / "even.tif",)))
    assert isinstance(events[-1], RunFailed)
    assert events[-1].kind == "flat_field"
    assert events[-1].hint
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("more", "kind", "words"),
    [
        ({"presets": ("bubbles",)}, "synthesis", "no preset 'bubbles'"),
        ({"shape": (64, 9999)}, "synthesis", "64 × 9999"),
        ({"generator": "hrtem"}, "synthesis", "no preset 'equiaxed'"),
        ({"generator": "hrtem", "presets": (), "instrument": "sem"}, "synthesis", "'sem'"),
        ({"flat_field": ("nowhere.tif",)}, "unreadable_file", "nowhere.tif"),
    ],
)
def test_faults_are_sentences(tmp_path, more, kind, words):
    events = run(ask(tmp_path / "set", **more))
    assert isinstance(events[-1], RunFailed)
    assert events[-1].kind == kind
    assert words in events[-1].message
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_says_that_nothing_is_left(tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dataset_files, "write_atomic", full)
    failed = run(ask(tmp_path / "set"))[-1]
    assert failed.kind == "storage"
    assert "disk is full" in failed.message
    assert "Nothing was left behind" in failed.hint
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_found_out_before_anything_is_made(tmp_path):
    failed = run(ask(tmp_path / "below" / "set", n=100_000, shape=(4096, 4096)))[-1]
    assert failed.kind == "storage"
    assert "100000 micrographs of 4096 × 4096 pixels need about" in failed.message
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_broken_run_is_told(tmp_path):
    (tmp_path / "set.partial" / "images").mkdir(parents=True)
    events = run(ask(tmp_path / "set", n=1))
    assert "earlier run broke off" in next(e for e in events if isinstance(e, NoticePosted)).message
    assert isinstance(events[-1], RunFinished)


def test_the_request_crosses_the_process_boundary(tmp_path):
    request = ask(tmp_path / "set", pixel_size_nm=2.0, instrument="camera", flat_field=(tmp_path / "a.tif",))
    assert from_line(to_line(request)) == request
