"""Items to samples: each RGB frame with exactly the events of its exposure.

    frames   ──[■■■■]──────[■■■■]──────[■■■■]──►
    events   ·· ···:::····· ::·::::·····::: ···►    a frame waits until the watermark has passed its exposure:
    packets  |   |     |  |      |   |     |   |    until then events of it may still come

Recordings with events alone give one sample in `RenderConfig.period_us`; with frames alone, one a frame at once.
"""

from __future__ import annotations

import time
from bisect import insort
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, cast

import cv2
import numpy as np

from streams.items import (
    EventImage,
    EventPacket,
    Events,
    Gap,
    Image,
    Item,
    RgbFrame,
    Sample,
    Timed,
    count_before,
    in_order,
    no_events,
)
from streams.render import RenderConfig, render_parts
from streams.source import JUMP_US, Source

_MAX_HELD_EVENTS = 1 << 24  # 256 MB: events that no frame has claimed yet
_MAX_HELD_PACKETS = 1 << 16
_MAX_HELD_BYTES, _MAX_HELD_FRAMES = 1 << 26, 1 << 11  # of frames that wait for their events
_MAX_HOLES = 64  # in one packet; more are damage, not gaps
_BEFORE_ALL = -(1 << 62)
_STEPPED_BACK = "frames that stepped back in time, dropped"


def synchronize(
    source: Source,
    *,
    render: RenderConfig | Callable[[], RenderConfig] | None = None,
    from_us: int | None = None,
    first_index: int = 0,
) -> Iterator[Sample]:
    """The samples of a source, in order of time; what had to be dropped is added to `source.counts`.

    `render` may be asked for each sample: it may change between two.
    With `from_us`, those that end after it, equal to what they are in the whole recording but for their indices, which
    begin at `first_index`. It ends early where the source is told to stop: see `Source.stop_when`.
    """
    synchronizer = Synchronizer(source, render or RenderConfig(), from_us, first_index)
    waited = time.perf_counter()
    decode_ms = 0.0
    for item in source if from_us is None else source.read(synchronizer.earliest_us):
        if source.stopping():
            return
        decode_ms += (time.perf_counter() - waited) * 1e3
        for sample in synchronizer.push(item, decode_ms):
            yield sample
            decode_ms = 0.0
        waited = time.perf_counter()
    yield from synchronizer.flush(decode_ms)


class _Held(NamedTuple):
    """Events, not none, and the times of the first and the last."""

    first: int
    last: int
    events: Events


@dataclass
class EventStore:
    """Events that samples still need, in order of time, whatever the packets they came in."""

    size: tuple[int, int]
    counts: Counter[str]
    watermark: int = _BEFORE_ALL  # no earlier event follows
    start: int | None = None  # where the feed began
    _packets: deque[_Held] = field(default_factory=deque)
    _held: int = 0

    def push(self, packet: EventPacket) -> None:
        sound = packet.sound_for == self.size
        events = self._in_time(packet.events) if sound else self._clean(packet.events)
        if len(events):
            times = events["t"]
            self._packets.append(_Held(int(times[0]), int(times[-1]), events))
            self._held += len(events)
        self.start = packet.t_start_us if self.start is None else min(self.start, packet.t_start_us)
        self.watermark = max(self.watermark, packet.t_end_us)
        while len(self._packets) > 1 and (self._held > _MAX_HELD_EVENTS or len(self._packets) > _MAX_HELD_PACKETS):
            self.counts["events without a frame, dropped"] += self._drop_oldest()

    def between(self, start: int, end: int) -> list[Events]:
        """The events of [start, end): views of the packets that hold them."""
        parts = []
        for first, last, events in self._packets:
            if start <= first and last < end:
                parts.append(events)
            elif first < end and start <= last:
                parts.append(events[count_before(events, start) : count_before(events, end)])
        return parts

    def forget_before(self, time_us: int) -> None:
        """Free the packets that ended before."""
        while self._packets and self._packets[0].last < time_us:
            self._drop_oldest()

    def _drop_oldest(self) -> int:
        dropped = len(self._packets.popleft().events)
        self._held -= dropped
        return dropped

    def _clean(self, events: Events) -> Events:
        """Sorted, inside the sensor, not behind the watermark; what is dropped is counted."""
        return self._inside(self._in_time(in_order(events, self.counts))) if len(events) else events

    def _in_time(self, events: Events) -> Events:
        """Not behind the watermark; what is dropped is counted."""
        if not len(events) or events["t"][0] >= self.watermark:
            return events
        late = count_before(events, self.watermark)
        self.counts["events that stepped back in time, dropped"] += late
        return events[late:]

    def _inside(self, events: Events) -> Events:
        width, height = self.size
        if not len(events) or (events["x"].max() < width and events["y"].max() < height):
            return events
        inside = (events["x"] < width) & (events["y"] < height)
        self.counts["events outside the sensor, dropped"] += int(len(events) - inside.sum())
        return events[inside]


