import numpy as np
import pytest
import tifffile
import torch
from worker_projects import CLASSES, COMPUTE, SHAPE, make_project, micrograph

from napari_emtransfer.core.config import LiveConfig, ModelConfig
from napari_emtransfer.core.data.labels import LabelSchema
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.events import RegionPredicted, RunCancelled, RunFailed, RunFinished
from napari_emtransfer.core.nn.checkpoint import Checkpoint, CheckpointMeta
from napari_emtransfer.core.nn.features import FeatureSource
from napari_emtransfer.core.nn.model import build_model
from napari_emtransfer.worker import live_handler
from napari_emtransfer.worker.handlers import RunControl, handle
from napari_emtransfer.worker.protocol import LIVE_RUN, LiveRequest

WHOLE = Window(y0=0, x0=0, y1=SHAPE[0], x1=SHAPE[1])
CONFIG = LiveConfig(compute=COMPUTE)


@pytest.fixture(autouse=True)
def fresh():
    live_handler.forget()
    yield
    live_handler.forget()


@pytest.fixture
def bare(tmp_path):
    """The project, its labels erased."""
    root = make_project(tmp_path)
    with Project.open(root) as project:
        for record in project.micrographs():
            project.annotations.write(record.stem, None, np.zeros(SHAPE, np.uint8))
    return root


@pytest.fixture
def computed(monkeypatch):
    """Windows whose features were computed, but for those of statistics."""
    windows = []
    call, statistics = FeatureSource.__call__, FeatureSource.statistics

    def counting(self, view, window):
        windows.append(window)
        return call(self, view, window)

    def uncounted(self, view):
        found = statistics(self, view)
        del windows[-1:]  # a small micrograph is measured through one window
        return found

    monkeypatch.setattr(FeatureSource, "__call__", counting)
    monkeypatch.setattr(FeatureSource, "statistics", uncounted)
    return windows


def paint(root, stem, value, y, x, size=6):
    with Project.open(root) as project:
        window = Window(y0=y, x0=x, y1=y + size, x1=x + size)
        project.annotations.write(stem, window, np.full((size, size), value, np.uint8))


def paint_both(root, stem="a1"):
    """A patch of each class, where the micrograph really has it."""
    with Project.open(root) as project:
        image = project.open_micrograph(stem).read()
    smooth = np.lib.stride_tricks.sliding_window_view(image, (6, 6)).mean(axis=(2, 3))
    for value, where in ((1, smooth.argmin()), (2, smooth.argmax())):
        paint(root, stem, value, *np.unravel_index(where, smooth.shape))


def live(root, stem="a1", window=WHOLE, config=CONFIG, generation=1, control=None):
    events = []
    request = LiveRequest(
        run_id="live-1", project=root, micrograph=stem, window=window, generation=generation, config=config
    )
    handle(request, events.append, control or RunControl())
    return events


def stored(root, stem, kind="mask"):
    with Project.open(root) as project:
        return project.predictions.read(LIVE_RUN, stem, kind)


def truth(seed):
    from worker_projects import micrograph

    return micrograph(seed)[1]


def test_two_strokes_segment_the_micrograph_and_another_one(bare):
    paint_both(bare)
    events = live(bare, generation=7)
    assert isinstance(events[-1], RunFinished), events[-1]
    result = events[-1].result
    assert result["n_pixels"] == 72
    assert result["classes"] == list(CLASSES)
    assert result["weights"] == "none"
    assert set(result["seconds"]) >= {"features", "fit", "predict", "total"}
    regions = [e for e in events if isinstance(e, RegionPredicted)]
    assert [(e.micrograph, e.model_run, e.generation) for e in regions] == [("a1", LIVE_RUN, 7)]
    assert (stored(bare, "a1") == truth(0)).mean() > 0.95
    entropy, confidence = (stored(bare, "a1", kind).astype(float) for kind in ("entropy", "confidence"))
    assert entropy.min() >= 0
    assert entropy.max() <= np.log(2) + 1e-3
    assert np.corrcoef(entropy.ravel(), confidence.ravel())[0, 1] < -0.9

    live(bare, "d1")
    assert (stored(bare, "d1") == truth(3)).mean() > 0.9


