"""What faults are measured by: a camera that shows the host's time, who looks at what comes, and what is in use."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psutil

from streams import Live, Sample, Source
from streams.items import EventPacket, Item, RgbFrame
from tests.conftest import random_events

SIZE = (64, 48)
PERIOD_US = 33_333


class Clockwork(Source):
    """30 frames a second for ever, with events; its clock is the host's monotonic one."""

    live, name = True, "clockwork"
    event_size = frame_size = SIZE
    sample_period_us = PERIOD_US

    def __init__(self, events: int = 50, frame: np.ndarray | None = None) -> None:
        super().__init__()
        self._events = events
        self._frame = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8) if frame is None else frame
        self.frame_size = (self._frame.shape[1], self._frame.shape[0])
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Item]:
        start = time.monotonic_ns() // 1_000
        while not self._closed.is_set():
            end = start + PERIOD_US
            self._closed.wait(max(0.0, end / 1e6 - time.monotonic()))
            now_ns = time.monotonic_ns()
            yield RgbFrame(end - 12_000, end - 2_000, self._frame, now_ns)
            yield EventPacket(start, end, random_events(self._events, start, end, SIZE, seed=end % 1_000), now_ns)
            start = end

    def close(self) -> None:
        self._closed.set()


class Watch:
    """Follows a live source in a thread of its own, and notes when samples came and how late they were."""

    def __init__(self, source: Source) -> None:
        self.source, self.live = source, Live(source)
        self.samples: list[tuple[float, int, bool]] = []  # when it came (s), its end (us), whether after a gap
        self.failure: Exception | None = None
        self.thread = threading.Thread(target=self._look, name="watch", daemon=True)
        self.thread.start()

    def _look(self) -> None:
        try:
            for sample in self.live:
                self.note(sample)
        except Exception as error:
            self.failure = error

    def note(self, sample: Sample) -> None:
        """One more."""
        self.samples.append((time.monotonic(), sample.t_end_us, sample.discontinuity))

    def wait(self, count: int, timeout_s: float = 20) -> None:
        """Until so many more have come."""
        wanted = len(self.samples) + count
        until(lambda: len(self.samples) >= wanted or self.failure is not None, timeout_s)
        assert self.failure is None, self.failure

    def lags_ms(self, since: int = 0) -> np.ndarray:
        """From the end of each exposure to the sample; of a Clockwork alone."""
        return np.array([1e3 * came - end / 1e3 for came, end, _ in self.samples[since:]])

    def gaps(self) -> int:
        """How often it began anew after the first time."""
        return sum(broken for _, _, broken in self.samples[1:])

    def stop(self) -> None:
        """No more."""
        self.live.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()


@contextmanager
def watching(source: Source) -> Iterator[Watch]:
    """A watch that is stopped in the end."""
    watch = Watch(source)
    try:
        yield watch
    finally:
        watch.stop()


def until(condition: Callable[[], Any], timeout_s: float = 20) -> float:
    """Wait for something to be true; how long it took, in seconds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, f"not within {timeout_s:g} s"
        time.sleep(0.005)
    return time.monotonic() - began


class InUse:
    """Threads, file handles and memory of a process, and how they have grown since."""

    def __init__(self, pid: int | None = None) -> None:
        self._process = psutil.Process(pid or os.getpid())
        self.threads, self.handles, self.mb = self._now()

    def _now(self) -> tuple[int, int, float]:
        own = self._process
        handles = own.num_fds() if hasattr(own, "num_fds") else own.num_handles()
        return own.num_threads(), handles, own.memory_info().rss / 1e6

    def grown_mb(self) -> float:
        """Resident memory beyond what it was."""
        return self._now()[2] - self.mb

    def is_back(self) -> bool:
        """Whether there are no more threads and file handles than there were."""
        threads, handles, _ = self._now()
        return threads <= self.threads and handles <= self.handles

    def __str__(self) -> str:
        threads, handles, mb = self._now()
        return f"threads {self.threads} to {threads}, handles {self.handles} to {handles}, {mb - self.mb:+.0f} MB"
