"""Verbs about pretrained encoders: list, fetch, import and verify."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from napari_emtransfer.cli.output import Outcome, format_table
from napari_emtransfer.cli.verb import add_verb
from napari_emtransfer.core.errors import WeightsError

if TYPE_CHECKING:
    from napari_emtransfer.core.nn.download import Progress
    from napari_emtransfer.core.nn.registry import WeightsEntry


def register(app: typer.Typer) -> None:
    """Add this module's verbs, as `weights VERB`."""
    verbs = typer.Typer(help="Pretrained encoders: bundled, ImageNet, MicroNet, a local file.", no_args_is_help=True)
    add_verb(verbs, "list", list_)
    add_verb(verbs, "fetch", fetch)
    add_verb(verbs, "import", import_)
    add_verb(verbs, "verify", verify)
    app.add_typer(verbs, name="weights")


def list_(
    encoder: Annotated[str | None, typer.Option(help="Only weights of this encoder.")] = None,
    here: Annotated[bool, typer.Option("--here", help="Only weights that need no network.")] = False,
) -> Outcome:
    """Show all weights, where they come from, and which are on this machine."""
    from napari_emtransfer.core.nn import store

    rows = [_describe(entry, store.is_here(entry)) for entry in store.all_entries()]
    rows = [r for r in rows if (encoder is None or r["encoder"] == encoder) and (r["here"] or not here)]
    header = ["name", "here", "accuracy", "source"]
    cells = [[r["name"], "yes" if r["here"] else "", _format_accuracy(r["accuracy"]), r["source"]] for r in rows]
    more = "imagenet:NAME works with any encoder of timm too. Accuracy: % of MicroNet's images, as published."
    return Outcome({"weights": rows}, f"{format_table([header, *cells])}\n{more}")


def fetch(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A name of `weights list`, for example micronet:resnet50.")
    ],
    encoder: Annotated[str | None, typer.Option(help="For a family alone: imagenet, micronet, image-micronet.")] = None,
) -> Outcome:
    """Download weights into the cache; a download that broke off goes on."""
    from napari_emtransfer.core.nn import store

    entry = store.find(name, encoder)
    if entry.file_name is None:
        raise WeightsError(f"There is nothing to fetch for {name!r}.", "Choose a name of `emtransfer weights list`.")
    report = _fetch(entry)
    row = _describe(entry, here=True) | {"report": report}
    return Outcome({"weights": [row]}, f"{entry.name} is on this machine: {report}.")


def import_(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A safetensors file, or a state dict (.pth, .pt).")],
    name: Annotated[
        str | None, typer.Option("--as", help="Its name from now on, or the row it is: imagenet:resnet18.")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="The encoder that it was trained with; checked.")] = None,
    preprocessing: Annotated[
        Literal["same", "imagenet", "half"],
        typer.Option(help="Normalisation of its three channels: all the same, ImageNet's, or mean and std 0.5."),
    ] = "same",
) -> Outcome:
    """Copy a file of weights into the cache, after checking that opening it runs no code."""
    from napari_emtransfer.core.nn.importing import import_weights
    from napari_emtransfer.core.nn.registry import PREPROCESSINGS

    entry, report = import_weights(path, name=name, encoder=encoder, preprocessing=PREPROCESSINGS[preprocessing])
    row = _describe(entry, here=True) | {"report": report and str(report)}
    fits = f" {report}." if report else " Not compared with an encoder; --encoder NAME does."
    return Outcome({"weights": [row]}, f"Imported as {entry.name}.{fits}")


def verify() -> Outcome:
    """Compare every file of weights on this machine with its checksum, and open it."""
    from napari_emtransfer.core.nn import fetching, store

    found = list(fetching.verify())
    rows = [{"name": v.name, "path": v.path, "ok": v.ok, "finding": v.finding} for v in found]
    lines = [["ok" if v.ok else "FAULT", v.name, v.finding] for v in found]
    text = format_table(lines) if lines else f"No files of weights in {store.cache_dir()}."
    return Outcome({"weights": rows}, text, exit_code=0 if all(v.ok for v in found) else 1)


def _fetch(entry: WeightsEntry) -> str:
    """Report of the comparison with the encoder."""
    from napari_emtransfer.core.nn import fetching

    if entry.family != "imagenet":
        with _progress_bar(entry.name) as progress:
            path = fetching.ensure(entry, progress)
    # Only now: torch takes seconds to import, and a download fails sooner.
    from napari_emtransfer.core.nn.importing import check_encoder
    from napari_emtransfer.core.nn.weights import imagenet_tensors, read_tensors

    tensors = imagenet_tensors(entry) if entry.family == "imagenet" else read_tensors(path)
    return str(check_encoder(entry.encoder, tensors, entry.name)) if entry.encoder else f"{len(tensors)} tensors"


@contextmanager
def _progress_bar(title: str) -> Iterator[Progress]:
    """A bar on stderr, where someone watches a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _describe(entry: WeightsEntry, here: bool) -> dict[str, Any]:
    from napari_emtransfer.core.nn import store

    path = store.path_of(entry) if entry.file_name is not None else None
    return entry.model_dump(mode="json") | {"here": here, "path": path}


def _format_accuracy(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{accuracy:.1f}"
