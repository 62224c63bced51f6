import time

import numpy as np
import pytest
import torch
from nn_helpers import blobs

from napari_emtransfer.core.data.labels import IGNORE_INDEX
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import LabelError
from napari_emtransfer.core.nn.augment import augment, dihedral, jitter_intensity
from napari_emtransfer.core.nn.dataset import PatchSampler
from napari_emtransfer.core.nn.ground import ArrayView, TrainingImage, labelled_windows, training_images


def test_the_same_batch_for_the_same_seed_and_index():
    one, other = (PatchSampler([blobs((200, 150))], 2, crop_px=64, batch_size=3, seed=5) for _ in range(2))
    other.batch(0)
    a, b = one.batch(7), other.batch(7)
    assert np.array_equal(a.images, b.images)
    assert np.array_equal(a.targets, b.targets)
    assert not np.array_equal(a.images, one.batch(8).images)


def test_rare_pixels_are_found():
    targets = np.zeros((1000, 1000), np.uint8)
    targets[700:703, 411:414] = 1
    sampler = PatchSampler([TrainingImage(np.zeros((1000, 1000), np.float32), targets)], 2, crop_px=64, preset="none")
    share = np.mean([(t == 1).any() for i in range(20) for t in sampler.batch(i).targets.numpy()])
    assert share > 0.2  # by chance: 0.4 %


def test_every_crop_holds_a_label():
    image = blobs((900, 900))
    targets = np.full_like(image.targets, IGNORE_INDEX)
    targets[400:404, 100:180] = image.targets[400:404, 100:180]
    sampler = PatchSampler([TrainingImage(image.image, targets)], 2, crop_px=96)
    assert all((t != IGNORE_INDEX).any() for i in range(5) for t in sampler.batch(i).targets.numpy())


@pytest.mark.parametrize("shape", [(20, 300), (300, 7), (1, 5), (63, 64)])
def test_images_smaller_than_the_crop_are_mirrored_without_labels(shape):
    targets = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape) % 2
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    sampler = PatchSampler([TrainingImage(image, targets)], 2, crop_px=64, batch_size=4, preset="none")
    batch = sampler.batch(0)
    assert batch.images.shape == (4, 1, 64, 64)
    labelled = (batch.targets != IGNORE_INDEX).sum(dim=(1, 2))
    assert np.all(labelled.numpy() == min(shape[0], 64) * min(shape[1], 64))
    assert np.isin(batch.images.numpy(), image).all()


def test_image_and_targets_move_together():
    # The image is the mask: whatever is done to both must keep them equal, and an asymmetric mask shows a wrong axis.
    targets = np.zeros((64, 64), np.uint8)
    targets[3:20, 5:50] = 1
    targets[40:45, 2:9] = IGNORE_INDEX
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(80):
        image, moved = augment(targets.astype(np.float32), targets, "basic", rng)
        order = [np.median(image[moved == value]) for value in (0, 1, IGNORE_INDEX)]
        assert order == sorted(order)
        assert order[0] < order[1] < order[2]
        assert set(np.unique(moved)) == {0, 1, IGNORE_INDEX}
        seen.add(moved.tobytes())
    assert len(seen) == 8


def test_eight_different_symmetries():
    array = np.arange(12).reshape(3, 4)
    square = np.arange(16).reshape(4, 4)
    assert len({dihedral(square, e).tobytes() for e in range(8)}) == 8
    assert np.array_equal(dihedral(array, 0), array)


def test_intensity_jitter_is_mild_and_finite():
    rng = np.random.default_rng(0)
    image = rng.standard_normal((64, 64)).astype(np.float32)
    for _ in range(20):
        changed = jitter_intensity(image, rng)
        assert np.corrcoef(image.ravel(), changed.ravel())[0, 1] > 0.95
    assert np.isfinite(jitter_intensity(np.zeros((8, 8), np.float32), rng)).all()


def test_none_leaves_pixels_alone():
    pair = blobs((64, 64))
    image, targets = augment(pair.image, pair.targets, "none", np.random.default_rng(0))
    assert image is pair.image
    assert targets is pair.targets


def test_nothing_labelled_is_refused():
    image = TrainingImage(np.zeros((64, 64), np.float32), np.full((64, 64), IGNORE_INDEX, np.uint8))
    with pytest.raises(LabelError, match="Nothing is labelled"):
        PatchSampler([image], 2)


def test_one_class_only_is_refused():
    with pytest.raises(LabelError, match="Only one class"):
        PatchSampler([TrainingImage(np.zeros((64, 64), np.float32), np.zeros((64, 64), np.uint8))], 2)


