"""Recommendations: asked of the engine, answered once, overtaken by newer questions; and what a run is told."""

from __future__ import annotations

import numpy as np
import pytest
from session_helpers import label

from napari_emtransfer.core import rates
from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.split import Split
from napari_emtransfer.core.events import RunCancelled, RunFailed, RunFinished, RunStarted, ValidationEnded
from napari_emtransfer.core.nn import registry, store
from napari_emtransfer.core.recommend import recommend
from napari_emtransfer.session import proposal
from napari_emtransfer.session.live_weights import weights_at_hand
from napari_emtransfer.worker.protocol import RecommendRequest

WANTED = TrainConfig(weights="micronet")


def asked(runner) -> list[RecommendRequest]:
    return [request for request in runner.engine.requests if isinstance(request, RecommendRequest)]


def answer(session, runner, request, gap=0.31):
    found = recommend(18, 3, gap, True, 1e-4)
    result = {
        "strategy": found.strategy,
        "reason": found.reason,
        "rule": found.rule.id,
        "source": found.rule.source,
        "gap": gap,
        "gap_class": "large",
        "n_tiles": 18,
        "n_specimens": 3,
        "config": found.applied_to(request.config).model_dump(mode="json"),
    }
    say(session, runner, RunFinished(run_id=request.run_id, result=result))


def say(session, runner, event):
    runner.engine.say(event)
    session.drain(0.2)


def test_a_recommendation_comes_with_reason_source_and_gap(session, runner, recorder):
    session.advice.request(WANTED)
    (request,) = asked(runner)
    assert (request.project, request.config) == (session.project.root, WANTED)
    assert session.advice.latest is None
    answer(session, runner, request)
    ((found,),) = recorder.of("advice_changed")
    assert found == session.advice.latest
    assert (found.config.strategy, found.config.normalization) == ("gradual", "adabn")
    assert found.config.weights == "micronet"
    assert (found.gap, found.failed) == (0.31, False)
    assert found.reason.startswith("18 labelled tiles on 3 specimens to learn from, large gap")
    assert "week 7" in found.source


def test_the_users_strategy_is_kept_and_what_the_rules_say_is_still_told(session, runner):
    session.advice.request(WANTED.model_copy(update={"strategy": "fine-tune"}))
    answer(session, runner, asked(runner)[0])
    assert session.advice.latest.config.strategy == "fine-tune"
    assert session.advice.latest.strategy == "gradual"


def test_a_newer_question_overtakes(session, runner, recorder):
    session.advice.request(WANTED)
    session.advice.request(TrainConfig(weights="imagenet"))
    first, second = asked(runner)
    answer(session, runner, first)
    assert not recorder.of("advice_changed")
    answer(session, runner, second)
    ((found,),) = recorder.of("advice_changed")
    assert found.config.weights == "imagenet"


def test_what_cannot_be_recommended_is_said_and_leaves_the_question_as_it_was(session, runner, recorder):
    session.advice.request(WANTED)
    failed = RunFailed(
        run_id=asked(runner)[0].run_id, kind="weights", message="There are no weights 'x'.", hint="Use y."
    )
    say(session, runner, failed)
    ((found,),) = recorder.of("advice_changed")
    assert found.failed
    assert found.config == WANTED
    assert found.reason == "There are no weights 'x'. Use y."
    assert not recorder.of("failed")


def test_a_cancelled_measurement_is_said(session, runner):
    session.advice.request(WANTED)
    say(session, runner, RunCancelled(run_id=asked(runner)[0].run_id))
    assert session.advice.latest.failed


def test_closing_the_project_forgets_question_and_answer(session, runner, recorder):
    session.advice.request(WANTED)
    answer(session, runner, asked(runner)[0])
    session.advice.request(WANTED)
    request = asked(runner)[-1]
    session.close_project()
    recorder.clear()
    assert session.advice.latest is None
    answer(session, runner, request)
    assert not recorder.of("advice_changed")


# ---- while a run goes on


@pytest.fixture
def running(session, runner):
    """A run that keeps the encoder frozen."""
    for stem in ("m0", "m1"):
        label(session.project, stem)
    run_id = session.training.start(TrainConfig(weights="micronet", strategy="feature-extraction"))
    runner.job.say(RunStarted(run_id=run_id, n_steps=100))
    session.drain(0.2)
    return run_id


def validated(session, runner, run_id, *, training, stale, held_out=0.5):
    event = ValidationEnded(
        run_id=run_id,
        iteration=50,
        loss=0.4,
        mean_iou=held_out,
        iou={},
        is_best=stale == 0,
        ground="specimen",
        n_stale=stale,
        training_iou=training,
    )
    runner.job.say(event)
    session.drain(0.2)


