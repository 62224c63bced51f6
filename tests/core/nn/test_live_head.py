import numpy as np
import pytest
import torch

from napari_emtransfer.core.config import ModelConfig
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import LabelError
from napari_emtransfer.core.nn.features import FeatureSource, FrozenNetwork, adapted, fingerprint, with_relative
from napari_emtransfer.core.nn.filters import N_FILTERS
from napari_emtransfer.core.nn.ground import ArrayView
from napari_emtransfer.core.nn.live import MAX_PIXELS, LabelledPixels, LiveHead, balanced
from napari_emtransfer.core.nn.model import build_model
from napari_emtransfer.core.synth.voronoi import Imaging, two_phase

TINY = ModelConfig(encoder="tu-test_resnet", n_classes=3)
CPU = torch.device("cpu")


def standardized(image):
    image = image.astype(np.float32)
    return (image - image.mean()) / image.std()


def synthetic(seed, size=160):
    made = two_phase((size, size), kind="precipitate", imaging=Imaging.random(np.random.default_rng(3)), seed=seed)
    return ArrayView(standardized(made.image)), made.mask


def everything(view):
    return Window(y0=0, x0=0, y1=view.shape[0], x1=view.shape[1])


def strokes(mask, seed=0, n=5, length=20):
    """Five horizontal strokes, 3 px wide, in each class."""
    rng = np.random.default_rng(seed)
    labels = np.zeros_like(mask)
    for value in np.unique(mask):
        for i in rng.choice(np.argwhere(mask == value), n):
            part = (slice(max(0, i[0] - 1), i[0] + 2), slice(i[1], i[1] + length))
            labels[part] = np.where(mask[part] == value, value, labels[part])
    return labels


def pixels(features, labels):
    inside = labels > 0
    return LabelledPixels(features[:, inside].T, labels[inside] - 1)


def iou(predicted, mask):
    return np.mean([((predicted == v) & (mask == v)).sum() / ((predicted == v) | (mask == v)).sum() for v in (1, 2)])


def test_ten_strokes_on_one_micrograph_are_enough_for_another_of_its_kind():
    source, head = FeatureSource(), LiveHead(2)
    (view, mask), (other, other_mask) = synthetic(0), synthetic(1)
    features = with_relative(source(view, everything(view)), source.statistics(view))
    head.fit([pixels(features, strokes(mask))])
    probabilities = head.predict(with_relative(source(other, everything(other)), source.statistics(other)))
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)
    assert iou(probabilities.argmax(axis=0) + 1, other_mask) > 0.8


def random_pixels(n_per_class, n_features=6, seed=0):
    rng = np.random.default_rng(seed)
    classes = np.repeat(np.arange(len(n_per_class)), n_per_class).astype(np.uint8)
    features = rng.normal(size=(len(classes), n_features)) + classes[:, None]
    return LabelledPixels(features.astype(np.float16), classes)


def test_a_class_without_labels_gets_no_probability():
    head = LiveHead(4)
    found = random_pixels((50, 0, 60))
    assert head.fit([found]) == 110
    probabilities = head.predict(np.random.default_rng(1).normal(size=(6, 9, 7)).astype(np.float16))
    assert probabilities.shape == (4, 9, 7)
    assert (probabilities[[1, 3]] == 0).all()
    assert (probabilities[[0, 2]].max(axis=(1, 2)) > 0).all()


@pytest.mark.parametrize("parts", [[], [random_pixels((0, 0, 40))]])
def test_fewer_than_two_classes_cannot_be_told_apart(parts):
    with pytest.raises(LabelError, match="two"):
        LiveHead(3).fit(parts)


def test_the_same_labels_and_seed_give_the_same_probabilities():
    features = np.random.default_rng(1).normal(size=(6, 9, 7)).astype(np.float16)
    found = []
    for seed in (0, 0, 1):
        head = LiveHead(2, seed=seed)
        head.fit([random_pixels((MAX_PIXELS, MAX_PIXELS))])
        found.append(head.predict(features))
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


def test_a_rare_class_keeps_all_its_pixels_and_the_others_share_the_rest():
    parts = [random_pixels((9000, 40, 300)), random_pixels((3000, 10, 5000), seed=1)]
    features, classes = balanced(parts, 1000, seed=0)
    assert len(features) == len(classes) == 1000
    assert np.bincount(classes).tolist() == [475, 50, 475]


