"""Pretrain an encoder on a folder of classified micrographs and write it as weights that a training can start from."""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from safetensors.torch import save

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.storage import storage_faults, write_atomic, write_text
from napari_emtransfer.core.errors import WeightsError
from napari_emtransfer.core.events import NoticePosted, ProgressMade, RunStarted
from napari_emtransfer.core.nn import devices, store
from napari_emtransfer.core.nn.classify import (
    ENCODER_RATIO,
    Accuracy,
    EncoderPretraining,
    build_classifier,
    encoder_rate,
)
from napari_emtransfer.core.nn.classify_data import ClassSampler, ImageArchive, hold_out, read_archive
from napari_emtransfer.core.rates import learning_rate, with_weights
from napari_emtransfer.worker.control import Cancelled, Emit, RunControl
from napari_emtransfer.worker.protocol import PretrainRequest
from napari_emtransfer.worker.provenance import weights_checksum

GROUND: Final = (
    "Held out by file, a fifth of each class: images of one specimen may lie on both sides, so expect less on new "
    "specimens. The held-out images took no part in any choice."
)
_MAX_NAMED: Final = 3
LIBRARIES: Final = ("napari-emtransfer", "torch", "timm", "segmentation-models-pytorch", "numpy")


def pretrain(request: PretrainRequest, emit: Emit, control: RunControl) -> dict[str, Any]:
    """Train on `request.images`, measure, write `request.out` and a card beside it; → what the command line prints.

    A cancelled pretraining writes what it has learnt so far, unmeasured.

    Raises
    ------
    LabelError
        When the folder does not hold two classes with two readable images each.
    WeightsError
        When `out` exists or is no .safetensors, or the weights to start from cannot be had or do not fit.
    StorageError
        When nothing can be written to the folder of `out`, or the temporary disk is full.
    """
    config = with_weights(request.config)
    request = request.model_copy(update={"config": config})
    check_target(request.out)
    _check_parent(config)
    devices.set_threads(config.compute.threads)
    run_id = request.run_id

    def progress(done: int, total: int) -> None:
        if control.cancelled:
            raise Cancelled
        emit(ProgressMade(run_id=run_id, done=done, total=total, what="images read"))

    with read_archive(request.images, crop_px=config.crop_px, progress=progress) as archive:
        for sentence in _said(archive.skipped):
            emit(NoticePosted(run_id=run_id, message=sentence))
        return _train(request, archive, emit, control)


def _train(request: PretrainRequest, archive: ImageArchive, emit: Emit, control: RunControl) -> dict[str, Any]:
    config, run_id = request.config, request.run_id
    train, held_out = hold_out(archive, config.compute.seed)
    model = build_classifier(config, len(archive.classes))
    sampler = ClassSampler(
        train,
        crop_px=config.crop_px,
        batch_size=config.batch_size,
        seed=config.compute.seed,
        augmented=config.augment != "none",
    )
    pretraining = EncoderPretraining(model, config, sampler)
    device = devices.describe(pretraining.device)
    details = {"classes": list(archive.classes), "n_images": len(archive.images), "ground": GROUND}
    emit(RunStarted(run_id=run_id, n_steps=config.iterations, device=device, details=details))
    iterations = pretraining.fit(run_id, emit, control.should_stop)
    accuracy = pretraining.measure(held_out, archive.classes, lambda: control.cancelled)
    result = _result(request, archive, accuracy) | {
        "iterations": iterations,
        "seconds": pretraining.seconds,
        "device": device,
    }
    if iterations:
        _write(request.out, pretraining, result)
    if control.cancelled:
        raise Cancelled(result)
    return result


