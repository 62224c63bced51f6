"""Handlers in this process, on a small real project and the real core."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from worker_projects import CLASSES, COMPUTE, PREDICT, QUICK, SHAPE, make_project, micrograph, new_run

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.labels import LabelSchema
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import DeviceError
from napari_emtransfer.core.evaluate.confusion import ConfusionMatrix
from napari_emtransfer.core.events import (
    TERMINAL,
    CheckpointSaved,
    NoticePosted,
    ProgressMade,
    RegionPredicted,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunStarted,
    ValidationEnded,
)
from napari_emtransfer.core.nn.trainer import FitResult
from napari_emtransfer.worker import fit, models
from napari_emtransfer.worker.handlers import RunControl, handle
from napari_emtransfer.worker.protocol import EvaluateRequest, PredictRequest, TrainRequest, WarmRequest

GIVEN = QUICK.model_copy(update={"split": "given", "train": (), "validation": ()})


def do(request, control: RunControl | None = None, on_event=lambda event: None) -> list:
    """All events of a request; exactly one terminal event, at the end."""
    events = []
    handle(request, lambda event: (events.append(event), on_event(event)), control or RunControl())
    assert [isinstance(e, TERMINAL) for e in events] == [False] * (len(events) - 1) + [True]
    assert {e.run_id for e in events} == {request.run_id}
    return events


def train(root, config: TrainConfig = QUICK, **options) -> list:
    run_id = new_run(root, config)
    return do(TrainRequest(run_id=run_id, project=root, config=config), **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project with one finished run on the split "given"; tests must not change it."""
    root = make_project(tmp_path_factory.mktemp("trained"))
    events = train(root, GIVEN)
    assert isinstance(events[-1], RunFinished), events[-1]
    return root, events


@pytest.fixture
def trained_root(trained, tmp_path):
    """A copy of it that a test may change."""
    return shutil.copytree(trained[0].parent, tmp_path / "copy") / "project"


def evaluate(root, *on: str) -> dict:
    (event,) = [
        e for e in do(EvaluateRequest(run_id="e", project=root, on=on, config=PREDICT)) if isinstance(e, TERMINAL)
    ]
    assert isinstance(event, RunFinished), event
    return event.result


# ---- training


def test_training_tells_its_story(trained):
    _, events = trained
    assert [e.iteration for e in events if isinstance(e, ValidationEnded)] == [2, 4]
    assert {e.which for e in events if isinstance(e, CheckpointSaved)} == {"last", "best"}
    start = events[0]
    assert isinstance(start, RunStarted)
    assert (start.n_steps, start.first_step) == (4, 0)
    assert start.details["ground"] == "specimen"
    result = events[-1].result
    assert {
        "run",
        "mean_iou",
        "iou",
        "ci95",
        "ground",
        "note",
        "n_specimens",
        "iterations",
        "seconds",
        "device",
    } <= set(result)
    assert set(result["iou"]) == set(CLASSES)
    assert result["iterations"] == 4
    assert result["ci95"] is None
    assert "chosen on this same ground" in result["note"]


def test_training_leaves_a_complete_run_folder(trained):
    root, events = trained
    with Project.open(root) as project:
        run = project.run("latest")
        assert run.record.status == "finished"
        assert run.record.mean_iou == events[-1].result["mean_iou"]
        assert run.record.iterations == 4
        assert run.events() == events
        assert run.result() == json.loads(json.dumps(events[-1].result))
        assert [r.micrograph for r in run.split().test] == ["d1"]
        card = (run.root / "card.md").read_text()
    for words in ("hash of pixels and labels", "split: given", "torch ", '"seed": 0', "Mean IoU", "specimen c"):
        assert words in card


def test_reported_iou_is_that_of_the_best_checkpoint_on_native_pixels(trained):
    """The same number, computed by hand from the masks that the predict handler writes."""
    root, events = trained
    out = root.parent / "by_hand"
    do(PredictRequest(run_id="p", project=root, micrographs=("c1",), out=out, config=PREDICT))
    with Project.open(root) as project:
        truth = project.annotations.read("c1")
    by_hand = ConfusionMatrix.from_masks(truth, tifffile.imread(out / "c1.tif"), 2)
    assert by_hand.counts.tolist() == events[-1].result["confusion"]
    assert by_hand.mean_iou() == pytest.approx(events[-1].result["mean_iou"])