def test_pixels_in_view_take_up_to_half_of_the_share():
    elsewhere = random_pixels((4000, 4000))
    here = random_pixels((100, 1000), seed=1)
    here = LabelledPixels(here.features + np.float16(100), here.classes, in_view=True)
    features, classes = balanced([elsewhere, here], 1000, seed=0)
    in_view = features[:, 0] > 50
    assert np.bincount(classes[in_view])[0] == 100
    assert 250 <= np.bincount(classes[in_view])[1] < 400


@pytest.mark.parametrize(("part", "n"), [("encoder", None), ("decoder", 16 + 3)])
def test_features_of_a_network_join_the_filters(part, n):
    torch.manual_seed(0)
    model = build_model(TINY)
    source = FeatureSource(FrozenNetwork(model, part, CPU))
    view, _ = synthetic(0)
    features = source(view, Window(y0=10, x0=20, y1=75, x1=90))
    assert features.dtype == np.float16
    assert features.shape[1:] == (65, 70)
    assert features.shape[0] > N_FILTERS
    assert n is None or features.shape[0] == N_FILTERS + n
    np.testing.assert_array_equal(features, source(view, Window(y0=10, x0=20, y1=75, x1=90)))


def test_features_of_a_network_lie_on_their_pixels():
    """The logits among the decoder's features are those of the network itself at the same place."""
    torch.manual_seed(0)
    model = build_model(TINY).eval()
    view, _ = synthetic(0)
    features = FrozenNetwork(model, "decoder", CPU)(view, Window(y0=64, x0=32, y1=96, x1=96))
    y0, x0 = 64 - 64, 32 - 64  # what is read, mirrored at the left
    image = np.pad(view.read(everything(view)), ((0, 0), (64, 64)), mode="symmetric")[y0 : y0 + 160, x0 + 64 :][:, :192]
    with torch.inference_mode():
        logits = model(torch.from_numpy(image)[None, None])[0].numpy()
    np.testing.assert_allclose(features[-3:], logits[:, 64:96, 64:128], atol=1e-4)


def test_adapting_changes_the_norms_and_with_them_the_fingerprint():
    torch.manual_seed(0)
    model = build_model(TINY)
    before = fingerprint(model)
    views = [synthetic(i)[0] for i in range(3)]
    after = fingerprint(adapted(model, views))
    assert before != after
    torch.manual_seed(0)
    assert fingerprint(adapted(build_model(TINY), views)) == after


def test_a_head_at_random_is_no_part_of_the_fingerprint_of_what_lies_before_it():
    torch.manual_seed(0)
    model = build_model(TINY)
    before = {part: FrozenNetwork(model, part, CPU).fingerprint for part in ("encoder", "decoder-maps", "decoder")}
    with torch.no_grad():
        for parameter in model.segmentation_head.parameters():
            parameter.add_(1)
    after = {part: FrozenNetwork(model, part, CPU).fingerprint for part in before}
    assert {part for part in before if before[part] != after[part]} == {"decoder"}
    with torch.no_grad():
        next(model.encoder.parameters()).add_(1)
    assert not set(after.values()) & {FrozenNetwork(model, part, CPU).fingerprint for part in before}


def test_relative_features_are_standardised_over_the_micrograph_and_come_second():
    source = FeatureSource()
    view, _ = synthetic(0)
    features = source(view, everything(view))
    both = with_relative(features, source.statistics(view)).astype(np.float32)
    assert both.shape == (2 * N_FILTERS, *view.shape)
    np.testing.assert_array_equal(both[:N_FILTERS], features)
    np.testing.assert_allclose(both[N_FILTERS:].mean(axis=(1, 2)), 0, atol=0.02)
    np.testing.assert_allclose(both[N_FILTERS:].std(axis=(1, 2)), 1, atol=0.02)


def test_statistics_of_a_large_micrograph_come_from_windows_spread_over_it():
    image = np.random.default_rng(0).normal(size=(900, 700)).astype(np.float32)
    image[450:] += 3
    mean, std = FeatureSource().statistics(ArrayView(image)).astype(np.float32)[..., 0][:, 1 * 4]
    np.testing.assert_allclose([mean, std], [1.5, np.sqrt(1.5**2 + 1 / (4 * np.pi))], atol=0.05)


def test_a_constant_micrograph_has_finite_relative_features():
    view = ArrayView(np.zeros((40, 40), np.float32))
    source = FeatureSource()
    assert np.isfinite(with_relative(source(view, everything(view)), source.statistics(view))).all()
