"""Rates and latencies for the page's status line, safe to use from several threads."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque

_SPAN_S = 2.0  # what a rate looks back on
_KEPT = 512


class Rate:
    """How often something happens a second, over the last two seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: deque[float] = deque(maxlen=_KEPT)

    def count(self) -> None:
        """It happened now."""
        with self._lock:
            self._times.append(time.monotonic())

    def per_second(self) -> float:
        """0 while it happened less than twice in the span."""
        with self._lock:
            oldest = time.monotonic() - _SPAN_S
            while self._times and self._times[0] < oldest:
                self._times.popleft()
            if len(self._times) < 2:
                return 0.0
            return (len(self._times) - 1) / max(self._times[-1] - self._times[0], 1e-6)


class LabelLatency:
    """From the moment a sample was there to the moment its label was, by the sample's index."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._released: deque[tuple[int, float]] = deque(maxlen=_KEPT)
        self._latencies_ms: deque[float] = deque(maxlen=60)

    def released(self, index: int) -> None:
        """The sample is there now."""
        with self._lock:
            self._released.append((index, time.monotonic()))

    def labelled(self, index: int) -> None:
        """Its label is there now. Samples before it got none."""
        now = time.monotonic()
        with self._lock:
            # Indices start again with each pass of a recording, so only equality tells.
            while self._released:
                candidate, released = self._released.popleft()
                if candidate == index:
                    self._latencies_ms.append((now - released) * 1e3)
                    return

    def median_ms(self) -> float | None:
        """Of the last labels; None before the first."""
        with self._lock:
            return statistics.median(self._latencies_ms) if self._latencies_ms else None
