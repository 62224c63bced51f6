"""Crystals and carbon: coordination, orientation, faults, density, and the potential that they make."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from napari_emtransfer.core.synth import atoms
from napari_emtransfer.core.synth.atoms_carbon import carbon_positions, number_density, structure_factor
from napari_emtransfer.core.synth.atoms_lattices import LATTICES
from napari_emtransfer.core.synth.scattering import ELEMENTS, VOLT_SQUARE_ANGSTROM, Grid, deposit

# Element → distance of the nearest neighbours in Å and their number. Spinels: Fe–O and Co–O as in [F] and [W].
NEIGHBOURS = {
    "Au": {"Au": (2.884, 12)},
    "Fe": {"Fe": (2.482, 8)},
    "Si": {"Si": (2.352, 4)},
    "CdSe": {"Cd": (2.63, 4), "Se": (2.63, 4)},
    "CdSe cubic": {"Cd": (2.62, 4), "Se": (2.62, 4)},
    "PbS": {"Pb": (2.968, 6), "S": (2.968, 6)},
    "Co": {"Co": (2.50, 12)},
}


def neighbours(crystal, within: float) -> dict[str, np.ndarray]:
    """Element → number of atoms within a distance of each atom of it that lies deep inside."""
    everything = np.concatenate(list(crystal.atoms.values()))
    tree = cKDTree(everything)
    found = {}
    for element, positions in crystal.atoms.items():
        deep = positions[np.linalg.norm(positions, axis=1) < 6]
        found[element] = np.array([len(near) - 1 for near in tree.query_ball_point(deep, within)])
    return found


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_bonds_have_their_length_and_number(name):
    crystal = atoms.crystal(LATTICES[name], 12.0, np.random.default_rng(0))
    for element, (distance, n) in NEIGHBOURS[name].items():
        assert (neighbours(crystal, 1.03 * distance)[element] == n).all()
        assert (neighbours(crystal, 0.97 * distance)[element] == 0).all()


@pytest.mark.parametrize("name", ["Fe3O4", "Co3O4"])
def test_spinels_have_tetrahedral_and_octahedral_metals(name):
    crystal = atoms.crystal(LATTICES[name], 14.0, np.random.default_rng(0))
    oxygen = cKDTree(crystal.atoms["O"])
    metal = crystal.atoms[LATTICES[name].elements[0]]
    deep = metal[np.linalg.norm(metal, axis=1) < 8]
    n = np.array([len(near) for near in oxygen.query_ball_point(deep, 2.3)])
    assert set(n) == {4, 6}
    assert (n == 6).mean() == pytest.approx(2 / 3, abs=0.08)


@pytest.mark.parametrize("name", LATTICES)
def test_a_sphere_has_as_many_atoms_as_its_volume(name):
    lattice = LATTICES[name]
    crystal = atoms.crystal(lattice, 18.0, np.random.default_rng(1))
    assert crystal.n == pytest.approx(lattice.density * 4 / 3 * np.pi * 18.0**3, rel=0.03)
    assert max(np.linalg.norm(p, axis=1).max() for p in crystal.atoms.values()) < 18.0


@pytest.mark.parametrize("kind", ["stacking fault", "twin"])
@pytest.mark.parametrize("name", ["Au", "CdSe cubic", "Si"])
def test_a_fault_keeps_every_bond(name, kind):
    lattice = LATTICES[name]
    element = lattice.elements[0]
    distance, n = {"Au": (2.884, 12), "CdSe cubic": (2.62, 4), "Si": (2.352, 4)}[name]
    faulted = atoms.crystal(lattice, 14.0, np.random.default_rng(3), fault=kind)
    assert (neighbours(faulted, 1.03 * distance)[element] == n).all()
    # Second neighbours tell: some have another surrounding than in the perfect crystal.
    perfect = neighbours(atoms.crystal(lattice, 14.0, np.random.default_rng(3)), 1.75 * distance)[element]
    assert len(set(perfect)) == 1
    assert set(neighbours(faulted, 1.75 * distance)[element]) > set(perfect)


def test_wurtzite_keeps_its_bonds_across_a_basal_fault():
    faulted = atoms.crystal(LATTICES["CdSe"], 14.0, np.random.default_rng(2), fault="stacking fault")
    assert (neighbours(faulted, 2.72)["Cd"] == 4).all()


def test_random_rotations_are_rotations_and_have_no_preferred_axis():
    rng = np.random.default_rng(0)
    turned = np.array([atoms.random_rotation(rng) for _ in range(2000)])
    np.testing.assert_allclose(turned @ turned.transpose(0, 2, 1), np.tile(np.eye(3), (2000, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turned), 1)
    np.testing.assert_allclose(turned[:, 2, :].mean(axis=0), 0, atol=0.05)
    # z of a uniform direction is uniform: variance 1/3.
    np.testing.assert_allclose((turned[:, 2, :] ** 2).mean(axis=0), 1 / 3, atol=0.03)


@pytest.mark.parametrize("name", ["Au", "CdSe", "Fe"])
def test_a_zone_axis_lies_along_the_beam_within_its_tilt(name):
    lattice, rng = LATTICES[name], np.random.default_rng(0)
    axes = np.array(lattice.zone_axes) @ lattice.vectors
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    exact = [atoms.zone_axis_rotation(lattice, rng) for _ in range(20)]
    assert all(np.isclose((axes @ r.T)[:, 2].max(), 1) for r in exact)
    tilted = [atoms.zone_axis_rotation(lattice, rng, tilt_deg=2.0) for _ in range(400)]
    angles = np.rad2deg(np.arccos([np.clip((axes @ r.T)[:, 2].max(), -1, 1) for r in tilted]))
    # Two normal components of 2° each: √(mean of squares) is 2√2.
    assert np.sqrt((angles**2).mean()) == pytest.approx(2 * np.sqrt(2), rel=0.1)


def test_facets_cut_a_truncated_octahedron():
    crystal = atoms.crystal(LATTICES["Au"], 15.0, np.random.default_rng(0), shape="faceted")
    positions = crystal.atoms["Au"]
    assert (np.abs(positions).max(axis=0) <= 1.15 * 15).all()
    assert np.abs(positions.sum(axis=1)).max() / np.sqrt(3) <= 15.0
    # Corners reach farther than the facets.
    assert np.linalg.norm(positions, axis=1).max() > 1.15 * 15


def test_a_rough_particle_keeps_its_volume_but_is_no_sphere():
    lattice, rng = LATTICES["Au"], np.random.default_rng(0)
    rough = [atoms.crystal(lattice, 15.0, rng, roughness=0.1) for _ in range(12)]
    assert np.mean([c.n for c in rough]) == pytest.approx(lattice.density * 4 / 3 * np.pi * 15.0**3, rel=0.15)
    reach = [np.linalg.norm(c.atoms["Au"], axis=1).max() / 15.0 for c in rough]
    assert np.mean(reach) > 1.08


def test_carbon_has_its_density_and_no_atoms_on_top_of_each_other():
    assert number_density(2.0) == pytest.approx(0.1003, abs=1e-4)
    positions = carbon_positions((30.0, 30.0, 20.0), 2.0, np.random.default_rng(0))
    assert len(positions) == pytest.approx(0.1003 * 18000, abs=2)
    nearest = cKDTree(positions, boxsize=[30, 30, 0]).query(positions, 2)[0][:, 1]
    assert np.quantile(nearest, 0.02) > 1.1
    free = np.random.default_rng(0).uniform(size=positions.shape) * [30, 30, 20]
    assert np.quantile(cKDTree(free).query(free, 2)[0][:, 1], 0.02) < 0.5


def test_structure_factor_is_shy_at_low_q_and_one_far_out():
    s = structure_factor(np.array([0.0, 0.1, 0.47, 0.85, 3.0]) ** 2)
    assert (s[:2] < 0.12).all()
    assert (s[2:4] > 1.2).all()
    assert s[4] == pytest.approx(1, abs=1e-3)


def test_deposit_counts_atoms_and_keeps_their_place():
    yx = np.array([[10.25, 7.5], [3.0, 4.0], [-5.0, 3.0]])
    counts = deposit(yx, (20, 24))
    assert counts.sum() == pytest.approx(2)
    y, x = np.indices(counts.shape)
    for where, expected in ((y > 6, yx[0]), (y < 6, yx[1])):
        one = counts * where
        assert one.sum() == pytest.approx(1)
        assert ((one * y).sum(), (one * x).sum()) == pytest.approx(tuple(expected), rel=1e-5)


def test_an_atoms_potential_has_the_integral_of_its_scattering_factor():
    grid = Grid((96, 96), 0.1)
    q_squared = grid.q_squared()
    factor = ELEMENTS["Au"].factor(q_squared, 0.6)
    spectrum = np.fft.rfft2(deposit(np.array([[48.3, 47.6]]), grid.shape)) * grid.undo_deposit() * factor
    potential = np.fft.irfft2(spectrum, s=grid.shape) * VOLT_SQUARE_ANGSTROM / 0.1**2
    # ∫V dA = 47.878 f_e(0); f_e(0) of gold is the sum of its amplitudes.
    assert potential.sum() * 0.1**2 == pytest.approx(47.878 * (0.3055 + 1.3945 + 2.9617 + 3.899 + 2.0026), rel=1e-4)


def test_a_potential_does_not_depend_on_the_place_between_pixels():
    grid = Grid((64, 64), 0.2)
    q_squared = grid.q_squared()
    weight = grid.undo_deposit() * grid.band(q_squared) * ELEMENTS["C"].factor(q_squared, 1.0)
    on = np.fft.irfft2(np.fft.rfft2(deposit(np.array([[32.0, 32.0]]), grid.shape)) * weight)
    between = np.fft.irfft2(np.fft.rfft2(deposit(np.array([[32.5, 32.5]]), grid.shape)) * weight)
    assert (between**2).sum() == pytest.approx((on**2).sum(), rel=0.02)
