"""Verbs that make a project and fill it: init, add, import."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from napari_emtransfer.cli.output import Outcome
from napari_emtransfer.cli.verb import add_verb
from napari_emtransfer.core.config import Modality
from napari_emtransfer.core.data.import_dataset import ImportReport, import_dataset, import_folders
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.readers import supported_suffixes
from napari_emtransfer.core.errors import EMTransferError, LabelError, UnreadableFileError

ProjectFolder = Annotated[Path, typer.Argument(metavar="PROJECT", help="The project's folder.")]


def register(app: typer.Typer) -> None:
    """Add this module's verbs."""
    add_verb(app, "init", init)
    add_verb(app, "add", add)
    add_verb(app, "import", import_)


def init(
    project: ProjectFolder,
    class_: Annotated[list[str] | None, typer.Option("--class", help="A phase or object class; repeat it.")] = None,
    modality: Annotated[
        Modality,
        typer.Option(
            help="What the micrographs are; decides which augmentations are true to them. haadf: measured intensities; "
            "directional: grown along the vertical axis; time: one axis is time; metric: sizes are read from the "
            "labels; lom: light microscopy."
        ),
    ] = "sem",
    pixel_size_nm: Annotated[
        float | None, typer.Option(help="Working pixel size: micrographs are resampled to it. Default: native.")
    ] = None,
    tile_size: Annotated[int, typer.Option(help="Edge of a tile to label, in working pixels.")] = 256,
) -> Outcome:
    """Create a project folder."""
    with Project.create(
        project, classes=class_ or (), modality=modality, pixel_size_nm=pixel_size_nm, tile_size_px=tile_size
    ) as created:
        names = created.schema.names
    text = f"Created {project} with {', '.join(names) if names else 'no classes yet'}."
    return Outcome({"project": project.resolve(), "classes": list(names)}, text)


def add(
    project: ProjectFolder,
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH…", help="Image files, folders, or patterns like '*.tif'.")
    ],
    specimen: Annotated[
        str | None, typer.Option(help="The specimen they show; held-out scores split by it. Default: one per image.")
    ] = None,
    domain: Annotated[str, typer.Option(help="Imaging condition: instrument, detector, voltage.")] = "default",
    pixel_size_nm: Annotated[float | None, typer.Option(help="Where the file does not state it.")] = None,
    frame: Annotated[int | None, typer.Option(help="Which image of a stack, counted from 0.")] = None,
) -> Outcome:
    """Register micrographs; their files stay where they are."""
    added, failures = [], []
    with Project.open(project) as opened:
        for path in expand_paths(paths):
            try:
                record = opened.add_micrograph(
                    path, specimen=specimen, domain=domain, pixel_size_nm=pixel_size_nm, frame=frame
                )
            except EMTransferError as error:
                typer.echo(f"error: {path}: {error}", err=True)
                failures.append({"path": path, "error": error.message, "hint": error.hint})
            else:
                added.append(record)
    text = f"Added {len(added)} micrograph(s) to {project}" + (f"; {len(failures)} failed." if failures else ".")
    result = {"micrographs": added, "failures": failures}
    return Outcome(result, text, exit_code=1 if failures else 0)


def expand_paths(words: Sequence[str]) -> Iterator[Path]:
    """Files named one by one, by folder, or by a pattern (a shell on Windows leaves those to us)."""
    for word in words:
        path = Path(word)
        if path.is_dir() and path.suffix.lower() not in supported_suffixes():
            yield from _images_in(path)
        elif path.exists() or not glob.has_magic(word):
            yield path
        elif matches := sorted(glob.glob(word, recursive=True)):  # noqa: PTH207 - the pattern may be absolute
            yield from map(Path, matches)
        else:
            raise UnreadableFileError(f"Nothing matches {word}.", "Check the folder and the pattern.")


def _images_in(folder: Path) -> list[Path]:
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in supported_suffixes())
    if not found:
        known = ", ".join(sorted(supported_suffixes()))
        raise UnreadableFileError(f"The folder {folder} holds no image.", f"Known: {known}.")
    # NAME_1.ser holds the pixels of NAME.emi, which knows more about them: one image, not two.
    emi = {p.stem for p in found if p.suffix.lower() == ".emi"}
    return [p for p in found if not (p.suffix.lower() == ".ser" and p.stem.rpartition("_")[0] in emi)]


def import_(
    project: ProjectFolder,
    dataset: Annotated[
        Path | None, typer.Argument(metavar="[DATASET]", help="Folder with images/, masks/ and dataset.json.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Instead of DATASET: the folder of the images.")] = None,
    masks: Annotated[Path | None, typer.Option(help="With --images: the masks, with the same stems.")] = None,
    map_: Annotated[
        str | None, typer.Option("--map", help="What the mask values mean, for example 0=matrix,255=pore.")
    ] = None,
) -> Outcome:
    """Register images together with their masks as annotations."""
    with Project.open(project) as opened:
        if dataset is not None and images is None and masks is None and map_ is None:
            report = import_dataset(opened, dataset)
        elif dataset is None and images is not None and masks is not None and map_ is not None:
            report = import_folders(opened, images, masks, _parse_map(map_))
        else:
            raise typer.BadParameter("Give either DATASET, or all of --images, --masks and --map.")
    return _imported(report, project)


def _imported(report: ImportReport, project: Path) -> Outcome:
    skipped = [{"micrograph": stem, "reason": reason} for stem, reason in report.skipped]
    for entry in skipped:
        typer.echo(f"skipped: {entry['micrograph']}: {entry['reason']}", err=True)
    text = f"Imported {len(report.micrographs)} micrograph(s) into {project}; classes: {', '.join(report.classes)}."
    result = {"micrographs": report.micrographs, "classes": report.classes, "skipped": skipped}
    return Outcome(result, text, exit_code=0 if report.micrographs else 1)


def _parse_map(text: str) -> dict[int, str]:
    """'0=matrix,255=pore' → {0: 'matrix', 255: 'pore'}."""
    pairs = [pair.partition("=") for pair in text.split(",")]
    well_formed = all(value.strip().isdigit() and name.strip() for value, _, name in pairs)
    mapping = {int(value): name.strip() for value, _, name in pairs} if well_formed else {}
    if len(mapping) != len(pairs):
        raise LabelError(
            f"--map is {text!r}, but must be VALUE=NAME pairs separated by commas, each value once.",
            "For example 0=matrix,255=pore.",
        )
    return mapping
