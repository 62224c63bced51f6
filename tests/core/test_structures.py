import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import ndimage

from napari_emtransfer.core.synth import laths
from napari_emtransfer.core.synth.voronoi import GENERATORS

SHAPE = (104, 120)
KINDS = sorted(GENERATORS)
# Things on top of each other: their edges are found between pixels.
PILED = ("agglomerates", "fibres")


def grid(shape=SHAPE):
    return tuple(np.mgrid[: shape[0], : shape[1]].astype(float))


def made(name, seed=0, shape=SHAPE, **given_settings):
    return GENERATORS[name](**given_settings)(*grid(shape), np.random.default_rng(seed))


def check(structure, shape):
    for field in (structure.grey, structure.phases, structure.boundary_px, structure.instances):
        assert field.shape == shape
    assert structure.grey.dtype == structure.boundary_px.dtype == np.float64
    assert structure.phases.dtype == np.uint8
    assert structure.instances.dtype == np.int32
    assert structure.grey.min() >= 0
    assert structure.grey.max() <= 1
    assert np.isfinite(structure.boundary_px).all()
    assert structure.boundary_px.min() >= 0
    assert structure.instances.min() >= 0
    assert 1 <= structure.phases.min() <= structure.phases.max() <= len(structure.classes)
    assert len(set(structure.classes)) == len(structure.classes) >= 2
    assert structure.omits
    assert all(clause and clause == clause.strip() for clause in structure.omits)


def test_all_kinds_of_structure_are_there():
    assert set(GENERATORS) >= {
        "equiaxed",
        "columnar",
        "bimodal",
        "twins",
        "two-phase",
        "three-phase",
        "pearlite",
        "bainite",
        "spheroidal",
        "cuboidal",
        "needles",
        "pores",
        "cracks",
        "fibres",
        "agglomerates",
        "core-shell",
    }


@pytest.mark.parametrize("name", KINDS)
def test_labels_are_exhaustive_and_every_class_occurs(name):
    structures = [made(name, seed, (160, 176)) for seed in range(2)]
    for structure in structures:
        check(structure, (160, 176))
        assert structure.grey.std() > 0.01
    phases = np.concatenate([s.phases.ravel() for s in structures])
    assert set(np.unique(phases)) == set(range(1, len(structures[0].classes) + 1))


@pytest.mark.parametrize("name", ["pearlite", "ferrite-pearlite"])
def test_many_forks_of_lamellae_stay_within_the_range_of_numbers(name):
    """As many as a large picture has: their phases are a product."""
    structure = made(name, shape=(600, 120), faults=1500)
    check(structure, (600, 120))
    assert set(np.unique(structure.phases)) == {1, 2}


def test_laths_are_numbered_alike_with_and_without_a_table(monkeypatch):
    one = made("bainite", 3)
    monkeypatch.setattr(laths, "_KEYS_PER_PIXEL", 0)
    np.testing.assert_array_equal(one.instances, made("bainite", 3).instances)


@pytest.mark.parametrize("name", KINDS)
def test_same_seed_same_pixels_other_seed_others(name):
    one, again, other = (made(name, seed) for seed in (4, 4, 5))
    for field in ("grey", "phases", "boundary_px", "instances"):
        np.testing.assert_array_equal(getattr(one, field), getattr(again, field))
    assert np.mean(one.grey != other.grey) > 0.5
    assert np.any(one.instances != other.instances)


@pytest.mark.parametrize("name", KINDS)
def test_image_and_labels_move_together_with_the_beam(name):
    # Each row is rolled by its own step: the same plane, seen elsewhere.
    y, x = grid()
    steps = np.random.default_rng(9).integers(0, SHAPE[1], SHAPE[0])
    rolled = (x + steps[:, None]) % SHAPE[1]
    straight = GENERATORS[name]()(y, x, np.random.default_rng(1))
    moved = GENERATORS[name]()(y, rolled, np.random.default_rng(1))
    columns = rolled.astype(int)
    for field in ("phases", "instances"):
        np.testing.assert_array_equal(getattr(moved, field), np.take_along_axis(getattr(straight, field), columns, 1))
    for field in ("grey", "boundary_px"):
        np.testing.assert_allclose(
            getattr(moved, field), np.take_along_axis(getattr(straight, field), columns, 1), atol=1e-5
        )


@pytest.mark.parametrize("name", KINDS)
def test_distances_to_boundaries_are_true(name):
    # Against the same structure sampled four times as finely: where the label really changes.
    n, fine = 72, 4
    y, x = grid((n, n))
    fine_y, fine_x = np.mgrid[: (n - 1) * fine + 1, : (n - 1) * fine + 1] / fine
    coarse, dense = (GENERATORS[name]()(*at, np.random.default_rng(3)) for at in ((y, x), (fine_y, fine_x)))
    np.testing.assert_array_equal(dense.phases[::fine, ::fine], coarse.phases)
    labels = dense.phases if name == "core-shell" else dense.instances
    change = np.zeros(labels.shape, bool)
    change[:-1] |= labels[1:] != labels[:-1]
    change[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    assert change.any()
    true = ndimage.distance_transform_edt(~change)[::fine, ::fine] / fine
    inner = np.zeros((n, n), bool)
    inner[8:-8, 8:-8] = True
    near = inner & (true < 4)
    wrong = np.abs(coarse.boundary_px - true)[near]
    assert np.percentile(wrong, 95) < (0.9 if name in PILED else 0.55)  # the fine grid itself: a quarter of a px
    assert np.mean(wrong) < (0.5 if name in PILED else 0.2)


@pytest.mark.parametrize("name", KINDS)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=3, deadline=None)
def test_drawn_settings_work_and_survive_json(name, seed):
    rng = np.random.default_rng(seed)
    drawn = GENERATORS[name].draw(rng)
    assert GENERATORS[name].model_validate_json(drawn.model_dump_json()) == drawn
    assert json.loads(drawn.model_dump_json())
    structure = drawn(*grid((96, 80)), rng)
    check(structure, (96, 80))


