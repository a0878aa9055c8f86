"""Grey frames for a feed of events alone: brightness as it follows from the changes that events report.

Every event moves its pixel by one contrast step up or down, and all pixels leak back to grey, so that errors do not add
up (the high-pass filter of Scheerlinck et al., "Continuous-time Intensity Estimation Using Event Cameras", ACCV 2018,
at the rate of frames). Where nothing moves, the picture fades: it shows edges in motion, not the scene.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from streams.items import EventPacket, Events, Gap, Image, Item, RgbFrame, split
from streams.source import JUMP_US, Source, Through
from streams.synchronize import sorted_pieces

PERIOD_US = 33_333
LEAK_US = 200_000  # in which a pixel comes back by 63 %
_STEP = 24.0  # grey levels an event
_GREY = 127.5
_KEPT = math.exp(-PERIOD_US / LEAK_US)
_WARM_UP_US = 5 * LEAK_US  # what was before is forgotten, but for a grey level


class Reconstructed(Through):
    """A source of events alone, with a grey frame every 33 ms. Raises ValueError for one that has frames, or no events.

    A frame is exposed for the whole period, so its events are those of the period.
    """

    reconstructed = True

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        if source.event_size is None or source.frame_size is not None:
            raise ValueError(f"{source.name}: grey frames are made for events without frames")
        self.frame_size = source.event_size
        self.sample_period_us = PERIOD_US
        self._origin = source.span_us[0] if source.span_us is not None else None

    def read(self, from_us: int) -> Iterator[Item]:
        return self._through(self.source.read(from_us - PERIOD_US - _WARM_UP_US))

    def _through(self, items: Iterator[Item]) -> Iterator[Item]:
        assert self.event_size is not None
        grey, due, reached = Accumulator(self.event_size), None, None
        for item in self._pieces(items):
            if isinstance(item, EventPacket):
                if reached is not None and not -JUMP_US < item.t_start_us - reached < JUMP_US:
                    grey, due = Accumulator(self.event_size), None
                due = self._due(item.t_start_us) if due is None else due
                reached = item.t_end_us
                while due <= item.t_end_us:
                    if due > item.t_start_us:  # a frame follows its events, however long the packet is that they are of
                        now, item = split(item, due)
                        grey.add(now.events)
                        yield now
                    yield RgbFrame(due - PERIOD_US, due, grey.image(), item.arrival_ns)
                    due += PERIOD_US
                grey.add(item.events)
                yield item
            else:
                if isinstance(item, Gap):
                    grey, due, reached = Accumulator(self.event_size), None, None
                yield item

    def _pieces(self, items: Iterator[Item]) -> Iterator[Item]:
        """Packets in order, and those that jump in time as packets that do not."""
        for item in items:
            if isinstance(item, EventPacket):
                yield from sorted_pieces(item, self.counts)
            else:
                yield item

    def _due(self, first_us: int) -> int:
        """When the first frame ends: frames of a recording are the same wherever reading begins."""
        return first_us + PERIOD_US - ((first_us - self._origin) % PERIOD_US if self._origin is not None else 0)


class Accumulator:
    """Brightness of the pixels of a sensor (width, height), leaking from frame to frame."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        self._levels: NDArray[np.float32] = np.zeros(size[0] * size[1], np.float32)  # from grey

    def add(self, events: Events) -> None:
        """Take events [n]; those outside of the sensor are left out."""
        width, height = self._size
        inside = (events["x"] < width) & (events["y"] < height)
        events = events if inside.all() else events[inside]
        pixels = events["y"].astype(np.intp) * width + events["x"]
        signs = np.where(events["p"], _STEP, -_STEP)
        self._levels += np.bincount(pixels, signs, minlength=width * height).astype(np.float32)

    def image(self) -> Image:
        """The picture of a period, uint8 [H, W]; then the pixels leak by one."""
        np.clip(self._levels, -_GREY, _GREY, out=self._levels)  # brighter than white is no more
        picture = (self._levels + _GREY).astype(np.uint8).reshape(self._size[1], self._size[0])
        self._levels *= _KEPT
        return picture
