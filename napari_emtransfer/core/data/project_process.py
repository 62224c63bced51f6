"""Which process is at work on a run, and whether it still lives."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path


def host_name() -> str:
    """Name of this machine."""
    return platform.node()


def process_start(pid: int) -> str | None:
    """When the process `pid` of this machine began, as an opaque word; None where there is no such process.

    Process numbers are used again after a while: only number and start together name a process.
    """
    if sys.platform == "win32":
        return _start_on_windows(pid)
    if Path("/proc/self/stat").exists():
        return _start_from_proc(pid)
    return _start_from_ps(pid)


def is_alive(pid: int, started: str) -> bool:
    """Whether the very process that was recorded still runs on this machine."""
    return process_start(pid) == started


def this_process() -> tuple[int, str]:
    """(pid, start) of the process that asks."""
    pid = os.getpid()
    return pid, process_start(pid) or ""


def _start_from_proc(pid: int) -> str | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # "pid (name) state …": the name may hold spaces and brackets; start time is field 22, 20 after the name.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _start_from_ps(pid: int) -> str | None:
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    def _start_on_windows(pid: int) -> str | None:
        # os.kill(pid, 0) would send Ctrl-C here.
        kernel = ctypes.windll.kernel32
        kernel.OpenProcess.restype = wintypes.HANDLE
        handle = kernel.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
        if not handle:
            return None
        try:
            code, times = wintypes.DWORD(), [wintypes.FILETIME() for _ in range(4)]
            kernel.GetExitCodeProcess(wintypes.HANDLE(handle), ctypes.byref(code))
            kernel.GetProcessTimes(wintypes.HANDLE(handle), *map(ctypes.byref, times))
            still_active = 259
            return f"{times[0].dwHighDateTime}.{times[0].dwLowDateTime}" if code.value == still_active else None
        finally:
            kernel.CloseHandle(wintypes.HANDLE(handle))