def test_only_the_window_is_predicted(bare):
    paint_both(bare)
    window = Window(y0=10, x0=20, y1=50, x1=200)
    (region,) = [e for e in live(bare, window=window) if isinstance(e, RegionPredicted)]
    assert (region.y0, region.x0, region.y1, region.x1) == (10, 20, 50, SHAPE[1])
    mask = stored(bare, "a1")
    assert (mask[10:50, 20:] > 0).all()
    assert np.count_nonzero(mask) == 40 * (SHAPE[1] - 20)


def test_what_is_not_labelled_has_no_influence(bare):
    """Another micrograph, and pixels of no class: whatever they look like, the prediction stays."""
    paint_both(bare)
    first = live(bare)[-1].result
    mask, entropy = stored(bare, "a1"), stored(bare, "a1", "entropy")
    with Project.open(bare) as project:
        project.annotations.write("b1", None, np.full(SHAPE, 9, np.uint8))  # a class that the schema does not have
    second = live(bare)[-1].result
    assert (first["n_pixels"], first["classes"]) == (second["n_pixels"], second["classes"])
    np.testing.assert_array_equal(mask, stored(bare, "a1"))
    np.testing.assert_array_equal(entropy, stored(bare, "a1", "entropy"))


def test_one_class_is_refused_in_words(bare):
    for paint_something in (False, True):
        if paint_something:
            paint(bare, "a1", 1, 10, 10)
        (failed,) = [e for e in live(bare) if isinstance(e, RunFailed)]
        assert failed.kind == "label"
        assert "another class" in failed.hint


def test_a_stroke_on_a_known_tile_computes_no_features(bare, computed):
    paint_both(bare)
    live(bare)
    assert len(computed) == 1
    paint(bare, "a1", 1, 80, 110)
    assert live(bare)[-1].result["n_pixels"] == 72 + 36
    assert len(computed) == 1
    paint_both(bare, "b1")
    assert live(bare)[-1].result["n_pixels"] == 72 + 36 + 72
    assert len(computed) == 2


def test_erased_labels_and_removed_micrographs_are_forgotten(bare):
    paint_both(bare, "a1")
    paint_both(bare, "b1")
    assert live(bare)[-1].result["n_pixels"] == 144
    with Project.open(bare) as project:
        project.annotations.write("b1", None, np.zeros(SHAPE, np.uint8))
    assert live(bare)[-1].result["n_pixels"] == 72
    paint_both(bare, "b1")
    assert live(bare)[-1].result["n_pixels"] == 144
    with Project.open(bare) as project:
        project.remove_micrograph("b1")
    assert live(bare)[-1].result["n_pixels"] == 72


def test_features_outlive_the_process_and_may_be_deleted(bare, computed):
    paint_both(bare)
    live(bare)
    live_handler.forget()
    live(bare)
    assert len(computed) == 1
    for path in (bare / "features").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    live_handler.forget()
    assert isinstance(live(bare)[-1], RunFinished)
    assert len(computed) == 2


