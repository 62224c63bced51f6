"""The verb that pretrains an encoder on a folder of classified micrographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_emtransfer.cli.output import Outcome, format_table
from napari_emtransfer.cli.perform import perform
from napari_emtransfer.cli.verb import Device, Seed, Threads, add_verb
from napari_emtransfer.core.config import ComputeConfig, TrainConfig
from napari_emtransfer.core.errors import UnreadableFileError
from napari_emtransfer.worker.protocol import PretrainRequest

_DEFAULTS = TrainConfig()


def register(app: typer.Typer) -> None:
    """Add this module's verb."""
    add_verb(app, "pretrain", pretrain)


def pretrain(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="One folder of images per class: FOLDER/CLASS/….")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    encoder: Annotated[str, typer.Option(help="Any encoder of segmentation-models-pytorch.")] = _DEFAULTS.encoder,
    weights: Annotated[str, typer.Option(help="Where to start: none, a name of `weights list`, or a file.")] = "none",
    iterations: Annotated[int, typer.Option(help="Optimiser steps.")] = 2000,
    minutes: Annotated[float | None, typer.Option(help="Stop after so long, whatever comes first.")] = None,
    batch_size: Annotated[int, typer.Option(help="Crops per step.")] = 16,
    crop: Annotated[int, typer.Option(help="Edge of a crop in pixels.")] = 224,
    learning_rate: Annotated[float, typer.Option(help="Of the head; pretrained encoders get a tenth.")] = (
        _DEFAULTS.learning_rate
    ),
    device: Device = "auto",
    seed: Seed = 0,
    threads: Threads = None,
) -> Outcome:
    """Teach an encoder to tell the classes of your own archive apart; `train --weights FILE` goes on from it."""
    if folder.suffix.lower() == ".toml":
        raise UnreadableFileError(
            f"{folder.name!r} is a recipe, and this version pretrains on folders of classified images only.",
            "Name a folder that holds one folder of images per class.",
        )
    config = TrainConfig(
        encoder=encoder,
        weights=weights,
        iterations=iterations,
        minutes=minutes,
        batch_size=batch_size,
        crop_px=crop,
        learning_rate=learning_rate,
        compute=ComputeConfig(device=device, seed=seed, threads=threads),
    )
    request = PretrainRequest(run_id="pretrain", images=folder, out=out, config=config)
    result, code = perform(request)
    return Outcome(result, _describe(result), code)


def _describe(result: dict[str, Any]) -> str:
    if not result.get("iterations"):
        return "Stopped before the first iteration; nothing was written."
    lines = [
        f"{result['weights']}: {result['encoder']}, {result['iterations']} iterations in {result['seconds']:.0f} s "
        f"on {result['device']}"
    ]
    if result["accuracy"] is not None:
        low, high = result["ci95"]
        lines.append(f"{100 * result['accuracy']:.1f} % of {result['n_held_out']} images right [{low:.3f}–{high:.3f}]")
        rows = [[n, str(c), f"{100 * result['accuracy_per_class'][n]:.0f} %"] for n, c in result["classes"].items()]
        lines.append(format_table([["class", "images", "right"], *rows]))
    lines += [
        result["ground"],
        f"Go on with: emtransfer train PROJECT --encoder {result['encoder']} --weights {result['weights']}",
    ]
    return "\n".join(lines)
