"""One update of the live overlay that the engine has been asked for."""

from __future__ import annotations

from dataclasses import dataclass

from napari_emtransfer.core.config import LiveConfig
from napari_emtransfer.core.events import RegionPredicted
from napari_emtransfer.session.live_place import Place
from napari_emtransfer.worker.protocol import LIVE_RUN


@dataclass
class Question:
    """One update on its way. `since`: when the stroke that it answers ended; `shown_after`: seconds until its pixels.

    `progress` is what the worker says it is busy with, as "3 of 10 tiles".
    """

    generation: int
    place: Place
    config: LiveConfig
    since: float
    shown_after: float | None = None
    progress: str = ""

    def is_answered_by(self, event: RegionPredicted) -> bool:
        """Whether the event speaks of this very update."""
        return event.model_run == LIVE_RUN and event.generation == self.generation
