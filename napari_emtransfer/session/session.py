"""The application without a window."""

from __future__ import annotations

from collections.abc import Callable

from napari_emtransfer.core.config import LiveConfig
from napari_emtransfer.core.data.labels import LabelSchema
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.project_records import MicrographRecord, TileState
from napari_emtransfer.core.data.tiles import Tile, Window
from napari_emtransfer.core.events import NoticePosted
from napari_emtransfer.session.advice import AdviceController
from napari_emtransfer.session.augmenting import AugmentingController
from napari_emtransfer.session.context import Context, require_saved
from napari_emtransfer.session.engine import EngineController
from napari_emtransfer.session.labelling import LabellingController
from napari_emtransfer.session.live import LiveController
from napari_emtransfer.session.live_weights import live_config
from napari_emtransfer.session.measuring import MeasuringController
from napari_emtransfer.session.messages import (
    AnnotationRead,
    AnnotationWanted,
    FromEngine,
    FromSynthesis,
    Message,
    MicrographsChanged,
    ProposalMade,
    QueueRead,
    QueueWanted,
    RegionLoaded,
    SaveFailed,
    StoredPrediction,
    StrokesSaved,
)
from napari_emtransfer.session.micrographs import MicrographCommands
from napari_emtransfer.session.notices import project_notices
from napari_emtransfer.session.overlays import Overlays
from napari_emtransfer.session.prediction import PredictionController
from napari_emtransfer.session.project_commands import ProjectCommands
from napari_emtransfer.session.queue import QueueController
from napari_emtransfer.session.runs import newest_model
from napari_emtransfer.session.signals import SessionSignals
from napari_emtransfer.session.state import Phase, ProjectNotice, Readouts
from napari_emtransfer.session.synthesis import SynthesisController
from napari_emtransfer.session.training import TrainingController
from napari_emtransfer.worker.protocol import LIVE_RUN
from napari_emtransfer.worker.runners import LocalProcessRunner, Runner


