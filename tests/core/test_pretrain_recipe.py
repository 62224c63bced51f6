"""The recipe of a pretraining: which episodes and which rate each step has, and what is said of a wrong file."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_emtransfer.core.errors import UnreadableFileError
from napari_emtransfer.core.recipe import PretrainRecipe, PretrainStage, read_recipe

stages = st.lists(
    st.builds(
        PretrainStage,
        steps=st.integers(1, 12),
        tile_px=st.sampled_from((64, 96, 128)),
        episodes=st.integers(1, 5),
    ),
    min_size=1,
    max_size=4,
)
recipes = st.builds(
    PretrainRecipe,
    name=st.just("r"),
    learning_rate=st.floats(1e-5, 1),
    warm_up=st.integers(0, 60),
    cool_down=st.integers(0, 60),
    stages=stages.map(tuple),
)


@given(recipes)
def test_no_episode_is_seen_twice_and_none_is_left_out(recipe):
    seen = []
    for step in range(recipe.steps):
        first = recipe.first_episode(step)
        seen += range(first, first + recipe.stage_at(step).episodes)
    assert seen == list(range(sum(s.steps * s.episodes for s in recipe.stages)))


@given(recipes)
def test_stages_follow_one_another_for_their_steps(recipe):
    found = [recipe.stage_at(step) for step in range(recipe.steps)]
    assert found == [stage for stage in recipe.stages for _ in range(stage.steps)]
    assert recipe.steps == len(found)
    assert recipe.stage_at(recipe.steps) == recipe.stages[-1]


@given(recipes)
def test_rates_rise_stay_and_fall_to_nothing(recipe):
    rates = [recipe.rate(step) for step in range(recipe.steps)]
    assert all(0 < rate <= recipe.learning_rate for rate in rates)
    assert recipe.rate(recipe.steps) == 0
    plateau = [r for s, r in enumerate(rates) if recipe.warm_up <= s + 1 and s + recipe.cool_down <= recipe.steps]
    assert all(rate == recipe.learning_rate for rate in plateau)
    before_the_fall = rates[: max(0, recipe.steps - recipe.cool_down + 1)]
    after_the_rise = rates[max(0, recipe.warm_up - 1) :]
    assert before_the_fall == sorted(before_the_fall)
    assert after_the_rise == sorted(after_the_rise, reverse=True)


@given(recipes, st.integers(1, 40))
def test_a_longer_recipe_begins_as_the_shorter_one(recipe, more):
    longer = recipe.model_copy(update={"stages": (*recipe.stages, PretrainStage(steps=more))})
    for step in range(max(0, recipe.steps - recipe.cool_down)):
        assert longer.first_episode(step) == recipe.first_episode(step)
        assert longer.stage_at(step) == recipe.stage_at(step)
        if step + longer.cool_down <= recipe.steps:
            assert longer.rate(step) == recipe.rate(step)


def test_the_recipe_of_the_bundled_weights_is_one():
    recipe = read_recipe(Path(__file__).parents[2] / "resources" / "pretraining.toml")
    assert recipe.name == "synthetic"
    assert recipe.encoder == "tu-regnety_002"
    assert recipe.cool_down < recipe.steps


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = ", "is no TOML file"),
        ('name = "x"', "is no recipe of a pretraining: stages: Field required"),
        ('name = "x"\nspeed = 3\n[[stages]]\nsteps = 3', "speed: Extra inputs"),
        ('name = "x"\n[[stages]]\nsteps = 3\ntile_px = 100', r"stages\.0\.tile_px: Input should be a multiple of 32"),
        ('name = "x"\nobjective = "none"\n[[stages]]\nsteps = 3', "objective: Input should be 'episodic'"),
    ],
)
def test_a_file_that_is_no_recipe_is_named_with_its_first_wrong_entry(tmp_path, text, says):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(UnreadableFileError, match=says) as caught:
        read_recipe(path)
    assert "resources/pretraining.toml" in caught.value.hint


def test_a_mark_of_the_byte_order_is_no_part_of_a_recipe(tmp_path):
    path = tmp_path / "notepad.toml"
    path.write_text('name = "Körner"\n[[stages]]\nsteps = 3', encoding="utf-8-sig")
    assert read_recipe(path).name == "Körner"


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UnreadableFileError, match="cannot be read: No such file"):
        read_recipe(tmp_path / "none.toml")
