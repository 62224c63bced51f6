import numpy as np
import pytest

from napari_emtransfer.core.data.labels import IGNORE_INDEX
from napari_emtransfer.core.nn.augment import augment, bend


def asymmetric():
    """An L, half of it unlabelled: image 1 on the L, 0 elsewhere."""
    targets = np.zeros((128, 128), np.uint8)
    targets[20:100, 20:45] = 1
    targets[75:100, 20:90] = 1
    image = targets.astype(np.float32)
    targets[60:, :] = np.where(targets[60:, :] == 1, IGNORE_INDEX, targets[60:, :])
    return image, targets


@pytest.mark.parametrize("seed", range(12))
def test_image_and_mask_bend_together(seed):
    image, _ = asymmetric()
    bent, mask = bend(image, image.astype(np.uint8), seed=seed)
    assert np.mean((bent > 0.5) != (mask == 1)) < 0.01


def test_masks_are_never_mixed():
    image, targets = asymmetric()
    assert all(set(np.unique(bend(image, targets, seed=s)[1])) <= {0, 1, IGNORE_INDEX} for s in range(20))


def test_something_is_bent_and_the_same_seed_bends_alike():
    image, targets = asymmetric()
    assert any(not np.array_equal(bend(image, targets, seed=s)[1], targets) for s in range(4))
    for one, other in zip(bend(image, targets, seed=5), bend(image, targets, seed=5), strict=True):
        np.testing.assert_array_equal(one, other)


def test_standardised_intensities_are_not_clipped():
    image = np.random.default_rng(0).normal(0, 3, (128, 128)).astype(np.float32)
    bent, _ = augment(image, np.zeros((128, 128), np.uint8), "extended", np.random.default_rng(1))
    assert bent.dtype == np.float32
    assert bent.min() < -1
    assert bent.max() > 1
