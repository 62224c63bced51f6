"""Make synthetic micrographs and write them as a data set, one after the other: memory holds one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.data.readers import read_micrograph
from napari_emtransfer.core.events import NoticePosted, ProgressMade, RunStarted
from napari_emtransfer.core.synth.dataset import DatasetWriter, check_target, new_dataset, plan
from napari_emtransfer.core.synth.dataset_files import check_space
from napari_emtransfer.core.synth.flat_field import FlatField, measure
from napari_emtransfer.core.synth.generate import realize
from napari_emtransfer.core.synth.recipe import check_preset, check_shape
from napari_emtransfer.worker.control import Cancelled, Emit, RunControl
from napari_emtransfer.worker.protocol import SynthesizeRequest


def synthesize(request: SynthesizeRequest, emit: Emit, control: RunControl) -> dict[str, Any]:
    """Write the data set `request.out`; → what the command line prints.

    When cancelled, the micrographs that are complete make a smaller data set.

    Raises
    ------
    SynthesisError
        When a preset does not exist, the shape is out of range, or `out` is not empty.
    FlatFieldError
        When the noise of the instrument cannot be measured on the images given.
    StorageError
        When the disk refuses; nothing is left behind then.
    """
    for preset in request.presets:
        check_preset(request.generator, preset)
    check_shape(request.shape)
    check_target(request.out)
    check_space(request.out.expanduser().resolve(), request.n, request.shape)
    flat_field = _flat_field(request, emit)
    emit(RunStarted(run_id=request.run_id, n_steps=request.n))
    began = time.monotonic()
    with new_dataset(request.out, request.generator, request.seed) as writer:
        _say_found(request, writer, emit)
        omits = _make_all(request, flat_field, writer, emit, control)
    result = _result(request, writer, flat_field, time.monotonic() - began) | {"omits": omits}
    if control.cancelled:
        raise Cancelled(result)
    return result


def _make_all(
    request: SynthesizeRequest, flat_field: FlatField | None, writer: DatasetWriter, emit: Emit, control: RunControl
) -> list[str]:
    omits: dict[str, None] = {}
    planned = plan(
        request.generator,
        request.presets,
        n=request.n,
        seed=request.seed,
        per_specimen=request.per_specimen,
        shape=request.shape,
        pixel_size_nm=request.pixel_size_nm,
        instrument=request.instrument,
        flat_field=flat_field,
    )
    for done, one in enumerate(planned, start=1):
        if control.should_stop():
            break
        made = realize(one.recipe)
        writer.add(one, made)
        omits |= dict.fromkeys(made.omits)
        emit(ProgressMade(run_id=request.run_id, done=done, total=request.n, what="micrographs made"))
    return list(omits)


def measured_flat_field(request: SynthesizeRequest) -> FlatField | None:
    """Noise of the instrument of the images in the request; None where it names none."""
    return measure([_frame(path) for path in request.flat_field]) if request.flat_field else None


def _flat_field(request: SynthesizeRequest, emit: Emit) -> FlatField | None:
    found = measured_flat_field(request)
    if found is None:
        return None
    words = (
        f"Noise of the instrument: {1 / found.gain:.0f} quanta at white, read noise {100 * found.read_noise:.2f} % of "
        f"full scale, point spread {found.noise_psf_px:.2f} px (R² {found.r2:.3f}, {found.n_levels} grey levels)."
    )
    emit(NoticePosted(run_id=request.run_id, message=words, hint=found.note))
    return found


def _frame(path: Path) -> NDArray[Any]:
    """Pixels of a micrograph as the file has them, without its info bar."""
    micrograph = read_micrograph(path)
    pixels = np.asarray(micrograph.pixels[:, :])
    bar = micrograph.info_bar
    if bar is None:
        return pixels
    return pixels[bar.y1 :] if bar.y0 == 0 else pixels[: bar.y0]


def _say_found(request: SynthesizeRequest, writer: DatasetWriter, emit: Emit) -> None:
    if writer.found_partial:
        message = f"An earlier run broke off while it wrote {str(request.out)!r}; what it had left was removed."
        emit(NoticePosted(run_id=request.run_id, message=message))


def _result(
    request: SynthesizeRequest, writer: DatasetWriter, flat_field: FlatField | None, seconds: float
) -> dict[str, Any]:
    n = len(writer.images)
    return {
        "images": writer.images,
        "dataset": str(writer.folder) if n else None,
        "n_wanted": request.n,
        "specimens": writer.specimens,
        "classes": list(writer.classes),
        "generator": request.generator,
        "presets": writer.presets,
        "shape": list(request.shape),
        "seed": request.seed,
        "flat_field": flat_field.model_dump() if flat_field else None,
        "seconds": seconds,
        "seconds_per_image": seconds / n if n else None,
    }