def test_training_from_an_earlier_run_and_its_leak_is_told(trained_root):
    second = QUICK.model_copy(update={"weights": "run:latest", "train": ("c1", "d1"), "validation": ("a1",)})
    events = train(trained_root, second)
    assert isinstance(events[-1], RunFinished), events[-1]
    assert events[0].details["ground"] == "training tile"
    for result in (events[-1].result, evaluate(trained_root, "validation")):
        assert "weights it started from had been trained on this very ground" in result["note"]
    with Project.open(trained_root) as project:
        assert project.run("0002").config["weights"] == "run:0001-train"


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"split": "other", "train": (), "validation": ()}, "split", "no split 'other'"),
        ({"weights": "run:0099"}, "project", "no run '0099'"),
        ({"weights": "nowhere.safetensors"}, "weights", "nowhere.safetensors"),
        ({"encoder": "resnet19"}, "error", "resnet19"),
        ({"compute": COMPUTE.model_copy(update={"device": "cuda:7"})}, "device", "cuda:7"),
        ({"train": ("zz",)}, "split", "zz"),
    ],
)
def test_training_faults_are_the_users_words(project_root, changes, kind, words):
    event = train(project_root, QUICK.model_copy(update=changes))[-1]
    assert isinstance(event, RunFailed)
    assert (event.kind, event.traceback) == (kind, "")
    assert words in event.message
    with Project.open(project_root) as project:
        (record,) = project.runs()
        assert (record.status, record.message) == ("failed", event.message)


def test_nothing_labelled_is_said_before_anything_is_computed(tmp_path):
    with Project.create(tmp_path / "p", classes=CLASSES) as project:
        root = project.root
    assert do(TrainRequest(run_id=new_run(root), project=root, config=QUICK))[-1].kind == "label"


def test_unknown_project_and_run(tmp_path, project_root):
    missing = do(TrainRequest(run_id="r", project=tmp_path / "nowhere", config=QUICK))[-1]
    assert (missing.kind, missing.traceback) == ("project", "")
    assert do(TrainRequest(run_id="r", project=project_root, config=QUICK))[-1].kind == "project"


def stop_after(kind, press):
    control = RunControl()
    return {"control": control, "on_event": lambda event: isinstance(event, kind) and getattr(control, press)()}


@pytest.mark.parametrize(
    ("press", "terminal", "status"),
    [
        ("cancel", RunCancelled, "cancelled"),
        ("stop_early", RunFinished, "finished"),
        ("abandon", RunCancelled, "interrupted"),
    ],
)
def test_three_ways_to_stop(project_root, press, terminal, status):
    config = QUICK.model_copy(update={"iterations": 1000, "validate_every": 3})
    events = train(project_root, config, **stop_after(ValidationEnded, press))
    assert isinstance(events[-1], terminal)
    with Project.open(project_root) as project:
        run = project.run("latest")
        assert run.record.status == status
        assert run.record.iterations == 3
        assert run.checkpoint_path("last").is_file()
        assert run.checkpoint_path("best").is_file()
        assert isinstance(run.events()[-1], TERMINAL) == (press != "abandon")
    if press == "stop_early":
        assert events[-1].result["mean_iou"] is not None
        assert events[-1].result["ended"] == "stopped"


def test_resume_goes_on_with_frozen_labels_and_configuration_to_the_same_end(tmp_path):
    """Interrupted, relabelled meanwhile and resumed gives the figures of an unbroken run."""
    whole, broken = make_project(tmp_path / "whole"), make_project(tmp_path / "broken")
    config = QUICK.model_copy(update={"iterations": 6, "validate_every": 3})
    unbroken = train(whole, config)
    first = train(broken, config, **stop_after(ValidationEnded, "abandon"))
    with Project.open(broken) as project:
        project.annotations.write("a1", Window(y0=0, x0=0, y1=96, x1=128), np.ones(SHAPE, np.uint8))
        run_id = project.runs()[0].id
    another = config.model_copy(update={"iterations": 1, "learning_rate": 0.5})
    second = do(TrainRequest(run_id=run_id, project=broken, config=another, resume=True))
    assert (second[0].first_step, second[0].n_steps) == (3, 6)
    assert isinstance(first[-1], RunCancelled)
    assert isinstance(second[-1], RunFinished), second[-1]
    assert second[-1].result["confusion"] == unbroken[-1].result["confusion"]
    (loss,), (expected,) = (
        [e.loss for e in events if isinstance(e, ValidationEnded) and e.iteration == 6] for events in (second, unbroken)
    )
    assert loss == pytest.approx(expected, rel=1e-4)


def test_resume_before_the_first_checkpoint_starts_anew(project_root):
    run_id = new_run(project_root)
    torn = project_root / "runs" / run_id / ".tmp-x1y2"
    torn.write_bytes(b"half a checkpoint")
    events = do(TrainRequest(run_id=run_id, project=project_root, config=QUICK, resume=True))
    assert isinstance(events[-1], RunFinished), events[-1]
    assert not torn.exists()
    assert events[0].first_step == 0


