"""A webcam as a live source: `webcam:0`. Its events are simulated on the fly from its frames.

Webcams tell no time: a frame is stamped with the host's monotonic clock when it arrives.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np

from streams.errors import StreamError
from streams.items import Gap, Image, Item, eight_bit
from streams.pump import Pump
from streams.simulation.sensor import SENSORS
from streams.simulation.video import EventsFromFrames, as_sensor_sees
from streams.source import DEFAULT_PERIOD_US, Source
from streams.video_source import DAVIS346

STALL_S = 3.0
_RETRY_S = 0.5
_WAITING = 4  # frames
_SLOW = 0.7  # of the rate that it says to have, or had at best
_JOIN_S = 0.5

Arrived = tuple[int, Image] | None  # nanoseconds of the host's clock and a BGR frame; None: it was lost meanwhile


class Webcam:
    """Frames of a webcam as they arrive, from a thread of its own; one that vanishes is tried again.

    Raises StreamError where there is no such webcam, or another program has it.
    """

    def __init__(self, address: str, source: Source) -> None:
        found = re.fullmatch(r"webcam:(\d{1,3})", address)
        if found is None:
            raise StreamError(f"{address}: write it as webcam:0, the first one")
        self._address, self._number = address, int(found[1])
        self._capture = self._opened()
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.fps = fps if 1 <= fps <= 1000 else 1e6 / DEFAULT_PERIOD_US  # drivers say 0, -1 or nan
        self._lost = False
        self._times: deque[int] = deque(maxlen=30)
        lost = "frames of the webcam, left out since too many came"
        self._pump: Pump[Arrived] = Pump(self._read, most=_WAITING, counts=source.counts, lost=lost, free=self._free)
        self._pump.start()

    def _free(self) -> None:
        self._capture.release()

    def _opened(self) -> cv2.VideoCapture:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # else many lines for a missing one
        capture = cv2.VideoCapture(self._number)
        if not capture.isOpened():
            capture.release()
            raise StreamError(f"{self._address}: no such webcam, or another program uses it; see `velora doctor`")
        return capture

    def frames(self) -> Iterator[Arrived]:
        """Until it is closed."""
        return self._pump.taken()

    def close(self) -> None:
        """End `frames` at once, and free the webcam as soon as its driver lets us."""
        self._pump.stop()
        self._pump.join(_JOIN_S)

    @property
    def warning(self) -> str:
        """What is wrong with it now."""
        silent = time.monotonic() - self._pump.brought_at
        if self._lost:
            return f"the webcam is gone since {silent:.0f} s, trying again"
        if silent > STALL_S:
            return f"no frames for {silent:.0f} s"
        fps = self._measured_fps()
        if fps is not None and fps < _SLOW * self.fps:
            return f"the webcam gives {fps:.0f} frames a second, not {self.fps:.0f}: in the dark it exposes longer"
        return ""

    def _measured_fps(self) -> float | None:
        times = list(self._times)
        if len(times) < self._times.maxlen // 2:  # type: ignore[operator]
            return None
        return (len(times) - 1) * 1e9 / max(1, times[-1] - times[0])

    def _read(self) -> Sequence[Arrived]:
        try:
            there, image = self._capture.read()
        except cv2.error:  # as some of its drivers say that it is gone
            there = False
        now = time.monotonic_ns()
        if there:
            self._times.append(now)
            return [(now, eight_bit(np.asarray(image)))]
        self._lost = True
        self._capture.release()
        if self._pump.stopped.wait(_RETRY_S):
            return []
        try:
            self._capture = self._opened()
        except StreamError:
            return []
        self._lost = False
        self._times.clear()
        return [None]


class WebcamSource(Source):
    """A webcam with simulated events, cut and scaled to `size` (width, height).

    Raises StreamError where there is no such webcam, or another program has it.
    """

    schemes = ("webcam",)
    options = frozenset({"size"})
    simulated = True
    live = True

    def __init__(self, address: str, *, size: tuple[int, int] = DAVIS346) -> None:
        super().__init__()
        self.name = address
        self.event_size = self.frame_size = size
        self._webcam = Webcam(address, self)
        self.sample_period_us = round(1e6 / self._webcam.fps)

    @property
    def warning(self) -> str:
        return self._webcam.warning

    def close(self) -> None:
        self._webcam.close()

    def __iter__(self) -> Iterator[Item]:
        assert self.event_size is not None
        events = EventsFromFrames(*self.event_size, SENSORS["davis346"])
        for arrived in self._webcam.frames():
            if arrived is None:
                yield Gap("reconnected")
                events = EventsFromFrames(*self.event_size, SENSORS["davis346"])
                continue
            arrival_ns, image = arrived
            for item in events.push(arrival_ns // 1_000, as_sensor_sees(image, *self.event_size)):
                yield replace(item, arrival_ns=arrival_ns)
