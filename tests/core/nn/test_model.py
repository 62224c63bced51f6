import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import save_file

from napari_emtransfer.core.config import ModelConfig
from napari_emtransfer.core.errors import EMTransferError, StorageError, WeightsError
from napari_emtransfer.core.nn.checkpoint import Checkpoint, CheckpointMeta, read_meta, set_temperature
from napari_emtransfer.core.nn.model import build_model
from napari_emtransfer.core.nn.weights import load_weights


@pytest.mark.parametrize("architecture", ["Unet", "UnetPlusPlus", "DeepLabV3Plus", "FPN", "Segformer"])
def test_every_architecture_gives_logits_of_the_images_size(architecture):
    model = build_model(ModelConfig(architecture=architecture, n_classes=3)).eval()
    edge = 2 * model.stride
    with torch.inference_mode():
        assert model(torch.zeros(1, 1, edge, 2 * edge)).shape == (1, 3, edge, 2 * edge)


def test_timm_encoders_work_by_their_own_name():
    model = build_model(ModelConfig(encoder="resnet10t", n_classes=2)).eval()
    assert model(torch.zeros(1, 1, 64, 64)).shape == (1, 2, 64, 64)


def test_a_misspelt_encoder_gets_suggestions():
    with pytest.raises(EMTransferError, match="no encoder 'resnet-18'") as caught:
        build_model(ModelConfig(encoder="resnet-18", n_classes=2))
    assert "resnet18" in caught.value.hint


def test_a_misspelt_architecture_gets_suggestions():
    config = ModelConfig.model_construct(architecture="unet++", encoder="resnet18", n_classes=2)
    with pytest.raises(EMTransferError, match="no architecture 'unet\\+\\+'") as caught:
        build_model(config)
    assert "Unet" in caught.value.hint


def test_imagenet_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("We couldn't connect to the hub")

    monkeypatch.setattr(smp.encoders, "hf_hub_download", unreachable)
    with pytest.raises(WeightsError, match="ImageNet weights of the encoder 'resnet18'") as caught:
        build_model(ModelConfig(n_classes=2), "imagenet")
    assert "safetensors" in caught.value.hint


def test_imagenet_weights_see_a_grey_image_as_the_colour_network_did(monkeypatch, tmp_path):
    torch.manual_seed(0)
    colour = smp.encoders.get_encoder("resnet18", in_channels=3, weights=None).eval()
    path = tmp_path / "model.safetensors"
    save_file(colour.state_dict(), path)
    monkeypatch.setenv("EMTRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(smp.encoders, "hf_hub_download", lambda *args, **kwargs: str(path))
    encoder = build_model(ModelConfig(n_classes=2), "imagenet").eval().encoder
    grey = torch.randn(1, 1, 64, 64)
    mean, std = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1), torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
    with torch.inference_mode():
        theirs = colour.bn1(colour.conv1((grey * std.mean() + mean.mean() - mean) / std))
        ours = encoder.bn1(encoder.conv1(grey))
    assert torch.allclose(theirs[..., 2:-2, 2:-2], ours[..., 2:-2, 2:-2], atol=1e-4)


def test_an_encoder_file_fills_the_encoder_and_nothing_else(tmp_path):
    colour = smp.encoders.get_encoder("resnet18", in_channels=3, weights=None)
    save_file(colour.state_dict(), tmp_path / "encoder.safetensors")
    model = build_model(ModelConfig(n_classes=2))
    report = load_weights(model, tmp_path / "encoder.safetensors")
    assert report.loaded == ("encoder",)
    assert report.new == ("decoder", "segmentation_head")
    assert torch.allclose(model.encoder.conv1.weight, colour.conv1.weight.sum(1, keepdim=True))


def test_a_head_for_other_classes_starts_anew(tmp_path):
    source = build_model(ModelConfig(n_classes=5))
    save_file({k: v.contiguous() for k, v in source.state_dict().items()}, tmp_path / "five.safetensors")
    model = build_model(ModelConfig(n_classes=2))
    report = load_weights(model, tmp_path / "five.safetensors")
    assert report.new == ("segmentation_head",)
    assert torch.equal(model.encoder.conv1.weight, source.encoder.conv1.weight)


def test_weights_of_another_encoder_are_refused_whole(tmp_path):
    source = build_model(ModelConfig(encoder="resnet34", n_classes=2))
    save_file({k: v.contiguous() for k, v in source.state_dict().items()}, tmp_path / "r34.safetensors")
    model = build_model(ModelConfig(n_classes=2))
    before = model.encoder.conv1.weight.clone()
    with pytest.raises(WeightsError, match=r"do not fit Unet with the encoder 'resnet18'.*is unknown"):
        load_weights(model, tmp_path / "r34.safetensors")
    assert torch.equal(model.encoder.conv1.weight, before)


def test_files_that_are_no_weights_are_refused(tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"\x80\x04pickle")
    for path, said in ((tmp_path / "bad.safetensors", "no safetensors file"), (tmp_path / "absent", "no weights file")):
        with pytest.raises(WeightsError, match=said):
            build_model(ModelConfig(n_classes=2), str(path))
    save_file({"something": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="do not fit"):
        build_model(ModelConfig(n_classes=2), str(tmp_path / "other.safetensors"))


def checkpoint(n_classes=2):
    torch.manual_seed(0)
    model = build_model(ModelConfig(n_classes=n_classes))
    meta = CheckpointMeta(model=model.config, classes=("a", "b"), mean_iou=0.5, standardization={"low_percentile": 0.1})
    return model, Checkpoint(meta, model.state_dict(), {"optimizer/0/step": torch.tensor(3.0)})


def test_a_checkpoint_survives_the_disk(tmp_path):
    model, saved = checkpoint()
    saved.save(tmp_path / "runs" / "best.safetensors")
    loaded = Checkpoint.load(tmp_path / "runs" / "best.safetensors")
    assert loaded.meta == saved.meta
    assert loaded.resume["optimizer/0/step"] == 3
    image = torch.randn(1, 1, 64, 64)
    assert torch.allclose(loaded.build()(image), model.eval()(image), atol=1e-5)
    # It also serves as the start of another training.
    build_model(ModelConfig(n_classes=2), str(tmp_path / "runs" / "best.safetensors"))


def test_a_temperature_is_added_to_a_checkpoint_and_old_ones_have_one(tmp_path):
    path = tmp_path / "last.safetensors"
    _, saved = checkpoint()
    old = saved.meta.model_dump(exclude={"temperature"})
    assert CheckpointMeta.model_validate(old).temperature == 1
    saved.save(path)
    set_temperature(path, 1.7)
    loaded = Checkpoint.load(path)
    assert loaded.meta == saved.meta.model_copy(update={"temperature": 1.7})
    assert loaded.resume["optimizer/0/step"] == 3
    assert all(torch.equal(v, saved.state[k]) for k, v in loaded.state.items())


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    _, saved = checkpoint()
    path = tmp_path / "best.safetensors"
    saved.save(path)
    before = path.read_bytes()

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        saved.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["best.safetensors"]


def test_foreign_and_damaged_files_are_no_checkpoints(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    _, saved = checkpoint()
    saved.save(tmp_path / "half.safetensors")
    data = (tmp_path / "half.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(data[: len(data) // 2])
    for name in ("foreign", "half", "absent"):
        with pytest.raises(WeightsError):
            Checkpoint.load(tmp_path / f"{name}.safetensors")
    with pytest.raises(WeightsError, match="no checkpoint of this program"):
        read_meta(tmp_path / "foreign.safetensors")
