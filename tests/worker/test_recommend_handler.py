"""Recommending in this process, on a small real project and the real core."""

from __future__ import annotations

import pytest
from worker_projects import CLASSES, QUICK, make_project, new_run

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.label_survey import LabelSurvey
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.readers import read_micrograph
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import EMTransferError, WeightsError
from napari_emtransfer.core.events import TERMINAL, RunFailed, RunFinished, RunStarted
from napari_emtransfer.core.nn import store
from napari_emtransfer.core.nn.checkpoint import Checkpoint, CheckpointMeta
from napari_emtransfer.core.nn.trainer import initial_model
from napari_emtransfer.core.rates import check_rates, learning_rate
from napari_emtransfer.core.recommend import rule_book
from napari_emtransfer.worker import recommend_handler
from napari_emtransfer.worker.handlers import RunControl, handle
from napari_emtransfer.worker.lineage import inherited_encoder_rate
from napari_emtransfer.worker.protocol import RecommendRequest, TrainRequest

OPEN = QUICK.model_copy(update={"train": (), "validation": ()})


def ask(root, config) -> RunFinished | RunFailed:
    events = []
    handle(RecommendRequest(run_id="advice", project=root, config=config), events.append, RunControl())
    (terminal,) = [event for event in events if isinstance(event, TERMINAL)]
    return terminal


def recommended(root, config) -> dict:
    event = ask(root, config)
    assert isinstance(event, RunFinished), event
    return event.result


@pytest.fixture
def weights(tmp_path):
    """A file with the weights of a network of the right kind, as a person brings it."""
    from safetensors.torch import save_file

    path = tmp_path / "brought.safetensors"
    model = initial_model(QUICK, 2)
    save_file({k: v.contiguous() for k, v in model.state_dict().items() if k.startswith("encoder.")}, path)
    return path


@pytest.fixture
def run_id(project_root):
    """A run of the project with a best checkpoint."""
    run_id = new_run(project_root, QUICK)
    model = initial_model(QUICK, 2)
    meta = CheckpointMeta(model=model.config, classes=CLASSES)
    with Project.open(project_root) as project:
        Checkpoint(meta, model.state_dict()).save(project.run(run_id).checkpoint_path("best"))
        project.run(run_id).update("finished")
    return run_id


def test_without_weights_from_scratch(project_root):
    result = recommended(project_root, OPEN)
    assert (result["strategy"], result["gap"], result["gap_class"]) == ("scratch", None, "unknown")
    assert (result["n_tiles"], result["n_specimens"]) == (4, 4)
    assert result["reason"].startswith("4 labelled tiles on 4 specimens to learn from → train from scratch")
    assert TrainConfig.model_validate(result["config"]).strategy == "scratch"


def test_the_gap_is_that_of_real_micrographs_where_there_are_any(project_root, weights, monkeypatch):
    chosen = []
    monkeypatch.setattr(recommend_handler, "_measured", lambda wanted, _threads: chosen.append(dict(wanted.chosen)))
    config = OPEN.model_copy(update={"weights": str(weights)})
    with Project.open(project_root) as project:
        labels, path = project.annotations.read("a1"), project.record("a1").path
        project.remove_micrograph("a1")
        project.register(read_micrograph(path), specimen="made", synthetic=True)
        project.annotations.write("a1", None, labels)
    recommended(project_root, config)
    with Project.open(project_root) as project:
        for stem in ("b1", "c1", "d1"):
            project.remove_micrograph(stem)
    recommended(project_root, config)
    assert [set(stems) for stems in chosen] == [{"b1", "c1", "d1"}, {"a1"}]


def test_a_file_of_weights_is_measured(project_root, weights):
    result = recommended(project_root, OPEN.model_copy(update={"weights": str(weights)}))
    # Norms that never saw data hold mean 0 and variance 1, which fits no micrograph.
    assert result["gap"] > rule_book().small_gap_below
    assert f"({result['gap']:.2f})" in result["reason"]
    assert result["rule"] in {rule.id for rule in rule_book().rule}
    assert result["source"]
    config = TrainConfig.model_validate(result["config"])
    assert config.strategy == result["strategy"] == "feature-extraction"
    assert config.normalization == "adabn"