class FakeTrainer:
    """Stands in for training: ends as it is told, and computes nothing."""

    def __init__(self, model, config, train, held_out, context, *, resume=None, adaptation=()):
        self.context, self.n_train = context, len(train)

    def fit(self, emit, should_stop):
        raise self.error


def test_cancelled_before_the_first_iteration(project_root, monkeypatch):
    class Stopped(FakeTrainer):
        def fit(self, emit, should_stop):
            assert should_stop()
            return FitResult(0, None, {}, 0, 0.1, "stopped")

    monkeypatch.setattr(fit, "Trainer", Stopped)
    events = train(project_root, **stop_after(RunStarted, "cancel"))
    assert [type(e) for e in events] == [RunStarted, RunCancelled]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DeviceError("Not even one crop fits the memory.", "Use a smaller crop."), "device"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "device"),
        (OSError(28, "No space left on device", "last.safetensors"), "storage"),
        (ZeroDivisionError("division by zero"), "bug"),
    ],
)
def test_faults_of_the_trainer(project_root, monkeypatch, error, kind):
    monkeypatch.setattr(fit, "Trainer", type("Failing", (FakeTrainer,), {"error": error}))
    event = train(project_root)[-1]
    assert event.kind == kind
    assert ("Traceback" in event.traceback) == (kind == "bug")


def test_training_sees_regions_only(project_root, monkeypatch):
    """Windows of a split reach the trainer as ignored pixels outside, at the working pixel size."""
    seen = {}

    class Looking(FakeTrainer):
        def __init__(self, model, config, train, held_out, context, *, resume=None, adaptation=()):
            seen.update(train=train, held_out=held_out, context=context)

        def fit(self, emit, should_stop):
            raise DeviceError("enough")

    with Project.open(project_root) as project:
        for stem in ("b1", "c1", "d1"):
            project.remove_micrograph(stem)
        project.update_settings(working_pixel_size_nm=2.5)
    monkeypatch.setattr(fit, "Trainer", Looking)
    config = QUICK.model_copy(update={"train": (), "validation": (), "crop_px": 32})
    assert train(project_root, config)[-1].message == "enough"
    with Project.open(project_root) as project:
        split = project.run("0001").split()
    assert split.ground == "block"
    assert seen["context"].working_pixel_size_nm == 2.5
    (held,) = split.validation
    labelled = sum(np.count_nonzero(h.targets != 255) for h in seen["held_out"])
    assert 0 < labelled <= 4 * held.window.shape[0] * held.window.shape[1]
    assert all(i.image.shape == i.targets.shape for i in seen["train"])


# ---- prediction


def test_prediction_fills_the_store_and_says_where(trained):
    root, _ = trained
    window = Window(y0=10, x0=20, y1=50, x1=60)
    request = PredictRequest(run_id="p", project=root, micrographs=("d1",), window=window, generation=7, config=PREDICT)
    events = do(request)
    regions = [e for e in events if isinstance(e, RegionPredicted)]
    assert {(e.micrograph, e.generation) for e in regions} == {("d1", 7)}
    assert min(e.y0 for e in regions) <= 10
    assert max(e.x1 for e in regions) >= 60
    progress = [e for e in events if isinstance(e, ProgressMade)][-1]
    assert progress.done == progress.total
    with Project.open(root) as project:
        run_id = events[-1].result["run"]
        mask = project.predictions.read(run_id, "d1", "mask")
        entropy = project.predictions.read(run_id, "d1", "entropy")
        confidence = project.predictions.read(run_id, "d1", "confidence")
    assert mask.shape == SHAPE
    assert set(np.unique(mask[window.slices])) <= {1, 2}
    assert np.all(entropy <= np.float16(np.log(2)) + 1e-3)
    assert np.all(confidence[window.slices] >= 0.499)
    # Entropy in nats follows from the confidence where there are two classes.
    p = confidence[window.slices].astype(float)
    expected = -(p * np.log(p) + (1 - p) * np.log(np.maximum(1 - p, 1e-9)))
    np.testing.assert_allclose(entropy[window.slices], expected, atol=5e-3)


