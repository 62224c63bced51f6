"""`emtransfer weights`: its JSON, its exit codes, and what it says to someone without a network."""

import json
import subprocess
import sys

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import save_file
from skimage.io import imsave

from napari_emtransfer.cli import main
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.nn import registry

PUBLISHED = "resnet18_pretrained_microscopynet_v1.0.pth.tar"


@pytest.fixture
def emtransfer(capsys, tmp_path, monkeypatch):
    """Run `emtransfer WORDS --json` with a cache of its own → (exit code, JSON, stderr)."""
    monkeypatch.setenv("EMTRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "_MICRONET_URL", "http://127.0.0.1:9/")  # nobody listens

    def run(*words):
        with pytest.raises(SystemExit) as left:
            main([*map(str, words), "--json"])
        out, err = capsys.readouterr()
        return left.value.code, json.loads(out), err

    return run


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A ResNet-18 as MicroNet publishes it."""
    folder = tmp_path_factory.mktemp("published")
    state = smp.encoders.get_encoder("resnet18", in_channels=3, weights=None).state_dict()
    torch.save(dict(state) | {"fc.weight": torch.zeros(54, 512)}, folder / PUBLISHED)
    return folder / PUBLISHED


def test_list_has_every_family_and_says_what_is_here(emtransfer):
    code, result, _ = emtransfer("weights", "list")
    assert code == 0
    rows = {row["name"]: row for row in result["weights"]}
    assert rows["none"]["here"]
    assert not rows["micronet:resnet50"]["here"]
    assert rows["micronet:resnet50"]["url"].endswith("resnet50_pretrained_microscopynet_v1.1.pth.tar")
    assert "imagenet:resnet18" in rows
    assert not any("vgg11" in name and "bn" not in name and "micronet" in name for name in rows)
    _, result, _ = emtransfer("weights", "list", "--encoder", "resnet34")
    names = [row["name"] for row in result["weights"]]
    assert names == ["imagenet:resnet34", "micronet:resnet34", "image-micronet:resnet34"]


def test_import_fetch_and_verify(emtransfer, published, tmp_path, no_bundled_weights):
    code, result, _ = emtransfer("weights", "import", published)
    assert (code, result["weights"][0]["name"]) == (0, "micronet:resnet18")
    assert "0 missing, 0 unexpected, 0 of another shape, 1 ignored" in result["weights"][0]["report"]
    code, result, _ = emtransfer("weights", "fetch", "micronet", "--encoder", "resnet18")  # is here: no network needed
    assert (code, result["weights"][0]["path"]) == (0, str(tmp_path / "cache" / "micronet" / PUBLISHED))
    code, result, _ = emtransfer("weights", "verify")
    assert (code, [row["ok"] for row in result["weights"]]) == (0, [True])
    (tmp_path / "cache" / "micronet" / PUBLISHED).write_bytes(b"half")
    code, result, _ = emtransfer("weights", "verify")
    assert (code, [row["ok"] for row in result["weights"]]) == (1, [False])


def test_faults_are_one_line_and_say_what_would_work(emtransfer, tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    for words, said, hint in (
        (
            ("fetch", "micronet:resnet18"),
            "the server cannot be reached",
            f"weights import FILE`, or put it at {tmp_path}",
        ),
        (("fetch", "image-micronet:vgg13"), "is broken: 2.0 % right", "image-micronet:vgg13_bn"),
        (("fetch", "micronet:resnet19"), "no weights 'micronet:resnet19'", "micronet:resnet18"),
        (("fetch", "none"), "nothing to fetch", "weights list"),
        (("import", tmp_path / "absent.pth"), "no weights file", ".safetensors"),
        (("import", tmp_path / "x.safetensors", "--encoder", "resnet18"), "do not fit the encoder", "trained with"),
    ):
        code, result, err = emtransfer("weights", *words)
        assert code == 1
        assert said in result["error"]
        assert hint in result["hint"]
        assert err.count("\n") == 1
        assert "Traceback" not in err


def test_train_takes_a_name_of_the_registry(emtransfer, published, tmp_path):
    Project.create(tmp_path / "p", classes=["matrix", "pore"]).close()
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for i in range(2):
        truth = np.kron(np.random.default_rng(i).integers(1, 3, (4, 4)), np.ones((32, 32))).astype(np.uint8)
        imsave(tmp_path / "images" / f"m{i}.png", truth * 90, check_contrast=False)
        imsave(tmp_path / "masks" / f"m{i}.png", truth - 1, check_contrast=False)
    folders = ("--images", tmp_path / "images", "--masks", tmp_path / "masks", "--map", "0=matrix,1=pore")
    assert emtransfer("import", tmp_path / "p", *folders)[0] == 0
    emtransfer("weights", "import", published)
    short = ("--iterations", "2", "--crop", "64", "--batch-size", "2", "--threads", "1", "--device", "cpu")
    code, result, err = emtransfer("train", tmp_path / "p", "--weights", "micronet", "--encoder", "resnet18", *short)
    assert code == 0, err
    assert result["iterations"] == 2
    code, result, _ = emtransfer("train", tmp_path / "p", "--weights", "micronet", "--encoder", "resnet34", *short)
    assert code == 1
    assert "cannot be reached" in result["error"]


def test_listing_does_not_import_torch(tmp_path):
    program = (
        "import sys; from napari_emtransfer.core.nn import store; rows = store.all_entries(); "
        "[store.is_here(r) for r in rows]; sys.exit('torch' in sys.modules)"
    )
    environment = {"EMTRANSFER_CACHE": str(tmp_path), "PATH": "/usr/bin"}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0
