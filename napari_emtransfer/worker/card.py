"""The model card of a run: what a reader needs to judge the figure and to repeat it."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any, Final

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.run import Run
from napari_emtransfer.core.data.splits import Region, Split
from napari_emtransfer.core.data.storage import write_text

_LIBRARIES: Final = ("napari-emtransfer", "torch", "segmentation-models-pytorch", "numpy", "albumentations")


def write_card(project: Project, run: Run, config: TrainConfig, split: Split, result: dict[str, Any]) -> None:
    """Write `card.md` into the run's folder; `result` is that of the training handler."""
    write_text(run.root / "card.md", "\n".join(_lines(project, run, config, split, result)) + "\n")


def data_hash(project: Project, run: Run, regions: Iterable[Region]) -> str:
    """Fingerprint of the pixels and the frozen labels that a run used."""
    digest = hashlib.blake2b(digest_size=16)
    for stem in sorted({region.micrograph for region in regions}):
        digest.update(f"{stem} {project.record(stem).checksum}\n".encode())
        digest.update(run.labels.read(stem).tobytes())
    return digest.hexdigest()


def _lines(project: Project, run: Run, config: TrainConfig, split: Split, result: dict[str, Any]) -> Iterator[str]:
    yield f"# Run {run.id} of {project.settings.name}"
    yield ""
    yield f"Mean IoU {_shown(result['mean_iou'])}{_interval(result)}."
    yield ""
    yield f"Ground: {result['ground']}. {result['note']}"
    yield ""
    yield from (f"- {name}: {_shown(value)}" for name, value in result["iou"].items())
    yield ""
    yield "## Data"
    yield f"- split: {split.name}, {len(split.train)} training and {len(split.validation)} validation regions"
    yield f"- training: {_micrographs(split.train)}"
    yield f"- validation: {_micrographs(split.validation)}"
    yield f"- labelled fraction of the validation ground: {result['labelled_fraction']:.3f}"
    yield f"- hash of pixels and labels: {data_hash(project, run, (*split.train, *split.validation))}"
    yield f"- working pixel size: {project.settings.working_pixel_size_nm or 'native'} nm"
    yield ""
    yield "## Training"
    yield f"- started from: {config.weights}" + (f" (run {run.record.parent})" if run.record.parent else "")
    yield f"- {result['iterations']} iterations in {result['seconds']:.0f} s on {result['device']}"
    yield f"- seed: {config.compute.seed}"
    yield f"- best checkpoint: iteration {result['best_iteration']}; ended: {result['ended']}"
    yield f"- versions: Python {platform.python_version()}, {', '.join(f'{n} {version(n)}' for n in _LIBRARIES)}"
    yield ""
    yield "```json"
    yield config.model_dump_json(indent=1)
    yield "```"


def _shown(value: float | None) -> str:
    return "not measurable" if value is None else f"{value:.3f}"


def _interval(result: dict[str, Any]) -> str:
    if result["ci95"] is None:
        return f" ({result['ci_method']})"
    low, high = result["ci95"]
    return f" (95 % interval {low:.3f} to {high:.3f}, {result['ci_method']})"


def _micrographs(regions: Iterable[Region]) -> str:
    return ", ".join(r.micrograph + (f" {r.window.slices}" if r.window else "") for r in regions)
