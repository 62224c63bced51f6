"""Synthetic micrographs for a project: what is previewed is what is added, and it is added whole or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.split import stems_of
from napari_emtransfer.core.data.splits import split_by_specimen
from napari_emtransfer.core.events import ProgressMade, RunCancelled, RunFailed, RunFinished
from napari_emtransfer.worker import synthetic_project_handler as handler
from napari_emtransfer.worker.control import RunControl
from napari_emtransfer.worker.handlers import handle
from napari_emtransfer.worker.protocol import (
    AddSyntheticRequest,
    SynthesisPreviewRequest,
    SynthesizeRequest,
    from_line,
    to_line,
)

CLASSES = {"grain interior": "matrix", "grain boundary": "line"}


def make(root, **changes):
    values = {"generator": "voronoi", "presets": ("equiaxed",), "n": 2, "shape": (96, 96), "per_specimen": 1, "seed": 5}
    return SynthesizeRequest(run_id="x", out=root / "synthetic", **(values | changes))


def request(root, classes=CLASSES, **changes):
    return AddSyntheticRequest(
        run_id="add",
        project=root,
        make=make(root, **changes.pop("make", {})),
        domain="synthetic equiaxed",
        classes=classes,
        **changes,
    )


def ask(asked, *, cancel_at=None):
    """All events; cancelled after so many steps of progress."""
    control, events = RunControl(), []

    def emit(event):
        events.append(event)
        if cancel_at is not None and sum(isinstance(e, ProgressMade) for e in events) == cancel_at:
            control.cancel()

    handle(from_line(to_line(asked)), emit, control)
    return events


@pytest.fixture
def root(tmp_path):
    with Project.create(tmp_path / "p", classes=["matrix"]) as project:
        return project.root


def test_what_is_previewed_is_what_is_added(root):
    (shown,) = ask(SynthesisPreviewRequest(run_id="x", make=make(root)))
    assert isinstance(shown, RunFinished), shown
    assert shown.result["classes"] == list(CLASSES)
    assert shown.result["omits"]
    assert ask(request(root, replace_classes=True))[-1].event == "RunFinished"
    with np.load(shown.result["file"]) as preview, Project.open(root) as project:
        images, masks = preview["images"], preview["masks"]
        assert images.shape == masks.shape == (2, 96, 96)
        for image, mask, record in zip(images, masks, project.micrographs(), strict=True):
            added = np.asarray(project.open_micrograph(record.stem).pixels[:, :], float)
            np.testing.assert_allclose(added / added.max(), image / image.max(), atol=2 / 255)
            np.testing.assert_array_equal(project.annotations.read(record.stem), mask)


def test_they_are_a_domain_and_specimens_of_their_own_and_known_as_synthetic(root):
    *events, done = ask(request(root, replace_classes=True))
    assert [e.what for e in events if isinstance(e, ProgressMade)] == ["micrographs made"] * 2 + [handler.ADDING] * 2
    with Project.open(root) as project:
        records = project.micrographs()
        assert [r.stem for r in records] == done.result["micrographs"]
        assert all(r.synthetic for r in records)
        assert {r.domain for r in records} == {"synthetic equiaxed"}
        assert [r.specimen for r in records] == ["equiaxed 5.1", "equiaxed 5.2"]
        assert project.schema.names == ("matrix", "line")
        assert project.named_splits() == {}, "a split of its own would have its test part on synthetic ground"
        assert min(project.labelled().values()) > 0.8, "all but a data bar"


def test_classes_are_mapped_added_or_left_unlabelled(root):
    ask(request(root, {"grain interior": None, "grain boundary": "line"}))
    with Project.open(root) as project:
        assert project.schema.names == ("matrix", "line")
        counts = [project.class_counts(r.stem) for r in project.micrographs()]
        assert all(unlabelled > 0 and matrix == 0 and line > 0 for unlabelled, matrix, line in counts)
        assert sum(project.labelled().values()) < 1


def test_the_automatic_split_of_a_project_with_real_labels_measures_on_these(root, tmp_path):
    with Project.open(root) as project:
        for i in range(2):
            path = tmp_path / f"real{i}.npy"
            np.save(path, np.random.default_rng(i).normal(size=(96, 96)).astype(np.float32))
            project.add_micrograph(path, specimen=f"Equiaxed 5.{i + 1}")
            project.annotations.write(f"real{i}", None, np.ones((96, 96), np.uint8))
    ask(request(root, make={"n": 3}))
    with Project.open(root) as project:
        labels = project.annotations
        labels.write("real0", None, np.repeat([[1] * 48 + [2] * 48], 96, axis=0).astype(np.uint8))
        labels.write("real1", None, np.repeat([[1] * 48 + [2] * 48], 96, axis=0).astype(np.uint8))
        split = split_by_specimen(project.micrographs(), project.labelled(), labels)
        assert stems_of(split.validation) < {"real0", "real1"}
        assert len(stems_of(split.train)) == 4
        assert "3 synthetic micrographs are trained on" in split.note
        assert len({r.specimen for r in project.micrographs()}) == 5, "no specimen is real and synthetic"


@pytest.mark.parametrize("step", [1, 3])
def test_cancelled_nothing_is_left(root, step):
    """While they are made, and while they are added."""
    assert isinstance(ask(request(root), cancel_at=step)[-1], RunCancelled)
    with Project.open(root) as project:
        assert project.micrographs() == []
        assert project.schema.names == ("matrix",)
    assert list((root / "synthetic").iterdir()) == []


def test_the_same_ones_are_not_added_twice_and_others_are(root):
    ask(request(root))
    failed = ask(request(root))[-1]
    assert isinstance(failed, RunFailed)
    assert "in the project already" in failed.message
    assert "another seed" in failed.hint
    assert isinstance(ask(request(root, make={"seed": 6}))[-1], RunFinished)
    with Project.open(root) as project:
        assert len(project.micrographs()) == 4
        assert len({r.specimen for r in project.micrographs()}) == 4
    assert sorted(p.name for p in (root / "synthetic").iterdir()) == ["equiaxed 5", "equiaxed 6"]


def test_what_cannot_be_added_undoes_all(root, monkeypatch):
    monkeypatch.setattr(handler, "_check", lambda *_: (_ for _ in ()).throw(ValueError("full")))
    assert isinstance(ask(request(root))[-1], RunFailed)
    with Project.open(root) as project:
        assert project.micrographs() == []
        assert project.schema.names == ("matrix",)
        assert project.settings.working_pixel_size_nm is None
    assert list((root / "synthetic").iterdir()) == []


def test_micrographs_without_any_label_are_not_added(root):
    failed = ask(request(root, {"pearlite": "matrix", "grain boundary": None}))[-1]
    assert isinstance(failed, RunFailed)
    assert "(grain interior, grain boundary)" in failed.message
    assert list((root / "synthetic").iterdir()) == []


def test_a_flat_field_is_measured_and_told(root, tmp_path):
    rng = np.random.default_rng(0)
    level = np.linspace(0.1, 0.9, 256)[None].repeat(256, axis=0)
    path = tmp_path / "flat.npy"
    np.save(path, np.round(rng.poisson(level * 100) / 100 * 200).clip(0, 255).astype(np.uint8))
    (shown,) = ask(SynthesisPreviewRequest(run_id="x", make=make(root, flat_field=(path,))))
    assert isinstance(shown, RunFinished), shown
    assert shown.result["detector"].startswith("Your instrument:")
    even = tmp_path / "even.npy"
    np.save(even, np.full((64, 64), 90, np.uint8))
    (failed,) = ask(SynthesisPreviewRequest(run_id="x", make=make(root, flat_field=(even,))))
    assert isinstance(failed, RunFailed)
    assert failed.hint
