"""A worker process whose requests are played, not computed: run as a script in place of worker.main.

What to play stands in the run_id: "count-…" emits progress until it is stopped, "print-…" prints to stdout from
Python and from C, "deaf-…" never looks at its control, "die-…" ends mute, "kill-…" kills itself, "oom-…" runs
out of memory.
"""

import argparse
import ctypes
import os
import signal
import sys
import time

from napari_emtransfer.core.errors import LabelError
from napari_emtransfer.core.events import ProgressMade
from napari_emtransfer.worker.control import Cancelled, terminal_of
from napari_emtransfer.worker.main import serve


def play(request, emit, control):
    emit(terminal_of(request.run_id, control, lambda: act(request.run_id, emit, control)))


def act(run_id, emit, control):
    match run_id.split("-")[0]:
        case "count":
            done = 0
            while not control.should_stop():
                emit(ProgressMade(run_id=run_id, done=(done := done + 1), total=1e6, what="beats"))
                time.sleep(0.01)
            if control.cancelled:
                raise Cancelled({"done": done})
            return {"done": done}
        case "print":
            print("a stray print")  # noqa: T201
            print('{"event": "RunFinished", "run_id": "forged"}')  # noqa: T201
            os.system("echo a stray child")
            ctypes.CDLL(None).puts(b"a stray puts")
            ctypes.CDLL(None).fflush(None)
            return {"input": sys.stdin.read()}
        case "deaf":
            emit(ProgressMade(run_id=run_id, done=1, total=2, what="beats"))
            time.sleep(60)
        case "die":
            print("last words", file=sys.stderr, flush=True)  # noqa: T201
            os._exit(7)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "oom":
            raise MemoryError
        case "user":
            raise LabelError("The labels hold one class only.", "Paint a second class.")
        case "bug":
            raise KeyError("surprise")
        case "env":
            return {"nice": os.nice(0), **{k: os.environ.get(k) for k in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS")}}
    return {}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", action="store_true")
    parser.add_argument("--nice", type=int, default=0)
    options = parser.parse_args()
    os.nice(options.nice)
    serve(play, engine=options.engine)
    sys.stderr.flush()
    os._exit(0)
