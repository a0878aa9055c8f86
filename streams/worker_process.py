"""A process of `streams.worker`, as the one that asks it sees it: started, asked, and ended; and those that wait."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from mmap import mmap
from pathlib import Path
from typing import Any

from streams.errors import CutShortError, RecordingError
from streams.parcels import Parcel, receive

_START_S, _END_S = 60.0, 5.0
_LAST_S = 1.0  # until a process whose pipe has closed has ended
TOO_LONG = (1, -getattr(signal, "SIGXCPU", 1))  # codes of one that ends itself: by faulthandler, or by the system
_MEMORY_BYTES = 1 << 25  # taken only where it is used
_MOST_IDLE, _MOST_FILES = 2, 100  # processes that wait, and files that one opens
#: It computes nothing, and threads start slowly; ffmpeg would start one for each core, which takes 30 MB each for 4K.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OPENCV_FFMPEG_THREADS": "4"}


class WorkerEnded(Exception):
    """It has ended, or was ended; why, in words that follow the name of a file."""

    def __init__(self, why: str, *, hung: bool = False, killed: bool = False) -> None:
        super().__init__(why)
        self.hung, self.killed = hung, killed

    def of(self, path: Path) -> RecordingError:
        """The error of a file: of one that may be sound, where the process hung or was killed."""
        return (CutShortError if self.hung or self.killed else RecordingError)(f"{path}: {self}")


class WorkerProcess:
    """One process. Raises OSError where it cannot be started."""

    def __init__(self) -> None:
        self.files = 0  # that it was asked to open
        self._memory = None
        with _memory() as descriptors:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "streams.worker", *map(str, descriptors)],
                env={**os.environ, **_ENVIRONMENT},
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=descriptors,
                start_new_session=True,
            )
            self._memory = mmap(descriptors[0], 0) if descriptors else None
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        self._poll = select.poll() if hasattr(select, "poll") else None  # without it the process alone minds the time
        if self._poll is not None:
            self._poll.register(self._answers, select.POLLIN)
        self._started = self._overdue = False

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked, as far as can be told."""
        return self._process.poll() is None

    def ask(self, request: Mapping[str, Any]) -> None:
        """Send a request; `answer` gives the answer to it. Raises WorkerEnded."""
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
        except (OSError, ValueError):  # closed at the other end, or at this one
            raise self._ended() from None

    def answer(self, timeout_s: float) -> Parcel:
        """The next answer. Raises WorkerEnded, also where nothing comes for so long."""
        try:
            if not self._started:
                receive(lambda into: self._fill(into, _START_S))
                self._started = True
            return receive(lambda into: self._fill(into, timeout_s), self._memory)
        except (OSError, EOFError, ValueError):
            raise self._ended() from None
        except BaseException:  # half of an answer may be left, which nobody could tell from the next one
            self.end()
            raise

    def _fill(self, into: memoryview, timeout_s: float) -> None:
        while into:
            if self._poll is not None and not self._poll.poll(timeout_s * 1e3):
                self._overdue = True
                self.kill()
            got = self._answers.readinto(into)  # type: ignore[attr-defined]
            if not got:
                raise EOFError
            into = into[got:]

    def kill(self) -> None:
        """End it, from any thread: who waits for its answer is told."""
        self._process.kill()

    def end(self) -> None:
        """End it, and free what belongs to it; by the one who may ask it."""
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        self._requests.close()
        self._answers.close()
        if self._memory is not None:
            self._memory.close()

    def _ended(self) -> WorkerEnded:
        """End it, and say how it had ended by itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_S)
        self.end()
        code = self._process.returncode
        if not self._started:
            return WorkerEnded(f"cannot be read: the process for it does not start (code {code}); install velora again")
        if self._overdue or code in TOO_LONG:
            return WorkerEnded("its decoder hung, and was ended; copy the file again, or leave it out", hung=True)
        how = signal.Signals(-code).name if code is not None and -code in set(signal.Signals) else f"code {code}"
        killed = how == "SIGKILL"  # as by a system that runs out of memory
        fix = "make room in memory, or leave the file out" if killed else "copy the file again, or leave it out"
        return WorkerEnded(f"its decoder {'was killed' if killed else 'crashed'} ({how}); {fix}", killed=killed)


class Idle:
    """Processes that wait for a file."""

    def __init__(self) -> None:
        self._waiting: list[WorkerProcess] = []
        self._lock = threading.Lock()

    def take(self) -> WorkerProcess:
        """One that waits, else a new one. Raises OSError."""
        with self._lock:
            while self._waiting:
                if (process := self._waiting.pop()).is_alive:
                    return process
                process.end()
        return WorkerProcess()

    def give(self, process: WorkerProcess) -> None:
        """It has nothing more to do, and no answer is due of it."""
        with self._lock:
            if process.files < _MOST_FILES and len(self._waiting) < _MOST_IDLE:
                self._waiting.append(process)
                return
        process.end()

    def close(self) -> None:
        """End them all."""
        with self._lock:
            while self._waiting:
                self._waiting.pop().end()

    def forget(self) -> None:
        """They belong to another process, of which this one is a copy."""
        self.__init__()  # type: ignore[misc]


@contextlib.contextmanager
def _memory() -> Iterator[list[int]]:
    """A descriptor of new memory, which may be mapped as long as this lasts; none where the system has no such."""
    if not hasattr(os, "memfd_create"):
        yield []
        return
    descriptor = os.memfd_create("velora")
    try:
        os.truncate(descriptor, _MEMORY_BYTES)
        yield [descriptor]
    finally:
        os.close(descriptor)


IDLE = Idle()
atexit.register(IDLE.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=IDLE.forget)
