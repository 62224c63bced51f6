"""Pretraining on folders of classes: reading, dividing, learning, the file it writes, and what may go wrong."""

import json

import numpy as np
import pytest
import tifffile
import torch
from skimage.io import imsave

from napari_emtransfer.cli import main
from napari_emtransfer.core.config import ComputeConfig, ModelConfig, TrainConfig
from napari_emtransfer.core.data.micrograph import Micrograph
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import LabelError, UnreadableFileError
from napari_emtransfer.core.events import IterationEnded, NoticePosted, RunCancelled, RunFailed, RunFinished
from napari_emtransfer.core.nn import classify_data, store
from napari_emtransfer.core.nn.classify import EncoderPretraining, build_classifier, wilson_interval
from napari_emtransfer.core.nn.model import build_model
from napari_emtransfer.core.nn.pace import Pace
from napari_emtransfer.core.nn.tensors import read_metadata, read_tensors
from napari_emtransfer.core.nn.weights import initialise
from napari_emtransfer.worker.handlers import RunControl, handle
from napari_emtransfer.worker.protocol import PretrainRequest

QUICK = TrainConfig(
    encoder="test_resnet",
    iterations=40,
    batch_size=8,
    crop_px=64,
    learning_rate=3e-3,
    compute=ComputeConfig(device="cpu", threads=1, precision="fp32"),
)


