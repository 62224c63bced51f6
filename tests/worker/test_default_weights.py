"""The weights that come with the program as the default: when they are taken, what is said, what a run records."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from worker_projects import QUICK, make_project, new_run

from napari_emtransfer.core import rates
from napari_emtransfer.core.config import LiveConfig, ModelConfig, TrainConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import WeightsError
from napari_emtransfer.core.events import NoticePosted, RunFinished
from napari_emtransfer.core.nn import registry, store
from napari_emtransfer.core.nn.model import build_model
from napari_emtransfer.core.nn.trainer import initial_model
from napari_emtransfer.core.nn.weights import initialise
from napari_emtransfer.core.recommend import recommend as follow_rules
from napari_emtransfer.session.idle_settings import idle_settings
from napari_emtransfer.worker import frozen, live_handler
from napari_emtransfer.worker.handlers import RunControl, handle
from napari_emtransfer.worker.protocol import LiveRequest, RecommendRequest, TrainRequest
from napari_emtransfer.worker.provenance import provenance_of

ENCODER = "tu-test_resnet"
OTHER = "tu-test_byobnet"


def write_weights(path, architecture="Unet"):
    """Encoder and decoder as a pretraining by recipe writes them: half precision, and saying what they are."""
    torch.manual_seed(3)
    model = build_model(ModelConfig(encoder=ENCODER, n_classes=5))
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("segmentation_head.")}
    half = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in state.items()}
    said = {store.ENCODER_KEY: ENCODER, store.ARCHITECTURE_KEY: architecture}
    save_file(half, path, metadata=said)
    return half


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder / "ours.safetensors")
    row = {
        "name": "ours",
        "encoder": ENCODER,
        "architecture": "Unet",
        "file_name": "ours.safetensors",
        "sha256": store.sha256_of(folder / "ours.safetensors"),
        "channels": 1,
        "encoder_learning_rate": 2e-3,
    }
    (folder / "model_card.json").write_text(json.dumps({"weights": [row]}))
    return folder


@pytest.fixture
def ours(folder, monkeypatch):
    """The weights "ours" in the place of those that come with the program."""
    monkeypatch.setattr(registry, "BUNDLED_DIR", folder)
    monkeypatch.setattr(registry.bundled_entries, "__defaults__", (folder,))
    return folder / "ours.safetensors"


def config(**changes):
    return TrainConfig(**{"encoder": ENCODER, **changes})


# -- what "auto" stands for


@pytest.mark.parametrize(
    ("changes", "weights"),
    [
        ({}, "ours"),
        ({"encoder": "test_resnet"}, "ours"),
        ({"encoder": "resnet34"}, "none"),
        ({"strategy": "scratch"}, "none"),
        ({"strategy": "gradual"}, "ours"),
        ({"architecture": "FPN"}, "ours"),
        ({"weights": "none"}, "none"),
        ({"weights": "micronet", "encoder": "resnet34"}, "micronet"),
        ({"weights": "run:0001"}, "run:0001"),
    ],
)
def test_auto_is_what_came_with_the_program_for_its_own_encoder(ours, changes, weights):
    assert rates.resolve_weights(config(**changes)) == weights
    assert rates.is_pretrained(config(**changes)) == (weights != "none")


def test_the_rate_of_the_row_is_taken_and_needs_no_confirmation(ours):
    assert rates.encoder_rate(config(learning_rate=1e-3)) == 2e-3
    rates.check_rates(config(learning_rate=1e-3))
    assert rates.encoder_rate(config(learning_rate=1e-3, encoder="resnet34")) == 1e-3


def test_without_weights_in_the_package_auto_is_none_and_says_so(no_bundled_weights):
    assert rates.resolve_weights(config()) == "none"
    assert "no weights came with it" in rates.about_weights(config())[0]


def test_a_card_that_cannot_be_read_stops_a_run_and_no_form(ours, folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "weights")
    (tmp_path / "weights" / "model_card.json").write_text("{")
    monkeypatch.setattr(registry.bundled_entries, "__defaults__", (tmp_path / "weights",))
    assert idle_settings(config())["l2_sp"]
    with pytest.raises(WeightsError, match=r"model card .* cannot be read"):
        rates.about_weights(config())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, None),
        ({"strategy": "scratch"}, None),
        ({"weights": "none", "encoder": "resnet34"}, None),
        (
            {"encoder": "resnet34"},
            f"resnet34 begins at random numbers, because weights came with the program for {ENCODER}",
        ),
        ({"architecture": "FPN"}, "'ours' hold a decoder of Unet: FPN takes their encoder alone"),
    ],
)
def test_what_might_surprise_is_said(ours, changes, says):
    said = rates.about_weights(config(**changes))
    if says is None:
        assert said is None
    else:
        assert says in said[0]
        assert said[1]


# -- into a network


def test_encoder_and_decoder_are_loaded_whatever_the_number_of_classes(ours, folder):
    model = initial_model(config(), 3)
    from safetensors.torch import load_file

    loaded, state = load_file(ours), model.state_dict()
    assert all(torch.equal(state[k].float(), v.float()) for k, v in loaded.items())
    assert state["segmentation_head.0.weight"].shape[0] == 3


@pytest.mark.parametrize("architecture", ["FPN", "UnetPlusPlus", "DeepLabV3Plus", "Segformer"])
def test_another_architecture_gets_the_encoder_and_a_new_decoder(ours, architecture):
    model = build_model(ModelConfig(architecture=architecture, encoder=ENCODER, n_classes=2))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    report = initialise(model, "ours")
    assert report.loaded == ("encoder",)
    assert report.new == ("decoder", "segmentation_head")
    assert all(name.startswith("decoder.") for name in report.ignored)
    assert len(report.ignored) > 10
    after = model.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in after if not k.startswith("encoder."))
    assert any(not torch.equal(after[k], before[k]) for k in after if k.startswith("encoder."))


def test_a_decoder_of_the_same_architecture_has_to_fit(tmp_path):
    half = write_weights(tmp_path / "whole.safetensors")
    half.pop("decoder.blocks.0.conv1.0.weight")
    save_file(half, tmp_path / "torn.safetensors", metadata={store.ARCHITECTURE_KEY: "Unet"})
    model = build_model(ModelConfig(encoder=ENCODER, n_classes=2))
    with pytest.raises(WeightsError, match=r"decoder\.blocks\.0\.conv1\.0\.weight is missing"):
        initialise(model, str(tmp_path / "torn.safetensors"))
    # A file that says nothing is taken at its word: its decoder is for the network that it is given to.
    save_file(half, tmp_path / "mute.safetensors")
    with pytest.raises(WeightsError, match="do not fit FPN"):
        initialise(
            build_model(ModelConfig(architecture="FPN", encoder=ENCODER, n_classes=2)),
            str(tmp_path / "mute.safetensors"),
        )


def test_a_damaged_file_is_not_loaded(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "weights")
    path = tmp_path / "weights" / "ours.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr(registry, "BUNDLED_DIR", path.parent)
    monkeypatch.setattr(registry.bundled_entries, "__defaults__", (path.parent,))
    with pytest.raises(WeightsError, match="are damaged"):
        initial_model(config(), 2)


# -- in a run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("defaults"))


def train(root, **changes):
    wanted = QUICK.model_copy(update={"weights": "auto", "strategy": "fine-tune", "iterations": 2, **changes})
    events, run_id = [], new_run(root, wanted)
    handle(TrainRequest(run_id=run_id, project=root, config=wanted), events.append, RunControl())
    assert isinstance(events[-1], RunFinished), events[-1]
    with Project.open(root) as project:
        run = project.run(run_id)
        return run.config, provenance_of(run), [e.message for e in events if isinstance(e, NoticePosted)]


def test_a_run_records_the_weights_by_name_and_checksum(root, ours):
    recorded, made_of, said = train(root)
    assert recorded["weights"] == made_of.config.weights == "ours"
    assert made_of.parent_sha256 == store.sha256_of(ours)
    assert not any("random numbers" in words for words in said)


def test_another_encoder_begins_at_random_numbers_and_the_run_says_so(root, ours):
    recorded, made_of, said = train(root, encoder=OTHER)
    assert recorded["weights"] == made_of.config.weights == "none"
    assert made_of.parent_sha256 is None
    (words,) = [words for words in said if "random numbers" in words]
    assert words.startswith(f"The encoder {OTHER} begins at random numbers")


def test_a_recommendation_takes_them_for_pretrained(root, ours):
    for wanted, pretrained in ((config(), True), (config(encoder=OTHER), False)):
        events = []
        request = RecommendRequest(run_id="advise", project=root, config=wanted)
        handle(request, events.append, RunControl())
        found = events[-1].result
        expected = follow_rules(found["n_tiles"], found["n_specimens"], found["gap"], pretrained, 2e-3, tile_px=256)
        assert (found["gap"] is not None) == pretrained
        assert found["strategy"] == expected.strategy
        assert found["config"]["weights"] == "auto"  # a form goes on meaning the same


def maps_of_live(root, weights):
    """Number of maps of the network that the live head looks at."""
    live_handler.forget()
    request = LiveRequest(
        run_id="live",
        project=root,
        micrograph="a1",
        window=Window(y0=0, x0=0, y1=64, x1=64),
        config=LiveConfig(weights=str(weights), encoder=ENCODER, compute=QUICK.compute),
    )
    events = []
    handle(request, events.append, RunControl())
    assert isinstance(events[-1], RunFinished), events[-1]
    found = len(live_handler._Kept.state._source._network._maps(torch.zeros(1, 1, 64, 64)))
    live_handler.forget()
    return found


def test_the_live_head_stands_on_the_part_that_was_chosen(root, ours, monkeypatch):
    assert maps_of_live(root, "ours") == 1
    monkeypatch.setattr(frozen, "PRETRAINED_PART", "encoder")
    assert maps_of_live(root, "ours") > 1


def test_the_live_head_never_looks_at_a_decoder_at_random(root, tmp_path):
    write_weights(tmp_path / "fpn.safetensors", architecture="FPN")
    assert maps_of_live(root, tmp_path / "fpn.safetensors") > 1


# -- into the package


@pytest.fixture
def bundle(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "resources"))
    import bundle_weights

    return bundle_weights


def test_bundling_writes_file_card_and_row(tmp_path, bundle):
    path, into = tmp_path / "tiny.safetensors", tmp_path / "weights"
    half = write_weights(path)
    with pytest.raises(WeightsError, match="does not say that it was pretrained by a recipe"):
        bundle.bundle(path, into)
    said = {
        store.ENCODER_KEY: ENCODER,
        store.ARCHITECTURE_KEY: "Unet",
        store.NOTES_KEY: "Tiny.",
        "licence": "BSD-3-Clause",
    }
    save_file(half, path, metadata=said | {"pretraining": json.dumps({"recipe": {"name": "tiny"}})})
    path.with_suffix(".md").write_text("# card")
    bundle.bundle(path, into)
    bundle.bundle(path, into, encoder_rate=1e-3, note="Measured.")
    (row,) = registry.bundled_entries(into)
    assert (row.name, row.encoder, row.architecture, row.channels) == ("tiny", ENCODER, "Unet", 1)
    assert (row.encoder_learning_rate, row.notes, row.licence) == (1e-3, "Tiny. Measured.", "BSD-3-Clause")
    assert row.sha256 == store.sha256_of(into / "tiny.safetensors")
    assert (into / "tiny.md").read_text() == "# card"
    half["encoder.model.bn1.running_var"][0] = 0
    save_file(half, path, metadata=said | {"pretraining": json.dumps({"recipe": {"name": "tiny"}})})
    with pytest.raises(WeightsError, match=r"no use in encoder\.model\.bn1\.running_var"):
        bundle.bundle(path, into)


def test_asking_for_the_default_needs_no_torch():
    code = (
        "import sys; from napari_emtransfer.core.config import TrainConfig; from napari_emtransfer.core import rates; "
        "rates.about_weights(TrainConfig()); rates.encoder_rate(TrainConfig()); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
