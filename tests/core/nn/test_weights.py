"""Weights by name and from files: the table, safe opening, names of tensors, the cache."""

import hashlib
import json
import os
import re

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import load_file, save_file

from napari_emtransfer.core.config import ModelConfig
from napari_emtransfer.core.errors import WeightsError
from napari_emtransfer.core.nn import fetching, registry, store
from napari_emtransfer.core.nn.first_layer import fold_to_grey
from napari_emtransfer.core.nn.importing import import_weights
from napari_emtransfer.core.nn.model import build_model
from napari_emtransfer.core.nn.registry import IMAGENET
from napari_emtransfer.core.nn.tensors import read_tensors
from napari_emtransfer.core.nn.weights import initialise, inspect_weights, load_weights

NASA = "https://nasa-public-data.s3.amazonaws.com/microscopy_segmentation_models/"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EMTRANSFER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def colour():
    """State of a three-channel ResNet-18 encoder, with a classifier as published files have it."""
    torch.manual_seed(0)
    state = smp.encoders.get_encoder("resnet18", in_channels=3, weights=None).state_dict()
    return dict(state) | {"fc.weight": torch.zeros(54, 512), "fc.bias": torch.zeros(54)}


@pytest.fixture
def model():
    return build_model(ModelConfig(n_classes=2))


