"""What a run was made of, written down when it begins: enough to make it again. No torch here: the window asks too."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from napari_emtransfer.core.config import Modality, TrainConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.project_records import MicrographRecord
from napari_emtransfer.core.data.run import Run
from napari_emtransfer.core.data.split import Region, Split, stems_of
from napari_emtransfer.core.data.storage import write_text
from napari_emtransfer.core.errors import WeightsError
from napari_emtransfer.core.nn import store
from napari_emtransfer.core.rates import resolve_normalization
from napari_emtransfer.worker.lineage import measured_on, start_of

_LIBRARIES: Final = ("napari-emtransfer", "torch", "segmentation-models-pytorch", "timm", "numpy", "albumentations")
_FILE: Final = "provenance.json"
MAX_ADAPTATION_VIEWS: Final = 64


class Provenance(BaseModel):
    """The ingredients of a run.

    `config` is what was trained with ("auto" resolved, for the `reason`), `data` the fingerprint of each micrograph
    (pixels, scale, frozen labels), `parent_sha256` that of the weights' file, of several where the folds go on from
    several: None where there is none of its own.
    `adaptation` are fingerprints of the micrographs among which those were chosen that the norms of the encoder were
    adapted to; empty where they were not.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    config: TrainConfig
    reason: str = ""
    data: dict[str, str]
    parent_sha256: str | None = None
    working_pixel_size_nm: float | None = None
    classes: tuple[str, ...]
    modality: Modality
    adaptation: dict[str, str] = {}
    device: str = ""
    threads: int | None = None
    versions: dict[str, str]

    @property
    def data_hash(self) -> str:
        """One fingerprint for all micrographs of the run."""
        lines = "\n".join(f"{stem} {digest}" for stem, digest in sorted(self.data.items()))
        return hashlib.blake2b(lines.encode(), digest_size=16).hexdigest()


def record(
    project: Project,
    run: Run,
    config: TrainConfig,
    split: Split,
    *,
    reason: str = "",
    adaptation: Mapping[str, str] | None = None,
    device: str = "",
    threads: int | None = None,
) -> Provenance:
    """Note down what `run` is made of, in its folder. Labels and split are frozen there already.

    `config` holds no "auto" strategy any more; `reason` says what it was resolved for. `adaptation` is that of the run
    which this one repeats; None for all others.
    """
    adapts = resolve_normalization(config) in ("adabn", "mix")
    found = Provenance(
        config=config,
        reason=reason,
        data={stem: fingerprint(project, run, stem) for stem in sorted(stems_of(regions_of(split)))},
        parent_sha256=weights_checksum(project, config, split),
        working_pixel_size_nm=project.settings.working_pixel_size_nm,
        classes=project.schema.names,
        modality=project.settings.modality,
        adaptation=(unlabelled_fingerprints(project) if adaptation is None else dict(adaptation)) if adapts else {},
        device=device,
        threads=threads,
        versions={"Python": platform.python_version()} | {name: version(name) for name in _LIBRARIES},
    )
    write_text(run.root / _FILE, found.model_dump_json(indent=1))
    return found


def note_weights(project: Project, run: Run) -> None:
    """Add the checksum of weights that were fetched only when the network was built."""
    found = provenance_of(run)
    if found is not None and found.parent_sha256 is None and found.config.weights != "none":
        known = found.model_copy(update={"parent_sha256": weights_checksum(project, found.config, run.split())})
        write_text(run.root / _FILE, known.model_dump_json(indent=1))


def provenance_of(run: Run) -> Provenance | None:
    """What was noted down when `run` began; None for a run that never got that far, or of an early version."""
    path = run.root / _FILE
    try:
        return Provenance.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValidationError:
        return None


def adaptation_records(project: Project, run: Run) -> list[MicrographRecord]:
    """Micrographs among which those are chosen that the norms of `run` adapt to: those that it has noted down."""
    found = provenance_of(run)
    return [r for r in project.micrographs() if found is None or r.stem in found.adaptation]


def fingerprint(project: Project, run: Run, stem: str) -> str:
    """Of one micrograph as the run sees it: its file, frame, scale and info bar, and its frozen labels."""
    digest = hashlib.blake2b(_pixels(project.record(stem)).encode(), digest_size=16)
    digest.update(run.labels.read(stem).tobytes())
    return digest.hexdigest()


def unlabelled_fingerprints(project: Project) -> dict[str, str]:
    """Of all micrographs of the project, without their labels."""
    pixels = {record.stem: _pixels(record).encode() for record in project.micrographs()}
    return {stem: hashlib.blake2b(text, digest_size=16).hexdigest() for stem, text in pixels.items()}


def _pixels(record: MicrographRecord) -> str:
    known = f"{record.checksum} {record.frame} {record.pixel_size_nm} {record.info_bar} {record.specimen}"
    return f"{known} synthetic" if record.synthetic else known


def regions_of(split: Split) -> tuple[Region, ...]:
    """All ground that a run trains on, chooses its checkpoint on, or reports."""
    folds = (r for fold in split.folds for r in (*fold.train, *fold.selection, *fold.held_out))
    return (*split.train, *split.validation, *split.test, *folds)


def weights_checksum(project: Project | None, config: TrainConfig, split: Split | None = None) -> str | None:
    """SHA-256 of the file that a run with `config` starts from; None from scratch, and where there is no such file.

    A run that goes on from one with folds starts from the network that `lineage.start_of` chooses for its `split`, each
    of its own folds from another perhaps: their checksums then, parted by commas, in the order of the folds.
    """
    kind, _, ref = config.weights.partition(":")
    if kind == "run":
        starts = [] if project is None else _starts(project, project.run(ref), split)
        return ", ".join(dict.fromkeys(store.sha256_of(start) for start in starts)) or None
    if Path(config.weights).is_file():
        return store.sha256_of(Path(config.weights))
    try:
        file = store.file_of(store.find(config.weights, config.encoder))
    except WeightsError:
        return None
    return None if file is None else store.sha256_of(file)


def _starts(project: Project, parent: Run, split: Split | None) -> list[Path]:
    """The checkpoint of `parent` that each network of a run goes on from."""
    if split is None:
        found = [parent.starting_point()]
    else:
        folds = range(len(split.folds)) if split.folds else (None,)
        found = [start_of(project, parent, measured_on(split, fold))[0] for fold in folds]
    return [start for start in found if start is not None]