def test_the_users_strategy_stays(project_root, weights):
    wanted = OPEN.model_copy(update={"weights": str(weights), "strategy": "fine-tune"})
    result = recommended(project_root, wanted)
    assert result["strategy"] == "feature-extraction"
    assert TrainConfig.model_validate(result["config"]) == wanted


def test_labels_and_micrographs_that_are_held_out_by_name_are_not_looked_at(project_root, weights, monkeypatch):
    seen = []
    opened = recommend_handler.open_for
    monkeypatch.setattr(recommend_handler, "open_for", lambda p, stem: (seen.append(stem), opened(p, stem))[1])
    with_weights = OPEN.model_copy(update={"weights": str(weights)})
    assert recommended(project_root, with_weights.model_copy(update={"split": "given"}))["n_tiles"] == 2
    assert seen == ["a1", "b1"]
    seen.clear()
    assert recommended(project_root, with_weights.model_copy(update={"validation": ("c1",)}))["n_specimens"] == 3
    assert seen == ["a1", "b1", "d1"]
    seen.clear()
    assert recommended(project_root, with_weights.model_copy(update={"train": ("d1",)}))["n_tiles"] == 1
    assert seen == ["d1"]


def test_the_gap_is_measured_once_while_only_labels_change(project_root, weights, monkeypatch):
    config = OPEN.model_copy(update={"weights": str(weights)})
    first = recommended(project_root, config)
    monkeypatch.setattr(recommend_handler, "domain_gap", lambda *_: pytest.fail("measured again"))
    with Project.open(project_root) as project:
        labels = project.annotations.read("d1")
        labels[:] = 0
        project.annotations.write("d1", None, labels)
    again = recommended(project_root, config)
    assert again["gap"] == first["gap"]
    assert (first["n_tiles"], again["n_tiles"]) == (4, 3)


def test_weights_that_were_replaced_are_measured_again(project_root, weights):
    from safetensors.torch import load_file, save_file

    config = OPEN.model_copy(update={"weights": str(weights)})
    first = recommended(project_root, config)["gap"]
    tensors = load_file(weights)
    save_file({k: v + 3 if k.endswith("running_mean") else v for k, v in tensors.items()}, weights)
    assert recommended(project_root, config)["gap"] > first + 0.1


def test_an_earlier_run_goes_on(project_root, run_id):
    result = recommended(project_root, OPEN.model_copy(update={"weights": f"run:{run_id}"}))
    assert (result["strategy"], result["rule"]) == ("fine-tune", "go-on-from-a-run")
    assert 0 <= result["gap"] <= 1
    assert "earlier run" in result["reason"]


def test_nothing_is_fetched_for_a_recommendation(project_root, monkeypatch, tmp_path):
    monkeypatch.setenv("EMTRANSFER_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(recommend_handler, "initial_model", lambda *_: pytest.fail("built, hence fetched"))
    result = recommended(project_root, OPEN.model_copy(update={"weights": "micronet", "encoder": "resnet18"}))
    assert (result["gap"], result["strategy"]) == (None, "feature-extraction")
    assert "unknown" in result["reason"]


def test_weights_that_do_not_exist_are_refused_in_words(project_root):
    event = ask(project_root, OPEN.model_copy(update={"weights": "imagnet"}))
    assert isinstance(event, RunFailed)
    assert event.kind == WeightsError.kind
    assert event.hint


def test_a_micrograph_that_is_gone_does_not_matter(tmp_path, weights):
    root = make_project(tmp_path / "moved")
    with Project.open(root) as project:
        project.record("a1").path.unlink()
    assert recommended(root, OPEN.model_copy(update={"weights": str(weights)}))["gap"] is not None


def test_a_rate_that_the_weights_carry_is_used_without_asking(project_root, tmp_path, monkeypatch):
    from safetensors.torch import save_file

    path = tmp_path / "carries.safetensors"
    model = initial_model(QUICK, 2)
    tensors = {k: v.contiguous() for k, v in model.state_dict().items() if k.startswith("encoder.")}
    save_file(tensors, path, metadata={store.ENCODER_RATE_KEY: "0.001"})
    monkeypatch.setattr(recommend_handler, "survey", lambda *_, **__: LabelSurvey(30, ("a1", "b1"), ("a", "b")))
    with Project.open(project_root) as project:
        config, _ = recommend_handler.resolve(project, OPEN.model_copy(update={"weights": str(path)}))
    assert config.strategy == "gradual"
    assert config.encoder_learning_rate == learning_rate(config) == 1e-3
    assert not config.confirm_uniform_rate  # nobody did
    check_rates(config)


def test_the_info_bar_is_not_looked_at(project_root, weights):
    config = OPEN.model_copy(update={"weights": str(weights)})
    with Project.open(project_root) as project:
        gap_of = recommend_handler.domain_gap
        shapes = []
        for record in project.micrographs():
            project.update_micrograph(record.stem, info_bar=Window(y0=80, x0=0, y1=96, x1=128))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            recommend_handler,
            "domain_gap",
            lambda model, views: (shapes.extend(v.shape for v in views), gap_of(model, views))[1],
        )
        assert 0 <= recommended(project_root, config)["gap"] <= 1
    assert shapes == [(80, 128)] * 4