class Session(ProjectCommands, MicrographCommands):
    """One open project, and everything a view can ask of it.

    Threads: commands and `apply` belong to one thread, that of the views; signals are emitted there and nowhere else.
    `wait_events` belongs to a background thread that hands what it returns to `apply` on the views' thread.
    `add_micrographs` and `import_dataset` may run on any thread; the views hear of them through `apply`.

    Parameters
    ----------
    runner
        Where training and prediction run; processes on this computer by default.
    """

    def __init__(self, runner: Runner | None = None) -> None:
        self._context = Context()
        runner = runner or LocalProcessRunner()
        self.labelling = LabellingController(self._context, self._touched, self._looked, self._marked, self._next_tile)
        self.engine = EngineController(self._context, runner)
        self.overlays = Overlays(self._context, lambda stem, window: self.measuring.touched(stem, window))
        self.prediction = PredictionController(self._context, self.engine, self.overlays)
        self.live = LiveController(
            self._context, self.engine, self.overlays, self.labelling, self._live_config, self._live_switched
        )
        self.training = TrainingController(self._context, runner, self.labelling.save_now)
        self.queue = QueueController(
            self._context, self.engine, self.training, self.labelling, lambda: self.prediction.model_run
        )
        self.augmenting = AugmentingController(self._context, self.engine, self.labelling.save_now)
        self.synthesis = SynthesisController(self._context, runner, self.labelling.save_now)
        self.advice = AdviceController(self._context, self.engine)
        self.measuring = MeasuringController(self._context, self.labelling, self.prediction, self.overlays)
        self.visible: Window | None = None
        self._closed = False

    @property
    def signals(self) -> SessionSignals:
        """What views listen to."""
        return self._context.signals

    @property
    def project(self) -> Project | None:
        """The open project."""
        return self._context.project

    @property
    def records(self) -> tuple[MicrographRecord, ...]:
        """The project's micrographs, as last read."""
        return self._context.records

    @property
    def schema(self) -> LabelSchema:
        """The classes of the project; none while no project is open."""
        return self.project.schema if self.project else LabelSchema()

    @property
    def current(self) -> str | None:
        """Stem of the micrograph that is shown."""
        return self.labelling.current

    @property
    def tile(self) -> Tile | None:
        """The tile that is being labelled."""
        return self.labelling.tile

    @property
    def readouts(self) -> Readouts:
        """IoU of the model and of the current tile."""
        return self.measuring.readouts

    @property
    def text_overlay(self) -> str:
        """The line on the canvas."""
        return self.measuring.text_overlay

    def notices(self) -> list[ProjectNotice]:
        """What should be pointed out about the project as a whole."""
        if self.project is None:
            return []
        return project_notices(self.records, len(self.schema), self.project.settings.working_pixel_size_nm)

    def show(self, stem: str | None) -> None:
        """Show a micrograph; its prediction is asked for where there is a model."""
        self.labelling.show(stem)

    def look_at(self, visible: Window | None) -> None:
        """The view shows this window (native pixels) of the current micrograph now; it will be predicted first."""
        self.visible = visible
        self.live.look(visible)

    def predict_current(self) -> int | None:
        """Have the current micrograph predicted, what is visible first; returns the generation.

        Answers None without micrograph or model, where it is predicted, or being predicted, already, and while the
        overlay is the live head's.
        """
        if self.current is None or self.live.enabled:
            return None
        visible = self.visible or (self.tile.window if self.tile else None)
        return self.prediction.request(self.current, visible)

    def use_model(self, run_id: str | None) -> None:
        """Predict and measure with the model of this run from now on; a live head stands on its features."""
        self.prediction.use_model(run_id)
        self.measuring.model_changed()
        self.live.weights_changed()
        self.queue.outdated()
        self.predict_current()

    # ---- events

    def wait_events(self, timeout: float = 0.05) -> list[Message]:
        """On the bridge's thread: what has happened since, waiting up to `timeout` seconds; pixels are loaded here."""
        return [self._load(message) for message in self._context.inbox.get(timeout)]

    def apply(self, message: Message) -> None:
        """On the views' thread: take one message. The only writer of state besides the commands."""
        match message:
            case RegionLoaded():
                (self.live if message.run == LIVE_RUN else self.prediction).apply_region(message)
            case StoredPrediction():
                self.prediction.apply_stored(message)
            case FromEngine():
                self.engine.apply(message)
            case FromSynthesis():
                self.synthesis.apply(message)
            case StrokesSaved() | SaveFailed() | AnnotationRead():
                self.labelling.apply(message)
                if isinstance(message, StrokesSaved):
                    self.live.saved(message)
                    self.queue.saved(message)
            case QueueRead() | ProposalMade():
                self.queue.apply(message)
            case QueueWanted() | AnnotationWanted():
                pass  # of a project that was closed meanwhile
            case MicrographsChanged():
                self._micrographs_changed(message.stems if message.labels else (), classes=message.labels)
                if message.labels:
                    self.live.labels_changed()
            case NoticePosted():
                self.signals.notice_posted.emit(message.message, message.hint)
            case _:
                if message.run_id == self.training.state.run_id:
                    self.advice.follow(message)
                if self.training.apply(message):
                    if self.training.state.phase in (Phase.FINISHED, Phase.CANCELLED):
                        self._use_newest_model()
                    self.queue.training_ended()

    def drain(self, timeout: float = 0.0) -> int:
        """For programs without a bridge: wait, apply all that came, and return how many messages that were."""
        messages = self.wait_events(timeout)
        for message in messages:
            self.apply(message)
        return len(messages)

    def tick(self) -> None:
        """Call about ten times a second from the views' thread: autosave, readouts, a live overlay that follows."""
        self.labelling.tick()
        self.measuring.tick()
        self.live.tick()
        self.queue.tick()

    def close(self) -> None:
        """Save the strokes, bank a running training, end the processes. May be called more than once."""
        if self._closed:
            return
        self._closed = True
        self._let_go()
        self.engine.end()

    def _let_go(self) -> None:
        project = self.project
        if project is None:
            return
        self.queue.close()
        self.training.end(timeout=2.0)
        self.synthesis.end()
        self.live.reset()
        self.advice.reset()
        self.engine.forget()
        self.prediction.reset()
        self.labelling.close()
        self.training.reset()
        self._context.project = None
        self._context.refresh_records()
        project.close()
        self.signals.project_changed.emit()
        self.measuring.model_changed()

    def _load(self, message: Message) -> Message:
        for controller in (self.prediction, self.live, self.labelling, self.queue):
            message = controller.load(message)
        return message

    def _open(self, make: Callable[[], Project]) -> None:
        require_saved(self.labelling.save_now(), "the project stays open")
        project = make()
        self._let_go()
        self._context.project = project
        self._context.refresh_records()
        self.labelling.open(project)
        self.signals.project_changed.emit()
        self.queue.open(project)
        self._use_newest_model()
        self.engine.start()

    def _looked(self, elsewhere: bool) -> None:
        if elsewhere:
            self.visible = None
            self.predict_current()
        self.live.moved()
        self.queue.looked()
        self.measuring.refresh()

    def _marked(self, tile: Tile, state: TileState) -> None:
        self.queue.marked(tile, state)

    def _next_tile(self) -> Tile | None:
        return self.queue.proposed()

    def _touched(self, stem: str, window: Window) -> None:
        self.queue.touched(stem)
        self.measuring.touched(stem, window)

    def _live_config(self) -> LiveConfig:
        return live_config(self.prediction.model_run)

    def _live_switched(self, enabled: bool) -> None:
        """One source at a time: the live head's overlay, or the model's. Without a model, none."""
        if enabled:
            self.prediction.stop()
            return
        self.overlays.withdraw(LIVE_RUN, but=self.current if self.prediction.model_run else None)
        self.predict_current()

    def _use_newest_model(self) -> None:
        newest = newest_model(self._context.require_project())
        self.use_model(newest.id if newest else None)
