"""The time of a live device: made to rise always, and compared with the host's."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from streams.errors import StreamError
from streams.items import MAX_TIME_US, EventPacket, RgbFrame, Sample

_KEPT_S = 30  # seconds over which the smallest delay is looked for
_FALL_US, _STEADY_US = 5_000, 300_000  # a difference that has not fallen by so much for so long is trusted


class Unroller:
    """Times that never go back: where a device's clock began anew or wrapped, they go on from where they were.

    Raises StreamError for times beyond all bounds.

    How much time passed meanwhile is told by the host's clock. `begin_anew` says that the clock may have changed.
    """

    def __init__(self) -> None:
        self.offset_us = 0  # added to the device's time
        self._reached_us: int | None = None
        self._reached_ns = 0
        self._anew = False

    def begin_anew(self) -> None:
        """The next item may be of another time."""
        self._anew = True

    def unrolled(self, item: EventPacket | RgbFrame) -> EventPacket | RgbFrame:
        """The item at its unrolled time; its events are copied where they have to change."""
        now_ns = item.arrival_ns or 0
        if self._anew and self._reached_us is not None and item.t_start_us + self.offset_us < self._reached_us:
            passed_us = max(0, now_ns - self._reached_ns) // 1_000
            self.offset_us = self._reached_us + passed_us - item.t_start_us
        self._anew = False
        if item.t_end_us + self.offset_us > MAX_TIME_US:
            raise StreamError("the device's clock jumps about: its times cannot be relied on")
        if self.offset_us:
            item = self._shifted(item)
        if self._reached_us is None or item.t_end_us > self._reached_us:
            self._reached_us, self._reached_ns = item.t_end_us, now_ns
        return item

    def _shifted(self, item: EventPacket | RgbFrame) -> EventPacket | RgbFrame:
        start, end = item.t_start_us + self.offset_us, item.t_end_us + self.offset_us
        if isinstance(item, RgbFrame):
            return replace(item, t_start_us=start, t_end_us=end)
        events = item.events.copy()
        events["t"] += self.offset_us
        return replace(item, t_start_us=start, t_end_us=end, events=events)


class DeviceClock:
    """What a device's clock shows at a time of the host's: what came with the least delay of late tells."""

    def __init__(self) -> None:
        self._smallest: deque[tuple[int, int]] = deque()  # second of arrival, smallest difference in it; rising
        self._fell_us = 0  # when the difference last became much smaller, by the host's clock

    def heard(self, t_end_us: int, arrival_ns: int) -> None:
        """Something that ended then by the device's clock has come then by the host's."""
        difference, second = arrival_ns // 1_000 - t_end_us, arrival_ns // 1_000_000_000
        if not self._smallest or difference < self._smallest[0][1] - _FALL_US:
            self._fell_us = arrival_ns // 1_000
        while self._smallest and self._smallest[-1][1] >= difference:
            self._smallest.pop()
        if not self._smallest or self._smallest[-1][0] < second:
            self._smallest.append((second, difference))
        while self._smallest[0][0] < second - _KEPT_S:
            self._smallest.popleft()

    def begin_anew(self) -> None:
        """It may have been set anew."""
        self._smallest.clear()

    def at(self, host_us: int) -> int | None:
        """Microseconds of the device; None where nothing was heard of it."""
        return host_us - self._smallest[0][1] if self._smallest else None

    def steady_at(self, host_us: int) -> int | None:
        """As `at`; None also while a backlog is read, each piece of which was waiting for a shorter time."""
        return self.at(host_us) if host_us - self._fell_us >= _STEADY_US else None


class Delay:
    """How much later than at best samples arrive: the offset of the clocks is the smallest difference of late."""

    def __init__(self) -> None:
        self._clock = DeviceClock()

    def of(self, sample: Sample) -> float | None:
        """Milliseconds from the end of an exposure to its arrival beyond the least of late; None for recordings."""
        if sample.arrival_ns is None:
            return None
        if sample.discontinuity:
            self._clock.begin_anew()
        self._clock.heard(sample.t_end_us, sample.arrival_ns)
        at_best = self._clock.at(sample.arrival_ns // 1_000)
        return None if at_best is None else (at_best - sample.t_end_us) / 1e3
