import threading
from pathlib import Path

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.events import RunCancelled
from napari_emtransfer.worker.inbox import Inbox
from napari_emtransfer.worker.protocol import LiveRequest, PredictRequest, RecommendRequest, WarmRequest, to_line

ROOT = Path("p")


def live(generation):
    window = Window(y0=0, x0=0, y1=8, x1=8)
    return LiveRequest(run_id=f"live{generation}", project=ROOT, micrograph="a", window=window, generation=generation)


def predict(generation):
    return PredictRequest(run_id=f"predict{generation}", project=ROOT, generation=generation)


class Lines:
    """An incoming channel that a test writes to."""

    def __init__(self):
        self._items, self._more = [], threading.Semaphore(0)

    def send(self, request):
        self._items.append(to_line(request))
        self._more.release()

    def __iter__(self):
        while True:
            self._more.acquire()
            yield self._items.pop(0)


def queued(*requests):
    """An inbox that has received `requests` while nothing was running, and what it has emitted."""
    events = []
    inbox = Inbox([], events.append, single=False, on_closed=lambda: None)
    for request in requests:
        inbox._receive(to_line(request))
    return inbox, events


def order(inbox):
    return [inbox.next_job().request.run_id for _ in range(len(inbox._queue))]


def test_a_live_update_goes_before_everything_that_waits_but_the_warm_up():
    advise = RecommendRequest(run_id="advise", project=ROOT, config=TrainConfig())
    inbox, events = queued(WarmRequest(), predict(1), advise, live(1))
    assert order(inbox) == ["warm", "live1", "predict1", "advise"]
    assert events == []


def test_a_newer_live_update_replaces_a_waiting_one_and_leaves_predictions_alone():
    inbox, events = queued(predict(9), live(1), live(2))
    assert order(inbox) == ["live2", "predict9"]
    assert events == [RunCancelled(run_id="live1")]


def test_an_older_live_update_is_refused():
    inbox, events = queued(live(5), live(4))
    assert order(inbox) == ["live5"]
    assert events == [RunCancelled(run_id="live4")]


def test_a_newer_live_update_stops_the_running_one_but_not_a_running_prediction():
    inbox, _ = queued(live(1))
    running = inbox.next_job()
    inbox._receive(to_line(live(2)))
    assert running.control.cancelled
    assert inbox.next_job().request.run_id == "live2"

    inbox, _ = queued(predict(1))
    running = inbox.next_job()
    inbox._receive(to_line(live(2)))
    assert not running.control.cancelled


def test_a_live_update_wakes_whoever_waits_for_a_job():
    lines = Lines()
    inbox = Inbox(lines, lambda _event: None, single=False, on_closed=lambda: None)
    inbox.start()
    got = []
    waiting = threading.Thread(target=lambda: got.append(inbox.next_job().request.run_id), daemon=True)
    waiting.start()
    lines.send(live(3))
    waiting.join(10)
    assert got == ["live3"]