def test_window_and_whole_agree(trained):
    root, _ = trained
    window = Window(y0=10, x0=20, y1=50, x1=60)
    whole = do(PredictRequest(run_id="p", project=root, micrographs=("a1",), config=PREDICT))[-1]
    with Project.open(root) as project:
        run_id = whole.result["run"]
        mask = project.predictions.read(run_id, "a1", "mask", window)
    do(PredictRequest(run_id="p", project=root, micrographs=("a1",), window=window, config=PREDICT))
    with Project.open(root) as project:
        again = project.predictions.read(run_id, "a1", "mask")
    assert np.all(again > 0)  # a window of the same model does not wipe the rest
    assert np.mean(again[window.slices] == mask) > 0.99


def test_a_newer_checkpoint_replaces_the_stored_prediction(trained_root):
    run_id = do(PredictRequest(run_id="p", project=trained_root, micrographs=("a1",), config=PREDICT))[-1].result["run"]
    with Project.open(trained_root) as project:
        store, best = project.predictions, project.run(run_id).checkpoint_path("best")
        assert np.all(store.read(run_id, "a1", "mask") > 0)
        best.touch()
        window = Window(y0=0, x0=0, y1=32, x1=32)
        do(PredictRequest(run_id="p", project=trained_root, micrographs=("a1",), window=window, config=PREDICT))
        assert np.any(store.read(run_id, "a1", "mask") == 0)


def test_files_outside_of_the_project(trained, tmp_path):
    root, _ = trained
    for name, size in (("known", 2.5), ("unknown", None)):
        resolution = {"resolution": (1e7 / size,) * 2, "resolutionunit": "CENTIMETER"} if size else {}
        tifffile.imwrite(tmp_path / f"{name}.tif", micrograph(9, (90, 70))[0], **resolution)
    paths = tuple(tmp_path / f"{name}.tif" for name in ("known", "unknown"))
    request = PredictRequest(
        run_id="p", project=root, paths=paths, out=tmp_path / "out", probabilities=True, config=PREDICT
    )
    events = do(request)
    (notice,) = [e for e in events if isinstance(e, NoticePosted)]
    assert "'unknown'" in notice.message
    assert events[-1].result["predictions"] == [str(tmp_path / "out" / f"{name}.tif") for name in ("known", "unknown")]
    assert events[-1].result["megapixels"] == pytest.approx(2 * 90 * 70 / 1e6)
    with tifffile.TiffFile(tmp_path / "out" / "known.tif") as tiff:
        mask, page = tiff.asarray(), tiff.pages[0]
        assert page.tags["XResolution"].value[0] / page.tags["XResolution"].value[1] == pytest.approx(1e7 / 2.5)
        assert tiff.shaped_metadata[0]["classes"] == list(CLASSES)
    probabilities = np.load(tmp_path / "out" / "known_probabilities.npy")
    assert (mask.shape, mask.dtype) == ((90, 70), np.uint8)
    assert probabilities.shape == (2, 90, 70)
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-3)
    np.testing.assert_array_equal(probabilities.argmax(axis=0) + 1, mask)
    assert tifffile.imread(tmp_path / "out" / "known_entropy.tif").dtype == np.float32
    assert not list((tmp_path / "out").glob("*.part*"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"micrographs": ("zz",)}, "zz"),
        ({"paths": ("image.tif",)}, "outside of the project"),
        ({"window": Window(y0=0, x0=0, y1=9, x1=9)}, "exactly one micrograph"),
        ({"model_run": "0042"}, "0042"),
    ],
)
def test_prediction_faults(trained, options, words):
    event = do(PredictRequest(run_id="p", project=trained[0], config=PREDICT, **options))[-1]
    assert isinstance(event, RunFailed)
    assert event.kind == "project"
    assert words in event.message


def test_prediction_without_any_model(project_root):
    event = do(PredictRequest(run_id="p", project=project_root, config=PREDICT))[-1]
    assert "no trained model" in event.message


def test_cancelled_prediction_keeps_what_is_complete(trained, tmp_path):
    control = RunControl()
    request = PredictRequest(run_id="p", project=trained[0], out=tmp_path / "out", config=PREDICT)
    events = do(request, control, lambda e: isinstance(e, ProgressMade) and control.cancel())
    assert isinstance(events[-1], RunCancelled)
    assert [p.name for p in (tmp_path / "out").iterdir() if "entropy" not in p.name] == ["a1.tif"]
    assert len(events[-1].result["predictions"]) == 1


class FakePredictor:
    """Half of the working pixels particle, in two pieces; remembers what it was shown."""

    device = None
    config = PREDICT
    n_channels = 2

    def __init__(self):
        self.shapes = []

    def predict(self, view, should_stop, *, window=None):
        height, width = view.shape
        self.shapes.append(view.shape)
        middle = height // 2
        for i, (y0, y1) in enumerate(((0, middle), (middle, height))):
            probabilities = np.zeros((2, y1 - y0, width), np.float32)
            probabilities[i] = 1
            yield Window(y0=y0, x0=0, y1=y1, x1=width), probabilities


