"""Synthetic micrographs for a project: a look at a few, and adding them with their exact labels."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Set
from pathlib import Path
from typing import Any, Final

import numpy as np

from napari_emtransfer.core.data.import_dataset import ImportReport, import_described
from napari_emtransfer.core.data.import_description import DatasetDescription, read_description
from napari_emtransfer.core.data.labels import LabelSchema
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.project_records import unique_stem
from napari_emtransfer.core.errors import EMTransferError, SynthesisError
from napari_emtransfer.core.events import ProgressMade
from napari_emtransfer.core.synth.dataset import plan
from napari_emtransfer.core.synth.flat_field import FlatField
from napari_emtransfer.core.synth.generate import realize
from napari_emtransfer.worker.control import Cancelled, Emit, RunControl
from napari_emtransfer.worker.preview_file import write_preview
from napari_emtransfer.worker.protocol import AddSyntheticRequest, SynthesisPreviewRequest, SynthesizeRequest
from napari_emtransfer.worker.synthesize_handler import measured_flat_field, synthesize

ADDING: Final = "micrographs added"
_UNLABELLED: Final = "unlabelled"


def preview_synthesis(request: SynthesisPreviewRequest, emit: Emit, control: RunControl) -> dict[str, Any]:  # noqa: ARG001 - as all handlers
    """Make the first micrographs of a data set, the same as it would have, and write them to one file.

    Returns
    -------
    dict
        "file": an .npz with "images" (n, h, w) uint8, black to white as the detector's, and "masks" (n, h, w) uint8,
        classes 1..K; "classes": their names; "omits"; "detector": what was measured of the user's instrument;
        "seconds".

    Raises
    ------
    EMTransferError
        As `synthesize`.
    """
    make = request.make
    flat_field = measured_flat_field(make)
    started = time.monotonic()
    made = []
    for one in plan(
        make.generator,
        make.presets,
        n=make.n,
        seed=make.seed,
        per_specimen=make.per_specimen,
        shape=make.shape,
        pixel_size_nm=make.pixel_size_nm,
        instrument=make.instrument,
        flat_field=flat_field,
    ):
        if control.cancelled:
            raise Cancelled
        made.append(realize(one.recipe))
    images = np.stack([np.round(255 * one.image).astype(np.uint8) for one in made])
    return {
        "file": str(write_preview(make.out, "synthesis", images, np.stack([one.mask for one in made]))),
        "classes": list(made[0].classes),
        "omits": list(dict.fromkeys(clause for one in made for clause in one.omits)),
        "detector": _words(flat_field),
        "pixel_size_nm": made[0].pixel_size_nm,
        "seconds": time.monotonic() - started,
    }


def add_synthetic(request: AddSyntheticRequest, emit: Emit, control: RunControl) -> dict[str, Any]:
    """Make micrographs in a folder of the project and import them; all of them or, when cancelled or failed, none.

    Returns
    -------
    dict
        "micrographs": stems; "specimens", "domain", "classes" (of the project), "folder".

    Raises
    ------
    SynthesisError
        When the very same micrographs are in the project already.
    EMTransferError
        As `synthesize` and `import_dataset`.
    """
    folder = _new_folder(request.make)
    try:
        synthesize(request.make.model_copy(update={"run_id": request.run_id, "out": folder}), emit, control)
        with Project.open(request.project) as project:
            return _add(project, folder, request, emit, control)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _add(
    project: Project, folder: Path, request: AddSyntheticRequest, emit: Emit, control: RunControl
) -> dict[str, Any]:
    before, scale = project.schema, project.settings.working_pixel_size_nm

    def report(done: int, total: int, _name: str) -> None:
        if control.cancelled:
            raise Cancelled
        emit(ProgressMade(run_id=request.run_id, done=done, total=total, what=ADDING))

    try:
        found = _imported(project, folder, request, report)
        added = _of_folder(project, folder)
        _check(found, added)
    except BaseException:
        for stem in _of_folder(project, folder):
            project.remove_micrograph(stem)
        project.set_schema(before)
        project.update_settings(working_pixel_size_nm=scale)
        raise
    records = [project.record(stem) for stem in added]
    return {
        "micrographs": added,
        "specimens": list(dict.fromkeys(record.specimen for record in records)),
        "domain": request.domain,
        "classes": list(project.schema.names),
        "folder": str(folder),
    }


def _imported(project: Project, folder: Path, request: AddSyntheticRequest, report: Any) -> ImportReport:
    found = read_description(folder / "dataset.json")
    if not any(request.classes.get(name) for name in found.classes.values()):
        raise SynthesisError(
            f"None of their classes ({', '.join(found.classes.values())}) would be labelled.",
            "Choose a class of the project for one of them.",
        )
    if request.replace_classes:
        names = dict.fromkeys(name for name in request.classes.values() if name)
        project.set_schema(LabelSchema.from_names(list(names)))
    taken = {record.specimen for record in project.micrographs()}
    description = _described(found, request, taken)
    return import_described(project, folder / "images", folder / "masks", description, progress=report)


def _described(found: DatasetDescription, request: AddSyntheticRequest, taken: Set[str]) -> DatasetDescription:
    """The data set as the project is to see it: its classes, specimens that are like none in `taken`, no splits."""
    specimens: dict[str, str] = {}
    preset = "+".join(request.make.presets) or request.make.generator
    for number, name in enumerate(dict.fromkeys(found.groups.values()), start=1):
        specimens[name] = unique_stem(f"{preset} {request.make.seed}.{number}", {*taken, *specimens.values()})
    return found.model_copy(
        update={
            "classes": {value: request.classes.get(name) or _UNLABELLED for value, name in found.classes.items()},
            "groups": {stem: specimens[name] for stem, name in found.groups.items()},
            "splits": {},
            "folds": {},
            "domain": request.domain,
            "synthetic": True,
        }
    )


def _check(found: ImportReport, added: list[str]) -> None:
    """All or nothing: what could not be imported, or was there before, is a fault."""
    if not added:
        raise SynthesisError("These micrographs are in the project already.", "Choose another seed.")
    if found.skipped:
        name, reason = found.skipped[0]
        raise EMTransferError(f"{name} could not be added: {reason.rstrip('.')}.", "Nothing was added; try again.")


def _of_folder(project: Project, folder: Path) -> list[str]:
    return [record.stem for record in project.micrographs() if record.path.is_relative_to(folder)]


def _new_folder(make: SynthesizeRequest) -> Path:
    """A folder that does not exist yet, named after the preset and the seed."""
    preset = re.sub(r"[^\w.+-]+", "_", "+".join(make.presets) or make.generator)
    name = f"{preset} {make.seed}"
    number = 1
    while (folder := make.out / (name if number == 1 else f"{name} ({number})")).exists():
        number += 1
    return folder.resolve()


def _words(flat_field: FlatField | None) -> str:
    if flat_field is None:
        return ""
    return (
        f"Your instrument: {1 / flat_field.gain:.0f} quanta at white, read noise {100 * flat_field.read_noise:.2f} %, "
        f"point spread {flat_field.noise_psf_px:.2f} px. {flat_field.note}"
    )