class Synchronizer:
    """The state behind `synchronize`: push items, get the samples that they complete."""

    def __init__(
        self,
        source: Source,
        render: RenderConfig | Callable[[], RenderConfig],
        from_us: int | None = None,
        first_index: int = 0,
    ) -> None:
        sensor = source.event_size or source.frame_size
        if sensor is None:
            raise ValueError(f"{source.name}: a source needs events or frames")
        self._sensor = sensor  # (width, height) of event images, and of blanks
        self._render, self.counts = render, source.counts
        self.event_size, self.frame_size = source.event_size, source.frame_size
        self._period = source.sample_period_us
        self._index = first_index
        self._arrival_ns: int | None = None  # of the newest item
        self._from = _BEFORE_ALL if from_us is None else from_us
        self._last_end: int | None  # end of the last sample
        self._span = source.span_us
        self._begin()
        if from_us is not None and self.frame_size is None and source.span_us is not None:
            self._last_end = self._period_of(max(from_us, source.span_us[0]))

    @property
    def config(self) -> RenderConfig:
        """How samples are cut and drawn now."""
        return self._render() if callable(self._render) else self._render

    @property
    def earliest_us(self) -> int:
        """What ends before is not needed: the first frame brings its own exposure, or has a window of its own, a
        period begins before it ends."""
        return self._from - (self._window_us if self.frame_size is not None else self.config.period_us)

    @property
    def _window_us(self) -> int:
        """How far before a frame its events may begin, where its exposure is not known."""
        return self.config.window_us or 0

    def _begin(self) -> None:
        """Start anew: nothing from before is joined with what follows."""
        self._store = EventStore(self._sensor, self.counts)
        self._frames: list[RgbFrame] = []  # that wait, by their ends
        self._frame_bytes = 0
        self._rendered: dict[int, Image] = {}  # event images that came as such, by the end of their exposure
        self._newest: int | None = None  # end of the newest item
        self._last_end = None
        self._discontinuity = True

    def push(self, item: Item, decode_ms: float = 0.0) -> Iterator[Sample]:
        """The samples that this item completes."""
        if isinstance(item, Gap):
            yield from self._restart(item.reason, decode_ms)
            return
        for piece in self._without_holes(item):
            yield from self._push(piece, decode_ms)

    def _push(self, item: Timed, decode_ms: float) -> Iterator[Sample]:
        if self._jumps(item):
            yield from self._restart("time jumped", decode_ms)
        if self._newest is None and self._last_end is not None and item.t_start_us - self._last_end > JUMP_US:
            self._last_end = None  # nothing is near the place from which it is read
        self._arrival_ns = item.arrival_ns
        self._newest = item.t_end_us if self._newest is None else max(self._newest, item.t_end_us)
        if isinstance(item, EventPacket):
            self._store.push(item)
        elif isinstance(item, EventImage):
            self._store.push(EventPacket(item.t_start_us, item.t_end_us, no_events()))
            self._rendered[item.t_end_us] = item.image
        elif self.frame_size is None:
            self.counts["frames of no known size, dropped"] += 1
        elif self._last_end is not None and item.t_end_us <= self._last_end:
            self.counts[_STEPPED_BACK] += 1
        else:
            insort(self._frames, item, key=_end_of)
            self._frame_bytes += item.image.nbytes
        yield from self._complete(decode_ms)

    def _without_holes(self, item: Timed) -> Sequence[Timed]:
        """A packet that jumps in time within itself, in pieces that do not."""
        return without_holes(item, self.counts) if isinstance(item, EventPacket) else [item]

    def _jumps(self, item: Timed) -> bool:
        if self._newest is None:
            return False
        return item.t_start_us > self._newest + JUMP_US or item.t_end_us < self._newest - JUMP_US

    def flush(self, decode_ms: float = 0.0) -> Iterator[Sample]:
        """The samples that were still waiting when the stream ended."""
        yield from self._complete(decode_ms, last=True)

    def _restart(self, reason: str, decode_ms: float) -> Iterator[Sample]:
        yield from self.flush(decode_ms)
        self.counts[f"gaps ({reason})"] += 1
        self._begin()

    def _complete(self, decode_ms: float, last: bool = False) -> Iterator[Sample]:
        if self.frame_size is None:
            yield from self._complete_periods(decode_ms, last)
            return
        while self._frames and (last or self._is_complete(self._frames[0])):
            frame = self._frames.pop(0)
            self._frame_bytes -= frame.image.nbytes
            if self._last_end is not None and frame.t_end_us <= self._last_end:  # it waited beside its like
                self.counts[_STEPPED_BACK] += 1
                continue
            if frame.t_end_us <= self._from:
                begun = min(waiting.t_start_us for waiting in (frame, *self._frames))
                self._pass_by(frame.t_end_us, begun - self._window_us)
                continue
            yield self._frame_sample(frame, decode_ms)
            decode_ms = 0.0

    def _is_complete(self, frame: RgbFrame) -> bool:
        """Nothing more of its exposure can come, or the event feed has been silent for too long to wait on."""
        if self.event_size is None or frame.t_end_us <= self._store.watermark:
            return True
        much = self._frame_bytes > _MAX_HELD_BYTES or len(self._frames) > _MAX_HELD_FRAMES
        return much or (self._newest or 0) - frame.t_end_us > JUMP_US

    def _complete_periods(self, decode_ms: float, last: bool) -> Iterator[Sample]:
        """Events alone: one sample a period, also where nothing happened; the last may be cut short."""
        if self._store.start is None:
            return
        while True:
            start = self._period_of(self._store.start) if self._last_end is None else self._last_end
            end, watermark = start + self.config.period_us, self._store.watermark
            if end > watermark and not (last and start < watermark):
                return
            if end <= self._from:
                self._pass_by(end, end)
                continue
            yield self._sample(start, end, start, None, True, decode_ms)
            decode_ms = 0.0

    def _period_of(self, time_us: int) -> int:
        """Where the period of a moment begins: a recording's follow on one another from its start, across gaps too."""
        return time_us if self._span is None else time_us - (time_us - self._span[0]) % self.config.period_us

    def _pass_by(self, end: int, keep_from: int) -> None:
        """A sample from before what is wanted."""
        self._store.forget_before(keep_from)
        self._rendered.pop(end, None)
        self._last_end = end

    def _frame_sample(self, frame: RgbFrame, decode_ms: float) -> Sample:
        start, end = frame.t_start_us, frame.t_end_us
        windowed = start == end
        if windowed:
            start = end - self._window_before(end)
        first = self._store.start
        covered = first is not None and end > first and start < self._store.watermark
        needed_from = min(start, *(waiting.t_start_us for waiting in self._frames), frame.t_start_us)
        return self._sample(start, end, needed_from, _as_rgb(frame.image), covered, decode_ms, windowed)

    def _window_before(self, end: int) -> int:
        """Length of the window that stands in for an exposure that is not known."""
        if self.config.window_us is not None:
            return self.config.window_us
        since = end - self._last_end if self._last_end is not None else self._period
        return since if since <= JUMP_US else self._period

    def _sample(
        self,
        start: int,
        end: int,
        keep_from: int,
        rgb: Image | None,
        has_events: bool,
        decode_ms: float,
        windowed: bool = False,
    ) -> Sample:
        began, began_ns = time.perf_counter(), time.monotonic_ns()
        events = self._store.between(start, end) if has_events else []
        image = self._rendered.pop(end, None)
        if image is None:
            image = render_parts(events, self._sensor, end, self.config)
        self._store.forget_before(keep_from)
        sample = Sample(
            index=self._index,
            t_start_us=start,
            t_end_us=end,
            rgb=_blank_rgb(self._sensor) if rgb is None else rgb,
            event_image=image,
            events=cast(Events, events),  # joined when they are read
            has_rgb=rgb is not None,
            has_events=has_events,
            discontinuity=self._discontinuity or (self._last_end is not None and start - self._last_end > JUMP_US),
            arrival_ns=self._arrival_ns,
            decode_ms=decode_ms if self._arrival_ns is None else (began_ns - self._arrival_ns) / 1e6,
            render_ms=(time.perf_counter() - began) * 1e3,
            windowed=windowed,
        )
        self._index, self._last_end, self._discontinuity = self._index + 1, end, False
        return sample


