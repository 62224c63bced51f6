import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from napari_emtransfer.core.data.labels import IGNORE_INDEX, LabelClass, LabelSchema, from_targets, to_targets


@given(arrays(np.uint8, (5, 7), elements=st.integers(0, 254)))
def test_targets_and_labels_are_inverse(mask):
    targets = to_targets(mask)
    np.testing.assert_array_equal(targets == IGNORE_INDEX, mask == 0)
    np.testing.assert_array_equal(targets[mask > 0], mask[mask > 0] - 1)
    np.testing.assert_array_equal(from_targets(targets), mask)


def test_a_schema_numbers_its_classes_without_a_gap():
    schema = LabelSchema.from_names(["matrix", "pore"])
    assert [c.value for c in schema.classes] == [1, 2]
    with pytest.raises(ValidationError, match=r"1\.\.K"):
        LabelSchema(classes=(LabelClass(value=2, name="pore", color="#000000"),))
    with pytest.raises(ValidationError, match="share a name"):
        LabelSchema.from_names(["pore", "pore"])