@pytest.mark.parametrize("name", KINDS)
def test_drawn_settings_differ(name):
    rng = np.random.default_rng(0)
    assert len({GENERATORS[name].draw(rng).model_dump_json() for _ in range(5)}) == 5


def share(name, phase, **given_settings):
    return np.mean([np.mean(made(name, s, (256, 256), **given_settings).phases == phase) for s in range(3)])


@pytest.mark.parametrize("fraction", [0.15, 0.5])
@pytest.mark.parametrize("morphology", ["grains", "regions"])
def test_fractions_of_mixtures(morphology, fraction):
    kind = {"morphology": morphology, "grain_px": 20.0}
    assert share("two-phase", 2, fraction=fraction, **kind) == pytest.approx(fraction, abs=0.04)
    three = {"second_fraction": fraction, "third_fraction": 0.1, **kind}
    assert share("three-phase", 2, **three) == pytest.approx(fraction, abs=0.04)
    assert share("three-phase", 3, **three) == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize(
    ("name", "fraction", "more"),
    [
        ("spheroidal", 0.08, {"clustering": 0.0}),
        ("spheroidal", 0.25, {"clustering": 0.5, "diameter_px": 12.0}),
        ("cuboidal", 0.35, {"size_px": 24.0, "channel_px": 4.0}),
        ("needles", 0.12, {}),
        ("pores", 0.12, {"raggedness": 0.0, "diameter_px": 12.0, "clustering": 0.0}),
        ("bimodal", 0.4, {"coarse_px": 50.0, "fine_px": 10.0}),
    ],
)
def test_fractions_of_bodies(name, fraction, more):
    key = "coarse_fraction" if name == "bimodal" else "fraction"
    assert share(name, 2, **{key: fraction}, **more) == pytest.approx(fraction, rel=0.3)


def test_ferrite_takes_its_share_of_the_grains():
    settings_ = {"ferrite_fraction": 0.5, "colony_px": 25.0, "spacing_px": 5.0}
    assert share("ferrite-pearlite", 1, **settings_) == pytest.approx(0.5, abs=0.05)
    assert share("pearlite", 2, ferrite_fraction=0.0, broken=0.0, cementite_share=0.3) == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize("name", ["equiaxed", "columnar", "two-phase", "spheroidal", "core-shell", "pearlite"])
def test_instances_are_connected(name):
    structure = made(name, 2, (192, 192))
    whole = []
    for number in np.unique(structure.instances[structure.instances > 0]):
        body = structure.instances == number
        parts = ndimage.label(body, np.ones((3, 3)))[0]
        whole.append(np.bincount(parts.ravel())[1:].max() / body.sum())
    assert len(whole) > 3
    assert np.mean(whole) > 0.99


@pytest.mark.parametrize("name", ["spheroidal", "cuboidal", "needles", "pores", "cracks", "core-shell", *PILED])
def test_matrix_is_no_instance_and_bodies_are(name):
    structure = made(name, 1)
    np.testing.assert_array_equal(structure.instances > 0, structure.phases > 1)


def test_twins_lie_inside_grains_and_are_instances_of_their_own():
    structure = made("twins", 0, (192, 192), twinned=1.0)
    for number in np.unique(structure.instances):
        assert len(np.unique(structure.phases[structure.instances == number])) == 1
    assert 0.05 < np.mean(structure.phases == 2) < 0.7
    without = made("twins", 0, (192, 192), twinned=0.0)
    assert np.all(without.phases == 1)


def test_boundary_class_has_its_width():
    structure = made("equiaxed", 0, boundary_label_px=6.0)
    np.testing.assert_array_equal(structure.phases == 2, structure.boundary_px < 3)


def test_columns_are_long_along_their_direction():
    for angle in (0.0, np.pi / 2):
        structure = made("columnar", 0, (200, 200), direction_rad=angle, aspect=6.0, coarsening=0.0)
        changes = [np.mean(np.diff(structure.instances, axis=axis) != 0) for axis in (0, 1)]
        along, across = (changes[1], changes[0]) if angle == 0 else (changes[0], changes[1])
        assert across > 2.5 * along


def test_labels_follow_the_grey_of_a_flat_image():
    # With texture, relief and finish off, the phase alone decides the grey.
    flat = {"finish": {"grain": 0, "mottle": 0, "scratches": 0, "specks": 0}, "edge": {"rim": 0, "shade": 0}}
    looks = {
        "matrix": {"level": 0.7, "spread": 0, "amplitude": 0},
        "precipitate": {"level": 0.3, "spread": 0, "amplitude": 0},
    }
    structure = made("spheroidal", 0, **flat, **looks)
    sure = structure.boundary_px > 1
    np.testing.assert_array_equal((structure.grey < 0.5)[sure], (structure.phases == 2)[sure])


def test_impossible_settings_are_refused():
    with pytest.raises(ValidationError, match="leave nothing for the first phase"):
        GENERATORS["three-phase"](second_fraction=0.7, third_fraction=0.4)
    with pytest.raises(ValidationError, match="grain_px"):
        GENERATORS["equiaxed"](grain_px=0)
    with pytest.raises(ValidationError, match="no_such"):
        GENERATORS["equiaxed"](no_such=1)
