"""Two live feeds as one: taken from both at once, and the frames of the one put on the clock of the other's events."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import replace

from streams.clock import DeviceClock
from streams.errors import StreamError
from streams.items import EventImage, EventPacket, Gap, Item, RgbFrame, no_events

EVENTS, FRAMES = 0, 1
_ROUND_S = 0.05
_PATIENCE_S = 0.5  # a frame waits so long for its events to come; then there are none
_MOST = {EVENTS: 200, FRAMES: 4}  # items that wait to be taken
_LOST = {
    EVENTS: "packets of events, left out since too many came",
    FRAMES: "frames of the webcam, left out since too many came",
}


class Handover:
    """Two feeds, each drained in a thread of its own; the oldest items go, counted, where nobody takes them.

    What a feed raises is raised by `taken`.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._changed = threading.Condition()
        self._waiting: deque[tuple[int, Item]] = deque()  # in order of arrival
        self._failure: Exception | None = None
        self._ended = threading.Event()
        self._stopped = threading.Event()
        self._started = False

    def start(self, *feeds: Iterator[Item]) -> None:
        """Begin to drain events and frames; starting twice does nothing."""
        if self._started:
            return
        self._started = True
        for number, feed in enumerate(feeds):
            threading.Thread(target=self._drain, args=(number, feed), name=f"feed {number}", daemon=True).start()

    def stop(self) -> None:
        """End `taken` at once, from any thread; a feed's thread ends with its next item, or its end."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()

    def taken(self) -> Iterator[tuple[int, Item] | None]:
        """EVENTS or FRAMES, and an item of it; None where nothing came for a while. Ends where a feed does."""
        while not self._stopped.is_set():
            with self._changed:
                if not self._waiting and not self._ended.is_set():
                    self._changed.wait(_ROUND_S)
                item = self._waiting.popleft() if self._waiting else None
            if item is None and self._ended.is_set():
                break
            yield item
        if self._failure is not None and not self._stopped.is_set():
            raise self._failure

    def _drain(self, number: int, feed: Iterator[Item]) -> None:
        try:
            for item in feed:
                if self._stopped.is_set() or self._ended.is_set():
                    return
                self._put(number, item)
        except Exception as error:  # raised again by `taken`
            self._failure = self._failure or error
        finally:
            self._ended.set()
            with self._changed:
                self._changed.notify_all()

    def _put(self, number: int, item: Item) -> None:
        with self._changed:
            self._waiting.append((number, item))
            own = [place for place, (feed, held) in enumerate(self._waiting) if feed == number and _may_go(held)]
            if len(own) > _MOST[number]:
                del self._waiting[own[0]]
                self._counts[_LOST[number]] += 1
            self._changed.notify_all()


def _may_go(item: Item) -> bool:
    return not isinstance(item, Gap)


class Meeting:
    """The items of two feeds on the clock of the events; frames are put `offset_us` later than they came.

    Where a frame has waited in vain for events, a packet without any says that there are none.
    """

    def __init__(self, counts: Counter[str], offset_us: int) -> None:
        self._counts, self._offset_us = counts, offset_us
        self._patience_s = _PATIENCE_S + max(0, offset_us) / 1e6
        self._clock = DeviceClock()
        self._watermark: int | None = None
        self._last_us: int | None = None  # of the frames
        self._waiting: deque[tuple[float, int]] = deque()  # when frames came whose events are not all here, their ends

    def event(self, item: Item) -> Iterator[Item]:
        """What may be passed on now that this has come from the events' feed. Its own frames are left out."""
        if isinstance(item, Gap):
            self._clock.begin_anew()
            self._watermark = self._last_us = None
            self._waiting.clear()
            yield item
        elif isinstance(item, EventImage):
            raise StreamError("its events are pictures already, which have frames of their own; leave out the others")
        elif isinstance(item, EventPacket):
            self._clock.heard(item.t_end_us, item.arrival_ns or time.monotonic_ns())
            yield self._advanced(item)

    def frame(self, item: Item) -> Iterator[Item]:
        """What may be passed on now that this has come from the frames' feed, at the host's time."""
        if not isinstance(item, RgbFrame):
            yield item
            return
        device_us = self._clock.steady_at(item.t_end_us)
        if device_us is None:
            self._counts["frames from before the events' clock was known, left out"] += 1
            return
        time_us = device_us + self._offset_us
        if self._last_us is not None and time_us <= self._last_us:
            self._counts["frames that stepped back in time, dropped"] += 1
            return
        self._last_us = time_us
        if time_us < 0:
            self._counts["frames from before time began, left out"] += 1
            return
        if self._watermark is None or time_us > self._watermark:
            self._waiting.append((time.monotonic(), time_us))
        yield replace(item, t_start_us=time_us, t_end_us=time_us)

    def wait(self) -> Iterator[Item]:
        """What may be passed on because time has passed."""
        while self._waiting and time.monotonic() - self._waiting[0][0] > self._patience_s:
            _, end = self._waiting.popleft()
            start = end if self._watermark is None else min(self._watermark, end)
            yield self._advanced(EventPacket(start, end, no_events(), time.monotonic_ns()))

    def _advanced(self, packet: EventPacket) -> EventPacket:
        self._watermark = max(packet.t_end_us, self._watermark or packet.t_end_us)
        while self._waiting and self._waiting[0][1] <= self._watermark:
            self._waiting.popleft()
        return packet
