"""Runs with folds on a small real project: trained, interrupted, taken up again, averaged, measured out of fold."""

import shutil
from itertools import pairwise

import numpy as np
import pytest
import tifffile
from test_handlers import GIVEN, do, evaluate, train
from worker_projects import PREDICT, QUICK, make_project, micrograph, new_run

from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.split import Fold, Split, stems_of, whole
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.evaluate.calibration import tempered
from napari_emtransfer.core.evaluate.confusion import ConfusionMatrix
from napari_emtransfer.core.events import (
    CheckpointSaved,
    FoldBegan,
    IterationEnded,
    NoticePosted,
    RunCancelled,
    RunFailed,
    RunFinished,
    ValidationEnded,
)
from napari_emtransfer.core.legality import legal_symmetries
from napari_emtransfer.core.nn.checkpoint import Checkpoint, read_meta, set_temperature
from napari_emtransfer.core.nn.store import sha256_of
from napari_emtransfer.worker import evaluate_handler, fit, fold_handler
from napari_emtransfer.worker.averaging import with_symmetries
from napari_emtransfer.worker.control import Cancelled, RunControl
from napari_emtransfer.worker.lineage import start_of, trained_on
from napari_emtransfer.worker.models import load_fold, load_model, predict_native
from napari_emtransfer.worker.prediction_sinks import mask_of
from napari_emtransfer.worker.protocol import EvaluateRequest, PredictRequest, TrainRequest
from napari_emtransfer.worker.provenance import provenance_of

STEMS = ("a1", "b1", "c1", "d1")
FOLDS = QUICK.model_copy(update={"train": (), "validation": (), "folds": "leave-one-out", "strategy": "scratch"})


@pytest.fixture(scope="module")
def folded(tmp_path_factory):
    """A project with one finished run of four folds; tests must not change it."""
    root = make_project(tmp_path_factory.mktemp("folded"))
    events = train(root, FOLDS)
    assert isinstance(events[-1], RunFinished), events[-1]
    return root, events


@pytest.fixture
def folded_root(folded, tmp_path):
    return shutil.copytree(folded[0].parent, tmp_path / "copy") / "project"


def probabilities_of(root, stem, **options):
    """Class probabilities (K, H, W) that the predict handler writes, and the mask."""
    out = root.parent / f"out {len(list(root.parent.glob('out *')))}"
    request = PredictRequest(run_id="p", project=root, micrographs=(stem,), out=out, probabilities=True, **options)
    event = do(request)[-1]
    assert isinstance(event, RunFinished), event
    return np.load(out / f"{stem}_probabilities.npy"), tifffile.imread(out / f"{stem}.tif")


def raw_probabilities(root, fold, stem):
    """Those of one fold's network, without a temperature."""
    with Project.open(root) as project:
        model = load_fold(project.run("latest"), fold, PREDICT)
        view = model.view(project.open_micrograph(stem))
        whole = np.zeros((2, *view.shape), np.float32)
        for window, probabilities in predict_native(model.predictor, view, None, lambda: False):
            whole[(slice(None), *window.slices)] = probabilities
    return whole


# ---- training


def test_one_network_after_another_on_one_scale_of_iterations(folded):
    root, events = folded
    began = [e for e in events if isinstance(e, FoldBegan)]
    assert [(e.fold, e.n_folds, e.held_out) for e in began] == [(k, 4, (s,)) for k, s in enumerate("abcd")]
    assert (events[0].n_steps, events[0].first_step) == (16, 0)
    iterations = [e.iteration for e in events if isinstance(e, IterationEnded)]
    assert all(a < b for a, b in pairwise(iterations))
    assert iterations[-1] == 16
    assert [e.iteration for e in events if isinstance(e, ValidationEnded)] == [2, 4, 6, 8, 10, 12, 14, 16]
    left = [e.seconds_left for e in events if isinstance(e, IterationEnded) and e.iteration == 4]
    assert left[0] > 0  # three folds are still to come
    with Project.open(root) as project:
        run = project.run("latest")
        assert run.record.iterations == 16
        assert [p.parent.name for p in run.model_paths()] == [f"fold-{k}" for k in range(4)]
        assert (run.root / "card.md").is_file()


