"""Fit one network of a run: its ground made into arrays, its weights fetched, its micrographs to adapt to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.intensity import Standardization
from napari_emtransfer.core.data.labels import UNLABELLED, to_targets
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.resample import WorkingView
from napari_emtransfer.core.data.run import Run
from napari_emtransfer.core.data.split import Region
from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.core.events import NoticePosted, ProgressMade
from napari_emtransfer.core.legality import allowed_transforms
from napari_emtransfer.core.nn import devices, store
from napari_emtransfer.core.nn.checkpoint import Checkpoint, CheckpointMeta, read_meta
from napari_emtransfer.core.nn.fetching import ensure
from napari_emtransfer.core.nn.ground import HeldOutRegion, TrainingImage, held_out_regions, training_images
from napari_emtransfer.core.nn.model import SegmentationModel
from napari_emtransfer.core.nn.rounds import shrink_perturb
from napari_emtransfer.core.nn.trainer import FitResult, RunContext, Trainer, initial_model
from napari_emtransfer.core.rates import resolve_normalization
from napari_emtransfer.worker.control import Cancelled, Emit, RunControl
from napari_emtransfer.worker.evaluate_handler import restricted
from napari_emtransfer.worker.lineage import no_checkpoint, start_of
from napari_emtransfer.worker.models import open_for, working_view
from napari_emtransfer.worker.provenance import MAX_ADAPTATION_VIEWS, adaptation_records

_MEGA: Final = 1e6
_TELL_EVERY_S: Final = 0.1


@dataclass(frozen=True)
class FitGround:
    """What one network learns from, what its best checkpoint is chosen on, what it is measured on.

    `hidden` is all that it must not have looked at.
    """

    train: tuple[Region, ...]
    chosen_on: tuple[Region, ...]
    measured: tuple[Region, ...]
    hidden: tuple[Region, ...]
    closeness: str


@dataclass(frozen=True)
class Fitter:
    """Fits networks of a run on its frozen labels.

    Parameters
    ----------
    run
        Its labels are frozen already.
    known
        Description of a checkpoint that the run has already: classes and working pixel size stay as they were, should
        the project have changed since. None for a new run.
    """

    project: Project
    run: Run
    control: RunControl
    emit: Emit
    known: CheckpointMeta | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that the run learns."""
        return self.project.schema.names if self.known is None else self.known.classes

    def fit(
        self, config: TrainConfig, ground: FitGround, folder: Path, emit: Emit, resume: Checkpoint | None
    ) -> FitResult:
        """Train one network in `folder`; raises as `Trainer` does, and `Cancelled` where it was stopped before."""
        devices.set_threads(config.compute.threads)
        context = self._context(config, folder, ground.closeness)
        parent = _parent(self.project, config)
        train = [i for r in ground.train for i in self._training_images(r, context, config.crop_px, parent)]
        held_out = [h for r in ground.chosen_on for h in self._held_out(r, context)]
        trainer = Trainer(
            self._initial_model(config, resume, parent, ground.measured),
            config,
            train,
            held_out,
            context,
            resume=resume,
            adaptation=self._adaptation(config, context, ground.hidden) if resume is None else (),
        )
        return trainer.fit(emit, self.control.should_stop)

    def _context(self, config: TrainConfig, folder: Path, closeness: str) -> RunContext:
        settings = self.project.settings
        known = self.known
        return RunContext(
            run_id=self.run.id,
            classes=self.classes,
            folder=folder,
            ground=closeness,
            standardization=Standardization().model_dump(),
            working_pixel_size_nm=settings.working_pixel_size_nm if known is None else known.working_pixel_size_nm,
            allowed=allowed_transforms(settings.modality, config.illegal_augment),
        )

    def _training_images(
        self, region: Region, context: RunContext, crop_px: int, parent: Run | None
    ) -> list[TrainingImage]:
        view, mask = self._look_at(region, context)
        fresh = None if parent is None else view.mask_to_working(labelled_since(parent, region.micrograph, mask)) > 0
        return training_images(view, to_targets(view.mask_to_working(mask)), crop_px=crop_px, fresh=fresh)

    def _held_out(self, region: Region, context: RunContext) -> list[HeldOutRegion]:
        view, mask = self._look_at(region, context)
        return held_out_regions(view, to_targets(view.mask_to_working(mask)))

    def _look_at(self, region: Region, context: RunContext) -> tuple[WorkingView, NDArray[np.uint8]]:
        """A micrograph at working size and its native mask (H, W), unlabelled outside of the region."""
        if self.control.cancelled:
            raise Cancelled
        return self._view(region.micrograph, context), restricted(self.run.labels.read(region.micrograph), region)

    def _view(self, stem: str, context: RunContext) -> WorkingView:
        standardization = Standardization.model_validate(context.standardization)
        return working_view(open_for(self.project, stem), standardization, context.working_pixel_size_nm)

    def _adaptation(self, config: TrainConfig, context: RunContext, hidden: Iterable[Region]) -> list[WorkingView]:
        """Micrographs, labelled or not, whose statistics the norms may take over: none of a held-out specimen."""
        if resolve_normalization(config) not in ("adabn", "mix"):
            return []
        records = adaptation_records(self.project, self.run)
        of = {record.stem: record.specimen for record in records}
        forbidden = {of[region.micrograph] for region in hidden if region.micrograph in of}
        stems = [record.stem for record in records if record.specimen not in forbidden]
        n_views = min(len(stems), MAX_ADAPTATION_VIEWS)
        views = []
        for place in np.linspace(0, len(stems) - 1, n_views).round().astype(int).tolist():
            if self.control.cancelled:
                raise Cancelled
            try:
                views.append(self._view(stems[place], context))
            except EMTransferError as error:  # no reason not to train
                said = f"The norms are not adapted to {stems[place]!r}: {error.message}"
                self.emit(NoticePosted(run_id=self.run.id, message=said, hint=error.hint))
        return views

    def _initial_model(
        self, config: TrainConfig, resume: Checkpoint | None, parent: Run | None, measured: tuple[Region, ...]
    ) -> SegmentationModel:
        """The network that training starts from; for a resume any, unless it is held to where it began."""
        if resume is not None and not config.l2_sp:
            config, parent = config.model_copy(update={"weights": "none"}), None
        if parent is None:
            return initial_model(config, len(self.classes), megabytes_told(self.run.id, self.emit, self.control))
        path, _ = start_of(self.project, parent, measured)
        if path is None:
            raise no_checkpoint(parent)
        model = initial_model(config.model_copy(update={"weights": str(path)}), len(self.classes))
        self._renew_head(model, config, read_meta(path).classes)
        shrink_perturb(model, config.shrink, config.compute.seed)
        return model

    def _renew_head(self, model: SegmentationModel, config: TrainConfig, known: tuple[str, ...]) -> None:
        """A head that would take one class for another is replaced; a class that was renamed is the same one."""
        moved = any(name in known and known.index(name) != i for i, name in enumerate(self.classes))
        if len(known) == len(self.classes) and not moved:
            return
        fresh = initial_model(config.model_copy(update={"weights": "none"}), len(self.classes))
        model.segmentation_head.load_state_dict(fresh.segmentation_head.state_dict())
        model.new_parts |= {"segmentation_head"}
        said = f"The run {config.weights.removeprefix('run:')} knew the classes {', '.join(known)}: the head is new."
        self.emit(NoticePosted(run_id=self.run.id, message=said))


