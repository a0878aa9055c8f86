"""Videos as an event camera would have seen them, after v2e (Hu et al., CVPRW 2021).

Between two frames every pixel's log intensity is taken for a straight line, so the faster things move across pixels
from frame to frame, the more the video's own frame rate shows in the events: 120 frames a second or more are good.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streams.items import EventPacket, Image, RgbFrame
from streams.simulation.camera import decode_srgb, luminance
from streams.simulation.event_model import EventModel
from streams.simulation.sensor import Sensor

T_START_US = 1_000_000
_EXPOSED = 0.5  # of the time between two frames


def capture_of(path: Path) -> cv2.VideoCapture:
    """OpenCV's reader of a video file, which may turn out to be none."""
    name: Any = os.fsencode(path.absolute())  # of a name that is not UTF-8, a str would crash it
    return cv2.VideoCapture(name)  # a colon in a relative name would be a protocol


class Video:
    """A video file, opened. Raises ValueError that names the file if it cannot be read."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ValueError(f"{path}: no such file; simulate takes `cards` or a video")
        self.path = path
        self._capture = capture_of(path)
        self.fps = self._capture.get(cv2.CAP_PROP_FPS)
        if not self._capture.isOpened() or not 1 <= self.fps <= 100_000:
            self._capture.release()
            raise ValueError(f"{path} cannot be read as a video: convert it to MP4 or AVI")

    @property
    def seconds(self) -> float:
        """How long it says it is; 0 where it does not say."""
        return max(0.0, float(self._capture.get(cv2.CAP_PROP_FRAME_COUNT) / self.fps))

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._capture.release()

    def frames(self, width: int, height: int, *, first: int = 0) -> Iterator[tuple[int, Image]]:
        """Times in microseconds from 0, and frames, uint8 [height, width, 3] in RGB order, cut to that shape.

        From number `first` on.
        """
        self._capture.set(cv2.CAP_PROP_POS_FRAMES, first)
        for number in itertools.count(first):
            there, image = self._capture.read()
            if not there:
                return
            yield round(number * 1e6 / self.fps), as_sensor_sees(np.asarray(image, np.uint8), width, height)


class EventsFromFrames:
    """Adds to frames the events that a camera would have seen between them.

    A frame counts as exposed for the second half of the time since the one before.
    """

    def __init__(self, width: int, height: int, sensor: Sensor, *, seed: int = 0) -> None:
        self._model = EventModel(height, width, sensor, seed=seed)
        self._last_us: int | None = None

    def push(self, t_us: int, image: Image) -> Iterator[EventPacket | RgbFrame]:
        """Events since the last frame, and this one, uint8 [height, width, 3]; nothing for the first."""
        events = self._model.push(t_us, luminance(decode_srgb(image)))
        last_us, self._last_us = self._last_us, t_us
        if last_us is not None:
            yield EventPacket(last_us, t_us, events)
            yield RgbFrame(t_us - round(_EXPOSED * (t_us - last_us)), t_us, image)


def simulate_video(
    video: Video, sensor: Sensor, *, width: int, height: int, seed: int = 0, seconds: float | None = None
) -> Iterator[EventPacket | RgbFrame]:
    """What a camera of this size sees of a video, in order of end: a packet and a frame for each of its frames.

    Frames keep their colours. Raises ValueError for a video with less than two frames.
    """
    events, count = EventsFromFrames(width, height, sensor, seed=seed), 0
    for since_us, image in video.frames(width, height):
        if seconds is not None and since_us > seconds * 1e6:
            break
        yield from events.push(T_START_US + since_us, image)
        count += 1
    if count < 2:
        raise ValueError(f"{video.path} has less than two frames that can be read")


def as_sensor_sees(image: Image, width: int, height: int) -> Image:
    """A BGR image of OpenCV's in RGB order, its middle cut and scaled to a sensor's size."""
    return np.asarray(cv2.cvtColor(_covering(image, width, height), cv2.COLOR_BGR2RGB), np.uint8)


def _covering(image: Image, width: int, height: int) -> Image:
    """The middle of an image, of another shape, scaled to this size."""
    rows, columns = image.shape[:2]
    scale = max(width / columns, height / rows)
    take_w, take_h = min(columns, round(width / scale)), min(rows, round(height / scale))
    left, top = (columns - take_w) // 2, (rows - take_h) // 2
    cut = image[top : top + take_h, left : left + take_w]
    shrinks = scale < 1
    resized = cv2.resize(cut, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)