def test_the_result_is_out_of_fold(folded):
    root, events = folded
    result = events[-1].result
    assert result["ground"] == "specimen"
    assert set(result["per_specimen"]) == set("abcd")
    assert result["ci_method"].startswith("t-interval")
    assert "each of 4 specimens once" in result["note"]
    assert "chosen on that same ground" in result["note"]
    assert [f["held_out"] for f in result["folds"]] == [[s] for s in STEMS]
    total = np.sum(list(result["specimen_confusion"].values()), axis=0)
    assert total.tolist() == result["confusion"]
    with Project.open(root) as project:
        truth = project.annotations.read("c1")
    by_hand = ConfusionMatrix.from_masks(truth, mask_of(raw_probabilities(root, 2, "c1")), 2)
    assert by_hand.counts.tolist() == result["specimen_confusion"]["c"]
    assert result["folds"][2]["mean_iou"] == pytest.approx(by_hand.mean_iou())


def test_networks_of_folds_differ_and_never_saw_what_they_held_out(folded):
    root, _ = folded
    with Project.open(root) as project:
        split = project.run("latest").split()
    assert [[r.micrograph for r in fold.train] for fold in split.folds] == [
        [s for s in STEMS if s != out] for out in STEMS
    ]
    first, second = (raw_probabilities(root, k, "d1") for k in (0, 1))
    assert np.abs(first - second).max() > 1e-3


def test_evaluation_stays_out_of_fold(folded):
    root, events = folded
    again = evaluate(root, "validation")
    assert again["confusion"] == events[-1].result["confusion"]
    one = evaluate(root, "c1")
    assert one["confusion"] == events[-1].result["specimen_confusion"]["c"]
    assert one["ground"] == "specimen"
    assert "measured by its network alone" in one["note"]
    assert "chosen on this same ground" in one["note"]


def test_interrupted_in_the_second_fold_and_resumed_to_the_same_end(tmp_path, folded):
    root = make_project(tmp_path)
    in_second = lambda e: isinstance(e, CheckpointSaved) and e.which == "last" and e.iteration == 6  # noqa: E731
    control = RunControl()
    first = train(root, FOLDS, control=control, on_event=lambda e: in_second(e) and control.abandon())
    assert isinstance(first[-1], RunCancelled)
    with Project.open(root) as project:
        run = project.runs()[0]
        finished = project.run(run.id).fold_folder(0) / "best.safetensors"
        assert project.run(run.id).is_resumable
        assert [p.parent.name for p in project.run(run.id).model_paths()] == ["fold-0"]
        # Labels and classes may go on while the run rests.
        project.annotations.write("a1", Window(y0=0, x0=0, y1=9, x1=9), np.ones((9, 9), np.uint8))
    before = finished.stat().st_mtime_ns
    seen = []
    second = do(
        TrainRequest(run_id=run.id, project=root, config=QUICK, resume=True),
        on_event=lambda e: isinstance(e, FoldBegan) and seen.append((e.fold, finished.stat().st_mtime_ns == before)),
    )
    assert isinstance(second[-1], RunFinished), second[-1]
    assert (second[0].first_step, second[0].n_steps) == (6, 16)
    assert seen == [(1, True), (2, True), (3, True)]
    assert second[-1].result["confusion"] == folded[1][-1].result["confusion"]
    assert second[-1].result["iterations"] == 16


def test_stopped_early_the_folds_so_far_are_the_model(tmp_path):
    root = make_project(tmp_path)
    control = RunControl()
    events = train(
        root,
        FOLDS,
        control=control,
        on_event=lambda e: isinstance(e, ValidationEnded) and e.iteration == 6 and control.stop_early(),
    )
    result = events[-1].result
    assert isinstance(events[-1], RunFinished)
    assert result["ended"] == "stopped"
    assert set(result["per_specimen"]) == {"a", "b"}
    assert "Only 2 of the 4 folds were trained" in result["note"]
    with Project.open(root) as project:
        assert len(load_model(project, "latest", PREDICT).checkpoints) == 2


