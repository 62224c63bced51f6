"""The queue as it is in the database, read on the bridge's thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.session.messages import QueueRead, QueueWanted

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project import Project


def read_queue(project: Project, wanted: QueueWanted) -> QueueRead:
    """Open entries, rounds, and what they say about stopping; a fault becomes a sentence: the bridge has to go on."""
    try:
        return _read(project, wanted)
    except EMTransferError as error:
        return QueueRead(wanted.serial, message=error.message, hint=error.hint)
    except Exception as error:
        message = f"The queue could not be read: {type(error).__name__}: {error}."
        return QueueRead(wanted.serial, message=message, hint="Rank the tiles again; labels are not affected.")


def _read(project: Project, wanted: QueueWanted) -> QueueRead:
    entries = project.active.queue(("waiting", "deferred"))
    rounds = project.active.rounds()
    if not rounds:
        return QueueRead(wanted.serial, entries)
    from napari_emtransfer.core.active.rounds import RoundFacts
    from napari_emtransfer.core.active.stopping import StopSettings, advise

    facts = [RoundFacts.model_validate(one.facts) for one in rounds]
    advice = advise(facts, StopSettings(target_half_width=wanted.target_half_width))
    return QueueRead(wanted.serial, entries, rounds, facts[-1], advice)
