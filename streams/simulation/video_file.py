"""A video file as OpenCV decodes it; that can hang, crash and fill memory, so `Video` opens it in a process apart."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streams.items import RgbFrame
from streams.simulation.video import as_sensor_sees

_MOST_FPS, _MOST_FRAMES = 100_000, 1e9
_ROUNDED_US = 600  # times of some formats are whole milliseconds
_INEXACT_S, _INEXACT = 0.5, 0.02  # how far a length may be from what a file says


class VideoFile:
    """A video file, opened. Raises ValueError that names the file if it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.counts: Counter[str] = Counter()
        fault = f"{path} cannot be read as a video: convert it to MP4 or AVI"
        first = _capture_of(path)  # of its own, for not all files can be wound back
        there, image = first.read()
        self._origin_us = 1e3 * first.get(cv2.CAP_PROP_POS_MSEC)  # what it says of the first frame
        first.release()
        if not there or image is None:
            raise ValueError(fault)
        self.size = (image.shape[1], image.shape[0])  # (width, height), as it is decoded
        self._capture = _capture_of(path)
        self.fps = self._capture.get(cv2.CAP_PROP_FPS)
        if not self._capture.isOpened() or not 1 <= self.fps <= _MOST_FPS:
            self._capture.release()
            raise ValueError(fault)

    @property
    def seconds(self) -> float:
        """How long it says it is; 0 where it does not say."""
        count = float(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        return count / self.fps if 0 < count <= _MOST_FRAMES else 0.0

    def close(self) -> None:
        """Close the file."""
        self._capture.release()

    def frames(self, width: int, height: int, first: int) -> Iterator[RgbFrame]:
        """Frames from number `first` on, uint8 [height, width, 3], cut to that shape, at their times from 0.

        Where they are not evenly apart, a number is a time in units of the mean period.
        """
        self._capture.set(cv2.CAP_PROP_POS_FRAMES, first)
        time_us = -1
        for number in itertools.count(first):
            there, image = self._capture.read()
            if not there:
                if time_us >= 0:
                    self._note_missing(time_us / 1e6 + 1 / self.fps)
                return
            time_us = max(time_us + 1, self._time_us(number))
            yield RgbFrame(time_us, time_us, as_sensor_sees(np.asarray(image, np.uint8), width, height))

    def _note_missing(self, end_s: float) -> None:
        """Count the seconds that a file lacks which was cut; what files say of their length is not always exact."""
        missing = self.seconds - end_s
        if missing > max(_INEXACT_S, _INEXACT * self.seconds):
            self.counts["seconds missing at the end"] = max(1, round(missing))

    def _time_us(self, number: int) -> int:
        """Of the frame that was read last: as the file says, or where it does not, by its number."""
        told_us = 1e3 * self._capture.get(cv2.CAP_PROP_POS_MSEC) - self._origin_us
        if told_us <= 0:
            return round(number * 1e6 / self.fps)
        even_us = round(told_us * self.fps / 1e6) * 1e6 / self.fps
        return round(even_us if abs(told_us - even_us) < _ROUNDED_US else told_us)


def _capture_of(path: Path) -> cv2.VideoCapture:
    """OpenCV's reader of a video file, which may turn out to be none."""
    name: Any = os.fsencode(path.absolute())  # of a name that is not UTF-8, a str would crash it
    return cv2.VideoCapture(name)  # a colon in a relative name would be a protocol