def _result(request: PretrainRequest, archive: ImageArchive, accuracy: Accuracy | None) -> dict[str, Any]:
    config = request.config
    counts = [sum(image.label == label for image in archive.images) for label in range(len(archive.classes))]
    return {
        "weights": str(request.out),
        "encoder": config.encoder,
        "parent": config.weights,
        "parent_sha256": weights_checksum(None, config),
        "classes": dict(zip(archive.classes, counts, strict=True)),
        "n_images": len(archive.images),
        "n_held_out": accuracy.n_images if accuracy else 0,
        "images_fingerprint": archive.fingerprint,
        "accuracy": accuracy.overall if accuracy else None,
        "ci95": list(accuracy.ci95) if accuracy else None,
        "accuracy_per_class": accuracy.per_class if accuracy else {},
        "ground": GROUND if accuracy else "Not measured: it was cancelled.",
        "encoder_learning_rate": ENCODER_RATIO * learning_rate(config),
    }


def _write(out: Path, pretraining: EncoderPretraining, result: dict[str, Any]) -> None:
    """The encoder as safetensors, which say what they are, and a card for people."""
    config = pretraining.config
    versions = {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}
    recorded = result | {"seed": config.compute.seed, "versions": versions, "encoder_rate_here": encoder_rate(config)}
    said = {
        store.ENCODER_KEY: config.encoder,
        store.ENCODER_RATE_KEY: repr(result["encoder_learning_rate"]),
        store.NOTES_KEY: _summary(result),
        "pretraining": json.dumps(recorded | {"config": config.model_dump(mode="json")}),
    }
    with storage_faults(out):
        write_atomic(out, save(pretraining.encoder_tensors(), metadata=said))
        write_text(out.with_suffix(".md"), "\n".join(_card(recorded, config)) + "\n")


def _summary(result: dict[str, Any]) -> str:
    share = "not measured" if result["accuracy"] is None else f"{100 * result['accuracy']:.0f} % of held-out images"
    return f"Pretrained on {len(result['classes'])} classes of {result['n_images']} images, {share} right."


def _card(recorded: dict[str, Any], config: TrainConfig) -> Iterator[str]:
    yield f"# Encoder {config.encoder}, {Path(recorded['weights']).name}"
    yield ""
    yield _summary(recorded) + " " + recorded["ground"]
    if recorded["ci95"]:
        yield f"95 % interval of the share (Wilson): {recorded['ci95'][0]:.3f} to {recorded['ci95'][1]:.3f}."
    yield ""
    yield "| class | images | right, of the held-out ones |"
    yield "|---|---|---|"
    for name, count in recorded["classes"].items():
        share = recorded["accuracy_per_class"].get(name)
        yield f"| {name} | {count} | {'–' if share is None else f'{share:.2f}'} |"
    yield ""
    yield f"- started from: {recorded['parent']}" + (f", sha256 {s}" if (s := recorded["parent_sha256"]) else "")
    yield f"- {recorded['iterations']} iterations in {recorded['seconds']:.0f} s on {recorded['device']}"
    yield f"- seed {recorded['seed']}, versions {', '.join(f'{n} {v}' for n, v in recorded['versions'].items())}"
    yield f"- fingerprint of the images: {recorded['images_fingerprint']}"
    yield f"- rate for the encoder in a training that starts from here: {recorded['encoder_learning_rate']:g}"
    yield ""
    yield "```json"
    yield config.model_dump_json(indent=1)
    yield "```"


def check_target(out: Path) -> None:
    """Refuse a file that cannot be written, or that would be written over, before hours of training."""
    if out.suffix.lower() != ".safetensors":
        raise WeightsError(f"{out.name!r} does not end in .safetensors.", f"Write to {out.stem}.safetensors.")
    if out.exists():
        raise WeightsError(f"{str(out)!r} exists already.", "Give another name, or delete it first.")
    with storage_faults(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass


def _check_parent(config: TrainConfig) -> None:
    if config.weights.startswith("run:"):
        raise WeightsError(
            f"A pretraining belongs to no project, so {config.weights!r} means nothing here.",
            "Start from none, a name of `emtransfer weights list`, or the best.safetensors of that run.",
        )


def _said(skipped: tuple[str, ...]) -> tuple[str, ...]:
    """The first few in full; thousands of notices tell nobody anything."""
    more = len(skipped) - _MAX_NAMED
    return skipped if more <= 0 else (*skipped[:_MAX_NAMED], f"{more} more were left out for like reasons.")
