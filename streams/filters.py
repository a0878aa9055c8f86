"""What can be done to a feed before anything else sees it: noise taken out, a region cut out, the picture turned.

    source = filtered(source, denoise=True, roi=(40, 20, 256, 220), flip="horizontal", rotate=90)

Events and frames change alike. Denoising removes background activity (Delbruck, "Frame-free dynamic digital vision",
2008), events in a pixel's refractory period, and hot pixels, which are learnt in the first second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from streams.items import EventImage, EventPacket, Events, Gap, Image, Item, RgbFrame
from streams.source import JUMP_US, Source, Through

FLIPS, TURNS = ("horizontal", "vertical"), (90, 180, 270)
NOISE = "events removed as noise, per cent"
SUPPORT_US = 10_000  # an event needs another one next to it within this time
REFRACTORY_US = 500
LEARN_US = 1_000_000
_SLICE_US = 2_500  # what happens within it supports one another, whatever its order
_HOT = 10.0  # times as many events as the median of the pixels with any, and more than _HOT_EVENTS in the time learnt
_HOT_EVENTS = 40
_STEP_US = 100_000  # a step back of more, and what was before tells nothing of what comes
_NEVER = -(1 << 61)
_NEIGHBOURS = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.uint8)

Roi = tuple[int, int, int, int]  # x, y, width, height


def filtered(
    source: Source,
    *,
    denoise: bool = False,
    roi: Roi | None = None,
    flip: str | None = None,
    rotate: int = 0,
) -> Source:
    """The source itself where nothing is asked for. `roi` is in pixels of the sensor as it is; `rotate` clockwise.

    Raises ValueError for a region outside of the sensor, and for other flips and turns than FLIPS and TURNS.
    """
    if denoise and source.event_size is not None:
        source = Denoised(source)
    if roi is not None or flip is not None or rotate:
        source = Turned(source, roi, flip, rotate)
    return source


class Denoised(Through):
    """A source without its noise, while it is `on`; what share of the events that was is among its counts."""

    def __init__(self, source: Source, *, on: bool = True) -> None:
        super().__init__(source)
        self.on = on  # may be set while it is read
        self._hot: NDArray[np.bool_] | None = None  # known from then on, also after a seek

    def _through(self, items: Iterator[Item]) -> Iterator[Item]:
        assert self.event_size is not None
        denoiser = Denoiser(self.event_size, self._hot)
        seen = left = 0
        reached: int | None = None
        for item in items:
            if isinstance(item, EventPacket) and self.on:
                if reached is not None and not -_STEP_US <= item.t_start_us - reached <= JUMP_US:
                    denoiser = denoiser.after_gap()
                reached = item.t_end_us
                kept = denoiser.push(item.events)
                seen, left = seen + len(item.events), left + len(kept)
                self._hot = denoiser.hot
                self.counts[NOISE] = round(100 * (1 - left / max(seen, 1)))
                item = replace(item, events=kept)
            elif isinstance(item, Gap):
                denoiser = denoiser.after_gap()
            yield item


class Denoiser:
    """Events in order of time, [n] EVENT_DTYPE, to those of them that are no noise."""

    def __init__(self, size: tuple[int, int], hot: NDArray[np.bool_] | None = None) -> None:
        self._size, shape = size, (size[1], size[0])
        self._last = np.full(shape, _NEVER, np.int64)  # time of each pixel's newest event
        self._counts = np.zeros(shape, np.int64)  # while it learns
        self.hot = hot  # pixels; None: not known yet
        self._until: int | None = None  # it learns

    def after_gap(self) -> Denoiser:
        """One that knows the hot pixels, but no times."""
        return Denoiser(self._size, self.hot)

    def push(self, events: Events) -> Events:
        """Those to keep. Pixels outside of the sensor are noise."""
        inside = (events["x"] < self._size[0]) & (events["y"] < self._size[1])
        if not inside.all():
            events = events[inside]
        if not len(events):
            return events
        self._learn(events)
        if self.hot is not None:
            events = events[~self.hot[events["y"], events["x"]]]
        if not len(events):
            return events
        slices = events["t"] // _SLICE_US
        cuts = np.flatnonzero(np.diff(slices)) + 1
        keep = [self._keep(part) for part in np.split(events, cuts)]
        return np.asarray(events[np.concatenate(keep)])

    def _keep(self, events: Events) -> NDArray[np.bool_]:
        """Of the events of one slice of time, which stay."""
        x, y, t = events["x"].astype(np.intp), events["y"].astype(np.intp), events["t"]
        fresh = t - self._before(x, y, t) >= REFRACTORY_US
        np.maximum.at(self._last, (y, x), t)
        active = (self._last > int(t[0]) - SUPPORT_US).astype(np.uint8)
        supported = cv2.dilate(active, _NEIGHBOURS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        return np.asarray(fresh & (supported[y, x] > 0))

    def _before(self, x: NDArray[np.intp], y: NDArray[np.intp], t: NDArray[np.int64]) -> NDArray[np.int64]:
        """The time of the event before each one at its pixel."""
        pixel = y * self._size[0] + x
        order = np.argsort(pixel, kind="stable")
        again = np.concatenate([[False], pixel[order][1:] == pixel[order][:-1]])
        before = np.empty(len(t), np.int64)
        before[order] = np.where(again, np.concatenate([[_NEVER], t[order][:-1]]), self._last[y, x][order])
        return before

    def _learn(self, events: Events) -> None:
        if self.hot is not None:
            return
        self._until = int(events["t"][0]) + LEARN_US if self._until is None else self._until
        np.add.at(self._counts, (events["y"], events["x"]), 1)
        if events["t"][-1] >= self._until:
            some = self._counts[self._counts > 0]
            self.hot = self._counts > max(_HOT_EVENTS, _HOT * float(np.median(some)))


@dataclass(frozen=True)
class _Geometry:
    """A region of a picture of one size, flipped, then turned clockwise."""

    left: int
    top: int
    width: int
    height: int
    flip: str | None
    rotate: int

    @property
    def size(self) -> tuple[int, int]:
        return (self.height, self.width) if self.rotate in (90, 270) else (self.width, self.height)

    def events(self, events: Events) -> Events:
        x, y = events["x"].astype(np.int32) - self.left, events["y"].astype(np.int32) - self.top
        inside = (x >= 0) & (x < self.width) & (y >= 0) & (y < self.height)
        moved, x, y = events[inside].copy(), x[inside], y[inside]
        x = self.width - 1 - x if self.flip == "horizontal" else x
        y = self.height - 1 - y if self.flip == "vertical" else y
        if self.rotate == 90:
            x, y = self.height - 1 - y, x
        elif self.rotate == 180:
            x, y = self.width - 1 - x, self.height - 1 - y
        elif self.rotate == 270:
            x, y = y, self.width - 1 - x
        moved["x"], moved["y"] = x, y
        return np.asarray(moved)

    def image(self, image: Image) -> Image:
        cut = image[self.top : self.top + self.height, self.left : self.left + self.width]
        if self.flip is not None:
            cut = cut[:, ::-1] if self.flip == "horizontal" else cut[::-1]
        return np.ascontiguousarray(np.rot90(cut, -self.rotate // 90))


class Turned(Through):
    """A region of a source, flipped and turned."""

    def __init__(self, source: Source, roi: Roi | None, flip: str | None, rotate: int) -> None:
        super().__init__(source)
        if flip not in (None, *FLIPS) or rotate not in (0, *TURNS):
            raise ValueError(f"flip is one of {', '.join(FLIPS)}, rotate one of {', '.join(map(str, TURNS))}")
        sensor = source.event_size or source.frame_size
        assert sensor is not None
        self._of_events = _geometry(roi, sensor, sensor, flip, rotate)
        self._of_frames = _geometry(roi, sensor, source.frame_size or sensor, flip, rotate)
        self.event_size = self._of_events.size if source.event_size else None
        self.frame_size = self._of_frames.size if source.frame_size else None

    def _through(self, items: Iterator[Item]) -> Iterator[Item]:
        for item in items:
            if isinstance(item, EventPacket):
                yield replace(item, events=self._of_events.events(item.events))
            elif isinstance(item, RgbFrame):
                yield replace(item, image=self._of_frames.image(item.image))
            elif isinstance(item, EventImage):
                yield replace(item, image=self._of_events.image(item.image))
            else:
                yield item


def _geometry(
    roi: Roi | None, sensor: tuple[int, int], size: tuple[int, int], flip: str | None, rotate: int
) -> _Geometry:
    """For pictures of `size`, which show what the sensor sees."""
    x, y, width, height = roi or (0, 0, *sensor)
    if min(x, y) < 0 or min(width, height) < 1 or x + width > sensor[0] or y + height > sensor[1]:
        raise ValueError(f"the region {x},{y},{width},{height} is not within the sensor of {sensor[0]} x {sensor[1]}")
    across, down = size[0] / sensor[0], size[1] / sensor[1]
    left, top = min(round(x * across), size[0] - 1), min(round(y * down), size[1] - 1)
    wide, high = (max(1, round(length * scale)) for length, scale in ((width, across), (height, down)))
    return _Geometry(left, top, min(wide, size[0] - left), min(high, size[1] - top), flip, rotate)
