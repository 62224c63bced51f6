"""Runs side by side: which settings differ, whose figures may be compared, what the curves hold."""

from __future__ import annotations

import math

import pytest
from session_helpers import make_project

from napari_emtransfer.core.config import ComputeConfig, TrainConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.split import Split, whole
from napari_emtransfer.core.errors import ProjectError
from napari_emtransfer.core.events import (
    FoldBegan,
    IterationEnded,
    ParameterGroup,
    RunStarted,
    StageBegan,
    ValidationEnded,
)
from napari_emtransfer.session.compare import ComparedRun, caution, compare, differing_settings
from napari_emtransfer.session.curves import plateau_text, record, replayed
from napari_emtransfer.session.runs import settings_of, settings_to_go_on
from napari_emtransfer.session.state import Curves

GROUPS = (ParameterGroup(part="head", n_parameters=10, learning_rate=1e-3, weight_decay=0.01),)


def iteration(i, memory=None, **rates):
    return IterationEnded(run_id="r", iteration=i, loss=1 / i, learning_rates=rates, memory_gb=memory)


def validation(i, n_stale=0, mean_iou=0.5):
    return ValidationEnded(
        run_id="r",
        iteration=i,
        loss=0.1,
        mean_iou=mean_iou,
        iou={"matrix": mean_iou},
        is_best=n_stale == 0,
        ground="specimen",
        n_stale=n_stale,
        training_iou=0.9,
    )


def stage(i, number=1, n=3):
    return StageBegan(run_id="r", iteration=i, stage=number, n_stages=n, name=f"s{number}", reason="why", groups=GROUPS)


@pytest.fixture
def project(tmp_path):
    with Project.open(make_project(tmp_path / "p")) as opened:
        yield opened


def finished(project, config, held_out, result):
    run = project.create_run("train", config.model_dump(mode="json"))
    run.write_split(
        Split(name="x", train=whole(["m0"]), validation=whole(held_out), ground="specimen", note="held out: c")
    )
    run.append_event(RunStarted(run_id=run.id, n_steps=10))
    run.append_event(iteration(5, head=1e-3).model_copy(update={"run_id": run.id}))
    run.write_result(result)
    run.update("finished", mean_iou=result["mean_iou"])
    return run.id


def test_a_group_that_learns_later_has_no_rate_before():
    curves = Curves("r")
    for event in (iteration(1, head=1e-3), iteration(2, memory=0.5, head=9e-4, encoder=1e-5), iteration(3, head=8e-4)):
        assert record(curves, event)
    assert curves.learning_rates["head"] == [1e-3, 9e-4, 8e-4]
    encoder = curves.learning_rates["encoder"]
    assert [math.isnan(v) for v in encoder] == [True, False, True]
    assert curves.memory_gb[1] == 0.5
    assert math.isnan(curves.memory_gb[0])


def test_stages_and_folds_are_marked_once_where_they_began():
    events = [
        RunStarted(run_id="r", n_steps=20),
        FoldBegan(run_id="r", fold=0, n_folds=2, held_out=("a",)),
        stage(0),
        iteration(5, head=1e-3),
        stage(5, 2),
        iteration(10, head=1e-3),
        FoldBegan(run_id="r", fold=1, n_folds=2, held_out=("b",)),
        stage(10),
        iteration(15, head=1e-3),
        RunStarted(run_id="r", n_steps=20, first_step=10),
        FoldBegan(run_id="r", fold=1, n_folds=2, held_out=("b",)),
        stage(10),
    ]
    curves = replayed("r", events)
    assert [(f.fold, f.iteration) for f in curves.folds] == [(0, 0), (1, 10)]
    assert [(s.stage, s.iteration) for s in curves.stages] == [(1, 0), (2, 5), (1, 10)]
    assert curves.iterations == [5, 10]
    assert curves.stages[0].groups == GROUPS


@pytest.mark.parametrize(
    ("n_stale", "stages", "config", "words"),
    [
        (0, [], TrainConfig(), "The last validation was the best."),
        (2, [], TrainConfig(patience=5), "No better for 2 of 5 validations; then the run ends."),
        (1, [stage(0)], TrainConfig(plateau=2), "No better for 1 of 2 validations; then the next stage begins."),
        (3, [stage(0, 3)], TrainConfig(plateau=2), "No better for 3 validations."),
    ],
)
def test_the_plateau_is_counted_towards_what_it_ends(n_stale, stages, config, words):
    curves = replayed("r", [*stages, validation(10), *([validation(20, n_stale)] if n_stale else [])])
    assert plateau_text(curves, config) == words
    assert plateau_text(Curves(), config) == ""


def test_only_what_differs_is_listed_in_the_order_of_the_fields():
    first = TrainConfig(weights="imagenet", strategy="fine-tune").model_dump(mode="json")
    second = TrainConfig(
        weights="none", strategy="fine-tune", confirm_uniform_rate=True, compute=ComputeConfig(seed=3)
    ).model_dump(mode="json")
    del first["depth_decay"]  # a run of an earlier version
    assert differing_settings([first, second]) == (("weights", ("imagenet", "none")), ("seed", ("0", "3")))
    assert differing_settings([first, first]) == ()


def test_runs_are_read_from_their_folders_oldest_first(project):
    result = {"mean_iou": 0.8, "iou": {"matrix": 0.8}, "ci95": [0.7, 0.9], "ground": "specimen", "note": "n"}
    a = finished(project, TrainConfig(), ["m2"], result)
    b = finished(project, TrainConfig(l2_sp=1e-3), ["m2"], result | {"mean_iou": 0.85, "ci95": [0.75, 0.95]})
    found = compare(project, [b, a])
    assert [run.run_id for run in found.runs] == [a, b]
    assert found.settings == (("l2_sp", ("0", "0.001")),)
    assert found.runs[1].ci95 == (0.75, 0.95)
    assert found.runs[0].curves.iterations == [5]
    assert "overlap" in found.caution
    with pytest.raises(ProjectError, match="1 runs were chosen"):
        compare(project, [a])


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ({"held_out": ("a",)}, {"held_out": ("b",)}, "not judged on the same"),
        ({"ci95": (0.1, 0.2)}, {"ci95": (0.3, 0.4)}, ""),
        ({"ci95": (0.1, 0.3)}, {"ci95": (0.3, 0.4)}, "overlap"),
        ({"ci95": (0.1, 0.3)}, {}, "Without an interval"),
        ({"mean_iou": None}, {}, ""),
    ],
)
def test_figures_that_do_not_compare_are_called_so(first, second, says):
    runs = [ComparedRun("x", "finished", Curves(), **{"mean_iou": 0.5, **changes}) for changes in (first, second)]
    assert says in caution(runs)
    assert bool(says) == bool(caution(runs))


def test_settings_are_cloned_or_go_on_from_the_best(project):
    config = TrainConfig(strategy="scratch", iterations=77, encoder_learning_rate=1e-3, train=("m0",))
    run_id = finished(project, config, ["m2"], {"mean_iou": 0.5})
    assert settings_of(project, run_id) == config
    onward = settings_to_go_on(project, run_id)
    assert (onward.weights, onward.strategy, onward.encoder_learning_rate) == (f"run:{run_id}", "auto", None)
    assert (onward.validation, onward.train, onward.iterations) == (("m2",), (), 77)