def test_a_named_test_part_is_in_no_fold_and_measured_by_all(tmp_path):
    root = make_project(tmp_path)
    events = train(root, FOLDS.model_copy(update={"split": "given", "folds": 3}))
    assert set(events[-1].result["per_specimen"]) == set("abc")
    result = evaluate(root, "test")
    assert (result["ground"], result["micrographs"]) == ("specimen", ["d1"])
    note = result["calibration"]["note"]
    assert "for each network of the folds alone" in note
    assert "reported on this other ground" in note


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"folds": 9}, "9 folds need as many labelled specimens, but there are 4"),
        ({"folds": "dataset"}, "two are needed"),
        ({"validation": ("a1",)}, "'a1' cannot be validated on"),
        ({"train": ("zz",)}, "no micrograph 'zz'"),
        ({"train": ("a1",)}, "one only: 'a'"),
    ],
)
def test_folds_that_cannot_be(project_root, changes, words):
    event = train(project_root, FOLDS.model_copy(update=changes))[-1]
    assert isinstance(event, RunFailed)
    assert (event.kind, event.traceback) == ("split", "")
    assert words in event.message


def test_going_on_starts_from_the_network_that_never_saw_the_ground(folded_root):
    """Fold 2 held c out: a run that is judged on c goes on from its network, and stays honest."""
    config = QUICK.model_copy(update={"weights": "run:latest", "strategy": "fine-tune", "iterations": 1})
    with Project.open(folded_root) as project:
        parent = project.run("latest")
        assert start_of(project, parent, whole(["c1"])) == (parent.fold_folder(2) / "best.safetensors", 2)
        assert start_of(project, parent, whole(["c1", "d1"])) == (parent.starting_point(), None)
    events = train(folded_root, config)
    assert isinstance(events[-1], RunFinished), events[-1]
    with Project.open(folded_root) as project:
        start = project.run("0001").fold_folder(2) / "best.safetensors"
        assert provenance_of(project.run("latest")).parent_sha256 == sha256_of(start)
    assert events[0].details["ground"] == "specimen"
    assert "had been trained on" not in events[-1].result["note"]
    again = evaluate(folded_root, "c1", "d1")
    assert again["ground"] == "training tile"  # fold 2 was trained on d


@pytest.mark.parametrize("folds", [None, 2])
def test_nothing_goes_on_from_a_run_without_a_checkpoint(project_root, folds):
    new_run(project_root)
    changes = {"weights": "run:0001", "folds": folds, "train": (), "validation": ()}
    event = train(project_root, QUICK.model_copy(update=changes))[-1]
    assert (event.kind, event.traceback) == ("weights", "")
    assert "0001-train has no best checkpoint to go on from" in event.message


def test_going_on_without_such_a_network_is_admitted(folded_root):
    config = QUICK.model_copy(
        update={"weights": "run:latest", "strategy": "fine-tune", "iterations": 1, "validation": ("c1", "d1")}
    )
    events = train(folded_root, config)
    assert events[0].details["ground"] == "training tile"
    assert "had been trained on this very ground" in events[-1].result["note"]


def test_a_checkpoint_named_by_its_path_hides_no_lineage(folded_root):
    config = QUICK.model_copy(update={"strategy": "fine-tune", "iterations": 1})
    grounds = {}
    for fold in (0, 2):  # of which only fold 2 held c out
        path = folded_root / "runs" / "0001-train" / f"fold-{fold}" / "best.safetensors"
        events = train(folded_root, config.model_copy(update={"weights": str(path)}))
        assert isinstance(events[-1], RunFinished), events[-1]
        grounds[fold] = events[-1].result["ground"]
    assert grounds == {0: "training tile", 2: "specimen"}