def test_the_pixel_size_of_a_micrograph_leads_to_other_features(bare, computed):
    paint_both(bare)
    live(bare)
    with Project.open(bare) as project:
        project.update_micrograph("a1", pixel_size_nm=2.5)
    events = live(bare)
    assert isinstance(events[-1], RunFinished)
    assert events[-1].result["n_pixels"] == 72
    assert computed[-1].shape == (SHAPE[0] // 2, SHAPE[1] // 2)
    mask = stored(bare, "a1")
    assert (mask > 0).all()
    assert (mask == truth(0)).mean() > 0.9


def test_more_classes_begin_afresh(bare):
    paint_both(bare)
    live(bare)
    with Project.open(bare) as project:
        project.set_schema(LabelSchema.from_names([*CLASSES, "crack"]))
    live(bare, window=Window(y0=0, x0=0, y1=20, x1=20))
    assert np.count_nonzero(stored(bare, "a1")) == 400, "what the old head predicted is still there"
    paint(bare, "a1", 3, 0, 0)
    assert live(bare)[-1].result["classes"] == [*CLASSES, "crack"]


def test_a_cancelled_update_predicts_nothing_and_the_next_one_is_complete(bare):
    paint_both(bare)
    control = RunControl()
    control.cancel()
    assert isinstance(live(bare, control=control)[-1], RunCancelled)
    assert live(bare)[-1].result["n_pixels"] == 72


def test_faults_name_what_is_wrong(bare):
    paint_both(bare)
    for changes in (
        {"stem": "nothing"},
        {"window": Window(y0=500, x0=500, y1=510, x1=510)},
        {"config": LiveConfig(weights="run:9999", compute=COMPUTE)},
    ):
        (failed,) = [e for e in live(bare, **changes) if isinstance(e, RunFailed)]
        assert failed.kind == "project", failed


def test_it_goes_on_from_a_trained_network_and_notices_a_new_checkpoint(bare, computed):
    paint_both(bare)
    model = ModelConfig(encoder="tu-test_resnet", n_classes=2)
    with Project.open(bare) as project:
        run = project.create_run("train", {})
        path = run.checkpoint_path("best")
    config = LiveConfig(weights=f"run:{run.id}", compute=COMPUTE)
    for seed in (0, 1):
        torch.manual_seed(seed)
        Checkpoint(CheckpointMeta(model=model, classes=CLASSES), build_model(model).state_dict()).save(path)
        for _ in range(2):
            events = live(bare, config=config)
            assert isinstance(events[-1], RunFinished), events[-1]
        assert len(computed) == seed + 1
    assert events[-1].result["weights"] == f"run:{run.id}"


def test_where_features_cannot_be_kept_it_says_so_once(bare):
    paint_both(bare)
    (bare / "features").write_text("in the way")
    notices = [[e.message for e in live(bare, stem=stem) if e.event == "NoticePosted"] for stem in ("a1", "b1")]
    assert [len(n) for n in notices] == [1, 0]
    assert "features" in notices[0][0]


def test_a_labelled_micrograph_that_cannot_be_opened_is_told_once_and_does_not_hold_up_the_others(bare):
    paint_both(bare)
    paint_both(bare, "b1")
    with Project.open(bare) as project:
        path = project.record("b1").path
    away = path.rename(path.with_name("away"))
    told = []
    for _ in range(2):
        events = live(bare)
        assert isinstance(events[-1], RunFinished), events[-1]
        assert events[-1].result["n_pixels"] == 72
        told += [e.message for e in events if e.event == "NoticePosted"]
    assert len(told) == 1
    assert "b1" in told[0]
    away.rename(path)
    assert live(bare)[-1].result["n_pixels"] == 144


def test_another_micrograph_under_a_removed_ones_name_begins_afresh(bare, tmp_path):
    paint_both(bare)
    paint_both(bare, "b1")
    live(bare)
    tifffile.imwrite(tmp_path / "a1.tif", micrograph(9, (64, 200))[0])
    with Project.open(bare) as project:
        project.remove_micrograph("a1")
        assert not project.predictions.exists(LIVE_RUN, "a1")
        assert project.add_micrograph(tmp_path / "a1.tif", specimen="z", pixel_size_nm=5.0).stem == "a1"
    assert isinstance(live(bare, window=Window(y0=0, x0=0, y1=64, x1=200))[-1], RunFinished)
    assert stored(bare, "a1").shape == (64, 200)
    assert (stored(bare, "a1") > 0).all()
