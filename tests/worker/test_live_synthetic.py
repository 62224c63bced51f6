"""The live head and synthetic micrographs: their labels are no strokes."""

from __future__ import annotations

from worker_projects import make_project

from napari_emtransfer.core.data.intensity import Standardization
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.readers import read_micrograph
from napari_emtransfer.core.nn.feature_cache import FeatureCache
from napari_emtransfer.core.nn.features import FeatureSource
from napari_emtransfer.worker.label_watch import LabelWatch
from napari_emtransfer.worker.live_state import LiveState


def test_no_synthetic_label_is_read(tmp_path, monkeypatch):
    root = make_project(tmp_path)
    with Project.open(root) as project:
        labels, record = project.annotations.read("a1"), project.record("a1")
        project.remove_micrograph("a1")
        project.register(read_micrograph(record.path), specimen="made", synthetic=True)
        project.annotations.write("a1", None, labels)
        read = []
        monkeypatch.setattr(LabelWatch, "_read_tile", lambda _self, _project, record, _tile: read.append(record.stem))
        state = LiveState(FeatureSource(), FeatureCache(None), Standardization(), 5.0, n_classes=2, seed=0)
        state.read_labels(project, lambda: False)
    assert set(read) == {"b1", "c1", "d1"}
