"""Synthetic micrographs: what can be made, a look at some, and adding them to the project in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.errors import SynthesisError
from napari_emtransfer.core.events import TERMINAL, Event, ProgressMade, RunCancelled, RunFailed, RunFinished
from napari_emtransfer.session.classes import has_classes_of_its_own
from napari_emtransfer.session.context import Context, require_saved
from napari_emtransfer.session.engine import DIED
from napari_emtransfer.session.generators import SynthesisSpec
from napari_emtransfer.session.messages import FromSynthesis, MicrographsChanged
from napari_emtransfer.session.state import SynthesisPhase, SynthesisState
from napari_emtransfer.worker.protocol import AddSyntheticRequest, SynthesisPreviewRequest

if TYPE_CHECKING:
    from napari_emtransfer.worker.runners import Engine, Job, Runner

FOLDER: Final = "synthetic"
"""Of the project; what is added lies there, each time in a folder of its own."""
PREVIEWS: Final = "previews"
MADE: Final = "micrographs made"
"""What the worker counts first; then it counts what it has added."""
N_PREVIEWED: Final = 4
PREVIEW_EDGE_PX: Final = 512
"""A preview of larger micrographs shows a smaller field of the same material."""


Failed = Callable[[str, str], object]


@dataclass(frozen=True, eq=False)
class SynthesisPreview:
    """A few micrographs: `images` (n, h, w) uint8, `masks` (n, h, w) uint8 with classes 1..K named in `classes`.

    `omits` is what real ones have and these have not; `seconds` what one of them took; `detector` says in words what
    was measured of the user's own instrument.
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    classes: tuple[str, ...]
    omits: tuple[str, ...]
    seconds: float
    detector: str = ""


@dataclass(frozen=True)
class _Asked:
    """A preview that somebody waits for."""

    run_id: str
    done: Callable[[SynthesisPreview], object]
    failed: Failed