def test_auto_is_resolved_for_a_training(project_root, weights):
    with Project.open(project_root) as project:
        config, reason = recommend_handler.resolve(project, OPEN.model_copy(update={"weights": str(weights)}))
        assert config.strategy == "feature-extraction"
        assert reason.startswith("4 labelled tiles")
        own = OPEN.model_copy(update={"strategy": "gradual", "weights": str(weights)})
        config, reason = recommend_handler.resolve(project, own)
        assert config == own
        assert "gradual" in reason


def test_resolving_needs_the_weights(project_root):
    with Project.open(project_root) as project, pytest.raises(EMTransferError, match="imagnet"):
        recommend_handler.resolve(project, OPEN.model_copy(update={"weights": "imagnet"}))


def test_a_run_without_a_checkpoint_has_no_gap(project_root):
    result = recommended(project_root, OPEN.model_copy(update={"weights": f"run:{new_run(project_root)}"}))
    assert (result["gap"], result["strategy"]) == (None, "fine-tune")


def test_a_training_counts_only_what_its_split_trains_on(project_root):
    config = OPEN.model_copy(update={"split": None})
    run_id = new_run(project_root, config)
    events = []
    handle(TrainRequest(run_id=run_id, project=project_root, config=config), events.append, RunControl())
    details = next(event for event in events if isinstance(event, RunStarted)).details
    n_train = len(details["train"])
    assert n_train == 4 - len(details["validation"]) < 4
    assert details["reason"].startswith(f"{n_train} labelled tiles on {n_train} specimens")


def test_a_run_hands_on_the_rate_of_the_weights_that_its_lineage_began_with(project_root, run_id, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "carries.safetensors"
    tensors = {k: v.contiguous() for k, v in initial_model(QUICK, 2).state_dict().items() if k.startswith("encoder.")}
    save_file(tensors, path, metadata={store.ENCODER_RATE_KEY: "0.001"})
    with Project.open(project_root) as project:
        first = project.run(run_id)
        (first.root / "config.json").write_text(QUICK.model_copy(update={"weights": str(path)}).model_dump_json())
    config = OPEN.model_copy(update={"weights": f"run:{run_id}"})
    result = recommended(project_root, config)
    assert result["rule"] == "go-on-from-a-run"
    assert result["config"]["encoder_learning_rate"] == pytest.approx(0.3e-3)
    first_of_two = new_run(project_root, config)
    with Project.open(project_root) as project:
        again = OPEN.model_copy(update={"weights": f"run:{first_of_two}"})
        assert inherited_encoder_rate(project, again) == 1e-3
        assert inherited_encoder_rate(project, OPEN) is None
        slow, _ = recommend_handler.resolve(project, config.model_copy(update={"learning_rate": 1e-4}))
    assert slow.encoder_learning_rate == pytest.approx(0.3e-4)
    check_rates(slow)
