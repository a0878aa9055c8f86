"""Processes that take cases one after the other: one that hangs or crashes costs a process, not the run.

    children = Children()
    outcome = children.run(route, path)  # from any thread
    children.close()

What a case takes is measured in it: time, and memory beyond what the process had before. What cases leave behind, such
as caches, may be as much; after some hundreds of them another process takes the place. A kept case runs again, with all
that it prints, by

    python -m tests.trust.fuzz.child MODULE:ROUTE PATH
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import multiprocessing
import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

#: Raises AssertionError where a case fails; returns what it ended in.
Route = Callable[[Path], str]
DATA, REFUSED = "data", "refused"

_CASES, _LEFT_MB = 2_000, 500.0  # of a process, and what they may leave behind in it
_START_S, _PATIENCE_S = 120.0, 30.0  # of wall time, on a machine that may be busy


@dataclass(frozen=True)
class Outcome:
    """How a case ended: in data, refused in one line, or in a failure."""

    ended: str
    seconds: float
    mb: float
    failure: str = ""


class Children:
    """As many processes as threads ask for at once, which call `ready` with a folder of their own as they start."""

    def __init__(self, ready: Callable[[Path], object] | None = None) -> None:
        self._ready, self._lock = ready, threading.Lock()
        self._idle: list[Child] = []

    def run(self, route: Route, path: Path) -> Outcome:
        """A case, as of `Child.run`."""
        with self._lock:
            child = self._idle.pop() if self._idle else Child(self._ready)
        outcome = child.run(route, path)
        with self._lock:
            self._idle.append(child)
        return outcome

    def close(self) -> None:
        """End those that are idle."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()


class Child:
    """A process, which is started where there is none, and then calls `ready` with a folder of its own."""

    def __init__(self, ready: Callable[[Path], object] | None = None) -> None:
        self._ready = ready or prepare
        self._context = multiprocessing.get_context("spawn")
        self._process: multiprocessing.context.SpawnProcess | None = None
        self._link: Connection | None = None
        self._own: tempfile.TemporaryDirectory[str] | None = None  # its files
        self._cases = 0

    def run(self, route: Route, path: Path) -> Outcome:
        """A case. A process that makes no end of it within half a minute is killed."""
        if self._cases == _CASES:
            self.close()
        link = self._link or self._start()
        self._cases += 1
        try:
            link.send((route, path))
            if not link.poll(_PATIENCE_S):
                self.close()
                return Outcome("", _PATIENCE_S, 0, "it hangs")
            outcome: Outcome = link.recv()
            return outcome
        except (EOFError, OSError):
            assert self._process is not None
            self._process.join(_PATIENCE_S)
            code = self._process.exitcode
            self.close()
            return Outcome("", 0, 0, f"the process crashed, exit code {code}")

    def _start(self) -> Connection:
        self._link, far = self._context.Pipe()
        self._own = tempfile.TemporaryDirectory(prefix="velora-fuzz-")
        self._process = self._context.Process(target=_serve, args=(far, Path(self._own.name), self._ready), daemon=True)
        self._process.start()
        far.close()
        if not self._link.poll(_START_S):
            raise TimeoutError("the process for the cases does not start")
        self._link.recv()
        return self._link

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join(_PATIENCE_S)
        if self._link is not None:
            self._link.close()
        if self._own is not None:
            self._own.cleanup()
        self._process, self._link, self._own, self._cases = None, None, None, 0


def _serve(link: Connection, own: Path, ready: Callable[[Path], object]) -> None:
    keep = ready(own)
    idle_mb = _mb("VmRSS")
    with contextlib.suppress(EOFError), link:
        link.send(None)  # it has started
        while True:
            route, path = link.recv()
            link.send(measured(route, path, idle_mb))
    del keep


def prepare(own: Path) -> object:
    """Import what commands import, and load the model; keep what is returned, with which the model stays loaded."""
    os.environ |= {"VELORA_DATA": str(own), "TMPDIR": str(own), "OMP_NUM_THREADS": "1"}  # there is one for each core
    tempfile.tempdir = str(own)
    from velora import load_recognizer

    for name in ("app.replay", "app.info", "app.label", "app.labelling.labeller", "app.convert", "app.viewers"):
        importlib.import_module(name)
    return load_recognizer("demo")


def measured(route: Route, path: Path, idle_mb: float) -> Outcome:
    """A case in this process, and in those that it starts to read files."""
    before_mb, workers_mb = _forget_peak(), _forget_peaks_of_workers()
    wall, cpu, ended, failure = time.perf_counter(), _cpu_s(), "", ""
    try:
        ended = route(path)
    except AssertionError as error:
        failure = str(error)[:600] or "an assertion failed"
    except BaseException as error:
        failure = _where(error)
    # On a machine that is busy with other things a case waits; what it computes, with all its threads, it does itself.
    seconds = min(time.perf_counter() - wall, _cpu_s() - cpu)
    if before_mb - idle_mb > _LEFT_MB:
        failure = failure or f"the cases before it left {before_mb - idle_mb:.0f} MB behind"
    more_mb = sum(_mb_of(pid, "VmHWM") - workers_mb.get(pid, 0.0) for pid in _workers())
    return Outcome(ended, seconds, max(0.0, _mb("VmHWM") - before_mb) + more_mb, failure)


def _workers() -> list[int]:
    return [worker.pid for worker in psutil.Process().children()]


def _cpu_s() -> float:
    """Processor time of this process, and of those that it has started."""
    own = os.times()
    total = own.user + own.system + own.children_user + own.children_system
    for pid in _workers():
        with contextlib.suppress(psutil.Error):
            total += sum(psutil.Process(pid).cpu_times()[:2])
    return total


def _forget_peaks_of_workers() -> dict[int, float]:
    """As `_forget_peak`; what each of them has now, in MB."""
    workers = _workers()
    for pid in workers:
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    return {pid: _mb_of(pid, "VmRSS") for pid in workers}


def _mb_of(pid: int, what: str) -> float:
    """As `_mb`; none where it has just ended."""
    with contextlib.suppress(OSError, ValueError):
        return _mb(what, pid)
    return 0.0


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    return f"{type(error).__name__}: {str(error)[:300]}" + (f" at {last.filename}:{last.lineno}" if last else "")


def _forget_peak() -> float:
    """Give back what is free, and let Linux forget the peak of resident memory; what there is now, in MB."""
    with contextlib.suppress(AttributeError):  # of GNU's library
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _mb("VmRSS")


def _mb(what: str, pid: int | str = "self") -> float:
    """VmRSS or VmHWM of a process, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1e3
    raise ValueError(f"the system tells no {what}")


def _again(name: str, path: Path) -> int:
    """A kept case in this process."""
    module, _, route = name.partition(":")
    with tempfile.TemporaryDirectory(prefix="velora-fuzz-") as own:
        keep = prepare(Path(own))
        outcome = measured(getattr(importlib.import_module(module), route), path, _mb("VmRSS"))
        del keep
    print(outcome, file=sys.stderr, flush=True)
    return 1 if outcome.failure else 0


if __name__ == "__main__":
    os._exit(_again(sys.argv[1], Path(sys.argv[2])))  # the page's threads would go on