def test_a_second_round_of_folds_stays_out_of_fold(folded_root):
    with Project.open(folded_root) as project:
        parent = project.run("latest").id
    config = FOLDS.model_copy(update={"weights": f"run:{parent}", "strategy": "fine-tune", "iterations": 1})
    events = train(folded_root, config)
    assert isinstance(events[-1], RunFinished), events[-1]
    assert events[-1].result["ground"] == "specimen"
    with Project.open(folded_root) as project:
        run = project.run("latest")
        for k, stem in enumerate(STEMS):
            assert stem not in stems_of(trained_on(project, run, k))
        assert stems_of(trained_on(project, run)) == set(STEMS)
        # Networks that scored less than the best fold's are what it started from, and what its provenance names.
        first = [sha256_of(project.run(parent).fold_folder(k) / "best.safetensors") for k in range(4)]
        assert provenance_of(run).parent_sha256 == ", ".join(first)


# ---- prediction


def test_the_model_is_the_mean_of_its_folds_at_the_fitted_temperature(folded):
    root, events = folded
    expected = np.mean([raw_probabilities(root, k, "b1") for k in range(4)], axis=0)
    shown, mask = probabilities_of(root, "b1", config=PREDICT)
    temperature = events[-1].result["calibration"]["temperature"]
    assert np.abs(shown - tempered(expected, temperature)).max() < 1e-4
    np.testing.assert_array_equal(mask, mask_of(expected))


def test_disagreement_is_written_where_networks_can_disagree(folded, tmp_path):
    root, _ = folded
    options = {"project": root, "micrographs": ("b1",), "uncertainty": "disagreement", "config": PREDICT}
    assert isinstance(do(PredictRequest(run_id="p", out=tmp_path, **options))[-1], RunFinished)
    disagreement = tifffile.imread(tmp_path / "b1_disagreement.tif")
    members = [raw_probabilities(root, k, "b1") for k in range(4)]
    entropy = lambda p: -(p * np.log(np.maximum(p, 1e-12))).sum(0)  # noqa: E731
    expected = entropy(np.mean(members, axis=0)) - np.mean([entropy(p) for p in members], axis=0)
    np.testing.assert_allclose(disagreement, expected, atol=1e-4)
    result = do(PredictRequest(run_id="p", **options))[-1].result
    with Project.open(root) as project:
        stored = project.predictions.read(result["run"], "b1", "disagreement")
    np.testing.assert_allclose(stored, expected, atol=1e-3)


def test_a_temperature_changes_confidence_and_not_the_mask(folded_root):
    plain, mask = probabilities_of(folded_root, "a1", config=PREDICT)
    with Project.open(folded_root) as project:
        for path in project.run("latest").model_paths():
            set_temperature(path, 5.0)
    softer, same = probabilities_of(folded_root, "a1", config=PREDICT)
    np.testing.assert_array_equal(mask, same)
    assert softer.max() < plain.max()


def test_orientations_are_averaged_and_stored_apart_from_the_plain_prediction(folded_root):
    events = do(PredictRequest(run_id="p", project=folded_root, micrographs=("a1",), tta=True, config=PREDICT))
    run_id = events[-1].result["run"]
    assert events[-1].result["symmetries"] == list(range(8))
    assert any("never seen a turned micrograph" in e.message for e in events if isinstance(e, NoticePosted))
    one_by_one = [
        probabilities_of(folded_root, "a1", config=PREDICT.model_copy(update={"symmetries": (k,)}))[0] for k in range(8)
    ]
    assert np.abs(one_by_one[0] - one_by_one[3]).max() > 1e-4
    with Project.open(folded_root) as project:
        assert "symmetries" in project.predictions.recipe(run_id, "a1")
    part = Window(y0=0, x0=0, y1=32, x1=32)
    do(PredictRequest(run_id="p", project=folded_root, micrographs=("a1",), window=part, config=PREDICT))
    with Project.open(folded_root) as project:
        assert project.predictions.recipe(run_id, "a1") == ""
        assert np.any(project.predictions.read(run_id, "a1", "mask") == 0)  # not a mixture of both


# ---- several runs


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """A project with two runs that had one seed each; tests must not change it."""
    root = make_project(tmp_path_factory.mktemp("two"))
    for seed in (0, 1):
        compute = GIVEN.compute.model_copy(update={"seed": seed})
        event = train(root, GIVEN.model_copy(update={"compute": compute}))[-1]
        assert isinstance(event, RunFinished), event
    return root


