"""The batches and frames of an iniVation camera as items in order of time, also where it is silent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from streams.aedat4_source import Spans
from streams.items import EventPacket, Events, RgbFrame, no_events

_QUIET_NS, _STEP_US = 50_000_000, 10_000  # without events: the time is told, so often
_UNDER_WAY_US = (90_000, 500_000)  # how long events may be, beside the interval in which they are handed over
_RESET_US = 100_000  # a step back of more is a clock that began anew
_HOLE_US = 50_000


class Arrived(NamedTuple):
    """An item in the camera's time, and the run of its clock that it belongs to, with why that began."""

    run: int
    why: str
    item: EventPacket | RgbFrame


class Order:
    """What a camera brings, as items; where it is silent, packets without events tell the time.

    That is the newest time seen, and what has passed on the host since, less what events may still be under way.
    """

    def __init__(self, counts: Counter[str], interval_us: int) -> None:
        self._counts, self._spans, self._run = counts, Spans(counts), -1
        self._under_way_us, self._most_us = (interval_us + us for us in _UNDER_WAY_US)
        self._came_ns = 0
        self.begin_anew("")

    def begin_anew(self, why: str) -> None:
        """The camera's time is another one from here on."""
        self._run, self._why = self._run + 1, why
        self._reached: dict[type, int] = {}  # by events and by frames, which begin anew one after the other
        self._before: dict[type, int] = {}
        self._first_us = 0
        self._newest: tuple[int, int] | None = None  # time of the camera, and of the host when it came
        self._watermark: int | None = None
        self._quiet_ns: int | None = None

    def push(self, brought: Events | RgbFrame, came_ns: int, away_us: int = 0) -> Iterator[Arrived]:
        """The items made of a batch or a frame; the driver had not been asked for so long."""
        kind = type(brought)
        if isinstance(brought, RgbFrame):
            start, end = brought.t_start_us, brought.t_end_us
        else:
            start, end = int(brought["t"][0]), int(brought["t"][-1])
        if end < self._reached.get(kind, end) - _RESET_US:
            yield from self.flush()
            before = self._reached
            self.begin_anew("the clock began anew")
            self._before = before
        elif self._is_from_before(kind, end):
            self._counts["items from before the clock began anew, dropped"] += 1
            return
        if self._newest is None:
            self._first_us = start
        if self._newest is None or end > self._newest[0]:
            self._newest = end, came_ns
        self._came_ns = came_ns
        if isinstance(brought, RgbFrame):
            yield self._arrived(brought)
        else:
            self._notice(start, away_us)
            for packet in self._spans.push(brought):
                yield self._arrived(replace(packet, arrival_ns=came_ns))
        self._reached[kind] = end

    def silence(self, asked_ns: int) -> Iterator[Arrived]:
        """The driver had no events when it was asked."""
        self._quiet_ns = asked_ns if self._quiet_ns is None else self._quiet_ns
        if self._newest is None or asked_ns - self._quiet_ns < _QUIET_NS:
            return
        until = self._newest[0] + (asked_ns - self._newest[1]) // 1_000 - self._under_way_us
        since = self._reached.get(np.ndarray, self._first_us - 1) + 1
        since = max(since, self._watermark or since)
        if until - since >= _STEP_US:
            yield from self.flush()
            yield self._arrived(EventPacket(since, until, no_events(), asked_ns))

    def flush(self) -> Iterator[Arrived]:
        """The newest events, which wait for more of their microsecond."""
        for packet in self._spans.flush():
            yield self._arrived(replace(packet, arrival_ns=self._came_ns))

    def _is_from_before(self, kind: type, end: int) -> bool:
        """The other kind has begun anew, and this one goes on where it was."""
        before = self._before.get(kind)
        if kind in self._reached or before is None or self._newest is None:
            return False
        return abs(end - before) < abs(end - self._newest[0])

    def _notice(self, start: int, away_us: int) -> None:
        """Events begin again: too late to be waited for, or after a hole for which we are to blame."""
        self._quiet_ns = None
        if start < (self._watermark or start):
            self._under_way_us = min(2 * self._under_way_us, self._most_us)
        if _HOLE_US < start - self._reached.get(np.ndarray, start) <= away_us:
            self._counts["gaps in the events, since the driver was not read in time"] += 1

    def _arrived(self, item: EventPacket | RgbFrame) -> Arrived:
        if isinstance(item, EventPacket):
            self._watermark = max(item.t_end_us, self._watermark or item.t_end_us)
        return Arrived(self._run, self._why, item)
