"""Networks that are not trained any more, as sources of features: those of a run, or pretrained weights."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from napari_emtransfer.core.config import ModelConfig
from napari_emtransfer.core.data.intensity import Standardization
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.project_records import MicrographRecord
from napari_emtransfer.core.errors import EMTransferError, WeightsError
from napari_emtransfer.core.nn import registry, store
from napari_emtransfer.core.nn.checkpoint import Checkpoint
from napari_emtransfer.core.nn.features import FrozenNetwork, Part, adapted
from napari_emtransfer.core.nn.model import SegmentationModel, build_model
from napari_emtransfer.worker.models import open_for, working_view

RUN_PREFIX: Final = "run:"
# Norm statistics of pretrained weights are measured on some of these, evenly chosen.
_MAX_VIEWS: Final = 4
# Of weights that hold a decoder too: "encoder" or "decoder-maps". On five real sets the maps of the decoder measured
# better for a live head (.552 on other specimens; the encoder's .539, filters alone .541), and they are quicker.
PRETRAINED_PART: Final[Part] = "decoder-maps"
_UNDER_WAY: Final = ("starting", "running")


@dataclass(frozen=True, eq=False)
class Frozen:
    """Networks (several of a run with folds), and how they want their micrographs.

    `of_run`: they were trained in a run, so their heads are, too.
    """

    models: tuple[SegmentationModel, ...]
    standardization: Standardization
    working_nm: float | None
    of_run: bool

    def networks(self, device: torch.device) -> list[FrozenNetwork]:
        """Sources of features: of a run what its head sees and makes of it, else maps of the decoder.

        A decoder that pretrained weights do not hold, or not for this architecture, is at random: then the encoder's.
        """
        return [FrozenNetwork(model, self._part(model), device) for model in self.models]

    def _part(self, model: SegmentationModel) -> Part:
        if self.of_run:
            return "decoder"
        return "encoder" if "decoder" in model.new_parts else PRETRAINED_PART


def load_frozen(
    project: Project,
    weights: str,
    encoder: str,
    *,
    folds: bool = False,
    adapt_on: Sequence[MicrographRecord] = (),
) -> Frozen:
    """The network of "run:ID", or `encoder` with pretrained weights by name or path.

    With `folds`, all networks of a run with folds; else the one that scored best. The norms of pretrained weights are
    measured on a few of the micrographs `adapt_on`, by default of all real ones.

    Raises
    ------
    ProjectError
        When there is no such run.
    WeightsError
        When the weights cannot be had.
    """
    if weights.startswith(RUN_PREFIX):
        checkpoints = [Checkpoint.load(path) for path in checkpoints_of(project, weights, folds=folds)]
        meta = checkpoints[0].meta
        standardization = Standardization.model_validate(meta.standardization)
        models = tuple(checkpoint.build() for checkpoint in checkpoints)
        return Frozen(models, standardization, meta.working_pixel_size_nm, of_run=True)
    working_nm = project.settings.working_pixel_size_nm
    # The head is not used: its number of classes does not matter.
    model = build_model(ModelConfig(encoder=encoder, n_classes=2), weights)
    records = adapt_on or real_ones(project.micrographs())
    chosen = {int(i) for i in np.linspace(0, len(records) - 1, min(len(records), _MAX_VIEWS)).round()}
    views = []
    for i in sorted(chosen):
        with suppress(EMTransferError):  # one that cannot be opened now; others will do
            views.append(working_view(open_for(project, records[i].stem), Standardization(), working_nm))
    return Frozen((adapted(model, views),), Standardization(), working_nm, of_run=False)


def newest_weights(project: Project, encoder: str) -> tuple[str, str]:
    """What "auto" stands for: the newest run that has ended with a model, else weights that came with the program.

    Returns the weights and their encoder. A run under way is left out: its best checkpoint changes all the time, and
    what was computed with it.

    Raises
    ------
    WeightsError
        When no weights came with the program.
    """
    for record in reversed(project.runs()):
        if record.status not in _UNDER_WAY and project.run(record.id).has_checkpoint:
            return f"{RUN_PREFIX}{record.id}", encoder
    bundled = store.bundled_for(encoder) or next(iter(registry.bundled_entries()), None)
    if bundled is None:
        raise WeightsError(
            "There is no network to compare tiles with: no run has a model yet, and no weights came with the program.",
            "Train a run first, or install the program anew.",
        )
    return bundled.name, bundled.encoder or encoder


def real_ones(records: Sequence[MicrographRecord]) -> Sequence[MicrographRecord]:
    """Those that were measured; all where every one was computed."""
    return [record for record in records if not record.synthetic] or records


def checkpoints_of(project: Project, weights: str, *, folds: bool = False) -> list[Path]:
    """Checkpoint of "run:ID", with `folds` those of all folds; raises `WeightsError` where the run has none."""
    run = project.run(weights.removeprefix(RUN_PREFIX))
    paths = run.model_paths()
    if not paths:
        raise WeightsError(f"The run {run.id} has no checkpoint: it ended before the first one.", "Choose another run.")
    return paths if folds else [run.starting_point() or paths[0]]


def weights_stamp(project: Project, weights: str, *, folds: bool = False) -> tuple[tuple[str, int, int], ...]:
    """What tells one state of the weights from the next: a run's best checkpoint is replaced while it trains."""
    of_run = weights.startswith(RUN_PREFIX)
    paths = checkpoints_of(project, weights, folds=folds) if of_run else [Path(weights)]
    stats = [(str(path), path.stat()) for path in paths if path.is_file()]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)