def test_runs_are_averaged_without_a_temperature_and_that_is_told(two_runs):
    with Project.open(two_runs) as project:
        for run_id in ("0001-train", "0002-train"):
            assert project.run(run_id).result()["calibration"]["temperature"] == pytest.approx(
                read_meta(project.run(run_id).checkpoint_path("best")).temperature
            )
        plain = []
        for run_id in ("0001-train", "0002-train"):
            model = load_model(project, run_id, PREDICT)
            view = model.view(project.open_micrograph("d1"))
            plain.append(next(predict_native(model.predictor, view, None, lambda: False))[1])
    mean, _ = probabilities_of(two_runs, "d1", model_run="0001", ensemble=("0002",), config=PREDICT)
    assert np.abs(mean - np.mean(plain, axis=0)).max() < 1e-4
    request = PredictRequest(
        run_id="p", project=two_runs, model_run="0001", ensemble=("0002",), micrographs=("d1",), config=PREDICT
    )
    assert any("not been calibrated together" in e.message for e in do(request) if isinstance(e, NoticePosted))


def test_one_network_has_nobody_to_disagree_with(two_runs):
    request = PredictRequest(run_id="p", project=two_runs, uncertainty="disagreement", config=PREDICT)
    event = do(request)[-1]
    assert (event.kind, event.traceback) == ("project", "")
    assert "cannot disagree with itself" in event.message


def test_runs_that_do_not_go_together_are_refused(two_runs, tmp_path):
    root = shutil.copytree(two_runs.parent, tmp_path / "copy") / "project"
    with Project.open(root) as project:
        project.update_settings(working_pixel_size_nm=2.5)
    train(root, GIVEN.model_copy(update={"crop_px": 32, "iterations": 1}))
    request = PredictRequest(run_id="p", project=root, model_run="0001", ensemble=("0003",), config=PREDICT)
    event = do(request)[-1]
    assert (event.kind, event.traceback) == ("weights", "")
    assert "working pixel size differ (5 nm; 2.5 nm)" in event.message or "(native; 2.5 nm)" in event.message


def test_evaluating_several_runs_counts_what_each_was_trained_on(two_runs, tmp_path):
    root = shutil.copytree(two_runs.parent, tmp_path / "copy") / "project"
    train(root, QUICK.model_copy(update={"train": ("c1", "d1"), "validation": ("a1",), "iterations": 1}))
    options = {"run_id": "e", "project": root, "model_run": "0001", "on": ("test",), "config": PREDICT}
    alone = do(EvaluateRequest(**options))[-1].result
    both = do(EvaluateRequest(**options, ensemble=("0003",)))[-1].result
    assert (alone["ground"], both["ground"]) == ("specimen", "training tile")


def test_ground_that_another_runs_checkpoint_was_chosen_on_is_no_clean_ground(two_runs, tmp_path):
    root = shutil.copytree(two_runs.parent, tmp_path / "copy") / "project"
    train(root, QUICK.model_copy(update={"validation": ("d1",), "iterations": 1}))
    options = {"run_id": "e", "project": root, "model_run": "0001", "on": ("test",), "config": PREDICT}
    assert "chosen on this same ground" not in do(EvaluateRequest(**options))[-1].result["note"]
    assert "chosen on this same ground" in do(EvaluateRequest(**options, ensemble=("0003",)))[-1].result["note"]


# ---- what the trainer is given


class Looking:
    """Stands in for the trainer and keeps what it was given."""

    seen: dict = {}  # noqa: RUF012

    def __init__(self, model, config, train, held_out, context, *, resume=None, adaptation=()):
        self.seen.update(model=model, config=config, train=train, context=context, adaptation=adaptation)

    def fit(self, emit, should_stop):
        raise RuntimeError("seen enough")


