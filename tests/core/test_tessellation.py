import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_emtransfer.core.synth.junctions import junction_angles
from napari_emtransfer.core.synth.levelset import region, signed_distance
from napari_emtransfer.core.synth.placing import place
from napari_emtransfer.core.synth.plane import Plane
from napari_emtransfer.core.synth.tessellation import bent_cells, relax, tessellate


def brute_force(y, x, points, weights, metric):
    """Cell and distance to the nearest of all its boundaries, from the definition."""
    seeds = points @ metric.T
    pixels = np.stack([y, x], axis=-1) @ metric.T
    power = ((pixels[:, :, None] - seeds) ** 2).sum(axis=-1) - weights
    own = power.argmin(axis=-1)
    normal = points @ (metric.T @ metric)
    apart = np.linalg.norm(normal - normal[own][:, :, None], axis=-1)
    with np.errstate(all="ignore"):
        boundary = (power - power.min(axis=-1, keepdims=True)) / (2 * apart)
    boundary[np.arange(len(points)) == own[..., None]] = np.inf
    return own, boundary.min(axis=-1)


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 250),
    spread=st.sampled_from([0.0, 60.0, 900.0]),
    heavy=st.booleans(),
    aspect=st.floats(0.3, 3),
)
@settings(max_examples=40, deadline=None)
def test_cells_and_distances_are_those_of_the_definition(seed, n, spread, heavy, aspect):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:45, :52].astype(float)
    x = x + rng.normal(0, 0.7, (45, 1))
    points, weights = rng.uniform(-15, 65, (n, 2)), rng.uniform(0, spread, n)
    if heavy:  # weights of two orders of magnitude, as in a bimodal structure
        weights *= np.where(rng.uniform(size=n) < 0.1, 1, 0.01)
    metric = np.array([[1.0, 0.2], [0.2, aspect]])
    cells = tessellate(y, x, points, weights, metric=metric)
    own, boundary = brute_force(y, x, points, weights, metric)
    np.testing.assert_array_equal(cells.ids, own)
    np.testing.assert_allclose(cells.boundary, boundary, atol=1e-9)
    assert np.all(cells.ids != cells.other)
    np.testing.assert_allclose(np.hypot(cells.normal_y, cells.normal_x), 1)


def test_the_normal_points_across_the_nearest_boundary():
    y, x = np.mgrid[:40, :40].astype(float)
    cells = tessellate(y, x, np.array([[20.0, 10.0], [20.0, 30.0]]))
    np.testing.assert_allclose(cells.normal_x, np.where(x < 20, 1, -1)[:, :], atol=1e-12)
    np.testing.assert_allclose(cells.boundary, np.abs(x - 20), atol=1e-12)


def test_distances_in_a_bent_plane_are_those_on_the_paper():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:120, :120].astype(float)
    plane = Plane(y, x)
    bend = plane.bend(6.0, 30.0, rng)  # slopes of about 0.2
    points = plane.scatter(30, 20, rng)
    wrong = []
    for cells in (bent_cells(bend, points), tessellate(bend.y, bend.x, points)):
        edge = (cells.ids[:, 1:] == cells.other[:, :-1]) & (np.abs(cells.normal_x[:, 1:]) > 0.8)
        # Between two pixels on either side of a boundary their distances add up to the step across it.
        across = (cells.boundary[:, 1:] + cells.boundary[:, :-1])[edge] / np.abs(cells.normal_x[:, 1:][edge])
        assert len(across) > 100
        wrong.append(np.percentile(np.abs(across - 1), 90))
    assert wrong[0] < 0.02
    assert wrong[1] > 0.1  # so much would be wrong without a correction


def test_angles_at_triple_junctions_approach_120_degrees():
    rng = np.random.default_rng(0)
    points = rng.uniform(size=(1500, 2)) * 500
    spread = {}
    for steps in (0, 1, 5, 20):
        angles = junction_angles(relax(points, steps, rng))
        assert len(angles) > 3000
        assert np.mean(angles) == pytest.approx(120)
        np.testing.assert_allclose(angles.reshape(-1, 3).sum(axis=1), 360)
        spread[steps] = np.std(angles)
    for steps, expected in {0: 29.6, 1: 21.4, 5: 15.3, 20: 11.6}.items():
        assert spread[steps] == pytest.approx(expected, rel=0.05)


def test_regular_hexagons_have_120_degrees():
    row, column = np.mgrid[:12, :12]
    points = np.stack([row * np.sqrt(3) / 2, column + 0.5 * (row % 2)], axis=-1).reshape(-1, 2)
    np.testing.assert_allclose(junction_angles(points, margin=0.2), 120, atol=1e-6)


