"""What the program recommends: how to transfer before a training, and what its course suggests while it runs."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.core.events import Event, RunCancelled, RunFailed, RunFinished, RunStarted, ValidationEnded
from napari_emtransfer.core.recommend import advice
from napari_emtransfer.session.engine import DIED, EngineController
from napari_emtransfer.session.state import Advice
from napari_emtransfer.worker.protocol import RecommendRequest

if TYPE_CHECKING:
    from napari_emtransfer.session.context import Context

KEY: Final = "recommend"


class AdviceController:
    """Asks the engine, which measures the domain gap, and remembers the last answer. All on the thread of the views.

    A view that has a proposal (`TrainingController.proposed_config`) hands it to `request`; a second or so later the
    signal `advice_changed` brings an `Advice`, whose `config` is the proposal with the strategy and all that goes with
    it decided, and whose `reason` and `source` are for showing. A newer question overtakes an older one.
    `run_advice_changed` brings a sentence on the run that goes on, or an empty one; `run_advice` is its last value.
    """

    def __init__(self, context: Context, engine: EngineController) -> None:
        self._context, self._engine = context, engine
        self._generation = 0
        self._asked = TrainConfig()
        self._run = TrainConfig()
        self.latest: Advice | None = None
        self.run_advice = ""

    def request(self, config: TrainConfig) -> None:
        """Have the strategy for `config` recommended, from the labels on disk; a strategy other than "auto" stays."""
        project = self._context.require_project()
        self._generation += 1
        self._asked = config
        request = RecommendRequest(run_id=f"{KEY}-{self._generation}", project=project.root, config=config)
        self._engine.ask(request, self._answered, key=KEY)

    def reset(self) -> None:
        """The project was closed."""
        self._engine.forget(KEY)
        self.latest = None
        self._say("")

    def follow(self, event: Event) -> None:
        """Take an event of the training that goes on."""
        match event:
            case RunStarted():
                self._run = self._config_of(event.run_id)
                self._say("")
            case ValidationEnded():
                said = advice(
                    event.training_iou, event.n_stale, self._run.strategy, event.mean_iou, freeze=self._run.freeze
                )
                self._say(said or "")

    def _answered(self, event: Event) -> None:
        match event:
            case RunFinished(result=result):
                self._tell(Advice.model_validate({key: result[key] for key in Advice.model_fields if key in result}))
            case RunFailed(kind=kind) if kind != DIED:
                self._tell(Advice(config=self._asked, reason=f"{event.message} {event.hint}".strip(), failed=True))
            case RunFailed() | RunCancelled():
                self._tell(Advice(config=self._asked, reason="The gap could not be measured.", failed=True))

    def _tell(self, found: Advice) -> None:
        self.latest = found
        self._context.signals.advice_changed.emit(found)

    def _say(self, words: str) -> None:
        if words != self.run_advice:
            self.run_advice = words
            self._context.signals.run_advice_changed.emit(words)

    def _config_of(self, run_id: str) -> TrainConfig:
        """What the run was started with, "auto" resolved."""
        with contextlib.suppress(EMTransferError, ValueError):
            return TrainConfig.model_validate(self._context.require_project().run(run_id).config)
        return TrainConfig()
