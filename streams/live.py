"""Samples of a live source, made in a thread of its own, so that nobody who is slow holds up the feed.

with open_source("tcp://127.0.0.1:7777") as source:
    run(Live(source), recognizer, sinks=[viewer], policy=LATEST)
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from streams.items import Sample
from streams.render import RenderConfig
from streams.source import Source
from streams.synchronize import synchronize

_HELD = 8  # samples that wait to be taken; beyond, the oldest goes
_STOP_TIMEOUT_S = 5


class Live:
    """An iterable of samples, to be taken once; `stop` ends it from any thread, and closes the source.

    Raises at its consumer what reading the source raises.
    """

    def __init__(self, source: Source, *, render: RenderConfig | None = None) -> None:
        self.source, self.render = source, render
        self._changed = threading.Condition()
        self._samples: deque[Sample] = deque()
        self._ended = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._read, name=f"reader of {source.name}", daemon=True)

    def stop(self) -> None:
        """End the iteration."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self.source.close()

    def __iter__(self) -> Iterator[Sample]:
        self._thread.start()
        try:
            while (sample := self._take()) is not None:
                yield sample
        finally:
            self.stop()
            self._thread.join(_STOP_TIMEOUT_S)
        if self._failure is not None:
            raise self._failure

    def _take(self) -> Sample | None:
        with self._changed:
            while not self._samples and not self._ended:
                self._changed.wait(timeout=1.0)
            return self._samples.popleft() if self._samples else None

    def _read(self) -> None:
        try:
            for sample in synchronize(self.source, render=self.render):
                self._put(sample)
                if self._ended:
                    return
        except Exception as error:  # raised again by the iteration
            self._failure = error if not self._ended else None
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, sample: Sample) -> None:
        with self._changed:
            if len(self._samples) == _HELD:
                oldest = self._samples.popleft()
                self._samples[0] = replace(
                    self._samples[0], discontinuity=oldest.discontinuity or self._samples[0].discontinuity
                )
                self.source.counts["samples left out, since showing them takes too long"] += 1
            self._samples.append(sample)
            self._changed.notify_all()
