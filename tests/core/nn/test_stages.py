import pytest
import segmentation_models_pytorch as smp
import torch

from napari_emtransfer.core.config import ModelConfig
from napari_emtransfer.core.nn.model import build_model, resolve_encoder
from napari_emtransfer.core.nn.stages import encoder_stages, parts_of


def names_of(encoder, stages):
    """The first part of the names of the parameters of each stage."""
    stage_of = {id(p): i for i, stage in enumerate(stages) for p in stage}
    names = [set() for _ in stages]
    for name, parameter in encoder.named_parameters():
        names[stage_of[id(parameter)]].add(name.split(".")[0])
    return names


def test_stages_of_a_resnet_are_its_layers():
    encoder = smp.encoders.get_encoder("resnet18", in_channels=1, weights=None)
    stages = encoder_stages(encoder)
    assert names_of(encoder, stages) == [{"conv1", "bn1"}, {"layer1"}, {"layer2"}, {"layer3"}, {"layer4"}]


def test_stages_of_a_transformer_go_by_use_not_by_registration():
    encoder = smp.encoders.get_encoder("mit_b0", in_channels=1, weights=None)
    assert names_of(encoder, encoder_stages(encoder)) == [
        {f"patch_embed{i}", f"block{i}", f"norm{i}"} for i in (1, 2, 3, 4)
    ]


@pytest.mark.parametrize(
    ("name", "n_stages"),
    [("efficientnet-b0", 5), ("mobilenet_v2", 5), ("tu-mobilenetv3_small_050", 5), ("tu-convnext_atto", 4)],
)
def test_every_parameter_is_in_one_stage_and_depth_is_ordered(name, n_stages):
    encoder = smp.encoders.get_encoder(resolve_encoder(name), in_channels=1, weights=None)
    stages = encoder_stages(encoder)
    assert len(stages) == n_stages
    ids = [id(p) for stage in stages for p in stage]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in encoder.parameters()}
    # Without the parameters of a stage the features above it are what they were.
    deepest = {id(p) for p in stages[-1]}
    image = torch.randn(1, 1, 64, 64)
    before = encoder.eval()(image)
    with torch.no_grad():
        for p in encoder.parameters():
            if id(p) in deepest:
                p.mul_(1.5)
    after = encoder(image)
    assert all(torch.equal(a, b) for a, b in zip(before[:-1], after[:-1], strict=True))
    assert not torch.equal(before[-1], after[-1])


def test_looking_leaves_no_trace():
    model = build_model(ModelConfig(encoder="test_resnet", n_classes=2)).train()
    next(model.encoder.parameters()).requires_grad_(False)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()]
    parts = parts_of(model, by_depth=True)
    assert list(parts) == ["head", "decoder", *(f"encoder {i}" for i in (5, 4, 3, 2, 1))]
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(m.training for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