@pytest.mark.parametrize("native_nm", [0.5, 5.0, 12.0])
@pytest.mark.parametrize("max_pixels", [50, 4_000_000])
def test_masks_come_back_at_native_size(trained, monkeypatch, tmp_path, native_nm, max_pixels):
    """A fake network, real resampling: every native pixel once, whatever the scale and the strips."""
    root, _ = trained
    fake = FakePredictor()
    monkeypatch.setattr(models, "_MAX_NATIVE_PIXELS", max_pixels)
    monkeypatch.setattr(models.devices, "describe", lambda device: "fake")
    monkeypatch.setattr(models, "_load", lambda *_: fake)
    image = tmp_path / "image.tif"
    tifffile.imwrite(image, micrograph(5, (80, 60))[0], resolution=(1e7 / native_nm,) * 2, resolutionunit="CENTIMETER")
    request = PredictRequest(run_id="p", project=root, paths=(image,), out=tmp_path / "out", config=PREDICT)
    assert isinstance(do(request)[-1], RunFinished)
    assert fake.shapes == [(round(80 * native_nm / 5), round(60 * native_nm / 5))]
    mask = tifffile.imread(tmp_path / "out" / "image.tif")
    np.testing.assert_array_equal(mask, np.repeat([1, 2], 40)[:, None] * np.ones(60, int))


# ---- evaluation


def test_evaluation_on_a_clean_test_part(trained):
    result = evaluate(trained[0], "test")
    assert result["micrographs"] == ["d1"]
    assert result["ground"] == "specimen"
    assert "specimen d" in result["note"]
    assert "chosen on this same ground" not in result["note"]
    assert result["labelled_fraction"] == pytest.approx(112 / 128)
    assert set(result["boundary_iou"]) == set(CLASSES)
    assert (result["on"], result["n_specimens"]) == (["test"], 1)


def test_evaluation_by_stems_has_an_interval_and_admits_training_tiles(trained):
    held_out = evaluate(trained[0], "c1", "d1")
    assert held_out["ground"] == "specimen"
    assert held_out["ci95"][0] <= held_out["mean_iou"] <= held_out["ci95"][1]
    seen = evaluate(trained[0], "a1", "d1")
    assert seen["ground"] == "training tile"
    assert "not a measure of generalisation" in seen["note"]
    assert set(seen["per_specimen"]) == {"a", "d"}


def test_validation_evaluated_later_gives_the_training_runs_figure(trained):
    root, events = trained
    again = evaluate(root, "validation")
    assert again["confusion"] == events[-1].result["confusion"]
    assert "chosen on this same ground" in again["note"]
    by_name = evaluate(root, "c1")
    assert "chosen on this same ground" in by_name["note"]
    assert "a specimen of that same ground" in by_name["calibration"]["note"]


def test_no_such_part_lists_what_there_is(trained):
    event = do(EvaluateRequest(run_id="e", project=trained[0], on=("ood",), config=PREDICT))[-1]
    assert (event.kind, event.hint) == ("split", "It has: train, validation, test.")


def test_nothing_labelled_on_the_ground(trained_root):
    with Project.open(trained_root) as project:
        project.annotations.write("d1", None, np.zeros(SHAPE, np.uint8))
    event = do(EvaluateRequest(run_id="e", project=trained_root, on=("test",), config=PREDICT))[-1]
    assert event.kind == "label"


def test_other_classes_are_refused_and_added_ones_only_predicted(trained_root):
    with Project.open(trained_root) as project:
        project.set_schema(LabelSchema.from_names([*CLASSES, "crack"]))
    event = do(EvaluateRequest(run_id="e", project=trained_root, config=PREDICT))[-1]
    assert (event.kind, event.traceback) == ("project", "")
    assert "'crack'" in event.message
    assert isinstance(do(PredictRequest(run_id="p", project=trained_root, config=PREDICT))[-1], RunFinished)
    with Project.open(trained_root) as project:
        project.set_schema(LabelSchema.from_names(["matrix", "pore"]))
    assert isinstance(do(PredictRequest(run_id="p", project=trained_root, config=PREDICT))[-1], RunFailed)


# ---- warm-up


def test_warm_names_the_device():
    events = do(WarmRequest(compute=COMPUTE))
    assert events[0].event == "EngineReady"
    assert events[0].device.startswith("cpu")


def test_importing_handlers_does_not_import_torch():
    code = "import sys, napari_emtransfer.worker.handlers; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
