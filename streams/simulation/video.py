"""Videos as an event camera would have seen them, after v2e (Hu et al., CVPRW 2021).

Between two frames every pixel's log intensity is taken for a straight line, so the faster things move across pixels
from frame to frame, the more the video's own frame rate shows in the events: 120 frames a second or more are good.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from streams.apart import Apart
from streams.items import EventPacket, Image, RgbFrame
from streams.simulation.camera import decode_srgb, luminance
from streams.simulation.event_model import EventModel
from streams.simulation.sensor import Sensor

T_START_US = 1_000_000
_EXPOSED = 0.5  # of the time between two frames
_FACTS = ("fps", "seconds", "size")


class Video:
    """A video file, opened, and decoded in a process apart. Raises ValueError that names the file if it cannot be read.

    Reading it raises RecordingError where the decoder hangs or crashes.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ValueError(f"{path}: no such file; simulate takes `cards` or a video")
        self.path = path
        self._apart = Apart("streams.simulation.video_file:VideoFile", path, options={}, facts=_FACTS)
        self.counts = self._apart.counts  # what was lost
        self.fps: float = self._apart.facts["fps"]
        self.seconds: float = self._apart.facts["seconds"]  # how long it says it is; 0 where it does not say
        self.size: tuple[int, int] = self._apart.facts["size"]  # (width, height)

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._apart.close()

    def frames(self, width: int, height: int, *, first: int = 0) -> Iterator[tuple[int, Image]]:
        """Times in microseconds from 0, and frames, uint8 [height, width, 3] in RGB order, cut to that shape.

        From number `first` on.
        """
        for frame in self._apart.read("frames", width, height, first):
            assert isinstance(frame, RgbFrame)
            yield frame.t_end_us, frame.image


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
    """A BGR or grey image of OpenCV's in RGB order, its middle cut and scaled to a sensor's size."""
    seen = _covering(image, width, height)
    return np.asarray(cv2.cvtColor(seen, cv2.COLOR_GRAY2RGB if seen.ndim == 2 else cv2.COLOR_BGR2RGB), np.uint8)


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
