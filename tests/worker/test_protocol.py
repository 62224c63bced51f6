from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from napari_emtransfer.core import events
from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.worker import protocol
from napari_emtransfer.worker.protocol import (
    Control,
    EvaluateRequest,
    PredictRequest,
    TrainRequest,
    WarmRequest,
)

MESSAGES = [
    WarmRequest(),
    TrainRequest(run_id="r", project=Path("a b/ü"), config=TrainConfig(train=("x",), learning_rate=1e-5), resume=True),
    PredictRequest(run_id="r", project=Path("p"), window=Window(y0=0, x0=1, y1=2, x1=3), out=Path("o"), generation=4),
    EvaluateRequest(run_id="r", project=Path("p"), on=("test", "a\nb")),
    Control(control="cancel", run_id="r"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_messages_survive_the_line(message):
    line = protocol.to_line(message)
    assert "\n" not in line
    assert protocol.from_line(line) == message


@given(st.text(), st.floats(allow_nan=False, allow_infinity=False))
def test_events_survive_the_line_whatever_the_text(text, number):
    event = events.RunFinished(run_id=text, result={"mean_iou": number, text: None})
    line = events.to_line(event)
    assert "\n" not in line
    assert "\r" not in line
    assert events.from_line(line) == event


@pytest.mark.parametrize(
    "line", ["", "null", "{}", '{"kind":"dance","run_id":"r"}', '{"control":"pause","run_id":"r"}']
)
def test_other_lines_are_refused(line):
    with pytest.raises(ValidationError):
        protocol.from_line(line)
