"""The signals of a session. They are emitted only from the thread that calls commands and `Session.apply`."""

from __future__ import annotations

from psygnal import Signal, SignalGroup

from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.session.queue_state import QueueState
from napari_emtransfer.session.state import (
    Advice,
    EngineState,
    LiveState,
    Readouts,
    RunState,
    SaveState,
    SynthesisState,
)


class SessionSignals(SignalGroup):
    """Everything that a view may want to hear; each signal says what changed, the session holds the new value.

    `current_changed` and `tile_changed` carry the new stem or `Tile`, or None, in this order; `prediction_changed` the
    stem and the window (native pixels) in which mask and entropy are new; `model_changed` the run that predicts from
    now on, or None; `project_changed` also follows closing; `run_advice_changed` a sentence on the run that goes on.
    """

    project_changed = Signal()
    micrographs_changed = Signal()
    schema_changed = Signal()
    current_changed = Signal(object)
    tile_changed = Signal(object)
    annotation_saved = Signal(str)
    save_state_changed = Signal(SaveState)
    tile_states_changed = Signal(str)
    run_changed = Signal(RunState)
    curves_changed = Signal()
    model_changed = Signal(object)
    prediction_changed = Signal(str, Window)
    readouts_changed = Signal(Readouts)
    engine_changed = Signal(EngineState)
    live_changed = Signal(LiveState)
    advice_changed = Signal(Advice)
    run_advice_changed = Signal(str)
    queue_changed = Signal(QueueState)
    synthesis_changed = Signal(SynthesisState)
    notice_posted = Signal(str, str)
    failed = Signal(str, str)
