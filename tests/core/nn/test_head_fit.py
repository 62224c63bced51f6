"""A new head fitted in closed form on a decoder that knows something."""

import numpy as np
import pytest
import torch
from torch import nn

from napari_emtransfer.core.config import ModelConfig
from napari_emtransfer.core.data.labels import IGNORE_INDEX
from napari_emtransfer.core.nn.ground import TrainingImage
from napari_emtransfer.core.nn.head_fit import fit_head
from napari_emtransfer.core.nn.model import SegmentationModel, build_model


def stripes(seed: int, shape: tuple[int, int] = (96, 96), *, labelled: float = 1.0) -> TrainingImage:
    """Bright and dark bars with a little noise; only a share of the pixels is labelled."""
    rng = np.random.default_rng(seed)
    bar = (np.arange(shape[1]) // 12 + seed) % 3 == 0
    targets = np.broadcast_to(bar, shape).astype(np.uint8).copy()
    image = (targets * 2.0 - 0.7 + rng.normal(0, 0.1, shape)).astype(np.float32)
    targets[rng.random(shape) > labelled] = IGNORE_INDEX
    return TrainingImage(image, targets)


def accuracy(model: SegmentationModel, tile: TrainingImage) -> float:
    with torch.no_grad():
        guess = model.eval()(torch.from_numpy(tile.image)[None, None]).argmax(1)[0].numpy()
    inside = tile.targets != IGNORE_INDEX
    return float((guess == tile.targets)[inside].mean())


class Pixels(nn.Module):
    """An encoder that passes the image on."""

    output_stride = 16

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [image]


class Blurs(nn.Module):
    """A decoder with the image and three random convolutions of it, behind a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 3, 5, padding=2)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([maps[0], self.norm(self.convolution(maps[0]))], dim=1)


@pytest.fixture
def model() -> SegmentationModel:
    torch.manual_seed(0)
    head = nn.Sequential(nn.Conv2d(4, 2, 3, padding=1))
    made = SegmentationModel(ModelConfig(n_classes=2), Pixels(), Blurs(), head)
    made.new_parts = frozenset({"segmentation_head"})
    return made


def test_a_fitted_head_reads_what_the_decoder_shows(model: SegmentationModel) -> None:
    before = accuracy(model, stripes(7))
    assert fit_head(model, [stripes(s, labelled=0.1) for s in range(4)], seed=0)
    assert accuracy(model, stripes(7)) > max(0.97, before)


def test_the_fit_is_the_ridge_solution_of_the_same_seed_and_touches_nothing_else(model: SegmentationModel) -> None:
    kept = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith("segmentation_head")}
    model.train()
    assert fit_head(model, [stripes(1)], seed=3)
    first = model.segmentation_head[0].weight.clone()
    assert model.training
    fit_head(model, [stripes(1)], seed=3)
    assert torch.equal(first, model.segmentation_head[0].weight)
    for name, value in kept.items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_a_rare_class_is_not_drowned(model: SegmentationModel) -> None:
    tile = stripes(0, (96, 192))
    tile.targets[:, 36:][tile.targets[:, 36:] == 1] = IGNORE_INDEX  # one bar left: 6 % of the labelled pixels
    fit_head(model, [tile], seed=0)
    other = stripes(5)
    with torch.no_grad():
        found = model.eval()(torch.from_numpy(other.image)[None, None]).argmax(1)[0].numpy()
    assert (found == 1)[other.targets == 1].mean() > 0.9


def test_strokes_that_lie_far_apart_are_all_looked_at(model: SegmentationModel) -> None:
    tile = stripes(0, (96, 800))
    tile.targets[:, 60:-60] = IGNORE_INDEX
    tile.targets[:, :60][tile.targets[:, :60] == 1] = IGNORE_INDEX  # class 0 alone in the west …
    tile.targets[40:, -60:] = IGNORE_INDEX
    tile.targets[:, -60:][tile.targets[:, -60:] == 0] = IGNORE_INDEX  # … and less of class 1 alone in the east
    assert fit_head(model, [tile], seed=0)
    assert accuracy(model, stripes(5)) > 0.95


def test_a_ring_of_labels_around_an_empty_middle_is_read(model: SegmentationModel) -> None:
    tile = stripes(0, (704, 704))
    tile.targets[40:-40, 40:-40] = IGNORE_INDEX
    assert fit_head(model, [tile], seed=0)
    assert accuracy(model, stripes(5)) > 0.95


def test_a_class_that_nobody_labelled_is_not_found(model: SegmentationModel) -> None:
    model.segmentation_head[0] = nn.Conv2d(4, 5, 3, padding=1)
    model.config = ModelConfig(n_classes=5)
    tile = stripes(0)
    tile.targets[tile.targets == 1] = 3
    assert fit_head(model, [tile], seed=0)
    with torch.no_grad():
        found = model.eval()(torch.from_numpy(stripes(5).image)[None, None]).argmax(1)
    assert set(found.unique().tolist()) == {0, 3}


def test_features_that_are_not_finite_leave_the_head_as_it_was(model: SegmentationModel) -> None:
    before = model.segmentation_head[0].weight.clone()
    model.decoder.norm.running_mean.fill_(float("nan"))
    assert not fit_head(model, [stripes(0)], seed=0)
    assert torch.equal(before, model.segmentation_head[0].weight)


def test_tiles_that_are_no_multiple_of_the_stride_and_micrographs_larger_than_a_tile_are_read(
    model: SegmentationModel,
) -> None:
    assert fit_head(model, [stripes(0, (70, 45)), stripes(1, (300, 420))], seed=0)
    assert torch.isfinite(model.segmentation_head[0].weight).all()


def test_a_head_of_another_kind_is_left_alone() -> None:
    model = build_model(ModelConfig(architecture="DeepLabV3Plus", encoder="resnet18", n_classes=2))
    model.new_parts = frozenset({"segmentation_head"})
    before = model.segmentation_head.state_dict()
    assert not fit_head(model, [stripes(0)], seed=0)
    assert all(torch.equal(v, model.segmentation_head.state_dict()[k]) for k, v in before.items())


def test_a_head_on_a_decoder_at_random_is_left_alone(model: SegmentationModel) -> None:
    model.new_parts = frozenset({"decoder", "segmentation_head"})
    assert not fit_head(model, [stripes(0)], seed=0)


def test_a_known_head_is_left_alone(model: SegmentationModel) -> None:
    model.new_parts = frozenset()
    assert not fit_head(model, [stripes(0)], seed=0)
