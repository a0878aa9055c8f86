"""Several streams through one recogniser: what `run` does under EVERY, in full batches of samples of any of them.

    together = Together(recognizer, batch=8)
    lane = together.open(sinks=[...], stride=4)
    for sample in ...:
        together.push(lane, sample)
    together.flush()

What a stream's sinks get is what `run` would have given them, and in that order.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from streams.items import Sample
from streams.run import RunSummary, Screen, Sink, deliver


class Stepper(Protocol):
    """What is needed of a recogniser: it opens sessions, and takes samples of several of them at a time."""

    def open(self, *, stride: int = 1, hop: int = 1) -> Any: ...

    def step(self, pairs: Sequence[tuple[Any, Sample]], /) -> Sequence[Any | None]: ...


@dataclass(eq=False)
class Lane:
    """One of the streams."""

    session: Any
    sinks: Sequence[Sink]
    summary: RunSummary = field(default_factory=RunSummary)
    waiting: int = 0  # samples that were pushed and are not recognised yet

    def __post_init__(self) -> None:
        self.screen = Screen(self.sinks, self.summary)


class Together:
    """Collects samples, and steps the recogniser whenever there are `batch` of them."""

    def __init__(self, recognizer: Stepper, batch: int) -> None:
        if batch < 1:
            raise ValueError(f"batch must be at least 1, not {batch}")
        self._recognizer, self._batch = recognizer, batch
        self._waiting: deque[tuple[Lane, Sample]] = deque()
        self.busy_s = 0.0  # spent in the recogniser

    def open(self, sinks: Sequence[Sink], *, stride: int = 1, hop: int = 1) -> Lane:
        """A lane for a stream that begins."""
        return Lane(self._recognizer.open(stride=stride, hop=hop), sinks)

    def push(self, lane: Lane, sample: Sample) -> list[tuple[Lane, Sample]]:
        """Take the next sample of a stream; the samples that were recognised now, mostly none.

        Samples must keep their images until then. Raises what the recogniser and the sinks raise.
        """
        lane.screen.show(sample)
        lane.waiting += 1
        self._waiting.append((lane, sample))
        return self._step() if len(self._waiting) >= self._batch else []

    def flush(self) -> list[tuple[Lane, Sample]]:
        """Recognise what waits for a batch to fill, since nothing more comes soon."""
        return self._step() if self._waiting else []

    def drop(self, lane: Lane) -> None:
        """Forget a stream that failed, with what waits of it."""
        self._waiting = deque(pair for pair in self._waiting if pair[0] is not lane)
        lane.waiting = 0

    def _step(self) -> list[tuple[Lane, Sample]]:
        pairs, self._waiting = list(self._waiting), deque()
        began = time.perf_counter()
        said = self._recognizer.step([(lane.session, sample) for lane, sample in pairs])
        self.busy_s += time.perf_counter() - began
        for (lane, sample), prediction in zip(pairs, said, strict=True):
            lane.waiting -= 1
            deliver(prediction, sample, lane.sinks, lane.summary)
        return pairs
