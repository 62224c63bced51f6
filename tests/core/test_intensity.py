import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from napari_emtransfer.core.data.intensity import MAX_FITTED_PIXELS, IntensityScale, Standardization
from napari_emtransfer.core.data.micrograph import Micrograph
from napari_emtransfer.core.data.tiles import Window


@settings(deadline=None, max_examples=25)
@given(gain=st.floats(1e-6, 1e6), offset=st.floats(-1e5, 1e5), seed=st.integers(0, 100))
def test_gain_and_offset_of_the_detector_do_not_matter(gain, offset, seed):
    image = np.random.default_rng(seed).gamma(2, 10, (64, 64))
    changed = image * gain + offset
    fit = Standardization().fit
    # float32 holds seven digits: where the offset swallows the contrast there is nothing to compare.
    if changed.std() < 1e-3 * abs(changed).max():
        return
    np.testing.assert_allclose(fit(image).apply(image), fit(changed).apply(changed), atol=5e-3)


def test_mean_zero_variance_one_and_clipped():
    image = np.random.default_rng(0).normal(1000, 50, (300, 300))
    image[0, :5] = 1e9  # hot pixels
    values = Standardization().fit(image).apply(image)
    assert values.dtype == np.float32
    assert abs(values.mean()) < 1e-3
    assert values.std() == pytest.approx(1, abs=1e-3)
    assert values.max() < 5


def test_constant_image_becomes_zeros():
    for value in (0, 7, 65535):
        image = np.full((50, 50), value, np.uint16)
        values = Standardization().fit(image).apply(image)
        assert not values.any()
        assert np.isfinite(values).all()


def test_rare_bright_particles_on_nothing_survive():
    image = np.zeros((200, 200), np.uint8)
    image[3, 3:6] = 255
    values = Standardization().fit(image).apply(image)
    assert values[3, 4] > 10 * abs(values[0, 0])


def test_info_bar_is_left_out():
    image = np.random.default_rng(0).normal(100, 5, (200, 200)).astype(np.float32)
    with_bar = np.vstack([image, np.full((40, 200), 255, np.float32)])
    bar = Window(y0=200, x0=0, y1=240, x1=200)
    fitted = Standardization().fit(Micrograph("m", with_bar, info_bar=bar))
    assert fitted == Standardization().fit(image)
    assert fitted != Standardization().fit(with_bar)


def test_an_image_that_is_all_bar_still_has_a_scale():
    image = np.random.default_rng(0).random((20, 20)).astype(np.float32)
    bar = Window(y0=0, x0=0, y1=20, x1=20)
    assert Standardization().fit(Micrograph("m", image, info_bar=bar)).std > 0


def test_huge_images_are_sampled_regularly():
    class Counted:
        shape, dtype, n_read = (8192, 8192), np.dtype("u1"), 0

        def __getitem__(self, index):
            values = np.broadcast_to(np.arange(8192, dtype=np.float32)[:, None], self.shape)[index]
            Counted.n_read += values.size
            return values

    scale = Standardization().fit(Micrograph("m", Counted()))
    assert Counted.n_read <= 1.1 * MAX_FITTED_PIXELS
    assert scale.mean == pytest.approx(4095.5, rel=2e-3)


def test_policy_survives_json_and_refuses_nonsense():
    policy = Standardization(low_percentile=1, high_percentile=98)
    assert Standardization.model_validate_json(policy.model_dump_json()) == policy
    scale = IntensityScale(low=0, high=1, mean=0.5, std=0.1)
    assert IntensityScale.model_validate_json(scale.model_dump_json()) == scale
    with pytest.raises(ValidationError, match="must lie below"):
        Standardization(low_percentile=60, high_percentile=40)
