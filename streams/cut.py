"""Cutting a span out of a recording: what a small recording holds that shows this span and no more.

with open_source("long.aedat4") as source:
    write_cut(Path("clip.aedat4"), source, 12_000_000, 14_000_000)

    frames     ──[■■■■]──────[■■■■]──────[■■■■]──────[■■■■]──►
    events     ·· ···:::····· ::·::::·····::: ···:::·· ::···►
    span                |                       |
    cut, frames         |    [■■■■]      [■■■■] |            those that end in it
    cut, events         |···· ::·::::·····::: ··|            all of it, and those of its first frame's exposure
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from streams.aedat4_writer import write_aedat4
from streams.errors import RecordingError
from streams.files import replaced_when_whole
from streams.items import EventImage, EventPacket, RgbFrame
from streams.source import Source

_LONGEST_US = 1_000_000  # of an exposure


def write_cut(path: Path, source: Source, start_us: int, end_us: int, *, lead_us: int = 0) -> tuple[int, int]:
    """Write a span of a recording to an AEDAT 4 file, and what comes before, so long; the first moment in it, the last.

    Raises RecordingError for a span that holds nothing, and for a source whose events are images; OSError.
    """
    first, last = end_us, start_us
    with (
        replaced_when_whole(path) as part,
        write_aedat4(part, source.event_size, source.frame_size, compression="zstd") as file,
    ):
        for item in cut(source, start_us - lead_us, end_us):
            file.write(item)
            if isinstance(item, RgbFrame) or len(item.events):
                first, last = min(first, item.t_start_us), max(last, item.t_end_us)
        if last == start_us:
            raise RecordingError(f"{source.name}: holds nothing from {start_us} to {end_us} us; choose another span")
    return first, last


def cut(source: Source, start_us: int, end_us: int) -> Iterator[EventPacket | RgbFrame]:
    """The events of [start, end), the frames that end in (start, end], and the events of the first one's exposure."""
    return _Cut(source, start_us, end_us).items()


class _Cut:
    def __init__(self, source: Source, start_us: int, end_us: int) -> None:
        self._source, self._start, self._end = source, start_us, end_us
        self._events_from: int | None = start_us if source.frame_size is None else None  # known with the first frame
        self._waiting: list[EventPacket] = []  # until it is known
        self._missing = {EventPacket: source.event_size is not None, RgbFrame: source.frame_size is not None}
        self._frame_before = start_us - _LONGEST_US  # its end

    def items(self) -> Iterator[EventPacket | RgbFrame]:
        for item in self._source.read(self._start):
            match item:
                case EventPacket() if self._source.event_size is not None:
                    yield from self._events(item)
                case RgbFrame() if self._source.frame_size is not None:
                    yield from self._frame(item)
                case EventImage():
                    raise RecordingError(f"{self._source.name}: its events are images, of which no clip can be cut")
            if not any(self._missing.values()):
                break
        yield from self._release(self._start)

    def _events(self, packet: EventPacket) -> Iterator[EventPacket]:
        if packet.t_end_us >= self._end:
            self._missing[EventPacket] = False
        if self._events_from is not None:
            yield from self._clipped(packet, self._events_from)
        elif packet.t_end_us > self._start - _LONGEST_US and packet.t_start_us < self._end:
            self._waiting.append(packet)
            if packet.t_start_us > self._start + _LONGEST_US:  # so long without a frame
                yield from self._release(self._start)

    def _frame(self, frame: RgbFrame) -> Iterator[EventPacket | RgbFrame]:
        if frame.t_end_us > self._end:
            self._missing[RgbFrame] = False
        elif frame.t_end_us > self._start:
            yield from self._release(min(self._start, self._exposure_start(frame)))
            yield frame
        else:
            self._frame_before = frame.t_end_us

    def _exposure_start(self, frame: RgbFrame) -> int:
        """Where it is not known, events since the frame before stand for it."""
        if frame.t_start_us < frame.t_end_us:
            return frame.t_start_us
        since = min(frame.t_end_us - self._frame_before, _LONGEST_US)
        return frame.t_end_us - max(since, self._source.sample_period_us)

    def _release(self, events_from: int) -> Iterator[EventPacket]:
        """Let go of what waited; the first call decides where events begin."""
        if self._events_from is None:
            self._events_from = events_from
        waiting, self._waiting = self._waiting, []
        for packet in waiting:
            yield from self._clipped(packet, self._events_from)

    def _clipped(self, packet: EventPacket, start_us: int) -> Iterator[EventPacket]:
        times = packet.events["t"]
        events = packet.events[(times >= start_us) & (times < self._end)]  # which need not be in order
        start, end = max(packet.t_start_us, start_us), min(packet.t_end_us, self._end)
        if start < end:
            yield EventPacket(start, end, events)
