"""The verb that pretrains: an encoder on a folder of classified micrographs, or a network by a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from napari_emtransfer.cli.output import Outcome, format_table
from napari_emtransfer.cli.perform import perform
from napari_emtransfer.cli.verb import Device, Seed, Threads, add_verb
from napari_emtransfer.core.config import ComputeConfig, TrainConfig
from napari_emtransfer.core.errors import UnreadableFileError
from napari_emtransfer.core.rates import DEFAULT_RATE
from napari_emtransfer.core.recipe import read_recipe
from napari_emtransfer.worker.protocol import PretrainRequest, RecipeRequest

_DEFAULTS = TrainConfig()
_FOLDER, _RECIPE = "A folder of classes", "A recipe"
# What a recipe says itself, and what only it has.
_OF_FOLDERS: Final = ("encoder", "weights", "iterations", "batch_size", "crop", "learning_rate", "seed")
_OF_RECIPES: Final = ("resume",)


def register(app: typer.Typer) -> None:
    """Add this module's verb."""
    add_verb(app, "pretrain", pretrain)


_Source = Annotated[
    Path,
    typer.Argument(metavar="FOLDER|RECIPE.toml", help="One folder of images per class: FOLDER/CLASS/…; or a recipe."),
]
_Resume = Annotated[
    bool | None,
    typer.Option(
        "--resume/--fresh",
        help="Go on from the state beside --out, or begin anew. Default: go on where there is a state.",
        rich_help_panel=_RECIPE,
    ),
]
_Minutes = Annotated[
    float | None, typer.Option(help="Stop after so long; with a recipe, the same command then goes on.")
]


def _option(text: str) -> Any:
    return typer.Option(help=text, rich_help_panel=_FOLDER)


def pretrain(
    context: typer.Context,
    source: _Source,
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    encoder: Annotated[str, _option("Any encoder of segmentation-models-pytorch.")] = _DEFAULTS.encoder,
    weights: Annotated[str, _option("Where to start: none, a name of `weights list`, or a file.")] = "none",
    iterations: Annotated[int, _option("Optimiser steps.")] = 2000,
    batch_size: Annotated[int, _option("Crops per step.")] = 16,
    crop: Annotated[int, _option("Edge of a crop in pixels.")] = 224,
    learning_rate: Annotated[float, _option("Of the head; pretrained encoders get a tenth.")] = DEFAULT_RATE,
    resume: _Resume = None,
    minutes: _Minutes = None,
    device: Device = "auto",
    seed: Seed = 0,
    threads: Threads = None,
) -> Outcome:
    """Make weights for `train --weights FILE`: from your own archive of classes, or by a recipe from synthetic images.

    A recipe writes FILE, a model card, FILE.log.jsonl, and FILE.state, which it can go on from when it was stopped.
    FILE.state may be deleted when the recipe is done, unless it shall be made longer.
    """
    by_recipe = source.suffix.lower() == ".toml"
    _refuse(context, _OF_FOLDERS if by_recipe else _OF_RECIPES, source, by_recipe=by_recipe)
    compute = ComputeConfig(device=device, seed=seed, threads=threads)
    if by_recipe:
        asked = RecipeRequest(
            run_id="pretrain", recipe=read_recipe(source), out=out, resume=resume, minutes=minutes, compute=compute
        )
        result, code = perform(asked)
        return Outcome(result, _describe_recipe(result, source, out), code)
    config = TrainConfig(
        encoder=encoder,
        weights=weights,
        iterations=iterations,
        minutes=minutes,
        batch_size=batch_size,
        crop_px=crop,
        learning_rate=learning_rate,
        compute=compute,
    )
    result, code = perform(PretrainRequest(run_id="pretrain", images=source, out=out, config=config))
    return Outcome(result, _describe(result), code)


def _refuse(context: typer.Context, names: tuple[str, ...], source: Path, *, by_recipe: bool) -> None:
    """Options that would have no effect."""
    given = [name for name in names if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"]
    if not given:
        return
    option = f"--{given[0].replace('_', '-')}" if by_recipe else "--resume or --fresh"
    raise UnreadableFileError(
        f"{option} has no effect on {source.name!r}, which is a {'recipe' if by_recipe else 'folder of classes'}.",
        "Write it into the recipe." if by_recipe else "Leave it out, or name a recipe (.toml).",
    )


def _describe_recipe(result: dict[str, Any], source: Path, out: Path) -> str:
    if not result.get("iterations"):
        return "Stopped before the first step."
    done = f"{result['iterations']} of {result['n_steps']} steps in {result['seconds']:.0f} s on {result['device']}"
    if not result["complete"]:
        return f"{done}. The state is {result['state']}.\nGo on with: emtransfer pretrain {source} --out {out}"
    right = "" if result["accuracy"] is None else f", {100 * result['accuracy']:.1f} % of unseen pixels right"
    loss = "" if result["loss"] is None else f", loss {result['loss']:.3f}{right}"
    waited = "" if result["waited"] is None else f" {100 * result['waited']:.1f} % of that for want of micrographs."
    return "\n".join(
        [
            f"{result['weights']}: {result['architecture']} with {result['encoder']}, {done}{loss}.{waited}",
            f"{result['state']} may be deleted, unless the recipe shall be made longer.",
            f"Go on with: emtransfer train PROJECT --encoder {result['encoder']} --weights {result['weights']}",
        ]
    )


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
