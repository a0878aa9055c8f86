"""Rates and latencies for the page's status line, safe to use from several threads."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field

import psutil

_SPAN_S = 2.0  # what a rate looks back on
_KEPT = 512
_LATE, _LATE_S = 300, 10.0  # latencies that percentiles are of


def memory_mb() -> float:
    """Resident, of this process."""
    return float(psutil.Process().memory_info().rss) / 1e6


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


class Latency:
    """Of the last so many of something, in milliseconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ms: deque[tuple[float, float]] = deque(maxlen=_LATE)  # when, and how much

    def add(self, ms: float) -> None:
        """One more."""
        with self._lock:
            self._ms.append((time.monotonic(), ms))

    def percentiles(self) -> tuple[float, float] | None:
        """p50 and p95 of the last ten seconds; None where there was nothing."""
        oldest = time.monotonic() - _LATE_S
        with self._lock:
            ms = sorted(ms for at, ms in self._ms if at >= oldest)
        return (ms[len(ms) // 2], ms[len(ms) * 95 // 100]) if ms else None


class LabelLatency(Latency):
    """From the moment a sample was there to the moment its label was, by the sample's index."""

    def __init__(self) -> None:
        super().__init__()
        self._released: deque[tuple[int, float]] = deque(maxlen=_KEPT)

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
                    self._ms.append((now, (now - released) * 1e3))
                    return


class Recent:
    """How much a count has grown of late."""

    def __init__(self, span_s: float = 10.0) -> None:
        self._span_s = span_s
        self._lock = threading.Lock()
        self._seen: deque[tuple[float, int]] = deque()  # when it changed, and to what

    def growth(self, count: int) -> int:
        """Of a count that is so much now."""
        now = time.monotonic()
        with self._lock:
            if not self._seen or self._seen[-1][1] != count:
                self._seen.append((now, count))
            while len(self._seen) > 1 and self._seen[1][0] < now - self._span_s:
                self._seen.popleft()
            if count < self._seen[0][1]:  # it began anew
                self._seen = deque([(now, count)])
            return count - self._seen[0][1]


@dataclass(eq=False)
class Meters:
    """How a channel goes."""

    source: Rate = field(default_factory=Rate)
    labels: Rate = field(default_factory=Rate)
    label: LabelLatency = field(default_factory=LabelLatency)  # from sample to label
    arrival: Latency = field(default_factory=Latency)  # from the end of an exposure to its arrival, beyond the least