def texture(kind: str, seed: int, shape=(120, 100)) -> np.ndarray:
    """Stripes or grain: uint8, as no grey value, only the texture, tells."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    pattern = np.sin((x if seed % 2 else y) * 0.8) if kind == "stripes" else rng.standard_normal(shape)
    return (128 + 40 * pattern + rng.normal(0, 8, shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("archive")
    for kind in ("stripes", "grain"):
        (root / kind).mkdir()
        for seed in range(10):
            imsave(root / kind / f"{seed}.png", texture(kind, seed), check_contrast=False)
    tifffile.imwrite(root / "grain" / "deep.tif", texture("grain", 77).astype(np.uint16) * 200)
    (root / "grain" / "torn.tif").write_bytes(b"II*\x00torn")
    (root / "grain" / "again.png").write_bytes((root / "grain" / "3.png").read_bytes())
    (root / "grain" / "notes.txt").write_text("not an image")
    return root


def do(request, control=None):
    events = []
    handle(request, events.append, control or RunControl())
    return events


def pretrain(folder, out, control=None, **changes):
    config = QUICK.model_copy(update=changes)
    return do(PretrainRequest(run_id="pretrain", images=folder, out=out, config=config), control)


@pytest.fixture(scope="module")
def pretrained(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "archive.safetensors"
    return out, pretrain(folder, out)


def test_an_archive_is_read_without_doubles_and_torn_files(folder):
    with classify_data.read_archive(folder, crop_px=64) as archive:
        assert archive.classes == ("grain", "stripes")
        assert [sum(i.label == k for i in archive.images) for k in (0, 1)] == [11, 10]
        assert len(archive.skipped) == 2
        assert any("same content as grain/3.png" in s for s in archive.skipped)
        deep = next(i for i in archive.images if i.name == "grain/deep.tif").image.astype(float)
        assert abs(deep.mean()) < 0.02
        assert abs(deep.std() - 1) < 0.02
        train, held_out = classify_data.hold_out(archive, seed=0)
        names = {i.name for i in train}
        assert not names & {i.name for i in held_out}
        assert len(names) + len(held_out) == 21
        assert [sum(i.label == k for i in held_out) for k in (0, 1)] == [2, 2]


def test_large_images_shrink_and_info_bars_stay_out():
    pixels = np.random.default_rng(0).normal(100, 10, (1000, 600)).astype(np.float32)
    pixels[900:] = 1e4
    bar = Window(y0=900, x0=0, y1=1000, x1=600)
    image = classify_data._standardised(Micrograph("m", pixels, info_bar=bar), kept_px=192)
    assert image.shape == (288, 192)
    assert np.abs(image).max() < 6


def test_crops_are_balanced_reproducible_and_of_one_size(folder):
    with classify_data.read_archive(folder, crop_px=64) as archive:
        few = [i for i in archive.images if i.label == 1][:2] + [i for i in archive.images if i.label == 0]
        sampler = classify_data.ClassSampler(few, crop_px=64, batch_size=64, seed=4)
        batch, again = sampler.batch(7), sampler.batch(7)
        assert batch.images.shape == (64, 1, 64, 64)
        assert torch.equal(batch.images, again.images)
        assert not torch.equal(batch.images, sampler.batch(8).images)
        assert 0.3 < batch.labels.float().mean() < 0.7
    views = classify_data.fixed_views(np.ones((20, 30), np.float16), 64)
    assert views.shape == (5, 1, 64, 64)


def test_it_learns_and_says_on_what_it_was_measured(pretrained, folder):
    _, events = pretrained
    assert isinstance(events[-1], RunFinished), events[-1]
    result = events[-1].result
    assert result["accuracy"] == 1.0
    assert result["ci95"] == pytest.approx([0.51, 1.0], abs=0.01)  # four images prove little
    assert result["classes"] == {"grain": 11, "stripes": 10}
    assert result["n_held_out"] == 4
    assert "Held out by file" in result["ground"]
    told = [e for e in events if isinstance(e, IterationEnded)]
    assert told[-1].iteration == 40
    assert told[-1].memory_gb > 0.05
    assert told[0].learning_rates.keys() == {"encoder", "head"}
    assert len([e for e in events if isinstance(e, NoticePosted)]) == 2


def test_the_file_starts_a_training(pretrained):
    out, _ = pretrained
    model = build_model(ModelConfig(encoder="test_resnet", n_classes=3))
    report = initialise(model, str(out))
    assert report.loaded == ("encoder",)
    assert not report.problems
    learnt, state = read_tensors(out), model.state_dict()
    assert all(torch.equal(state[k], v) for k, v in learnt.items())
    assert store.stated_encoder_rate(str(out), "test_resnet") == pytest.approx(QUICK.learning_rate / 10)
    record = json.loads(read_metadata(out)["pretraining"])
    assert record["classes"] == {"grain": 11, "stripes": 10}
    assert record["seed"] == 0
    assert "torch" in record["versions"]
    card = out.with_suffix(".md").read_text()
    assert "| stripes | 10 | 1.00 |" in card
    assert "started from: none" in card


def test_the_file_is_imported_with_its_encoder_and_rate(pretrained, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EMTRANSFER_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SystemExit) as left:
        main(["weights", "import", str(pretrained[0]), "--as", "ours", "--json"])
    assert left.value.code == 0
    (row,) = json.loads(capsys.readouterr().out)["weights"]
    assert (row["name"], row["encoder"]) == ("ours", "test_resnet")
    assert row["encoder_learning_rate"] == pytest.approx(3e-4)
    assert "matched" in row["report"]
    assert store.stated_encoder_rate("ours", "test_resnet") == pytest.approx(3e-4)


def test_it_goes_on_from_weights_ten_times_slower(pretrained, folder, tmp_path):
    out, _ = pretrained
    events = pretrain(folder, tmp_path / "second.safetensors", weights=str(out), iterations=1)
    assert isinstance(events[-1], RunFinished), events[-1]
    (told,) = [e for e in events if isinstance(e, IterationEnded)]
    assert told.learning_rates["encoder"] == pytest.approx(told.learning_rates["head"] / 10)
    assert events[-1].result["parent_sha256"] == store.sha256_of(out)


def test_the_same_seed_gives_the_same_encoder(folder, tmp_path):
    for name in ("a", "b"):
        pretrain(folder, tmp_path / f"{name}.safetensors", iterations=3)
    a, b = (read_tensors(tmp_path / f"{name}.safetensors") for name in ("a", "b"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_cancel_keeps_what_was_learnt_unmeasured(folder, tmp_path):
    control, events = RunControl(), []
    out = tmp_path / "part.safetensors"
    config = QUICK.model_copy(update={"iterations": 100_000})

    def emit(event):
        events.append(event)
        if isinstance(event, IterationEnded):
            control.cancel()

    handle(PretrainRequest(run_id="p", images=folder, out=out, config=config), emit, control)
    assert isinstance(events[-1], RunCancelled)
    assert events[-1].result["accuracy"] is None
    assert out.is_file()
    assert "Not measured" in out.with_suffix(".md").read_text()


def test_dropout_and_pooling_are_those_of_the_source():
    head = build_classifier(QUICK, 7).head
    assert [type(m).__name__ for m in head] == ["AdaptiveAvgPool2d", "Flatten", "Dropout", "Linear"]
    assert head[2].p == 0.5
    assert head[3].out_features == 7


def test_wilson_interval():
    assert wilson_interval(8, 10) == pytest.approx((0.490, 0.943), abs=1e-3)  # Newcombe, Stat. Med. 17 (1998)
    low, high = wilson_interval(5, 5)
    assert high == pytest.approx(1.0)
    assert low == pytest.approx(0.566, abs=1e-3)


def test_folders_that_cannot_be_learnt_from_are_refused_with_a_way_out(tmp_path, folder):
    with pytest.raises(UnreadableFileError, match="no folder"):
        classify_data.list_classes(tmp_path / "nowhere")
    with pytest.raises(LabelError, match="no folder with images") as caught:
        classify_data.list_classes(tmp_path)
    assert "FOLDER/CLASS/IMAGE" in caught.value.hint
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        imsave(tmp_path / name / "1.png", texture("grain", ord(name)), check_contrast=False)
    (failed,) = pretrain(tmp_path, tmp_path / "o.safetensors")[-1:]
    assert isinstance(failed, RunFailed)
    assert "two readable images" in failed.message
    assert not (tmp_path / "o.safetensors").exists()


@pytest.mark.parametrize(
    ("out", "weights", "says"),
    [
        ("o.pth", "none", "does not end in .safetensors"),
        ("o.safetensors", "run:0001", "belongs to no project"),
        ("o.safetensors", "nonsuch", "no weights 'nonsuch'"),
    ],
)
def test_wrong_words_are_refused(folder, tmp_path, out, weights, says):
    event = pretrain(folder, tmp_path / out, weights=weights)[-1]
    assert isinstance(event, RunFailed)
    assert says in event.message
    assert event.kind == "weights"


def test_a_file_that_exists_is_not_written_over(pretrained, folder):
    event = pretrain(folder, pretrained[0])[-1]
    assert isinstance(event, RunFailed)
    assert "exists already" in event.message


def test_a_place_that_cannot_be_written_is_told_before_the_training(folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    events = pretrain(folder, tmp_path / "file" / "o.safetensors")
    assert isinstance(events[-1], RunFailed)
    assert (events[-1].kind, len(events)) == ("storage", 1)


def test_a_stopped_pretraining_that_diverged_writes_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(EncoderPretraining, "_step", lambda *_: torch.tensor(float("nan")))
    monkeypatch.setattr(Pace, "may_speak", lambda _: False)
    monkeypatch.setattr(Pace, "over_budget", property(lambda pace: pace.seconds > 0.2))
    event = pretrain(folder, tmp_path / "o.safetensors", minutes=1, iterations=100_000)[-1]
    assert "loss became nan" in event.message
    assert not (tmp_path / "o.safetensors").exists()


def test_the_verb(folder, tmp_path, capsys):
    out = tmp_path / "verb.safetensors"
    words = ["--encoder", "test_resnet", "--iterations", "2", "--crop", "64", "--batch-size", "4", "--device", "cpu"]
    with pytest.raises(SystemExit) as left:
        main(["pretrain", str(folder), "--out", str(out), *words, "--json"])
    assert left.value.code == 0
    result = json.loads(capsys.readouterr().out)
    assert {"weights", "iterations", "seconds", "accuracy"} <= result.keys()
    assert out.is_file()