def test_a_frozen_encoder_that_saturates_low_is_told_while_it_runs(session, runner, recorder, running):
    validated(session, runner, running, training=0.6, stale=0)
    assert session.advice.run_advice == ""
    validated(session, runner, running, training=0.61, stale=2)
    assert "0.61" in session.advice.run_advice
    assert "Unfreeze" in session.advice.run_advice
    validated(session, runner, running, training=0.8, stale=0, held_out=0.75)
    assert session.advice.run_advice == ""
    assert [bool(words) for (words,) in recorder.of("run_advice_changed")] == [True, False]


def test_another_run_begins_without_the_advice_of_the_one_before(session, runner, running):
    validated(session, runner, running, training=0.6, stale=3)
    assert session.advice.run_advice
    runner.job.say(RunFinished(run_id=running))
    session.drain(0.2)
    assert session.advice.run_advice  # it is what to do next
    again = session.training.start(TrainConfig(weights="micronet", strategy="fine-tune"))
    runner.job.say(RunStarted(run_id=again, n_steps=100))
    session.drain(0.2)
    assert session.advice.run_advice == ""
    validated(session, runner, again, training=0.7, stale=3)
    assert session.advice.run_advice == ""  # nothing is frozen


def test_events_of_other_runs_do_not_count(session, runner, running):
    validated(session, runner, "0099-train", training=0.3, stale=9)
    assert session.advice.run_advice == ""


# ---- what is proposed


@pytest.fixture
def imported(tmp_path, monkeypatch, no_bundled_weights):
    """Weights on this machine, of a known encoder; another file does not say what it is of."""
    from safetensors.numpy import save_file

    monkeypatch.setenv("EMTRANSFER_CACHE", str(tmp_path / "cache"))
    folder = store.cache_dir() / "imported"
    folder.mkdir(parents=True)
    tensors = {"conv1.weight": np.zeros((1, 1, 3, 3), np.float32)}
    save_file(tensors, folder / "a-nameless.safetensors")
    save_file(tensors, folder / "our-sem.safetensors", metadata={store.ENCODER_KEY: "resnet34"})
    return "our-sem"


def test_weights_at_hand_are_proposed_and_the_strategy_is_left_to_the_rules(session, imported):
    label(session.project, "m0")
    config, reason = session.training.proposed_config()
    assert (config.weights, config.encoder, config.strategy) == (imported, "resnet34", "auto")
    assert f"transfer from {imported}" in reason


def test_what_came_with_the_program_goes_before_what_was_imported(imported, monkeypatch):
    ours = registry.WeightsEntry(name="synthetic", family="bundled", encoder="resnet18")
    monkeypatch.setattr(registry, "bundled_entries", lambda: [ours])
    assert weights_at_hand().name == "synthetic"
    monkeypatch.setattr(registry, "bundled_entries", list)
    assert weights_at_hand().name == imported


def test_what_came_with_the_program_is_proposed_so_that_another_encoder_can_be_chosen(session, monkeypatch):
    ours = registry.WeightsEntry(name="synthetic", family="bundled", encoder="resnet18")
    monkeypatch.setattr(registry, "bundled_entries", lambda: [ours])
    label(session.project, "m0")
    config, reason = session.training.proposed_config()
    assert (config.weights, config.encoder, config.strategy) == ("auto", "resnet18", "auto")
    assert "transfer from synthetic" in reason
    assert rates.resolve_weights(config) == "synthetic"
    assert rates.resolve_weights(config.model_copy(update={"encoder": "resnet34"})) == "none"


def with_a_run(session, **config):
    label(session.project, "m0")
    label(session.project, "m1")
    run = session.project.create_run("train", TrainConfig(**config).model_dump(mode="json"))
    run.checkpoint_path("best").write_bytes(b"x")
    run.write_split(Split(name="auto", train=(), validation=(), ground="specimen", note="held out: c"))
    run.update("finished", mean_iou=0.5)
    return run.id


def test_going_on_leaves_strategy_norms_and_rates_to_the_rules(session):
    """What was decided for the first round would be wrong for the next."""
    run_id = with_a_run(session, strategy="scratch", normalization="train", encoder_learning_rate=1e-3, crop_px=128)
    config, _ = session.training.proposed_config()
    assert config.weights == f"run:{run_id}"
    assert (config.strategy, config.normalization, config.encoder_learning_rate) == ("auto", "auto", None)
    assert config.crop_px == 128


def test_beginning_again_is_one_constant_away(session, imported, monkeypatch):
    with_a_run(session)
    monkeypatch.setattr(proposal, "BETWEEN_ROUNDS", "fresh")
    assert session.training.proposed_config()[0].weights == imported
