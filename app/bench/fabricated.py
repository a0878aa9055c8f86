"""Recordings, samples and clips to measure with."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count, cycle, islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from recordings import bundled
from streams import EVENT_DTYPE, EventPacket, RgbFrame, Sample, open_source, synchronize, write_aedat4
from streams.items import Events, Image, Item
from velora.training.clips import Span

SIZE = (346, 260)  # width and height of a DAVIS346
FRAME_US, EXPOSURE_US, PACKET_US = 33_333, 20_000, 10_000
_T_START_US = 1_000_000
_EDGES = 12  # that move over the sensor


class Feed:
    """Samples of the bundled recording without an end, and the window that ends with the newest one."""

    def __init__(self, frames: int) -> None:
        self._samples: Iterator[Sample] = cycle(bundled_samples())
        self._numbers = count()
        self.window: deque[Sample] = deque(maxlen=frames)

    def next(self) -> Sample:
        """The next one."""
        number = next(self._numbers)
        sample = dataclasses.replace(next(self._samples), index=number, discontinuity=number == 0)
        self.window.append(sample)
        return sample

    def fill(self) -> Sequence[Sample]:
        """A full window of samples, to begin with."""
        return [self.next() for _ in range(self.window.maxlen or 1)]


def write_recording(path: Path, events: int, rate: float = 1e6, *, compression: str = "lz4") -> float:
    """A recording as a DAVIS346 makes them: so many events at edges that move, `rate` a second, and 30 frames a second.

    Returns its seconds.
    """
    with write_aedat4(path, SIZE, SIZE, compression=compression) as writer:
        for item in recorded_items(events, rate):
            writer.write(item)
    return events / rate


def recorded_items(events: int, rate: float = 1e6) -> Iterator[Item]:
    """What is in such a recording, in order of end."""
    rng = np.random.default_rng(0)
    images = _images(rng)
    end_us = _T_START_US + round(events / rate * 1e6)
    each, left = max(1, round(rate * PACKET_US / 1e6)), events
    frame_us = _T_START_US
    for start in range(_T_START_US, end_us, PACKET_US):
        while frame_us + EXPOSURE_US <= start + PACKET_US:
            yield RgbFrame(frame_us, frame_us + EXPOSURE_US, next(images))
            frame_us += FRAME_US
        packet = _packet(rng, start, min(each, left))
        left -= len(packet)
        yield EventPacket(start, start + PACKET_US, packet)


def _packet(rng: np.random.Generator, start_us: int, n: int) -> Events:
    """`n` events within PACKET_US, near edges that move by 300 pixels a second."""
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = start_us + np.arange(n) * PACKET_US // max(n, 1)
    edge = rng.integers(0, _EDGES, n)
    middle = (edge * SIZE[0] / _EDGES + start_us * 300e-6) % SIZE[0]
    events["x"] = (middle + rng.normal(0, 3, n)) % SIZE[0]
    events["y"] = rng.integers(0, SIZE[1], n)
    events["p"] = edge % 2 == 0
    return events


def _images(rng: np.random.Generator) -> Iterator[Image]:
    """Smooth colours with a sensor's noise, that move; 16 pictures again and again."""
    wide = cv2.GaussianBlur(rng.integers(0, 256, (SIZE[1], SIZE[0] + 64, 3), dtype=np.uint8), (0, 0), 8)
    wide = np.clip((wide.astype(np.float32) - 128) * 8 + 128 + rng.normal(0, 3, wide.shape), 0, 255).astype(np.uint8)
    return cycle([np.ascontiguousarray(wide[:, 4 * k : 4 * k + SIZE[0]]) for k in range(16)])


@cache
def bundled_samples() -> Sequence[Sample]:
    """Three seconds of the bundled recording."""
    with open_source(bundled()["cards"]) as source:
        return list(islice(synchronize(source), 60, 150))


@dataclass(frozen=True)
class NoisyClip:
    """Samples of noise, `period_us` apart, of one label: a clip to train on, whose pictures cost nothing to read."""

    name: str
    label: int
    samples: int
    size: int
    period_us: int

    @property
    def spans(self) -> Sequence[Span]:
        return [Span(0, self.samples * self.period_us, self.label)]

    @property
    def times(self) -> NDArray[np.int64]:
        starts = self.period_us * np.arange(self.samples)
        return np.stack([starts, starts + self.period_us], axis=1)

    @property
    def present(self) -> NDArray[np.bool_]:
        return np.ones((self.samples, 2), bool)

    @property
    def breaks(self) -> NDArray[np.bool_]:
        return np.asarray(np.arange(self.samples) == 0, bool)

    def images(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        rng = np.random.default_rng(self.label)
        return rng.integers(0, 256, (len(indices), 2, self.size, self.size, 3), dtype=np.uint8)
