"""The events of one source beside the frames of another one, on the clock of the events.

    with Beside(open_source("dv:"), "webcam:0", offset_ms=12.5) as source: ...
    with Beside(open_source("hand.raw"), "hand.mp4") as source: ...

A recording's first frame is at the time of its first event, a live one when it came; `offset_ms` puts frames later.
What the exposure of such frames was is not known: they end where they begin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from streams.beside_live import FRAMES, Handover, Meeting
from streams.errors import StreamError
from streams.frames_of import RecordedFrames, WebcamFrames, is_webcam, recorded_frames
from streams.homography import Homography, Warp
from streams.items import EventImage, EventPacket, Gap, Item, RgbFrame, no_events, split
from streams.packet_cache import PacketCache
from streams.source import Source
from streams.synchronize import sorted_pieces

_MOST_OFFSET_MS = 86_400_000.0
_PICTURES = "its events are pictures already, which have frames of their own; leave out the others"
_MARGIN_US = 1_000_000  # of events before a place that is sought: more than any window before a frame


class Beside(Source):
    """The events of `events`, whose own frames are left out, with the frames of `frames_address`.

    A live feed takes those of a webcam (`webcam:0`), a recording those of a video or of a folder of numbered pictures,
    at `fps` (None: as the video says, 30 a second for pictures). `homography` [3, 3] maps pixels of the events to
    pixels of the frames; where it is given, frames are warped to the events' pixels. `events` is closed with it, also
    where it cannot be opened.

    Raises StreamError with one line for what does not fit, is missing, or cannot be read.
    """

    def __init__(
        self,
        events: Source,
        frames_address: str,
        *,
        offset_ms: float = 0.0,
        homography: Homography | None = None,
        fps: float | None = None,
    ) -> None:
        super().__init__()
        self.counts = events.counts
        self._events, self._address = events, str(frames_address)
        self._webcam: WebcamFrames | None = None
        self._recorded: RecordedFrames | None = None
        self._handover = Handover(self.counts)
        try:
            self._check(offset_ms, fps)
            self._offset_us = round(offset_ms * 1e3)
            self.name, self.path, self.format, self.live = events.name, events.path, events.format, events.live
            self.simulated, self.settings, self.event_size = events.simulated, events.settings, events.event_size
            assert self.event_size is not None
            self._warp = None if homography is None else Warp(homography, self.event_size)
            frames = self._open(fps)
            self.frame_size = frames.size if self._warp is None else self.event_size
            self.sample_period_us = max(1, round(1e6 / frames.fps))
            self._start_us = self._start()
            self.span_us = self._span()
        except BaseException:
            self.close()
            raise

    def _check(self, offset_ms: float, fps: float | None) -> None:
        events, address = self._events, self._address
        if events.event_size is None:
            raise StreamError(f"{events.name}: holds no events; give the feed of an event camera")
        if events.live and not is_webcam(address):
            raise StreamError(f"{address}: beside a live feed only the frames of a webcam fit, as webcam:0")
        if not events.live and is_webcam(address):
            raise StreamError(f"{address}: beside a recording only the frames of a video or a folder of pictures fit")
        if events.live and fps is not None:
            raise StreamError(f"{address}: a webcam has a rate of its own; leave out the frames a second")
        if not abs(offset_ms) <= _MOST_OFFSET_MS:
            raise StreamError(f"{address}: the offset of the frames must be within a day, not {offset_ms:g} ms")

    def _open(self, fps: float | None) -> WebcamFrames | RecordedFrames:
        if self.live:
            self._webcam = WebcamFrames(self._address, self)
            return self._webcam
        self._recorded = recorded_frames(self._address, fps)
        return self._recorded

    @property
    def warning(self) -> str:
        """What is wrong with either feed now."""
        warnings = (self._events.warning, "" if self._webcam is None else self._webcam.warning)
        return "; ".join(filter(None, warnings))

    def share(self, cache: PacketCache) -> None:
        self._events.share(cache)

    def stop_when(self, stopping: Callable[[], bool]) -> None:
        super().stop_when(stopping)
        self._events.stop_when(stopping)

    def close(self) -> None:
        """Close both feeds; ends a live iteration at once, from any thread."""
        self._handover.stop()
        try:
            self._events.close()
        finally:
            for frames in (self._webcam, self._recorded):
                if frames is not None:
                    frames.close()

    def __iter__(self) -> Iterator[Item]:
        return self._live_items() if self.live else self._recorded_items(None)

    def read(self, from_us: int) -> Iterator[Item]:
        return self._live_items() if self.live else self._recorded_items(from_us)

    # --- live ---------------------------------------------------------------------------------------------------------

    def _live_items(self) -> Iterator[Item]:
        assert self._webcam is not None
        self._handover.start(iter(self._events), self._webcam.items())
        meeting = Meeting(self.counts, self._offset_us)
        for taken in self._handover.taken():
            if taken is not None:
                feed, item = taken
                for passed in meeting.frame(item) if feed == FRAMES else meeting.event(item):
                    yield self._warped(passed)
            yield from meeting.wait()

    # --- recorded -----------------------------------------------------------------------------------------------------

    def _recorded_items(self, from_us: int | None) -> Iterator[Item]:
        assert self._recorded is not None
        if from_us is None:
            return self._in_turn(iter(self._events), self._frames(0))
        frames = self._frames(math.floor((from_us - self._start_us) * self._recorded.fps / 1e6))
        first = next(frames, None)
        since_us = (from_us if first is None else min(from_us, first.t_end_us)) - _MARGIN_US
        return self._in_turn(self._events_since(since_us), _chained(first, frames))

    def _frames(self, first: int) -> Iterator[RgbFrame]:
        """From number `first` on, and some before it."""
        assert self._recorded is not None
        for number, image in self._recorded.images(max(0, first)):
            time_us = self._start_us + round(number * 1e6 / self._recorded.fps)
            if time_us >= 0:
                yield RgbFrame(time_us, time_us, image if self._warp is None else self._warp(image))
            else:
                self.counts["frames from before time began, left out"] += 1

    def _events_since(self, since_us: int) -> Iterator[Item]:
        """What ends after it; a packet without events says that the feed had begun, where nothing else does."""
        told = self._events.span_us is None or since_us <= self._events.span_us[0]
        for item in self._events.read(since_us):
            if not told and isinstance(item, EventPacket):
                if item.t_start_us > since_us:
                    yield EventPacket(since_us, since_us, no_events())
                told = True
            yield item

    def _start(self) -> int:
        """Microseconds of the first frame of a recording."""
        if self.live:
            return 0
        if self._events.span_us is not None:
            return self._events.span_us[0] + self._offset_us
        packets = (item.t_start_us for item in self._events if isinstance(item, EventPacket))
        return next(packets, 0) + self._offset_us

    def _span(self) -> tuple[int, int] | None:
        """From the first event or frame to the last one, as far as they say."""
        if self._recorded is None or self._events.span_us is None:
            return None
        last = 0 if self._recorded.count is None else round((self._recorded.count - 1) * 1e6 / self._recorded.fps)
        first_event, last_event = self._events.span_us
        return max(0, min(first_event, self._start_us)), max(last_event, self._start_us + last)

    def _warped(self, item: Item) -> Item:
        if self._warp is None or not isinstance(item, RgbFrame):
            return item
        return RgbFrame(item.t_start_us, item.t_end_us, self._warp(item.image), item.arrival_ns)

    def _in_turn(self, events: Iterator[Item], frames: Iterator[RgbFrame]) -> Iterator[Item]:
        """Both feeds in order of their end, packets cut where a frame ends; of the first one no frames.

        Else frames would wait for the end of a packet, in which many may fall.
        """
        frame = next(frames, None)
        for item in self._pieces(events):
            while frame is not None and not isinstance(item, Gap) and frame.t_end_us < item.t_end_us:
                if frame.t_end_us > item.t_start_us:
                    before, item = split(item, frame.t_end_us)
                    yield before
                yield frame
                frame = next(frames, None)
            yield item
        yield from _chained(frame, frames)

    def _pieces(self, items: Iterator[Item]) -> Iterator[EventPacket | Gap]:
        """The events, in order and without jumps within a packet."""
        for item in items:
            if isinstance(item, EventImage):
                raise StreamError(_PICTURES)
            if isinstance(item, EventPacket):
                yield from sorted_pieces(item, self.counts)
            elif isinstance(item, Gap):
                yield item


def _chained(first: RgbFrame | None, rest: Iterator[RgbFrame]) -> Iterator[RgbFrame]:
    if first is not None:
        yield first
        yield from rest
