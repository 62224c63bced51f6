"""The training that starts by itself after so many done tiles."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.session.messages import ProposalMade
from napari_emtransfer.session.state import Phase

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project_records import LoopSettings
    from napari_emtransfer.session.context import Context
    from napari_emtransfer.session.labelling import LabellingController
    from napari_emtransfer.session.state import RunState
    from napari_emtransfer.session.training import TrainingController


class FineTuning:
    """Counts done tiles since the last training, by whomever it was started, and starts another one when it is due.

    The proposal reads all labels: a thread of its own makes it. All methods belong to the thread of the views.

    Parameters
    ----------
    settings
        How often, and how many tiles were done when the last training started.
    on_start
        Told the number of done tiles at the start of a training, from which it is counted.
    on_fault
        Told (message, hint) when none could be started.
    """

    def __init__(
        self,
        context: Context,
        training: TrainingController,
        labelling: LabellingController,
        settings: Callable[[], LoopSettings],
        on_start: Callable[[int], None],
        on_fault: Callable[[str, str], None],
    ) -> None:
        self._context, self._training, self._labelling = context, training, labelling
        self._settings, self._on_start, self._on_fault = settings, on_start, on_fault
        self._serial = 0
        self._proposing = False
        self._run_id: str | None = None
        context.signals.run_changed.connect(self._on_run)

    @property
    def n_left(self) -> int | None:
        """Tiles to be done until it starts; None where it never does."""
        settings = self._settings()
        if settings.finetune_every is None:
            return None
        return max(0, settings.finetune_every - (self._labelling.n_tiles_done - settings.finetuned_at))

    def reset(self) -> None:
        """The project was closed."""
        self._serial += 1
        self._proposing = False

    def recount(self) -> None:
        """Done tiles may have left with their micrograph: what is left counts from here."""
        if self._settings().finetuned_at > self._labelling.n_tiles_done:
            self._on_start(self._labelling.n_tiles_done)

    def check(self) -> None:
        """A tile is done, or a training has ended: start if that is due."""
        if self.n_left != 0 or self._proposing or self._training.state.is_active:
            return
        self._proposing = True
        self._serial += 1
        threading.Thread(target=self._propose, args=(self._serial,), name="emtransfer-proposal", daemon=True).start()

    def apply(self, message: ProposalMade) -> None:
        """Start with what is proposed, as the button would."""
        if message.serial != self._serial:
            return
        self._proposing = False
        if self._training.state.is_active:
            return  # its end asks again
        if message.config is None:
            self._on_fault(message.message, message.hint)
            return
        try:
            self._training.start(message.config)
        except EMTransferError as error:
            self._on_fault(error.message, error.hint)

    def _propose(self, serial: int) -> None:
        try:
            self._labelling.save_now()
            answer = ProposalMade(serial, self._training.proposed_config()[0])
        except EMTransferError as error:
            answer = ProposalMade(serial, message=error.message, hint=error.hint)
        except Exception as error:
            answer = ProposalMade(serial, message=f"No training could be proposed: {error}.", hint="Start it by hand.")
        self._context.inbox.put(answer)

    def _on_run(self, state: RunState) -> None:
        if state.phase is Phase.STARTING and state.run_id != self._run_id:
            self._run_id = state.run_id
            self._on_start(self._labelling.n_tiles_done)