def sorted_pieces(packet: EventPacket, counts: Counter[str]) -> list[EventPacket]:
    """The same of a packet whose events may not be in order of time, and then are."""
    return without_holes(replace(packet, events=in_order(packet.events, counts)), counts)


def without_holes(packet: EventPacket, counts: Counter[str]) -> list[EventPacket]:
    """A packet in pieces that do not jump in time; none where it jumps so often that its times are damage."""
    if packet.t_end_us - packet.t_start_us <= JUMP_US:
        return [packet]
    events = in_order(packet.events, counts)
    times = np.concatenate([[packet.t_start_us], events["t"], [packet.t_end_us]])
    holes = np.flatnonzero(np.diff(times) > JUMP_US)
    if not len(holes):
        return [replace(packet, events=events)]
    if len(holes) > _MAX_HOLES:
        counts["events scattered in time, dropped"] += len(packet.events)
        return []
    pieces = [piece for piece in np.split(events, holes) if len(piece)]
    ends = [(int(piece["t"][0]), int(piece["t"][-1]) + 1) for piece in pieces]
    return [EventPacket(start, end, own, packet.arrival_ns) for (start, end), own in zip(ends, pieces, strict=True)]


def _end_of(frame: RgbFrame) -> int:
    return frame.t_end_us


def _as_rgb(image: Image) -> Image:
    return image if image.ndim == 3 else np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)


def _blank_rgb(size: tuple[int, int]) -> Image:
    return np.zeros((size[1], size[0], 3), np.uint8)