def test_norms_adapt_to_micrographs_of_no_held_out_specimen(two_runs, monkeypatch, tmp_path):
    root = shutil.copytree(two_runs.parent, tmp_path / "copy") / "project"
    monkeypatch.setattr(fit, "Trainer", Looking)
    train(root, GIVEN.model_copy(update={"normalization": "adabn", "strategy": "scratch"}))
    assert {v.micrograph.name for v in Looking.seen["adaptation"]} == {"a1", "b1"}
    train(root, FOLDS.model_copy(update={"normalization": "adabn"}))
    assert {v.micrograph.name for v in Looking.seen["adaptation"]} == {"b1", "c1", "d1"}


def test_a_micrograph_that_cannot_be_adapted_to_is_named(two_runs, monkeypatch, tmp_path):
    root = shutil.copytree(two_runs.parent, tmp_path / "copy") / "project"
    tifffile.imwrite(tmp_path / "e1.tif", micrograph(9)[0])
    with Project.open(root) as project:
        project.add_micrograph(tmp_path / "e1.tif", specimen="e", pixel_size_nm=5.0)
    (tmp_path / "e1.tif").unlink()
    monkeypatch.setattr(fit, "Trainer", Looking)
    events = train(root, GIVEN.model_copy(update={"normalization": "adabn", "strategy": "scratch"}))
    assert len(Looking.seen["adaptation"]) == 2
    assert any("not adapted to 'e1'" in e.message for e in events if isinstance(e, NoticePosted))


def test_a_head_that_would_take_one_class_for_another_is_made_anew(two_runs, monkeypatch, tmp_path):
    root = shutil.copytree(two_runs.parent, tmp_path / "copy") / "project"
    with Project.open(root) as project:
        before = Checkpoint.load(load_model(project, "0002", PREDICT).checkpoints[0]).state
    monkeypatch.setattr(fit, "Trainer", Looking)
    config = GIVEN.model_copy(update={"weights": "run:0002", "strategy": "fine-tune", "shrink": 1.0})
    head = "segmentation_head.0.weight"
    said = "The run 0002-train knew the classes matrix, particle: the head is new."
    for names, kept in ((("matrix", "pore"), True), (("particle", "matrix"), False)):
        monkeypatch.setattr(fit.Fitter, "classes", names)
        events = train(root, config)
        now = Looking.seen["model"].state_dict()[head].numpy()
        assert np.allclose(now, before[head].numpy()) == kept
        assert (said in [e.message for e in events if isinstance(e, NoticePosted)]) == (not kept)


def test_legality_reaches_the_trainer_and_an_override_is_honoured(two_runs, monkeypatch, tmp_path):
    root = shutil.copytree(two_runs.parent, tmp_path / "copy") / "project"
    with Project.open(root) as project:
        project.update_settings(modality="ebsd")
    monkeypatch.setattr(fit, "Trainer", Looking)
    config = GIVEN.model_copy(update={"augment": "basic"})
    events = train(root, config)
    assert "quarter-turn" not in Looking.seen["context"].allowed
    assert any("leaves out" in e.message for e in events if isinstance(e, NoticePosted))
    train(root, config.model_copy(update={"illegal_augment": ("quarter-turn",)}))
    assert "quarter-turn" in Looking.seen["context"].allowed


def test_pixels_labelled_since_the_parent_are_marked_and_its_decoder_is_shrunk(two_runs, monkeypatch, tmp_path):
    root = shutil.copytree(two_runs.parent, tmp_path / "copy") / "project"
    new = Window(y0=0, x0=112, y1=20, x1=122)
    with Project.open(root) as project:
        project.annotations.write("a1", new, np.full(new.shape, 2, np.uint8))
        parent = load_model(project, "0002", PREDICT).checkpoints[0]
    monkeypatch.setattr(fit, "Trainer", Looking)
    train(root, GIVEN.model_copy(update={"weights": "run:0002", "strategy": "fine-tune", "shrink": 0.5}))
    fresh = [part.fresh for part in Looking.seen["train"]]
    assert sorted(int(f.sum()) for f in fresh) == [0, new.shape[0] * new.shape[1]]
    before, after = Checkpoint.load(parent).state, Looking.seen["model"].state_dict()
    key = next(k for k in before if k.startswith("decoder") and k.endswith("weight") and before[k].ndim == 4)
    ratio = float((after[key] * before[key]).sum() / (before[key] ** 2).sum())
    assert ratio == pytest.approx(0.5, abs=0.05)
    encoder = next(k for k in before if k.startswith("encoder") and before[k].ndim == 4)
    assert np.allclose(after[encoder].numpy(), before[encoder].numpy())


