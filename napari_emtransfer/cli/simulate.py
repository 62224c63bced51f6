"""The verb that plays the labelling of a set whose masks are known, to see whether an acquisition beats random."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import typer

from napari_emtransfer.cli.output import Outcome, format_iou, format_table
from napari_emtransfer.cli.perform import perform
from napari_emtransfer.cli.verb import Device, Threads, add_verb
from napari_emtransfer.core.config import Acquisition, ComputeConfig, RankConfig
from napari_emtransfer.core.data.storage import write_text
from napari_emtransfer.worker.protocol import SimulateRequest

_MOST_COLUMNS: Final = 8
_NAMES: Final[tuple[Acquisition, ...]] = get_args(Acquisition)


def register(app: typer.Typer) -> None:
    """Add this module's verb."""
    add_verb(app, "simulate", simulate)


def simulate(
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", help="Folder with images/, masks/ and dataset.json, as for import.")
    ],
    acquisition: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help=f"Play this one; repeat it: {', '.join(_NAMES)}. random is always played. [default]"
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="A split of the data set. Default: half of the specimens held out, others for each seed."),
    ] = None,
    rounds: Annotated[int, typer.Option(help="How often tiles are chosen.", min=1, max=1000)] = 8,
    query_size: Annotated[int, typer.Option(help="Tiles that are labelled in each round.", min=1, max=1000)] = 4,
    seed: Annotated[list[int] | None, typer.Option(help="Play with this seed; repeat it.", min=0)] = None,
    seeds: Annotated[int, typer.Option(help="Play so many times, with seeds 0, 1, …", min=1, max=1000)] = 3,
    tile_size: Annotated[int, typer.Option(help="Edge of a tile, in working pixels.", min=32)] = 128,
    iterations: Annotated[
        int, typer.Option(help="Fine-tune the network by so many in each round; 0 fits a head alone.", min=0)
    ] = 0,
    csv_: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the curves as a table.")] = None,
    device: Device = "auto",
    threads: Threads = None,
) -> Outcome:
    """Label a known set tile by tile, held-out specimens aside, and compare the learning curves with random tiles."""
    request = SimulateRequest(
        run_id="simulate",
        dataset=dataset,
        acquisitions=_known(acquisition or ["default"]),
        split=split,
        rounds=rounds,
        query_size=query_size,
        seeds=tuple(dict.fromkeys(seed)) if seed else tuple(range(seeds)),
        tile_px=tile_size,
        iterations=iterations,
        config=RankConfig(compute=ComputeConfig(device=device, threads=threads)),
    )
    result, code = perform(request)
    if csv_ is not None and "curves" in result:
        write_text(csv_, _table(result["curves"]))
        result = result | {"csv": csv_}
    return Outcome(result, _describe(result), code)


def _known(names: Sequence[str]) -> tuple[Acquisition, ...]:
    for name in names:
        if name not in _NAMES:
            raise typer.BadParameter(f"--acquisition is {name!r}, but must be one of {', '.join(_NAMES)}.")
    return tuple(known for name in dict.fromkeys(names) for known in _NAMES if known == name)


def _describe(result: Mapping[str, Any]) -> str:
    if not result.get("curves"):
        return "Stopped before the first measurement."
    curves = result["curves"]
    lines = [_curve_table(curves), result["note"]]
    if result["target"] is not None:
        lines.append(f"Tiles until the {format_iou(result['target'])} that random tiles end with:")
        lines += [f"  {name}: {_count(n)}" for name, n in result["tiles_to_target"].items()]
    lines += [f"{name} was {', then '.join(used)}." for name, used in result["resolved"].items()]
    return "\n".join(lines)


def _curve_table(curves: Mapping[str, Any]) -> str:
    """Mean IoU over the seeds, at no more numbers of tiles than fit a line."""
    n_tiles = max((curve["n_tiles"] for curve in curves.values()), key=len)
    step = -(-len(n_tiles) // _MOST_COLUMNS)
    shown = sorted({*n_tiles[::step], n_tiles[-1]})
    rows = [["tiles", *map(str, shown)]]
    for name, curve in curves.items():
        known = dict(zip(curve["n_tiles"], curve["mean_iou"], strict=True))
        rows.append([name, *(format_iou(known.get(n)) for n in shown)])
    return format_table(rows)


def _count(n: int | None) -> str:
    return "not reached" if n is None else str(n)


def _table(curves: Mapping[str, Any]) -> str:
    """One line per acquisition, seed and number of tiles."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["acquisition", "seed", "n_tiles", "mean_iou"])
    for name, curve in curves.items():
        for seed, values in curve["seeds"].items():
            writer.writerows([name, seed, n, value] for n, value in zip(curve["n_tiles"], values, strict=False))
    return text.getvalue()
