"""The verb that says which tiles to label next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from napari_emtransfer.cli.manage import ProjectFolder
from napari_emtransfer.cli.output import Outcome, format_iou, format_table
from napari_emtransfer.cli.perform import perform
from napari_emtransfer.cli.verb import Device, Seed, Threads, add_verb
from napari_emtransfer.core.config import AUTO_WEIGHTS, Acquisition, ComputeConfig, RankConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.worker.protocol import RankRequest


def register(app: typer.Typer) -> None:
    """Add this module's verb."""
    add_verb(app, "rank", rank)


def rank(
    project: ProjectFolder,
    run: Annotated[
        str | None,
        typer.Option(
            help="Features of this run's network: its id, the beginning of it, latest, or best. Default: the newest "
            "run, before the first one the weights that come with the program."
        ),
    ] = None,
    acquisition: Annotated[
        Acquisition,
        typer.Option(help="How tiles are chosen; default: by clusters before two classes are labelled, clasp after."),
    ] = "default",
    n: Annotated[int, typer.Option("-n", "--n", help="How many tiles to queue.", min=1, max=1000)] = 8,
    device: Device = "auto",
    seed: Seed = 0,
    threads: Threads = None,
) -> Outcome:
    """Score every unlabelled tile and queue the best; one in five is a random control, which scores are measured on."""
    with Project.open(project) as opened:
        weights = AUTO_WEIGHTS if run is None else f"run:{opened.run(run).id}"
    compute = ComputeConfig(device=device, seed=seed, threads=threads)
    config = RankConfig(acquisition=acquisition, n_tiles=n, weights=weights, compute=compute)
    result, code = perform(RankRequest(run_id="rank", project=project, config=config))
    return Outcome(result, _describe(result), code)


def _describe(result: Mapping[str, Any]) -> str:
    if "tiles" not in result:
        return "Stopped; the features computed so far are kept."
    if not result["tiles"]:
        return "\n".join(["No tile is left to label.", *_facts(result["facts"])])
    header = ["micrograph", "y", "x", "tile", "score", "reason"]
    rows = [
        [t["micrograph"], f"{t['y']:.0f}", f"{t['x']:.0f}", f"{t['row']},{t['column']}", _score(t), t["reason"]]
        for t in result["tiles"]
    ]
    seconds = result["seconds"]["total"]
    told = f"{result['n_scored']} of {result['n_tiles']} tiles scored in {seconds:.1f} s, by {result['acquisition']}"
    left = [f"{result['n_left']} tiles have no features yet; rank again to go on."] if result["n_left"] else []
    return "\n".join([format_table([header, *rows]), told, *left, *_facts(result["facts"])])


def _score(tile: Mapping[str, Any]) -> str:
    return "–" if tile["score"] is None else f"{tile['score']:.3f}"


def _facts(facts: Mapping[str, Any]) -> list[str]:
    """What is measured on control tiles, each with its interval."""
    lines = []
    control = facts.get("control")
    if control:
        value = control["mean_iou"]
        figure = "No mean IoU" if value is None else f"mean IoU {format_iou(value)}{_interval(control)}"
        lines.append(f"{figure}: {control['ground']}")
    phases = facts.get("phases") or {}
    known = [[name, f"{100 * p['fraction']:.1f} %", _percent(p)] for name, p in phases.items()]
    return [*lines, *([format_table([["phase", "area", "95 % interval"], *known])] if known else [])]


def _interval(values: Mapping[str, Any]) -> str:
    low, high = values.get("low"), values.get("high")
    return "" if low is None or high is None else f" [{low:.3f}–{high:.3f}]"


def _percent(values: Mapping[str, Any]) -> str:
    low, high = values.get("low"), values.get("high")
    return "–" if low is None or high is None else f"{100 * low:.1f}–{100 * high:.1f} %"
