"""An AEDAT 4 recording as a source: its events and frames, merged by time wherever they stand in the file."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from streams.aedat4 import EVENTS, FRAMES, MAGIC, StreamInfo
from streams.aedat4_reader import Aedat4Reader
from streams.errors import RecordingError
from streams.items import (
    EVENT_DTYPE,
    MAX_TIME_US,
    EventPacket,
    Events,
    Item,
    RgbFrame,
    count_before,
    in_order,
    is_sound,
    join_events,
)
from streams.packet_cache import PacketCache
from streams.source import DEFAULT_PERIOD_US, JUMP_US, Source

_MAX_HELD_EVENTS = 1 << 21  # of one moment, more than any sensor has pixels
_FRAMES_BEFORE = 2  # the one sought: an exposure that is not known begins where the last one ended
_QUIET_US = 20_000  # without events; what was held back before comes by itself, so that nobody waits for it
_RUN_US, _RUN_EVENTS = 5_000, 1 << 12  # of small packets that are looked at together
_LARGE = 1 << 15  # events, of which it takes longer to copy them than to hand on two packets
_TRIES = 64  # corrupt packets in a row, in search of a time
_CHOICE = 16  # streams among which those to read are chosen


class Placed(NamedTuple):
    """An item and where its packet stands in the file."""

    item: EventPacket | RgbFrame
    offset: int


class Aedat4Source(Source):
    """The first camera of an AEDAT 4 file. Raises RecordingError where the file holds neither events nor frames."""

    format = "AEDAT 4.0"
    hardened = True

    @classmethod
    def reads(cls, head: bytes, path: Path) -> bool:
        return head.startswith(MAGIC)

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        path = Path(path)
        self.name, self.path = path.name, path
        self._reader = Aedat4Reader(path)
        self.counts = self._reader.counts
        try:
            self._events_of, self._frames_of = self._choose()
            self.event_size = self._size(self._events_of)
            self.frame_size = self._size(self._frames_of)
            self.sample_period_us = self._period()
            self.span_us = self._span()
        except BaseException:
            self._reader.close()
            raise

    def share(self, cache: PacketCache) -> None:
        self._reader.cache = cache

    def close(self) -> None:
        self._reader.close()

    def __iter__(self) -> Iterator[Item]:
        return merge(self._events(0), self._frames(0))

    def read(self, from_us: int) -> Iterator[Item]:
        frame = packet = 0
        if self._frames_of is not None:
            frame = max(0, self._first_after(self._frames_of, from_us) - _FRAMES_BEFORE)
            begins = self._times_near(self._frames_of, frame)
            from_us = min(from_us, begins[0]) if begins else from_us
        if self._events_of is not None:  # the packet before tells that the feed had begun
            packet = max(0, self._first_after(self._events_of, from_us) - 1)
        return merge(self._events(packet), self._frames(frame))

    def _first_after(self, stream: StreamInfo, time_us: int) -> int:
        """Which packet is the first to end at a time or later: by the table, or by looking into some."""
        ends = self._reader.of(stream)["t_end"]
        if (ends >= 0).all():
            return int(np.searchsorted(np.maximum.accumulate(ends), time_us))
        return bisect_left(
            range(len(ends)), time_us, key=lambda k: (self._times_near(stream, k) or (0, MAX_TIME_US))[1]
        )

    def _times_near(self, stream: StreamInfo, number: int, step: int = 1) -> tuple[int, int] | None:
        """The times of a packet, or of the next one to it that can be read."""
        near = self._reader.of(stream)[number::step][:_TRIES]
        return next((times for entry in near if (times := self._reader.times(entry, stream)) is not None), None)

    def _span(self) -> tuple[int, int] | None:
        """From the first packets and the last ones."""
        streams = [stream for stream in (self._events_of, self._frames_of) if stream is not None]
        found = [self._times_near(stream, *place) for stream in streams for place in ((0, 1), (-1, -1))]
        times = [time for pair in found if pair is not None for time in pair]
        return (min(times), max(times)) if times else None

    def _choose(self) -> tuple[StreamInfo | None, StreamInfo | None]:
        """The first event stream that holds anything to read, and the frames of the same camera."""
        filled = set(np.unique(self._reader.index["stream"]).tolist())
        declared = [stream for stream in self._reader.header.streams if stream.kind in (EVENTS, FRAMES)]
        streams = [stream for stream in declared if stream.id in filled][:_CHOICE]
        readable = [stream for stream in streams if self._reader.is_readable(stream)]
        streams = readable or streams
        events = next((stream for stream in streams if stream.kind == EVENTS), None)
        frames = [stream for stream in streams if stream.kind == FRAMES]
        frames.sort(key=lambda stream: events is not None and stream.source != events.source)
        if events is None and not frames:
            raise RecordingError(f"{self._reader.path}: {self._emptiness()}; record again, or choose another file")
        return events, frames[0] if frames else None

    def _emptiness(self) -> str:
        missing = self.counts["bytes missing at the end"]
        cut = f" (it is cut off: {missing:,} bytes are missing)" if missing else ""
        return f"holds neither events nor frames{cut}"

    def _size(self, stream: StreamInfo | None) -> tuple[int, int] | None:
        if stream is None:
            return None
        if stream.width * stream.height == 0:
            raise RecordingError(f"{self._reader.path}: its header gives no sensor size; export it again with DV")
        return stream.width, stream.height

    def _period(self) -> int:
        """Median time between frames, by the table or, without one, by the first frames."""
        if self._frames_of is None:
            return DEFAULT_PERIOD_US
        entries = self._reader.of(self._frames_of)
        times = entries["t_start"]
        if len(times) and times[0] < 0:
            first = (self._reader.times(entry, self._frames_of) for entry in entries[:16])
            times = np.array([time[0] for time in first if time is not None], np.int64)
        steps = np.diff(np.sort(times))
        steps = steps[(steps > 0) & (steps < JUMP_US)]
        return int(np.median(steps)) if len(steps) else DEFAULT_PERIOD_US

    def _events(self, first: int) -> Iterator[Placed]:
        if self._events_of is None:
            return
        spans = Spans(self.counts, self.event_size)
        offset = 0
        for run, offset in self._runs(self._events_of, first):
            yield from (Placed(packet, offset) for packet in spans.push(*run))
        yield from (Placed(packet, offset) for packet in spans.flush())

    def _runs(self, stream: StreamInfo, first: int) -> Iterator[tuple[list[Events], int]]:
        """The packets of events, small ones that follow on one another together, and where the last of them stands.

        No frame stands between those in the file, so it makes no difference to the order of items.
        """
        entries = self._reader.of(stream)[first:]
        frames = np.empty(0, np.int64) if self._frames_of is None else self._reader.of(self._frames_of)["offset"]
        run, began, reached, count, place, offset = list[Events](), 0, 0, 0, 0, 0
        for entry, after in zip(entries, np.searchsorted(frames, entries["offset"]).tolist(), strict=True):
            events = self._reader.events(entry)
            if events is None or not len(events):
                if self.stopping():
                    return
                continue
            times = events["t"]
            start, end = int(times[0]), int(times[-1])
            joins = start >= reached and end - began <= _RUN_US and count + len(events) <= _RUN_EVENTS
            if run and not (joins and after == place):
                yield run, offset
                run = []
            if not run:
                began, count, place = start, 0, after
            run.append(events)
            reached, count, offset = end, count + len(events), int(entry["offset"])
            if count >= _RUN_EVENTS:  # while it is in the processor's cache
                yield run, offset
                run = []
        if run:
            yield run, offset

    def _frames(self, first: int) -> Iterator[Placed]:
        if self._frames_of is None:
            return
        for entry in self._reader.of(self._frames_of)[first:]:
            frame = self._reader.frame(entry)
            if frame is not None:
                yield Placed(frame, int(entry["offset"]))
            elif self.stopping():
                return


class Spans:
    """Turns stored packets into EventPackets whose half-open spans are exact.

    A file may cut a packet between two events of one timestamp, so the events of a packet's last timestamp are held
    back until it is known that none follow::

        stored   |..........aa| |a...bb| |......|
        yielded  |..........|   |aaa...| |bb....
    """

    def __init__(self, counts: Counter[str], size: tuple[int, int] | None = None) -> None:
        """With the `size` of the sensor, packets are `sound_for` it where all is well."""
        self.counts = counts
        self._size = size
        self._held: list[Events] = []  # of one moment

    def push(self, *stored: Events) -> Iterator[EventPacket]:
        """`stored` are packets as a file or a feed has them, one after the other, none empty."""
        size = self._size
        if size is None or not self._continues(stored[0]) or self._lasts(stored[-1]):
            yield from self._push_each(stored)
        elif len(stored) == 1 and self._is_large(stored[0]) and all(is_sound(held, size) for held in self._held):
            yield from self._push_large(stored[0], size) if is_sound(stored[0], size) else self._push_each(stored)
        elif is_sound(whole := join_events([*self._held, *stored]), size):
            self._held = []
            yield from self._cut(whole, size)
        else:
            yield from self._push_each(stored)

    def _lasts(self, events: Events) -> bool:
        """Whether it is still the moment of what is held, if events are in order."""
        return len(self._held) > 0 and bool(events["t"][-1] == self._held[0]["t"][0])

    def _is_large(self, events: Events) -> bool:
        """Whether joining events of more than one moment with what is held is worth avoiding."""
        return len(events) >= _LARGE and len(self._held) > 0 and bool(events["t"][0] < events["t"][-1])

    def _push_each(self, stored: Sequence[Events]) -> Iterator[EventPacket]:
        """Packets that may be anything."""
        for events in stored:
            events = in_order(events, self.counts)
            if not self._continues(events):
                yield from self.flush()
            yield from self._cut(events, None)

    def _push_large(self, events: Events, size: tuple[int, int]) -> Iterator[EventPacket]:
        """Only the first moment is joined with what is held, so that most of it is not copied."""
        following = int(events["t"][0]) + 1
        first = count_before(events, following)
        start = int(self._held[0]["t"][0])
        yield EventPacket(start, following, join_events([*self._held, events[:first]]), None, size)
        self._held = []
        yield from self._cut(events[first:], size, following)

    def _continues(self, events: Events) -> bool:
        """Whether what is held and events that follow can be of one packet."""
        return not self._held or 0 <= int(events["t"][0]) - int(self._held[0]["t"][0]) <= _QUIET_US

    def _cut(self, events: Events, size: tuple[int, int] | None, start: int | None = None) -> Iterator[EventPacket]:
        """What is held and events in order that follow, all but those of the last moment."""
        if start is None:
            start = int((self._held[0] if self._held else events)["t"][0])
        last = int(events["t"][-1])
        if start < last:
            cut = count_before(events, last)
            yield EventPacket(start, last, join_events([*self._held, events[:cut]]), None, size)
            self._held = [_copied(events[cut:])]  # a view would keep the whole packet alive
        else:
            self._hold(events)
        if sum(map(len, self._held)) > _MAX_HELD_EVENTS:
            yield from self.flush()

    def _hold(self, events: Events) -> None:
        """More events of the moment. Only a few are joined with as few before them: all at once would be a square."""
        while self._held and len(self._held[-1]) <= len(events) < _RUN_EVENTS:
            events = join_events([self._held.pop(), events])
        self._held.append(events)

    def flush(self) -> Iterator[EventPacket]:
        """What was held back, where nothing can follow at its time."""
        if self._held:
            at = int(self._held[0]["t"][0])
            yield EventPacket(at, at + 1, join_events(self._held))
            self._held = []


def _copied(events: Events) -> Events:
    """A copy with the same bytes, the padding too, which numpy else leaves to chance."""
    return np.asarray(events.view(f"V{EVENT_DTYPE.itemsize}").copy().view(EVENT_DTYPE))


def merge(events: Iterator[Placed], frames: Iterator[Placed]) -> Iterator[Item]:
    """Both feeds in order of their end; where their clocks lie further apart than a jump, in the order of the file."""
    event, frame = next(events, None), next(frames, None)
    while event is not None and frame is not None:
        event_end, frame_end = event.item.t_end_us, frame.item.t_end_us
        near = abs(event_end - frame_end) <= JUMP_US
        if event_end <= frame_end if near else event.offset < frame.offset:
            yield event.item
            event = next(events, None)
        else:
            yield frame.item
            frame = next(frames, None)
    for last, rest in ((event, events), (frame, frames)):
        if last is not None:
            yield last.item
            yield from (placed.item for placed in rest)
