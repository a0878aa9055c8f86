"""Samples of a live source, made in a thread of its own, so that nobody who is slow holds up the feed.

with open_source("tcp://127.0.0.1:7777") as source:
    run(Live(source), recognizer, sinks=[viewer], policy=LATEST)

Several may follow one feed, each at its own pace, from when it joins: `Live.follow`.
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
_AS_PAINTED = RenderConfig()


class Live:
    """A feed that is read while somebody follows it; iterating follows it. `stop` ends it for all, from any thread.

    Raises at those who follow what reading the source raises.
    """

    def __init__(self, source: Source, *, render: RenderConfig = _AS_PAINTED) -> None:
        self.source, self.render = source, render
        self._lock = threading.Lock()
        self._followers: list[Follower] = []
        self._ended = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._read, name=f"reader of {source.name}", daemon=True)

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._ended

    def follow(self) -> Follower:
        """The samples from now on; the feed is read from the first call on."""
        follower = Follower(self)
        with self._lock:
            self._followers.append(follower)
            if self._ended:
                follower.end(self._failure)
            elif self._thread.ident is None:
                self._thread.start()
        return follower

    def leave(self, follower: Follower) -> None:
        """Bring it no more samples."""
        with self._lock:
            if follower in self._followers:
                self._followers.remove(follower)

    def stop(self) -> None:
        """End it for all, and close the source."""
        self._end(None)
        self.source.close()

    def __iter__(self) -> Iterator[Sample]:
        """The samples, taken once: what ends the iteration stops the feed."""
        try:
            yield from self.follow()
        finally:
            self.stop()
            self._thread.join(_STOP_TIMEOUT_S)

    def _end(self, failure: Exception | None) -> None:
        with self._lock:
            if not self._ended:
                self._ended, self._failure = True, failure
            followers = list(self._followers)
        for follower in followers:
            follower.end(self._failure)

    def _read(self) -> None:
        failure = None
        try:
            for sample in synchronize(self.source, render=lambda: self.render):
                with self._lock:
                    followers = list(self._followers)
                    if self._ended:
                        return
                for follower in followers:
                    follower.put(sample)
        except Exception as error:  # raised again by those who follow
            failure = error
        finally:
            self._end(failure)


class Follower:
    """An iterable of samples, to be taken once, by one who keeps up or loses the oldest; `stop` ends it."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._changed = threading.Condition()
        self._samples: deque[Sample] = deque()
        self._joins, self._ended = True, False
        self._failure: Exception | None = None

    def stop(self) -> None:
        """End the iteration, from any thread; the feed goes on for others."""
        self._live.leave(self)
        self.end(None)

    def __iter__(self) -> Iterator[Sample]:
        try:
            while (sample := self._take()) is not None:
                yield sample
        finally:
            self.stop()
        if self._failure is not None:
            raise self._failure

    def put(self, sample: Sample) -> None:
        """A new sample; where too many wait, the oldest goes."""
        with self._changed:
            broken = self._joins or sample.discontinuity
            self._joins = False
            if len(self._samples) == _HELD:
                oldest = self._samples.popleft()
                self._samples[0] = _broken(self._samples[0], oldest.discontinuity)
                self._live.source.counts["samples left out, since showing them takes too long"] += 1
            self._samples.append(_broken(sample, broken))
            self._changed.notify_all()

    def end(self, failure: Exception | None) -> None:
        """No more samples come."""
        with self._changed:
            self._failure = self._failure or (failure if not self._ended else None)
            self._ended = True
            self._changed.notify_all()

    def _take(self) -> Sample | None:
        with self._changed:
            while not self._samples and not self._ended:
                self._changed.wait(timeout=1.0)
            return self._samples.popleft() if self._samples else None


def _broken(sample: Sample, is_broken: bool) -> Sample:
    return replace(sample, discontinuity=True) if is_broken and not sample.discontinuity else sample