@pytest.mark.parametrize("preset", ["none", "basic", "extended"])
def test_fresh_pixels_weigh_more_wherever_they_are_moved(preset):
    # Targets and fresh pixels are one asymmetric pattern: weights must be 3 just where the target is 1.
    targets = np.zeros((90, 70), np.uint8)
    targets[10:60, 5:15] = 1
    targets[50:60, 5:50] = 1
    image = np.random.default_rng(0).standard_normal(targets.shape).astype(np.float32)
    sampler = PatchSampler(
        [TrainingImage(image, targets, targets == 1)], 2, crop_px=64, batch_size=4, preset=preset, new_weight=3
    )
    for index in range(6):
        batch = sampler.batch(index)
        assert batch.weights.shape == batch.targets.shape
        assert torch.equal(batch.weights == 3, batch.targets == 1)
        assert torch.equal(batch.weights == 1, batch.targets != 1)


def test_only_allowed_transforms_are_done():
    image = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    pair = TrainingImage(image, (image % 64 > 40).astype(np.uint8))
    sampler = PatchSampler([pair], 2, crop_px=64, batch_size=8, allowed=frozenset({"horizontal-flip"}))
    crops = {crop.numpy().tobytes() for crop in sampler.batch(0).images}
    assert crops == {image.tobytes(), np.ascontiguousarray(image[:, ::-1]).tobytes()}


def test_weights_of_padding_and_of_images_without_fresh_pixels_are_one():
    small = TrainingImage(blobs((20, 30)).image, blobs((20, 30)).targets, np.ones((20, 30), bool))
    sampler = PatchSampler([small, blobs((100, 100))], 2, crop_px=64, preset="none", new_weight=2)
    for weights in (w for i in range(4) for w in sampler.batch(i).weights):
        assert (weights == 2).sum() in (0, 20 * 30)
        assert torch.all((weights == 1) | (weights == 2))


def test_without_fresh_pixels_there_are_no_weights_and_the_crops_are_the_same():
    pair = blobs((128, 128))
    marked = TrainingImage(pair.image, pair.targets, np.zeros(pair.targets.shape, bool))
    half = TrainingImage(pair.image, pair.targets, pair.targets == 1)
    plain = PatchSampler([pair], 2, crop_px=64).batch(0)
    assert plain.weights is None
    assert PatchSampler([marked], 2, crop_px=64, new_weight=2).batch(0).weights is None
    assert PatchSampler([half], 2, crop_px=64, new_weight=1).batch(0).weights is None
    weighed = PatchSampler([half], 2, crop_px=64, new_weight=2).batch(0)
    assert torch.equal(weighed.images, plain.images)
    assert torch.equal(weighed.targets, plain.targets)


def test_fresh_pixels_are_cut_like_their_labels():
    targets = np.full((3000, 900), IGNORE_INDEX, np.uint8)
    targets[10:200, 20:250] = 0
    targets[2500:2900, 300:600] = 1
    parts = training_images(ArrayView(np.zeros(targets.shape)), targets, crop_px=256, fresh=targets == 1)
    assert len(parts) == 2
    assert all(np.array_equal(part.fresh, part.targets == 1) for part in parts)
    assert training_images(ArrayView(np.zeros(targets.shape)), targets, crop_px=256)[0].fresh is None


def test_only_labelled_parts_are_kept():
    targets = np.full((3000, 4000), IGNORE_INDEX, np.uint8)
    targets[10:200, 20:250] = 0
    targets[2500:2900, 3000:3300] = 1

    class Counting(ArrayView):
        read_pixels = 0

        def read(self, window: Window):
            self.read_pixels += np.prod(window.shape)
            return super().read(window)

    view = Counting(np.random.default_rng(0).standard_normal((3000, 4000)))
    parts = training_images(view, targets, crop_px=256)
    assert len(parts) == 2
    assert view.read_pixels < 0.1 * targets.size
    assert sum((p.targets != IGNORE_INDEX).sum() for p in parts) == (targets != IGNORE_INDEX).sum()


def test_labelled_windows_hold_every_label_once():
    targets = np.full((500, 700), IGNORE_INDEX, np.uint8)
    targets[499, 699] = 0
    targets[0, 0] = 1
    targets[200:300, 300:420] = 1
    windows = labelled_windows(targets, cell_px=64)
    found = sum((targets[w.slices] != IGNORE_INDEX).sum() for w in windows)
    assert found == (targets != IGNORE_INDEX).sum()
    assert labelled_windows(np.full((50, 50), IGNORE_INDEX, np.uint8), cell_px=64) == []


def test_drawing_a_batch_takes_a_fraction_of_a_step():
    sampler = PatchSampler([blobs((512, 512), seed=s) for s in range(3)], 2)
    sampler.batch(0)
    started = time.process_time()
    for index in range(4):
        sampler.batch(index)
    # A training step of the ResNet-18 U-Net on 8 such crops takes more than a second of CPU.
    assert (time.process_time() - started) / 4 < 0.15
