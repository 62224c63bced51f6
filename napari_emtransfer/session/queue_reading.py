"""The queue as it is in the database, read on the bridge's thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.session.messages import QueueRead, QueueWanted

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project import Project


def read_queue(project: Project, wanted: QueueWanted) -> QueueRead:
    """Open entries, rounds, and what they say about stopping."""
    try:
        entries = project.active.queue(("waiting", "deferred"))
        rounds = project.active.rounds()
    except EMTransferError as error:
        return QueueRead(wanted.serial, message=error.message, hint=error.hint)
    if not rounds:
        return QueueRead(wanted.serial, entries)
    from napari_emtransfer.core.active.rounds import RoundFacts
    from napari_emtransfer.core.active.stopping import StopSettings, advise

    facts = [RoundFacts.model_validate(one.facts) for one in rounds]
    advice = advise(facts, StopSettings(target_half_width=wanted.target_half_width))
    return QueueRead(wanted.serial, entries, rounds, facts[-1], advice)
