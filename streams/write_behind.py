"""Writing behind: what is to be written is written in a thread of its own, so that a slow disk holds up nobody.

behind = WriteBehind("out.aedat4", writer.write, writer.close)
behind.put(packet, packet.events.nbytes)      whether there was room for it
behind.close()                                whether all is written
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
MOST_BYTES = 256 << 20  # that wait: seconds of a busy camera
END_S = 20.0  # for what waits to be written


class WriteBehind(Generic[T]):
    """Gives things to `write`, one after the other, and calls `finish` after the last one; both in its thread.

    What waits is bounded. An OSError of either ends it, and is its `failure`. Anything else that `write` raises ends it
    too, and is raised by the next `put`, or by `close`.
    """

    def __init__(self, name: str, write: Callable[[T], object], finish: Callable[[], object]) -> None:
        self._write, self._finish = write, finish
        self._changed = threading.Condition()
        self._waiting: deque[tuple[T, int, float]] = deque()  # each with its size, and since when
        self._held = 0  # bytes of it
        self._closing = False
        self._fault: Exception | None = None
        self.failure: OSError | None = None
        self._thread = threading.Thread(target=self._work, name=f"writer of {name}", daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether nothing more is taken."""
        return self._closing or self._ended

    @property
    def late_s(self) -> float:
        """How long what is being written has waited."""
        with self._changed:
            return time.monotonic() - self._waiting[0][2] if self._waiting else 0.0

    def put(self, thing: T, nbytes: int, *, wait: bool = False) -> bool:
        """Let it be written; with `wait`, once there is room. False where there is none, or nothing more is taken."""
        with self._changed:
            while wait and not self.over and not self._has_room(nbytes):
                self._changed.wait(1.0)
            self._raise_fault()
            if self.over or not self._has_room(nbytes):
                return False
            self._waiting.append((thing, nbytes, time.monotonic()))
            self._held += nbytes
            self._changed.notify_all()
            return True

    def close(self) -> bool:
        """Write what waits, and finish; whether that is done. What a disk has not taken in time is given up.

        From any thread, and more than once.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(END_S)
        with self._changed:
            while len(self._waiting) > 1:  # the first is on its way
                self._held -= self._waiting.pop()[1]
            self._raise_fault()
        return not self._thread.is_alive()

    @property
    def _ended(self) -> bool:
        return self.failure is not None or self._fault is not None

    def _has_room(self, nbytes: int) -> bool:
        return not self._waiting or self._held + nbytes <= MOST_BYTES

    def _raise_fault(self) -> None:
        fault, self._fault = self._fault, None
        if fault is not None:
            self._closing = True
            raise fault

    def _work(self) -> None:
        self._attempt(self._write_all)
        self._attempt(self._finish)
        with self._changed:
            self._waiting.clear()
            self._changed.notify_all()

    def _write_all(self) -> None:
        while (thing := self._first()) is not None:
            self._write(thing[0])
            with self._changed:
                self._held -= self._waiting.popleft()[1]
                self._changed.notify_all()

    def _first(self) -> tuple[T, int, float] | None:
        """What is to be written next, which waits until it is; None once nothing more will come."""
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait(1.0)
            return self._waiting[0] if self._waiting else None

    def _attempt(self, work: Callable[[], object]) -> None:
        try:
            work()
        except OSError as error:
            self.failure = self.failure or error
        except Exception as error:  # raised again where things are given
            self._fault = self._fault or error
