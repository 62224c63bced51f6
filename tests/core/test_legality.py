from typing import get_args

import numpy as np
import pytest

from napari_emtransfer.core.config import AugmentPreset, Modality
from napari_emtransfer.core.errors import AugmentationError
from napari_emtransfer.core.legality import (
    ALL,
    MODALITIES,
    PRESETS,
    TRANSFORMS,
    allowed_transforms,
    left_out,
    legal_symmetries,
    symmetries,
    transform_entry,
    verdict,
)
from napari_emtransfer.core.nn.augment import dihedral

MODALITY_IDS = get_args(Modality)


@pytest.mark.parametrize("modality", MODALITY_IDS)
def test_every_transform_has_a_verdict_a_reason_in_one_sentence_and_a_source(modality):
    for transform in TRANSFORMS:
        said = verdict(modality, transform)
        assert said.reason.endswith("."), transform
        assert ". " not in said.reason, transform
        assert said.source, transform


def test_names_for_the_user_are_complete():
    assert tuple(entry.id for entry in MODALITIES) == MODALITY_IDS
    assert len({entry.name for entry in MODALITIES}) == len(MODALITY_IDS)
    assert all(transform_entry(name).what.endswith(".") for name in TRANSFORMS)
    assert set(PRESETS) == set(get_args(AugmentPreset))
    assert all(set(names) <= ALL for names in PRESETS.values())


@pytest.mark.parametrize(
    ("modality", "illegal"),
    [
        ("ebsd", {"rotation", "horizontal-flip", "quarter-turn", "brightness", "blur", "gaussian-noise"}),
        ("directional", {"vertical-flip", "quarter-turn"}),
        ("weld", {"vertical-flip", "quarter-turn"}),
        ("eels", {"brightness", "contrast", "gamma"}),
        ("eds", {"brightness", "contrast", "gamma"}),
        ("haadf", {"brightness", "contrast", "gamma"}),
        ("metric", {"scale", "elastic"}),
        ("hrtem", {"scale", "elastic", "scan-jitter"}),
    ],
)
def test_what_the_field_forbids(modality, illegal):
    assert not illegal & allowed_transforms(modality)


def test_equiaxed_structures_may_be_transformed_at_will():
    assert allowed_transforms("equiaxed") == ALL


def test_an_override_allows_just_what_it_names():
    assert allowed_transforms("ebsd", ("rotation",)) == allowed_transforms("ebsd") | {"rotation"}
    assert "rotation" in left_out("ebsd", "extended")
    assert "rotation" not in left_out("ebsd", "extended", ("rotation",))
    assert "elastic" in left_out("ebsd", "extended", ("rotation",))


def test_an_unknown_transform_is_named():
    with pytest.raises(AugmentationError, match=r"'rotate'.*There are horizontal-flip"):
        allowed_transforms("sem", ("rotate",))
    with pytest.raises(AugmentationError, match="'sharpen'"):
        verdict("sem", "sharpen")


def test_symmetries_follow_from_what_is_legal():
    assert legal_symmetries("sem") == tuple(range(8))
    assert legal_symmetries("ebsd") == (0,)
    assert legal_symmetries("weld") == legal_symmetries("directional") == (0, 4)
    assert legal_symmetries("ebsd", ("vertical-flip",)) == (0, 6)
    assert legal_symmetries("time", ("horizontal-flip", "vertical-flip")) == (0, 2, 4, 6)


@pytest.mark.parametrize("modality", MODALITY_IDS)
def test_no_symmetry_contains_a_forbidden_flip(modality):
    allowed = allowed_transforms(modality)
    assert ("horizontal-flip" in allowed) == (4 in symmetries(allowed))
    assert ("vertical-flip" in allowed) == (6 in symmetries(allowed))
    assert ("quarter-turn" in allowed) == (1 in symmetries(allowed))


@pytest.mark.parametrize("names", [(), ("horizontal-flip",), ("quarter-turn",), ("quarter-turn", "vertical-flip")])
def test_symmetries_are_a_group(names):
    square = np.arange(9).reshape(3, 3)
    elements = symmetries(frozenset(names))
    images = {dihedral(square, e).tobytes() for e in elements}
    assert {dihedral(dihedral(square, a), b).tobytes() for a in elements for b in elements} == images


def test_the_numbers_of_flips_are_those_of_the_dihedral_group():
    square = np.arange(9).reshape(3, 3)
    np.testing.assert_array_equal(dihedral(square, 4), square[:, ::-1])
    np.testing.assert_array_equal(dihedral(square, 6), square[::-1])
    np.testing.assert_array_equal(dihedral(square, 2), square[::-1, ::-1])
