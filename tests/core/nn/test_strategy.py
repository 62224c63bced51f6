import pytest
from nn_helpers import config

from napari_emtransfer.core.config import ModelConfig
from napari_emtransfer.core.nn.model import build_model
from napari_emtransfer.core.nn.stage_control import StageControl
from napari_emtransfer.core.nn.strategy import cautions, plan_of, schedule

DEPTHS = [f"encoder {i}" for i in (5, 4, 3, 2, 1)]
NEW = {"head": 1e-3, "decoder": 1e-3}


@pytest.fixture(scope="module")
def model():
    return build_model(ModelConfig(encoder="test_resnet", n_classes=2))


def stages(model, **changes):
    return plan_of(model, config(**{"weights": "imagenet", **changes})).stages


def test_from_scratch_all_learns_alike(model):
    (stage,) = stages(model, strategy="scratch", weights="none")
    assert stage.rates == NEW | {"encoder": 1e-3}


def test_feature_extraction_leaves_the_encoder_out(model):
    (stage,) = stages(model, strategy="feature-extraction")
    assert stage.rates == NEW


def test_fine_tuning_is_graded_by_depth(model):
    (stage,) = stages(model, strategy="fine-tune", encoder_learning_rate=1e-4, depth_decay=0.5)
    assert stage.rates == pytest.approx(NEW | dict(zip(DEPTHS, [1e-4, 5e-5, 2.5e-5, 1.25e-5, 6.25e-6], strict=True)))
    (flat,) = stages(model, strategy="fine-tune", depth_decay=1)
    assert flat.rates == pytest.approx(NEW | {"encoder": 1e-4})


def test_gradual_unfreezes_from_the_head_down(model):
    first, second, third = stages(model, strategy="gradual", depth_decay=0.7)
    assert first.rates == NEW
    assert second.rates == pytest.approx(NEW | {"encoder 5": 1e-4})
    assert third.rates == pytest.approx(NEW | {name: 1e-4 * 0.7**i for i, name in enumerate(DEPTHS)})


def test_freezing_by_hand_changes_every_strategy(model):
    for strategy in ("scratch", "fine-tune", "gradual", "feature-extraction"):
        confirmed = {"strategy": strategy, "confirm_uniform_rate": True}
        (stage,) = stages(model, **confirmed, freeze="encoder")
        assert stage.rates == NEW
        assert all("decoder" not in s.rates and "head" in s.rates for s in stages(model, **confirmed, freeze="decoder"))


def test_each_part_begins_once_and_only_its_weights_decay(model):
    plan = plan_of(model, config(weights="imagenet", strategy="gradual", weight_decay=0.1))
    begun, seen = set(), []
    for stage in range(3):
        groups = plan.groups(stage, begun)
        begun |= {g["part"] for g in groups}
        seen += [p for g in groups for p in g["params"]]
        plan.freeze(stage)
        assert {id(p) for p in seen} == {id(p) for p in model.parameters() if p.requires_grad}
        for group in groups:
            assert all((p.ndim > 1) == (group["weight_decay"] == 0.1) for p in group["params"])
    assert len(seen) == len(list(model.parameters()))


def test_a_pull_to_the_weights_takes_the_place_of_decay(model):
    plan = plan_of(model, config(weights="imagenet", l2_sp=1e-3, depth_decay=1))
    decays = {(g["part"], g["weight_decay"]) for g in plan.groups(0, set())}
    assert decays == {("head", 0.01), ("head", 0), ("decoder", 0.01), ("decoder", 0), ("encoder", 0)}


@pytest.mark.parametrize("shape", ["cosine", "poly"])
def test_the_rate_warms_up_and_ends_at_nothing(shape):
    rates = [schedule(i / 100, shape) for i in range(101)]
    assert rates[0] < 0.05
    assert max(rates) == pytest.approx(1)
    assert rates.index(max(rates)) == 5
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_poly_and_cosine_are_what_they_are_called():
    halfway = 0.05 + 0.95 / 2
    assert schedule(halfway) == pytest.approx(0.5)
    assert schedule(halfway, "poly") == pytest.approx(0.5**0.9)


def test_what_begins_later_warms_up_later():
    assert schedule(0.4, "cosine", began=0.4) < 0.05
    assert schedule(0.45, "cosine", began=0.4) == pytest.approx(1)
    assert schedule(1.0, "cosine", began=0.4) == pytest.approx(0, abs=1e-9)


def control(**changes):
    return StageControl(**{"n_stages": 3, "plateau": 2, "validates": True, **changes})


def test_a_stage_ends_on_a_plateau():
    c = control()
    c.validated(is_best=True)
    c.validated(is_best=False)
    assert c.reason_to_advance(0.2) is None
    c.validated(is_best=True)
    c.validated(is_best=False)
    c.validated(is_best=False)
    assert c.reason_to_advance(0.2) == "The validation IoU has not improved for 2 validations."
    c.advance(0.2)
    assert (c.stage, c.n_stale) == (1, 0)
    for _ in range(5):
        c.validated(is_best=False)
    assert c.reason_to_advance(0.23) is None, "its parameters are still warming up"
    assert c.reason_to_advance(0.26)
    c.advance(0.26)
    assert c.is_last
    assert c.reason_to_advance(0.99) is None


@pytest.mark.parametrize(("validates", "said"), [(True, "was still improving"), (False, "no ground to validate on")])
def test_a_stage_ends_with_its_share_of_the_run(validates, said):
    c = control(validates=validates)
    assert c.reason_to_advance(0.33) is None
    reason = c.reason_to_advance(1 / 3)
    assert said in reason
    assert "1/3" in reason
    c.advance(1 / 3)
    assert c.reason_to_advance(0.6) is None
    assert "2/3" in c.reason_to_advance(0.7)


def test_a_stage_control_goes_on_where_it_was():
    c = control()
    c.advance(0.4)
    c.validated(is_best=False)
    other = control()
    other.restore(c.state())
    assert other == c


@pytest.mark.parametrize(
    ("changes", "norms", "said"),
    [
        ({"strategy": "gradual"}, True, "starts at random"),
        ({"normalization": "adabn"}, True, "random filters"),
        ({"weights": "imagenet"}, False, "no batch norms"),
        ({"weights": "imagenet", "normalization": "source"}, False, "no batch norms"),
        ({"weights": "imagenet", "freeze": "encoder", "normalization": "train"}, True, "The encoder is frozen"),
        ({"weights": "imagenet", "strategy": "scratch"}, True, "starts from the weights 'imagenet'"),
    ],
)
def test_choices_that_do_not_do_what_they_say_are_named(changes, norms, said):
    (caution,) = cautions(config(**changes), has_batch_norms=norms)
    assert said in caution


def test_sensible_choices_need_no_words():
    assert cautions(config(), has_batch_norms=False) == []
    assert cautions(config(weights="imagenet"), has_batch_norms=True) == []
