"""A video file as a source: its frames, and the events that a camera would have seen between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from streams.errors import RecordingError
from streams.items import Item
from streams.simulation.sensor import SENSORS
from streams.simulation.video import EventsFromFrames, Video
from streams.source import Source

DAVIS346 = (346, 260)
_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ts"})
_WARM_UP_S = 0.5  # the simulated pixels have to get used to what they see


class VideoSource(Source):
    """A video, cut and scaled to `size` (width, height), on its own clock. Raises RecordingError for what is none.

    What is read from a place on begins with pixels that have seen half a second of it.
    """

    options = frozenset({"size"})
    format = "video, its events are simulated"
    simulated = True

    @classmethod
    def reads(cls, head: bytes, path: Path) -> bool:
        return path.suffix.lower() in _SUFFIXES and bool(head)

    def __init__(self, path: str | Path, *, size: tuple[int, int] = DAVIS346) -> None:
        super().__init__()
        self.path = Path(path)
        self.name = self.path.name
        try:
            self._video = Video(self.path)
        except ValueError as error:
            raise RecordingError(str(error)) from None
        self.counts = self._video.counts
        self.event_size = self.frame_size = size
        self.sample_period_us = round(1e6 / self._video.fps)
        self.span_us = (0, round(self._video.seconds * 1e6)) if self._video.seconds else None

    def close(self) -> None:
        self._video.close()

    def __iter__(self) -> Iterator[Item]:
        return self._from_frame(0)

    def read(self, from_us: int) -> Iterator[Item]:
        since_s = from_us / 1e6 - _WARM_UP_S
        return self._from_frame(max(0, int(since_s * self._video.fps)))

    def _from_frame(self, first: int) -> Iterator[Item]:
        assert self.event_size is not None
        events = EventsFromFrames(*self.event_size, SENSORS["davis346"])
        for since_us, image in self._video.frames(*self.event_size, first=first):
            yield from events.push(since_us, image)
