"""What one file may take of the process that reads it: time for each answer, and memory; more of both if it is large.

Processor time and memory are limited by the system (not on Windows), and waiting by a thread of faulthandler's, which
ends the process also while a library holds the interpreter's lock.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]

BUSY_S, WAITING_S = 3.0, 15.0  # the least: of processor time, of any time
_BUSY_BYTES_S, _WAITING_BYTES_S = 8e6, 4e6  # bytes of the file that are a second more
_MOST_BYTES, _MOST_TIMES = 320 << 20, 16  # of memory: the least, and how many times the file is added


@dataclass(frozen=True)
class Limits:
    """Of an answer, in seconds; of memory beside what there is before."""

    busy_s: float
    waiting_s: float
    memory_bytes: int

    @classmethod
    def of(cls, path: Path) -> Limits:
        """What the size of a file allows."""
        size = 0
        with contextlib.suppress(OSError, ValueError):
            size = path.stat().st_size
        times_s = BUSY_S + size / _BUSY_BYTES_S, WAITING_S + size / _WAITING_BYTES_S
        return cls(*times_s, _MOST_BYTES + _MOST_TIMES * size)

    def begin(self) -> None:
        """This process may take so much memory from now on, until it is told another limit, and leaves no core file."""
        _limit("RLIMIT_CORE", 0)
        _limit("RLIMIT_DATA", _data_bytes() + self.memory_bytes)

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """This process ends where what is in here takes too long."""
        _limit("RLIMIT_CPU", int(time.process_time() + self.busy_s) + 1)
        with open(os.devnull, "w") as nowhere:
            faulthandler.dump_traceback_later(self.waiting_s, exit=True, file=nowhere)
            try:
                yield
            finally:
                faulthandler.cancel_dump_traceback_later()


def _limit(name: str, most: int) -> None:
    """Set a limit of the system's, as far as it has such and allows it."""
    if resource is not None:
        which = getattr(resource, name)
        _, highest = resource.getrlimit(which)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(which, (most if highest == resource.RLIM_INFINITY else min(most, highest), highest))


def _data_bytes() -> int:
    """Of the memory that RLIMIT_DATA counts, what this process has, where the system tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) << 10
    return 0