def fetch_weights(run_id: str, config: TrainConfig, emit: Emit, control: RunControl) -> None:
    """Bring weights of the registry to this machine where they are not yet, and tell how far it is.

    Raises
    ------
    WeightsError
        When there are no such weights, or they cannot be had.
    """
    path = Path(config.weights)
    if config.weights == "none" or config.weights.startswith("run:") or path.suffix or path.parent != Path():
        return
    entry = store.find(config.weights, config.encoder)
    if entry.family != "imagenet" and not store.is_here(entry):
        ensure(entry, megabytes_told(run_id, emit, control))


def megabytes_told(run_id: str, emit: Emit, control: RunControl) -> Callable[[int, int | None], None]:
    """What a download tells its bytes to: at most ten events a second, and `Cancelled` where the user wants no more."""
    last = -float("inf")

    def tell(done: int, total: int | None) -> None:
        nonlocal last
        if control.cancelled:
            raise Cancelled
        now = time.monotonic()
        if now - last >= _TELL_EVERY_S or done == total:
            last = now
            all_of_it = (total or done) / _MEGA
            emit(ProgressMade(run_id=run_id, done=done / _MEGA, total=all_of_it, what="megabytes of weights"))

    return tell


def labelled_since(parent: Run, stem: str, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Label values (H, W) → the same where they are new or other than those that `parent` froze, else unlabelled."""
    if stem not in parent.labels:
        return mask
    before = parent.labels.read(stem)
    if before.shape != mask.shape:
        return mask
    return np.where(before == mask, np.uint8(UNLABELLED), mask)


def _parent(project: Project, config: TrainConfig) -> Run | None:
    return project.run(config.weights.removeprefix("run:")) if config.weights.startswith("run:") else None