def test_weights_on_their_way_are_told_in_megabytes_and_a_cancel_stops_them():
    told, control = [], RunControl()
    progress = fit.megabytes_told("run", told.append, control)
    progress(0, 45_000_000)
    progress(45_000_000, 45_000_000)
    assert [(e.done, e.total, e.what) for e in told] == [
        (0, 45, "megabytes of weights"),
        (45, 45, "megabytes of weights"),
    ]
    control.cancel()
    with pytest.raises(Cancelled):
        progress(1, None)


def test_calibration_is_fitted_reported_and_evaluated(folded):
    root, events = folded
    calibration = events[-1].result["calibration"]
    assert "each of its 4 specimens is reported with the temperature of the others" in calibration["note"]
    assert "their mean, which is the run's model, was not calibrated itself" in calibration["note"]
    assert calibration["n_pixels"] == 4 * 96 * 112
    assert "a specimen of that same ground" in evaluate(root, "c1")["calibration"]["note"]
    again = evaluate(root, "validation")["calibration"]
    assert again["temperature"] == pytest.approx(calibration["temperature"])
    assert again["ece_before"] == pytest.approx(calibration["ece_before"], abs=1e-6)


def test_few_labels_that_none_was_drawn_of_end_no_run(two_runs, monkeypatch, tmp_path):
    root = shutil.copytree(two_runs.parent, tmp_path / "copy") / "project"
    monkeypatch.setattr(evaluate_handler, "_share_to_draw", lambda *_: 0.0)
    result = train(root, GIVEN.model_copy(update={"iterations": 1}))[-1].result
    assert result["calibration"] is None
    assert result["mean_iou"] is not None
    assert evaluate(root, "test")["calibration"] is None


def test_the_record_of_a_run_with_folds_holds_no_single_folds_figure(folded):
    root, events = folded
    with Project.open(root) as project:
        assert project.runs()[0].mean_iou == events[-1].result["mean_iou"]
    half = []
    other = make_project(root.parent / "half")
    control = RunControl()

    def stop(event):
        if isinstance(event, ValidationEnded):
            control.abandon()
            half.append(event.mean_iou)

    train(other, FOLDS, control=control, on_event=stop)
    with Project.open(other) as project:
        assert half[0] is not None
        assert project.runs()[0].mean_iou is None


def test_a_fold_hides_what_it_holds_out_spares_and_tests():
    fold = Fold(train=whole(["a1"]), held_out=whole(["b1"]), selection=whole(["c1"]))
    split = Split(
        name="x", train=whole(["a1"]), validation=(), test=whole(["d1"]), ground="specimen", note="", folds=(fold,)
    )
    ground = fold_handler._ground(fold, split, "specimen")
    assert stems_of(ground.chosen_on) == {"c1"}
    assert stems_of(ground.hidden) == {"b1", "c1", "d1"}
    alone = fold.model_copy(update={"selection": ()})
    assert stems_of(fold_handler._ground(alone, split, "specimen").chosen_on) == {"b1"}


@pytest.mark.parametrize("modality", ["sem", "ebsd"])
def test_orientations_are_the_legal_ones_only(two_runs, tmp_path, modality):
    root = shutil.copytree(two_runs.parent, tmp_path / "copy") / "project"
    with Project.open(root) as project:
        project.update_settings(modality=modality)
        assert with_symmetries(PREDICT, project, tta=True).symmetries == legal_symmetries(modality)
        assert with_symmetries(PREDICT, project, tta=False) is PREDICT
    result = evaluate(root, "test")
    assert result["symmetries"] == [0]