def test_relaxation_evens_out_areas_and_keeps_seeds_without_samples():
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:200, :200].astype(float)
    points = rng.uniform(0, 200, (150, 2))
    areas = [np.bincount(tessellate(y, x, relax(points, n, rng)).ids.ravel(), minlength=150) for n in (0, 5)]
    assert np.std(areas[1]) < 0.5 * np.std(areas[0])
    weights = np.where(np.arange(150) == 0, 1e5, 0.0)  # one cell that swallows all
    assert np.all(np.isfinite(relax(points, 2, rng, weights=weights)))


@given(seed=st.integers(0, 10**6), n=st.integers(1, 200), gap=st.floats(0, 6))
@settings(max_examples=25, deadline=None)
def test_placed_discs_keep_their_distance(seed, n, gap):
    rng = np.random.default_rng(seed)
    plane = Plane(*np.mgrid[:120, :90].astype(float))
    radii = rng.lognormal(1.2, 0.7, n)
    centres, kept = place(plane, radii, gap, 10.0, rng)
    assert 0 < len(kept) <= n
    assert len(np.unique(kept)) == len(kept)
    distance = np.linalg.norm(centres[:, None] - centres, axis=-1) - radii[kept] - radii[kept][:, None]
    assert np.min(distance[~np.eye(len(kept), dtype=bool)], initial=np.inf) >= gap
    largest = radii.argmax()
    assert largest in kept  # large ones have the first choice


def test_discs_stay_where_they_may():
    plane = Plane(*np.mgrid[:100, :100].astype(float))
    where = np.zeros(plane.shape)
    where[:, : plane.shape[1] // 2] = 1
    centres, _ = place(plane, np.full(300, 2.0), 1.0, 0.0, np.random.default_rng(0), where=where)
    assert len(centres) > 50
    assert np.all(centres[:, 1] - plane.left < plane.shape[1] // 2)


@pytest.mark.parametrize("scale", [0.2, 1.0, 7.0])
def test_signed_distance_of_a_disc_and_of_a_stripe(scale):
    y, x = np.mgrid[:150, :160].astype(float)
    for exact in (40.3 - np.hypot(y - 71.2, x - 80.7), 30.4 - np.abs(0.8 * (y - 75) + 0.6 * (x - 80))):
        got = signed_distance(scale * exact)
        inner = (slice(45, -45), slice(45, -45))
        near = np.abs(exact) < 3
        assert np.abs(got - exact)[inner][near[inner]].max(initial=0) < 0.08
        assert np.abs(got - exact)[inner].max() < 0.8
        clear = np.abs(exact) > 1e-6
        np.testing.assert_array_equal((got > 0)[clear], (exact > 0)[clear])


def test_a_level_without_zeros_is_far_from_any_edge():
    assert np.all(signed_distance(np.ones((20, 30))) > 35)
    plane = Plane(*np.mgrid[:20, :30].astype(float))
    nothing = region(plane, -np.ones(plane.shape))
    assert not nothing.inside.any()
    assert np.all(nothing.depth < 0)


def test_a_region_is_seen_at_its_coordinates():
    y, x = np.mgrid[:80, :80].astype(float)
    plane = Plane(y, x + 0.37)
    rows, columns = plane.grid()
    body = region(plane, 20 - np.hypot(rows - 40, columns - 40))
    exact = 20 - np.hypot(y - 40, x + 0.37 - 40)
    near = np.abs(exact) < 3
    assert np.abs(body.depth - exact)[near].max() < 0.1
    np.testing.assert_array_equal(body.inside[np.abs(exact) > 0.1], (exact > 0)[np.abs(exact) > 0.1])
    assert set(np.unique(body.ids)) == {0, 1}


def test_textures_have_their_scale_and_variance():
    plane = Plane(*np.mgrid[:256, :256].astype(float))
    rng = np.random.default_rng(0)
    for scale in (1.5, 4.0, 12.0):
        field = plane.texture(scale, rng)
        assert np.std(field) == pytest.approx(1, abs=0.25)
        lag = round(2 * scale)  # correlation of a field smoothed with σ: exp(−r²/4σ²)
        correlation = np.mean(field[:, lag:] * field[:, :-lag]) / np.mean(field**2)
        assert correlation == pytest.approx(np.exp(-((lag / scale) ** 2) / 4), abs=0.12)
