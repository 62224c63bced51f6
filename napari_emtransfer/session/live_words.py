"""What the live head says of itself: one short line for the loop bar, a sentence for its tooltip."""

from __future__ import annotations

from napari_emtransfer.core.errors import LabelError
from napari_emtransfer.core.events import RunFailed
from napari_emtransfer.session.state import EngineState, LiveState

GAVE_WAY = (
    "The overlay is the trained network's now.",
    "Live (L) updates it after every stroke again, on the features of that network.",
)
UNPAINTED = LiveState(
    "waiting",
    message="paint a few strokes of each class",
    hint="From the second class on, an overlay of this tile follows every stroke.",
)
"""Before the first stroke; what the engine prepares meanwhile is of no interest to anybody."""
PATIENCE_SECONDS = 2.0
"""An update that takes longer says for how long it has been going on."""


def updating_state(before: LiveState, engine: EngineState, seconds: float, *, cold: bool, progress: str) -> LiveState:
    """An update is on its way for so many seconds; `cold` before the first one that stands on these weights."""
    joint = " "
    if engine.phase == "starting":
        words = "starting the engine …"
        hint = "It loads its libraries, once; painting goes on meanwhile."
    elif cold:
        words = f"preparing features … {progress}".rstrip()
        joint = ", " if progress else " "
        hint = "Each labelled tile is looked at once; after that an update takes a fraction of this. Painting goes on."
    else:
        words, hint = "updating …", "Learning from all strokes."
    waited = f"{joint}{seconds:.0f} s" if seconds >= PATIENCE_SECONDS else ""
    return LiveState("updating", before.seconds, before.n_pixels, f"{words}{waited}", hint)


def ready_state(seconds: float, n_pixels: int) -> LiveState:
    """The overlay is up to date, `seconds` after the stroke."""
    hint = f"Learnt from {n_pixels} labelled pixels. The tiles that it learns from are no test: fine-tune to measure."
    return LiveState("ready", seconds, n_pixels, f"updated in {seconds:.1f} s", hint)


def failed_state(event: RunFailed) -> LiveState:
    """Why there is no update; with fewer than two classes that is no fault, and the line says what is missing."""
    if event.kind == LabelError.kind:
        return LiveState("waiting", message="paint a second class to see an overlay", hint=_told(event))
    return LiveState("failed", message=event.message, hint=event.hint)


def _told(event: RunFailed) -> str:
    return f"{event.message} {event.hint}".rstrip()


def weights_notice(weights: str) -> tuple[str, str]:
    """(message, hint) when the head stands on something else from now on: whoever has just trained looks for that."""
    kind, _, name = weights.partition(":")
    if kind != "run":
        return "The live head goes on without the features of a run.", ""
    return f"The overlay stays the live head's, now on features of run {name}.", "Live off (L) shows the run's own."