class RunsCode:
    """A pickle that makes a folder when it is opened."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


# -- the table


def test_micronets_addresses_and_versions():
    urls = {
        "micronet:resnet50": "resnet50_pretrained_microscopynet_v1.1.pth.tar",
        "image-micronet:resnet50": "resnet50_pretrained_imagenet-microscopynet_v1.0.pth.tar",
        "micronet:se_resnext50_32x4d": "se_resnext50_32x4d_pretrained_microscopynet_v1.0.pth.tar",
        "micronet:resnext101_32x8d": "resnext101_pretrained_microscopynet_v1.0.pth.tar",
    }
    assert {name: registry.find(name).url for name in urls} == {name: NASA + end for name, end in urls.items()}


def test_the_broken_checkpoints_are_hidden_and_refused():
    names = {e.name for e in registry.entries()}
    for broken in ("vgg11", "vgg13"):
        assert not {f"micronet:{broken}", f"image-micronet:{broken}"} & names
        with pytest.raises(WeightsError, match="is broken") as caught:
            registry.find("image-micronet", broken)
        assert f"image-micronet:{broken}_bn" in caught.value.hint
        assert f"image-micronet:{broken}_bn" in names


def test_every_row_has_an_encoder_that_exists_and_a_name_of_its_own():
    rows = registry.entries()
    assert len({r.name for r in rows}) == len(rows)
    named = {r.encoder for r in rows} - {None}
    assert {e for e in named if not e.startswith("tu-")} <= set(smp.encoders.get_encoder_names())
    assert all(timm.is_model(e.removeprefix("tu-")) for e in named if e.startswith("tu-"))
    assert all(r.source and r.licence and r.verification for r in rows if r.family != "none")
    assert all(r.url for r in rows if r.family not in ("none", "bundled"))


def test_imagenet_rows_are_those_of_the_library():
    tags = ("imagenet", "imagenet+5k")
    settings = {n: e["pretrained_settings"] for n, e in smp.encoders.encoders.items() if "pretrained_settings" in e}
    theirs = {
        f"imagenet:{name}": f"https://huggingface.co/{s[tag]['repo_id']}/resolve/main/model.safetensors"
        for name, s in settings.items()
        for tag in tags
        if tag in s and not name.startswith("timm-")
    }
    assert {r.name: r.url for r in registry.entries() if r.family == "imagenet"} == theirs


def test_a_family_means_the_encoder_that_is_trained():
    assert registry.find("micronet", "resnet18").name == "micronet:resnet18"
    assert registry.find("imagenet", "resnet10t").encoder == "resnet10t"
    taken = registry.WeightsEntry(name="synthetic", family="imported", encoder="resnet18")
    assert registry.find("synthetic", imported=[taken]).family == "bundled"
    with pytest.raises(WeightsError, match="no weights 'micronet:resnet81'") as caught:
        registry.find("micronet", "resnet81")
    assert "micronet:resnet18" in caught.value.hint


def test_bundled_weights_come_from_their_model_card(tmp_path, monkeypatch, colour, model):
    folder = tmp_path / "weights"
    folder.mkdir()
    assert registry.bundled_entries(folder) == []
    save_file({k: v.contiguous() for k, v in colour.items()}, folder / "grains.safetensors")
    row = {"name": "grains", "encoder": "resnet18", "file_name": "grains.safetensors", "encoder_learning_rate": 1e-3}
    (folder / "model_card.json").write_text(json.dumps({"weights": [row]}))
    assert registry.bundled_entries(folder)[0].encoder_learning_rate == 1e-3
    monkeypatch.setattr(registry, "BUNDLED_DIR", folder)
    monkeypatch.setattr(registry.bundled_entries, "__defaults__", (folder,))
    assert initialise(model, "grains").loaded == ("encoder",)
    (folder / "model_card.json").write_text(json.dumps({"weights": [row | {"sha256": "0" * 64}]}))
    with pytest.raises(WeightsError, match=r"grains\.safetensors' are damaged"):
        initialise(model, "grains")
    (folder / "grains.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"bundled weights 'grains\.safetensors' are missing"):
        registry.bundled_entries(folder)


# -- safe opening


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_runs_none(tmp_path, model, zipped):
    proof = tmp_path / "code-ran"
    content = {"state_dict": {"conv1.weight": RunsCode(proof)}}
    torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for attempt in (lambda: load_weights(model, tmp_path / "evil.pth"), lambda: import_weights(tmp_path / "evil.pth")):
        with pytest.raises(
            WeightsError, match=r"was not opened, because opening it could run code: it names '\w+\.mkdir'"
        ):
            attempt()
    assert not proof.exists()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    torch.load(tmp_path / "evil.pth", weights_only=False)  # the trap was set: opened without care, it does run
    assert proof.exists()


def test_damaged_and_empty_pickles_are_refused(tmp_path):
    (tmp_path / "half.pth").write_bytes(b"PK\x03\x04 and no archive")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    for name, said in (
        ("half", "damaged|could run code"),
        ("empty", "holds no state dict"),
        ("absent", "no weights file"),
    ):
        with pytest.raises(WeightsError, match=said):
            read_tensors(tmp_path / f"{name}.pth")


# -- names of tensors


@pytest.mark.parametrize(
    "prefix", ["", "module.", "encoder.", "model.", "backbone.", "module.encoder.", "model.backbone."]
)
def test_wrappers_prefixes_are_understood(prefix, tmp_path, colour, model):
    state = {prefix + k: v for k, v in colour.items()}
    torch.save({"state_dict": state, "epoch": 90}, tmp_path / "published.pth.tar")
    report = load_weights(model, tmp_path / "published.pth.tar")
    assert report.loaded == ("encoder",)
    assert sorted(report.ignored) == ["encoder.fc.bias", "encoder.fc.weight"]
    assert not report.missing + report.unexpected + report.reshaped
    assert len(report.matched) == len(colour) - 2
    assert torch.allclose(model.encoder.conv1.weight, colour["conv1.weight"].sum(1, keepdim=True))


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "efficientnet_lite0"])
def test_timm_encoders_take_timms_files(tmp_path, name):
    theirs = timm.create_model(name, pretrained=False).state_dict()
    save_file(theirs, tmp_path / "timm.safetensors")
    model = build_model(ModelConfig(encoder=name, n_classes=2))
    report = load_weights(model, tmp_path / "timm.safetensors")
    assert report.loaded == ("encoder",)
    by_name = {k.replace("_", "."): v for k, v in theirs.items()}  # timm's flattened stages: stages_0 is stages.0
    own = {k.removeprefix("encoder.model.").replace("_", "."): model.state_dict()[k] for k in report.matched}
    differing = [k for k, v in own.items() if not torch.equal(v, by_name[k])]
    assert [by_name[k].shape[1] for k in differing] == [3]  # the first layer alone


@pytest.mark.parametrize(
    ("encoder", "theirs", "ours"),
    [
        ("densenet121", r"denselayer1.norm.1.", r"denselayer1.norm1."),
        ("mobilenet_v2", r"features.module.1.", r"features.1."),
    ],
)
def test_spellings_of_old_files_are_understood(encoder, theirs, ours):
    model = build_model(ModelConfig(encoder=encoder, n_classes=2))
    state = smp.encoders.get_encoder(encoder, in_channels=3, weights=None).state_dict()
    if "module" in theirs:
        old = {k.replace("features.", "features.module."): v for k, v in state.items()}
    else:
        old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", k): v for k, v in state.items()}
    assert any(theirs in k for k in old)
    _, report = inspect_weights(model, old)
    assert report.problems == ()
    assert any(ours in k for k in report.matched)


def test_the_report_names_what_is_missing_unexpected_and_of_another_shape(colour, model):
    state = dict(colour)
    del state["bn1.weight"]
    state |= {"extra.weight": torch.zeros(1), "layer1.0.conv1.weight": torch.zeros(64, 32, 3, 3)}
    _, report = inspect_weights(model, state)
    assert report.missing == ("encoder.bn1.weight",)
    assert report.unexpected == ("encoder.extra.weight",)
    assert report.reshaped == ("encoder.layer1.0.conv1.weight is (64, 32, 3, 3), not (64, 64, 3, 3)",)
    n_matched = sum(k.startswith("encoder.") for k in model.state_dict()) - 2
    assert str(report) == f"{n_matched} matched, 1 missing, 1 unexpected, 1 of another shape, 2 ignored"


def test_old_files_are_read(tmp_path, colour, model):
    """Torch's format before 1.6, and batch norms that did not count yet."""
    old = {k: v for k, v in colour.items() if "num_batches" not in k}
    torch.save(old, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert load_weights(model, tmp_path / "old.pth").missing == ()


# -- by name


def test_micronet_by_name_is_folded_with_imagenets_normalisation(cache, colour, model):
    (cache / "micronet").mkdir(parents=True)
    torch.save(colour, cache / "micronet" / "resnet18_pretrained_microscopynet_v1.0.pth.tar")
    report = initialise(model, "micronet")
    assert report.constant == "norm"
    weight, constant = fold_to_grey(colour["conv1.weight"], IMAGENET)
    assert torch.equal(model.encoder.conv1.weight, weight)
    assert torch.equal(model.encoder.bn1.running_mean, colour["bn1.running_mean"] - constant)


def test_weights_of_another_encoder_are_refused_by_name(model):
    with pytest.raises(WeightsError, match="'micronet:resnet34' are of the encoder 'resnet34', not 'resnet18'"):
        initialise(model, "micronet:resnet34")


def test_a_download_that_would_run_code_is_not_kept(tmp_path, cache, monkeypatch):
    def send_evil(url, target, **kwargs):
        target.parent.mkdir(parents=True)
        torch.save({"conv1.weight": RunsCode(tmp_path / "code-ran")}, target)

    monkeypatch.setattr(fetching, "download", send_evil)
    with pytest.raises(WeightsError, match="could run code"):
        fetching.ensure(store.find("micronet:resnet18"))
    assert not (tmp_path / "code-ran").exists()
    assert list((cache / "micronet").iterdir()) == []


def test_without_a_network_micronet_says_what_to_bring_and_where(cache, monkeypatch, model):
    monkeypatch.setattr(registry, "_MICRONET_URL", "http://127.0.0.1:9/")
    with pytest.raises(WeightsError, match="cannot be reached") as caught:
        initialise(model, "micronet")
    name = "resnet18_pretrained_microscopynet_v1.0.pth.tar"
    assert f"download http://127.0.0.1:9/{name} on another computer" in caught.value.hint
    assert f"emtransfer weights import FILE`, or put it at {cache / 'micronet' / name}" in caught.value.hint


def test_imagenet_without_a_network_names_the_file(monkeypatch, model):
    def unreachable(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(smp.encoders, "hf_hub_download", unreachable)
    with pytest.raises(WeightsError) as caught:
        initialise(model, "imagenet")
    assert "https://huggingface.co/smp-hub/resnet18.imagenet/resolve/main/model.safetensors" in caught.value.hint
    assert "emtransfer weights import FILE --as imagenet:resnet18" in caught.value.hint


# -- by hand


def test_an_imported_file_is_known_by_name_with_its_preprocessing(tmp_path, cache, colour, model):
    torch.save({f"module.{k}": v for k, v in colour.items()}, tmp_path / "my-sem.pth.tar")
    entry, report = import_weights(tmp_path / "my-sem.pth.tar", encoder="resnet18", preprocessing=IMAGENET)
    assert (entry.name, entry.family, entry.encoder) == ("my-sem", "imported", "resnet18")
    assert report.loaded == ("encoder",)
    assert load_file(cache / "imported" / "my-sem.safetensors").keys() == {f"module.{k}" for k in colour}
    assert initialise(model, "my-sem").constant == "norm"
    assert torch.equal(model.encoder.conv1.weight, fold_to_grey(colour["conv1.weight"], IMAGENET)[0])


def test_a_micronet_file_brought_by_hand_takes_its_place(tmp_path, colour, model):
    name = "resnet18_pretrained_imagenet-microscopynet_v1.0.pth.tar"
    torch.save(colour, tmp_path / name)
    entry, _ = import_weights(tmp_path / name)
    assert entry.name == "image-micronet:resnet18"
    assert store.is_here(entry)
    assert initialise(model, "image-micronet").loaded == ("encoder",)


def test_an_imagenet_file_brought_by_hand_is_used_instead_of_the_hub(tmp_path, monkeypatch, colour, model):
    monkeypatch.setattr(smp.encoders, "hf_hub_download", lambda *a, **k: pytest.fail("asked the network"))
    save_file({k: v.contiguous() for k, v in colour.items()}, tmp_path / "model.safetensors")
    import_weights(tmp_path / "model.safetensors", name="imagenet:resnet18")
    assert initialise(model, "imagenet").constant == "norm"


def test_what_does_not_fit_is_not_imported(tmp_path, cache, colour):
    save_file({k: v.contiguous() for k, v in colour.items()}, tmp_path / "r18.safetensors")
    for words, said in (
        ({"encoder": "resnet34"}, "do not fit the encoder 'resnet34'"),
        ({"name": "imagenet:resnet34"}, "do not fit the encoder 'resnet34'"),
        ({"name": "micronet"}, "is taken"),
        ({"name": "../r18"}, "cannot be a name"),
    ):
        with pytest.raises(WeightsError, match=said):
            import_weights(tmp_path / "r18.safetensors", **words)
    assert not cache.exists()


def test_verify_finds_changed_files(tmp_path, cache, colour, no_bundled_weights):
    save_file({k: v.contiguous() for k, v in colour.items()}, tmp_path / "r18.safetensors")
    import_weights(tmp_path / "r18.safetensors")
    kept = cache / "imported" / "r18.safetensors"
    assert kept.with_name("r18.safetensors.sha256").read_text() == hashlib.sha256(kept.read_bytes()).hexdigest()
    assert [(v.name, v.ok) for v in fetching.verify()] == [("r18", True)]
    data = bytearray(kept.read_bytes())
    data[-1] ^= 1
    kept.write_bytes(data)
    (found,) = fetching.verify()
    assert not found.ok
    assert "not the checksum" in found.finding
