"""Train a run: choose the ground, freeze the labels, fit, measure the best checkpoint, write down what was done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.run import Run
from napari_emtransfer.core.data.split import Split, stems_of
from napari_emtransfer.core.data.storage import write_text
from napari_emtransfer.core.errors import LabelError
from napari_emtransfer.core.events import (
    CheckpointSaved,
    Event,
    NoticePosted,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunStarted,
    ValidationEnded,
)
from napari_emtransfer.core.legality import left_out
from napari_emtransfer.core.nn import devices
from napari_emtransfer.core.nn.checkpoint import Checkpoint, CheckpointMeta, read_meta
from napari_emtransfer.core.nn.trainer import FitResult
from napari_emtransfer.core.rates import about_weights, with_weights
from napari_emtransfer.worker import provenance, replay
from napari_emtransfer.worker.card import write_card
from napari_emtransfer.worker.control import Cancelled, Emit, RunControl, Terminal, failure, terminal_of
from napari_emtransfer.worker.fit import FitGround, Fitter, fetch_weights
from napari_emtransfer.worker.fold_handler import FoldsFit, first_step, fit_folds
from napari_emtransfer.worker.ground import Ground, describe
from napari_emtransfer.worker.lineage import no_checkpoint
from napari_emtransfer.worker.protocol import TrainRequest
from napari_emtransfer.worker.recommend_handler import resolve
from napari_emtransfer.worker.run_measure import measure_run
from napari_emtransfer.worker.split_choice import choose_split


def train(request: TrainRequest, emit: Emit, control: RunControl) -> Terminal:
    """Train `request.run_id`, which its project must know, and return the terminal event, which the run records too.

    An abandoned run is recorded as interrupted and without a terminal event: it can be resumed.
    """
    try:
        with Project.open(request.project) as project:
            run = project.run(request.run_id)
            run.update("running", message="")
            _clear_torn_checkpoints(run)
            training = _Training(project, run, request, _recording(run, emit), control)
            terminal = terminal_of(run.id, control, training.do)
            _record_end(run, terminal, control)
            return terminal
    except Exception as error:
        return failure(request.run_id, error)


def _clear_torn_checkpoints(run: Run) -> None:
    """A kill in the middle of writing a checkpoint leaves a temporary file of a few hundred megabytes."""
    for pattern in (".tmp-*", "fold-*/.tmp-*"):
        for path in run.root.glob(pattern):
            path.unlink(missing_ok=True)


def _recording(run: Run, emit: Emit) -> Emit:
    """Events go into the run's folder as well, and its record says how far it is, should it be killed.

    The validations of a single fold say nothing of the run as a whole.
    """
    has_folds = run.config.get("folds") is not None

    def record(event: Event) -> None:
        run.append_event(event)
        match event:
            case CheckpointSaved():
                run.update(iterations=event.iteration)
            case ValidationEnded(is_best=True) if not has_folds:
                run.update(mean_iou=event.mean_iou)
        emit(event)

    return record


def _record_end(run: Run, terminal: Terminal, control: RunControl) -> None:
    match terminal:
        case RunFinished():
            run.append_event(terminal)
            run.update("finished")
        case RunCancelled() if control.abandoned:
            run.update("interrupted")
        case RunCancelled():
            run.append_event(terminal)
            run.update("cancelled")
        case RunFailed():
            run.append_event(terminal)
            run.update("failed", message=terminal.message)


@dataclass
class _Training:
    """One training run from its request to its result."""

    project: Project
    run: Run
    request: TrainRequest
    emit: Emit
    control: RunControl

    def do(self) -> dict[str, Any]:
        """Train and measure; returns the result that the command line prints."""
        known = self._known() if self.request.resume else None
        config = TrainConfig.model_validate(self.run.config) if known else self._own_config()
        device = devices.describe(devices.resolve_device(config.compute.device))
        split = self.run.split() if known else self._choose_split(config)
        config, reason = (config, "") if known else self._resolved(config, split)
        if known:
            made_of = provenance.provenance_of(self.run)
            reason = made_of.reason if made_of else ""
        else:
            reason = self._note_down(config, split, reason, device)
        regions = split.part("validation")
        ground = describe(self.project, self.run, split, ("validation",), regions)
        fitter = Fitter(self.project, self.run, self.control, self.emit, known)
        self._announce(config, split, ground, device, reason, resumed=known is not None)
        fit: FitResult | FoldsFit
        if split.folds:
            fit = fit_folds(fitter, config, split, ground.closeness, self.emit, self.control)
        else:
            fit = self._fit(fitter, config, split, ground)
        self.run.update(iterations=fit.iterations, seconds=fit.seconds, device=device)
        provenance.note_weights(self.project, self.run)
        so_far = {"run": self.run.id, "iterations": fit.iterations, "seconds": fit.seconds, "device": device}
        if self.control.cancelled:
            raise Cancelled(so_far)
        result = measure_run(self.project, self.run, config, split, fit, lambda: self.control.cancelled)
        result |= so_far | {"strategy": config.strategy, "reason": reason}
        self.run.update(mean_iou=result["mean_iou"])
        repeated = replay.outcome(self.project, self.run)
        result |= {"replay": repeated} if repeated else {}
        self.run.write_result(result)
        write_card(self.project, self.run, config, split, result)
        return result

    def _known(self) -> CheckpointMeta | None:
        """A checkpoint of the run to resume; None for one that ended before its first: it starts anew."""
        folders = [self.run.root, *self.run.fold_folders().values()]
        paths = [path for folder in folders if (path := folder / "last.safetensors").is_file()]
        return read_meta(paths[0]) if paths else None

    def _own_config(self) -> TrainConfig:
        """The wanted configuration, its weights by name; a run by its full id, for "latest" is another one tomorrow.

        Raises
        ------
        WeightsError
            When that run has no checkpoint.
        """
        config = with_weights(self.request.config)
        if config.weights.startswith("run:"):
            parent = self.project.run(config.weights.removeprefix("run:"))
            if parent.starting_point() is None:
                raise no_checkpoint(parent)
            config = config.model_copy(update={"weights": f"run:{parent.id}"})
        if config != self.request.config:
            self._keep(config)
        return config

    def _resolved(self, config: TrainConfig, split: Split) -> tuple[TrainConfig, str]:
        """With the strategy that the rules propose, where the user left it to them, and the reason."""
        if config.strategy != "auto":
            return config, ""
        fetch_weights(self.run.id, config, self.emit, self.control)
        resolved, reason = resolve(self.project, config, self._kept_out(split))
        self._keep(resolved)
        return resolved, reason

    def _kept_out(self, split: Split) -> set[str]:
        """Micrographs that training never sees: the held-out ones, and others of their specimens."""
        of = {record.stem: record.specimen for record in self.project.micrographs()}
        others = (region for regions in split.other.values() for region in regions)
        hidden = {of[stem] for stem in stems_of((*split.validation, *split.test, *others)) if stem in of}
        return {stem for stem, specimen in of.items() if specimen in hidden} - stems_of(split.train)

    def _keep(self, config: TrainConfig) -> None:
        write_text(self.run.root / "config.json", config.model_dump_json(indent=1))

    def _note_down(self, config: TrainConfig, split: Split, reason: str, device: str) -> str:
        """Write down what the run is made of; → why this strategy: the reason of before, where a run is repeated."""
        fetch_weights(self.run.id, config, self.emit, self.control)
        devices.set_threads(config.compute.threads)
        was = replay.made_of_before(self.project, self.run)
        made_of = provenance.record(
            self.project,
            self.run,
            config,
            split,
            reason=reason or (was.reason if was else ""),
            adaptation=was.adaptation if was else None,
            device=device,
            threads=devices.n_threads(),
        )
        if was is not None:
            replay.check_same_start(self.run, was, made_of)
        return made_of.reason

    def _choose_split(self, config: TrainConfig) -> Split:
        """Freeze the labels, then divide what is frozen; both lie there already where another run is repeated."""
        if replay.replayed_run(self.run) is not None:
            return self.run.split()
        labelled = [stem for stem, fraction in self.project.labelled().items() if fraction > 0]
        if not labelled:
            raise LabelError("No micrograph of the project is labelled yet.", "Paint at least two classes first.")
        self.run.snapshot_labels(labelled)
        split = choose_split(self.project, self.run.labels, labelled, config)
        self.run.write_split(split)
        return split

    def _announce(
        self, config: TrainConfig, split: Split, ground: Ground, device: str, reason: str, *, resumed: bool
    ) -> None:
        last = self.run.checkpoint_path("last")
        if split.folds:
            first = first_step(self.run, config, split)
        else:
            first = read_meta(last).iteration if resumed and last.is_file() else 0
        self.emit(
            RunStarted(
                run_id=self.run.id,
                n_steps=config.iterations * max(1, len(split.folds)),
                first_step=first,
                device=device,
                details={
                    "ground": ground.closeness,
                    "note": ground.note,
                    "split": split.name,
                    "train": [r.micrograph for r in split.train],
                    "validation": [r.micrograph for r in split.part("validation")],
                    "folds": len(split.folds),
                    "strategy": config.strategy,
                    "reason": reason,
                },
            )
        )
        said = None if resumed else about_weights(self.request.config)
        if said is not None:
            self.emit(NoticePosted(run_id=self.run.id, message=said[0], hint=said[1]))
        skipped = left_out(self.project.settings.modality, config.augment, config.illegal_augment)
        if skipped:
            self.emit(
                NoticePosted(
                    run_id=self.run.id,
                    message=f"Augmentation leaves out {', '.join(skipped)}: {next(iter(skipped.values()))}",
                )
            )

    def _fit(self, fitter: Fitter, config: TrainConfig, split: Split, ground: Ground) -> FitResult:
        others = [region for regions in split.other.values() for region in regions]
        hidden = (*split.validation, *split.test, *others)
        fit_ground = FitGround(split.train, split.validation, split.validation, hidden, ground.closeness)
        last = self.run.checkpoint_path("last")
        resume = Checkpoint.load(last) if fitter.known is not None else None
        return fitter.fit(config, fit_ground, self.run.root, self.emit, resume)
