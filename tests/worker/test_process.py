"""The process boundary, with real processes and played work."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.events import (
    TERMINAL,
    NoticePosted,
    ProgressMade,
    RunCancelled,
    RunFailed,
    RunFinished,
    from_line,
)
from napari_emtransfer.worker.client import WorkerProcess, death_sentence, worker_environment
from napari_emtransfer.worker.protocol import PredictRequest, TrainRequest, to_line

FAKE = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))


def train(run_id: str) -> TrainRequest:
    return TrainRequest(run_id=run_id, project=Path("p"), config=TrainConfig())


def predict(run_id: str, generation: int = 0) -> PredictRequest:
    return PredictRequest(run_id=run_id, project=Path("p"), generation=generation)


@pytest.fixture
def worker():
    started = []

    def start(request, **options) -> WorkerProcess:
        process = WorkerProcess(command=FAKE, **options)
        started.append(process)
        process.start(request)
        return process

    yield start
    for process in started:
        process.kill()
        assert process.wait(10)


def until(process: WorkerProcess, kind, run_id: str | None = None):
    """All events up to the first of `kind`, that one included."""
    events = []
    while True:
        events.append(process.events.get(timeout=20))
        if isinstance(events[-1], kind) and run_id in (None, events[-1].run_id):
            return events


def rest(process: WorkerProcess):
    """All events to the end of the process."""
    assert process.wait(20)
    events = []
    while not process.events.empty():
        events.append(process.events.get())
    return events


def test_a_run_ends_in_one_terminal_event_and_the_process_leaves(worker):
    process = worker(train("env-1"))
    events = rest(process)
    assert [type(e) for e in events] == [RunFinished]
    assert not process.alive


def test_environment_keeps_out_of_the_windows_way(worker):
    result = rest(worker(train("env-1")))[-1].result
    assert result["OMP_WAIT_POLICY"] == os.environ.get("OMP_WAIT_POLICY", "passive")
    assert result["nice"] >= min(19, os.nice(0) + 10)
    assert int(result["OMP_NUM_THREADS"]) >= 1
    alone = worker_environment({}, beside_window=False)
    assert alone == {"OMP_WAIT_POLICY": "passive", "PYTHONIOENCODING": "utf-8"}
    chosen = worker_environment({"OMP_NUM_THREADS": "7"}, beside_window=True)
    assert chosen["OMP_NUM_THREADS"] == "7"


def test_cancel_and_stop_early_are_two_things(worker):
    cancelled, stopped = worker(train("count-1")), worker(train("count-2"))
    for process in (cancelled, stopped):
        until(process, ProgressMade)
    cancelled.cancel()
    stopped.stop_early()
    assert isinstance(rest(cancelled)[-1], RunCancelled)
    assert isinstance(rest(stopped)[-1], RunFinished)


def test_control_words_for_another_run_do_nothing(worker):
    process = worker(train("count-1"))
    until(process, ProgressMade)
    process.cancel("count-2")
    time.sleep(0.2)
    assert process.alive
    process.cancel()
    assert isinstance(rest(process)[-1], RunCancelled)


def test_stray_prints_reach_the_log_and_never_the_channel(worker, tmp_path):
    log = tmp_path / "worker.log"
    events = rest(worker(train("print-1"), log=log))
    assert [(type(e), e.run_id) for e in events] == [(RunFinished, "print-1")]
    assert events[0].result == {"input": ""}
    written = log.read_text()
    for words in ("a stray print", "a stray puts", "a stray child", "forged"):
        assert words in written


@pytest.mark.parametrize(
    ("run_id", "kind", "words"),
    [
        ("user-1", "label", "one class only"),
        ("oom-1", "device", "out of memory"),
        ("bug-1", "bug", "KeyError: 'surprise'"),
        ("die-1", "died", "exit code 7"),
        ("kill-1", "died", "killed (signal 9), often by the system when memory runs out"),
    ],
)
def test_failures_in_words(worker, run_id, kind, words):
    (event,) = rest(worker(train(run_id)))
    assert isinstance(event, RunFailed)
    assert event.kind == kind
    assert words in event.message
    assert "\n" not in event.message
    assert ("Traceback" in event.traceback) == (kind == "bug")
    assert ("last words" in event.traceback) == (run_id == "die-1")


def test_kill_ends_even_the_deaf(worker):
    process = worker(train("deaf-1"))
    until(process, ProgressMade)
    process.kill()
    (event,) = rest(process)
    assert event.kind == "died"
    assert "memory" not in event.message


@pytest.mark.parametrize("run_id", ["count-1", "deaf-1"])
@pytest.mark.parametrize("engine", [True, False])
def test_closed_stdin_ends_the_process_within_two_seconds(worker, run_id, engine):
    process = worker(predict(run_id), engine=engine)
    until(process, ProgressMade)
    begin = time.perf_counter()
    process.close()
    assert process.wait(10)
    assert time.perf_counter() - begin < 2
    last = rest(process)[-1]
    assert isinstance(last, RunCancelled if run_id == "count-1" else RunFailed)


def test_idle_engine_leaves_without_a_word(worker):
    process = worker(train("env-1"), engine=True)
    until(process, RunFinished)
    process.close()
    assert process.wait(2)
    assert process.events.empty()


def test_dead_engine_says_so_even_when_idle(worker):
    process = worker(train("env-1"), engine=True)
    until(process, RunFinished)
    process.request(train("die-1"))
    assert [(e.run_id, e.kind) for e in rest(process)] == [("die-1", "died"), ("engine", "died")]


def test_engine_newest_generation_wins(worker):
    process = worker(predict("count-1", 1), engine=True)
    until(process, ProgressMade)
    for request in (predict("env-2", 2), predict("env-3", 3), predict("env-late", 1)):
        process.request(request)
    events = [e for e in until(process, RunFinished) if isinstance(e, TERMINAL)]
    outcome = {e.run_id: type(e) for e in events}
    expected = {"count-1": RunCancelled, "env-late": RunCancelled, "env-3": RunFinished}
    assert outcome == expected | {"env-2": outcome["env-2"]}
    assert len(events) == 4  # exactly one each
    process.request(predict("env-4", 4))
    assert until(process, TERMINAL)[-1].run_id == "env-4"


def test_engine_waits_with_other_requests_until_the_prediction_is_done(worker):
    process = worker(predict("count-1", 1), engine=True)
    process.request(train("env-2"))
    until(process, ProgressMade)
    process.stop_early("count-1")
    assert [e.run_id for e in until(process, RunFinished, "env-2") if isinstance(e, TERMINAL)] == ["count-1", "env-2"]


def speak(*lines: str, engine: bool) -> list:
    """Raw lines to a process, all at once; stdin stays open until it has answered each."""
    arguments = [*FAKE, *(["--engine"] if engine else [])]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write("".join(line + "\n" for line in lines))
    process.stdin.flush()
    answers = []
    while len([a for a in answers if isinstance(a, TERMINAL)]) < (len(lines) if engine else 1):
        answers.append(from_line(process.stdout.readline()))
    process.communicate(timeout=10)
    return answers


def test_garbage_gives_an_error_line_and_the_engine_goes_on():
    good = to_line(train("env-1"))
    bad_field = good.replace(f'"iterations":{TrainConfig().iterations}', '"iterations":-1')
    answers = speak("garbage {", '{"kind":"train"}', bad_field, "[1]", good, engine=True)
    kinds = {(a.run_id, getattr(a, "kind", "finished")) for a in answers}
    assert kinds == {("unknown", "protocol"), ("env-1", "protocol"), ("env-1", "finished")}
    assert "iterations" in next(a for a in answers if a.run_id == "env-1").message


def test_garbage_instead_of_the_one_request_ends_the_process():
    (answer,) = speak("garbage", engine=False)
    assert answer.kind == "protocol"


def test_second_request_to_a_single_process_is_refused(worker):
    process = worker(train("count-1"))
    until(process, ProgressMade)
    process.request(train("env-2"))
    notice = until(process, NoticePosted)[-1]
    assert "one request only" in notice.message
    process.cancel("count-1")
    # The client still answers for the request that nobody took.
    assert [(e.run_id, type(e)) for e in rest(process) if isinstance(e, TERMINAL)] == [
        ("count-1", RunCancelled),
        ("env-2", RunFailed),
    ]


def test_sigterm_banks_the_work(worker):
    process = worker(train("count-1"))
    until(process, ProgressMade)
    process._process.terminate()
    assert isinstance(rest(process)[-1], RunCancelled)


def test_sentences_of_death():
    assert "memory" in death_sentence(-9)
    assert "SIGSEGV" in death_sentence(-11)
    assert "0xc0000005" in death_sentence(0xC0000005)
    assert "exit code 0" in death_sentence(0)
