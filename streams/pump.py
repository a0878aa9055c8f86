"""A driver that is drained in a thread of its own, and the one who takes what it brings."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
_ROUND_S = 0.05
MOST_BYTES = 1 << 26


class Pump(Generic[T]):
    """Calls `read` for ever in a thread, and keeps what it returns, `most` at a time; the oldest go, counted as `lost`.

    They also go where all that is kept is more than MOST_BYTES; `weight` tells how many bytes one has.
    `read` may block for a while, and returns what has come, perhaps nothing. What it raises is raised by `taken`.
    `free` is called in the same thread when it ends, whenever the driver lets it.
    """

    def __init__(
        self,
        read: Callable[[], Sequence[T]],
        *,
        most: int,
        counts: Counter[str],
        lost: str,
        free: Callable[[], None] = lambda: None,
        weight: Callable[[T], int] = lambda _: 0,
    ) -> None:
        self._free, self._weight = free, weight
        self._read, self._most, self._counts, self._lost = read, most, counts, lost
        self._changed = threading.Condition()
        self._waiting: deque[T] = deque()
        self._waiting_bytes = 0
        self._failure: Exception | None = None
        self.stopped = threading.Event()
        self.brought_at = time.monotonic()  # the newest
        self._thread = threading.Thread(target=self._work, name="driver", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """End `taken` at once, from any thread; the driver's thread when `read` returns."""
        self.stopped.set()
        with self._changed:
            self._changed.notify_all()

    def join(self, timeout_s: float) -> None:
        """Wait for the driver's thread, which may still be in the driver."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def taken(self) -> Iterator[T]:
        """What the driver brings, until `stop`. Raises what `read` raises."""
        while not self.stopped.is_set():
            with self._changed:
                if not self._waiting and self._failure is None:
                    self._changed.wait(_ROUND_S)
                waiting, self._waiting, self._waiting_bytes = self._waiting, deque(), 0
            while waiting:
                yield waiting.popleft()
            if self._failure is not None and not self._waiting:
                raise self._failure

    def _work(self) -> None:
        try:
            while not self.stopped.is_set():
                self._keep(self._read())
        except Exception as error:  # raised again by `taken`
            self._failure = error
        finally:
            self._free()

    def _keep(self, brought: Sequence[T]) -> None:
        if not brought:
            return
        self.brought_at = time.monotonic()
        with self._changed:
            self._waiting.extend(brought)
            self._waiting_bytes += sum(map(self._weight, brought))
            while len(self._waiting) > 1 and (len(self._waiting) > self._most or self._waiting_bytes > MOST_BYTES):
                self._waiting_bytes -= self._weight(self._waiting.popleft())
                self._counts[self._lost] += 1
            self._changed.notify_all()
