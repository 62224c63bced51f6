"""The bridge: slow work off the GUI thread, answers and signals on it, faults as sentences."""

from __future__ import annotations

import threading
import time

import pytest
from psygnal import Signal
from qtpy.QtCore import QThreadPool

from napari_emtransfer.core.errors import StorageError
from napari_emtransfer.gui.bridge import Bridge


class Source:
    said = Signal(int)

    def __init__(self):
        self.waiting, self.applied, self.threads = [], [], set()

    def wait_events(self, timeout):
        events, self.waiting = self.waiting, []
        if not events:
            time.sleep(min(timeout, 0.02))
        return events

    def apply(self, event):
        self.threads.add(threading.current_thread())
        self.applied.append(event)


@pytest.fixture
def faults():
    return []


@pytest.fixture
def bridge(qtbot, faults):
    before = QThreadPool.globalInstance().maxThreadCount(), QThreadPool.globalInstance().activeThreadCount()
    bridge = Bridge(lambda message, hint: faults.append((message, hint)))
    yield bridge
    bridge.close()
    qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == before[1], timeout=3000)


def test_work_runs_elsewhere_and_its_answer_comes_back_here(qtbot, bridge):
    here, answers = threading.current_thread(), []

    def work():
        return threading.current_thread()

    bridge.run(work, done=lambda thread: answers.append((thread, threading.current_thread())))
    qtbot.waitUntil(lambda: len(answers) == 1)
    assert answers[0][0] is not here
    assert answers[0][1] is here


def test_a_fault_is_a_sentence_with_its_way_out(qtbot, bridge, faults):
    def work():
        raise StorageError("The disk is full.", "Free some space.")

    bridge.run(work)
    qtbot.waitUntil(lambda: faults == [("The disk is full.", "Free some space.")])


def test_steps_report_progress_and_stop_when_told(qtbot, bridge):
    seen, ended, go_on = [], [], threading.Event()

    def steps():
        for step in range(100):
            go_on.wait(5)
            yield step

    worker = bridge.run_steps(steps(), seen.append, done=ended.append)
    worker.quit()
    go_on.set()
    qtbot.waitUntil(lambda: bool(ended))
    assert len(seen) < 5


def test_events_are_applied_here_in_order_and_in_batches(qtbot, bridge):
    source, ticks = Source(), []
    bridge.start(source, lambda: ticks.append(time.monotonic()))
    for event in range(50):
        source.waiting.append(event)
    qtbot.waitUntil(lambda: len(source.applied) == 50)
    assert source.applied == list(range(50))
    assert source.threads == {threading.current_thread()}
    qtbot.waitUntil(lambda: len(ticks) >= 3)


def test_signals_of_other_threads_arrive_here_until_closed(qtbot, bridge):
    source, heard = Source(), []
    bridge.connect(source.said, lambda value: heard.append((value, threading.current_thread())))
    thread = threading.Thread(target=source.said.emit, args=(7,))
    thread.start()
    thread.join()
    qtbot.waitUntil(lambda: heard == [(7, threading.current_thread())])
    bridge.close()
    source.said.emit(8)
    assert len(heard) == 1
