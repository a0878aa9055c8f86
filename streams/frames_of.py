"""Where frames beside events can come from: a webcam, a video file, or a folder of numbered pictures."""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from streams.errors import RecordingError, StreamError
from streams.image_folder import read_picture
from streams.items import Gap, Image, RgbFrame
from streams.simulation.video import Video, as_sensor_sees
from streams.source import Source
from streams.video_source import VideoSource
from streams.webcam import Webcam

PICTURES_A_SECOND = 30.0
_MOST_FPS = 100_000
_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg"})
_BEFORE = 2  # frames: one with an exposure that is not known begins where the last one ended
_FIRST_S = 10.0  # a webcam may take so long until its first frame


class RecordedFrames(ABC):
    """Frames with numbers, `fps` of them a second; `size` is (width, height)."""

    fps: float
    size: tuple[int, int]
    count: int | None  # one more than the number of the last; None: not known

    @abstractmethod
    def images(self, first: int) -> Iterator[tuple[float, Image]]:
        """Numbers from 0 and images, uint8 [height, width, 3] in RGB order, from two before number `first` on.

        Of a video with frames that are not evenly apart, numbers lie between whole ones. Raises RecordingError for a
        picture that is damaged.
        """

    def close(self) -> None:  # noqa: B027 (most have nothing open between two frames)
        """Close the file."""


class VideoFrames(RecordedFrames):
    """The frames of a video as they are, at the rate that it says or at another one.

    Raises RecordingError where it cannot be read.
    """

    def __init__(self, path: Path, fps: float | None) -> None:
        try:
            self._video = Video(path)
        except ValueError as error:
            raise RecordingError(str(error)) from None
        self.size, self._timed = self._video.size, fps is None
        self.fps = fps or self._video.fps
        self.count = round(self._video.seconds * self._video.fps) or None

    def images(self, first: int) -> Iterator[tuple[float, Image]]:
        first = max(0, first - _BEFORE)
        for number, (since_us, image) in enumerate(self._video.frames(*self.size, first=first), first):
            yield since_us * self.fps / 1e6 if self._timed else number, image

    def close(self) -> None:
        self._video.close()


class PictureFrames(RecordedFrames):
    """PNG or JPEG files of a folder, in order of the numbers that their names end with; the lowest counts as 0.

    A number that is missing is a frame that is missing. Raises RecordingError where there are no such files.
    """

    def __init__(self, folder: Path, fps: float | None) -> None:
        files = (path for path in folder.iterdir() if path.suffix.lower() in _EXTENSIONS)
        numbered: dict[int, Path] = {}
        for path in sorted(files):
            found = re.search(r"(?<!\d)(\d{1,9})$", path.stem)
            other = numbered.setdefault(int(found[1]), path) if found else path
            if other != path:
                raise RecordingError(f"{folder}: {other.name} and {path.name} have one number; keep one series")
        if not numbered:
            raise RecordingError(
                f"{folder}: no pictures in it (000001.png, 000002.png, …); name a folder that has some"
            )
        self._numbers = [number - min(numbered) for number in sorted(numbered)]
        self._paths = [numbered[number] for number in sorted(numbered)]
        self.fps = fps or PICTURES_A_SECOND
        self.count = self._numbers[-1] + 1
        height, width = read_picture(self._paths[0]).shape[:2]
        self.size = (width, height)

    def images(self, first: int) -> Iterator[tuple[float, Image]]:
        start = max(0, bisect_left(self._numbers, first) - _BEFORE)
        for number, path in zip(self._numbers[start:], self._paths[start:], strict=True):
            yield number, read_picture(path, self.size)


class WebcamFrames:
    """Frames of a webcam, of the size that its first one has; what it loses is counted in `source.counts`.

    Raises StreamError where there is no such webcam, another program has it, or it gives no frame.
    """

    def __init__(self, address: str, source: Source) -> None:
        self._webcam = Webcam(address, source)
        self._arrived = self._webcam.frames()
        patience = threading.Timer(_FIRST_S, self._webcam.close)
        patience.daemon = True
        patience.start()
        try:
            first = next(filter(None, self._arrived), None)
        except BaseException:
            self._webcam.close()
            raise
        finally:
            patience.cancel()
        if first is None:
            raise StreamError(f"{address}: gives no frames; is it covered, or used by another program?")
        self.fps, self.size = self._webcam.fps, (first[1].shape[1], first[1].shape[0])

    @property
    def warning(self) -> str:
        return self._webcam.warning

    def items(self) -> Iterator[RgbFrame | Gap]:
        """Frames at the host's time of their arrival, and a Gap where the webcam was lost meanwhile."""
        for arrived in self._arrived:
            if arrived is None:
                yield Gap("webcam reconnected")
                continue
            arrival_ns, image = arrived
            time_us = arrival_ns // 1_000
            yield RgbFrame(time_us, time_us, self._as_first(image), arrival_ns)

    def close(self) -> None:
        """End `items` at once, from any thread."""
        self._webcam.close()

    def _as_first(self, image: Image) -> Image:
        """In RGB order; cut and scaled where the webcam came back with another size."""
        if image.shape[1::-1] == self.size:
            return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
        return as_sensor_sees(image, *self.size)


def is_webcam(address: str) -> bool:
    """Whether an address of frames names a live camera, not a file."""
    return address.startswith("webcam:") and not Path(address).exists()


def recorded_frames(address: str, fps: float | None) -> RecordedFrames:
    """The frames of a video or of a folder of pictures. Raises RecordingError, and StreamError for an odd `fps`."""
    if fps is not None and not 0 < fps <= _MOST_FPS:
        raise StreamError(f"{address}: its frames a second must be more than 0 and at most {_MOST_FPS:,}, not {fps:g}")
    path = Path(address)
    if path.is_dir():
        return PictureFrames(path, fps)
    if not path.exists():
        raise RecordingError(f"{address}: no such file; frames come from a video, a folder of pictures, or webcam:0")
    if not VideoSource.reads(b"any", path):
        raise RecordingError(f"{address}: not a video; frames come from a video, a folder of pictures, or webcam:0")
    return VideoFrames(path, fps)