class SynthesisController:
    """Has previews made by a small process that stays while somebody looks, and what is added by one of its own.

    Neither waits for the engine, which may be busy for a minute with features or a prediction, nor keeps it busy.
    """

    def __init__(self, context: Context, runner: Runner, save_now: Callable[[], bool]) -> None:
        self._context, self._runner, self._save_now = context, runner, save_now
        self._serial = self._helper_serial = 0
        self._helper: Engine | None = None
        self._asked: _Asked | None = None
        self._job: Job | None = None
        self._run_id = ""
        self.state = SynthesisState()

    # ---- commands

    def preview(self, spec: SynthesisSpec, done: Callable[[SynthesisPreview], object], failed: Failed) -> None:
        """Have the first few micrographs of `spec` made; `done` gets them, or `failed` the sentence and the way out.

        A newer question takes the place of an older one, which is never answered.
        """
        root = self._context.require_project().root
        self._serial += 1
        run_id = f"synthesis-{self._serial}"
        few = replace(spec, n=min(spec.n, N_PREVIEWED), edge_px=min(spec.edge_px, PREVIEW_EDGE_PX))
        request = SynthesisPreviewRequest(run_id=run_id, make=few.request(run_id, root / PREVIEWS))
        if self._asked is not None and self._helper is not None:
            self._helper.cancel(self._asked.run_id)
        self._asked = _Asked(run_id, done, failed)
        if self._helper is None:
            self._start_helper(request)
        else:
            self._helper.request(request)

    def stop_preview(self) -> None:
        """Nobody looks any more."""
        helper, self._helper, self._asked = self._helper, None, None
        if helper is not None:
            helper.close()

    def add(self, spec: SynthesisSpec, classes: Mapping[str, str | None]) -> None:
        """Make the micrographs of `spec` and add them with their labels, as a domain and specimens of their own.

        Parameters
        ----------
        classes
            Generated class → class of the project, which is added if it is new; None leaves it unlabelled. In a
            project without classes of its own they become its only ones.

        Raises
        ------
        SynthesisError
            When others are being made, or no class is to be labelled.
        StorageError
            When the last strokes cannot be saved.
        """
        project = self._context.require_project()
        if self.state.is_active:
            raise SynthesisError("Micrographs are being made already.", "Wait for them, or cancel them.")
        if not any(classes.values()):
            raise SynthesisError("No class of these micrographs would be labelled.", "Choose a class for one of them.")
        require_saved(self._save_now(), "nothing was added")
        self._serial += 1
        self._run_id = f"add-synthetic-{self._serial}"
        request = AddSyntheticRequest(
            run_id=self._run_id,
            project=project.root,
            make=spec.request(self._run_id, project.root / FOLDER),
            domain=spec.domain,
            classes=dict(classes),
            replace_classes=not has_classes_of_its_own(project),
        )
        inbox = self._context.inbox
        self._job = self._runner.start(request, lambda event: inbox.put(FromSynthesis(event)))
        self._set(SynthesisState("making", 0, spec.n))

    def cancel(self) -> None:
        """Stop; nothing is added."""
        if self._job is not None and self.state.phase != "cancelling":
            self._set(replace(self.state, phase="cancelling"))
            self._job.cancel()

    def end(self, timeout: float = 2.0) -> None:
        """The project is being closed: stop, and add nothing."""
        self.stop_preview()
        job, self._job = self._job, None
        self._run_id = ""
        if job is not None:
            job.cancel()
            if not job.wait(timeout):
                job.kill()
        self._set(SynthesisState())

    # ---- events

    def apply(self, message: FromSynthesis) -> None:
        """Take an event of the process that makes micrographs; what an earlier one says is dropped."""
        event = message.event
        if message.helper:
            self._apply_preview(event, message.helper)
            return
        if event.run_id != self._run_id:
            return
        match event:
            case ProgressMade() if self.state.phase != "cancelling":
                phase: SynthesisPhase = "making" if event.what == MADE else "adding"
                self._set(SynthesisState(phase, int(event.done), int(event.total)))
            case RunFinished():
                self._end_job()
                self._added(event)
            case RunCancelled():
                self._end_job()
                self._context.signals.notice_posted.emit("No synthetic micrographs were added.", "")
            case RunFailed():
                self._end_job()
                self._context.signals.failed.emit(event.message, event.hint)

    # ---- inside

    def _start_helper(self, request: SynthesisPreviewRequest) -> None:
        self._helper_serial += 1
        inbox, serial = self._context.inbox, self._helper_serial
        self._helper = self._runner.start_helper(request, lambda event: inbox.put(FromSynthesis(event, serial)))

    def _apply_preview(self, event: Event, helper: int) -> None:
        if helper != self._helper_serial:
            return
        if isinstance(event, RunFailed) and event.kind == DIED:
            self._helper = None
        if self._asked is not None and event.run_id == self._asked.run_id and isinstance(event, TERMINAL):
            asked, self._asked = self._asked, None
            _answer(event, asked.done, asked.failed)

    def _added(self, event: RunFinished) -> None:
        stems = tuple(event.result["micrographs"])
        self._context.inbox.put(MicrographsChanged(stems, labels=True))
        n, domain = len(stems), event.result["domain"]
        self._context.signals.notice_posted.emit(
            f"{n} synthetic micrograph{'s' * (n != 1)} added as the domain {domain!r}, labelled and ready to train on.",
            "They are trained on; what is measured is real as soon as real micrographs are labelled.",
        )

    def _end_job(self) -> None:
        self._job, self._run_id = None, ""
        self._set(SynthesisState())

    def _set(self, state: SynthesisState) -> None:
        if state != self.state:
            self.state = state
            self._context.signals.synthesis_changed.emit(state)


def _answer(event: Event, done: Callable[[SynthesisPreview], object], failed: Failed) -> None:
    match event:
        case RunFinished():
            try:
                preview = _read(event.result)
            except (OSError, ValueError, KeyError) as error:
                failed(f"The preview could not be read: {error}.", "Ask for another one.")
            else:
                done(preview)
        case RunFailed():
            failed(event.message, event.hint)


def _read(result: Mapping[str, Any]) -> SynthesisPreview:
    with np.load(result["file"], allow_pickle=False) as stored:
        images, masks = stored["images"], stored["masks"]
    classes, omits = tuple(result["classes"]), tuple(result["omits"])
    return SynthesisPreview(images, masks, classes, omits, result["seconds"] / len(images), result["detector"])
