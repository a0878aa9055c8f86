"""Where the clips of a data set come from: what reads them, and what tells whether they have changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from PIL import Image as Pictures

from app.frame_cache import file_fingerprint
from streams import RenderConfig, Sample, open_source, synchronize
from streams.items import Image, no_events
from streams.simulation.scenes import SceneSource, scene

_PERIOD_US = 33_333  # from one image of a folder to the next: 30 a second
_MOST_PIXELS = 8192  # of a side


class Origin(Protocol):
    """Something that a clip is read from; it can be handed to another process."""

    def fingerprint(self) -> dict[str, Any]:
        """What changes when the clip does. Raises OSError where it is not there."""

    def samples(self, rendering: Mapping[str, Any]) -> Iterator[Sample]:
        """Its samples. Raises RecordingError, OSError or ValueError, one line that names the file."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A file that `open_source` reads."""

    path: Path

    def fingerprint(self) -> dict[str, Any]:
        return file_fingerprint(self.path)

    def samples(self, rendering: Mapping[str, Any]) -> Iterator[Sample]:
        with open_source(self.path) as source:
            yield from synchronize(source, render=RenderConfig(**rendering))


@dataclass(frozen=True, slots=True)
class Scene:
    """A simulated scene of cards."""

    split: str
    number: int
    light: str | None
    speed: str | None

    def fingerprint(self) -> dict[str, Any]:
        own = scene(self.split, self.number, light=self.light, speed=self.speed)
        return {"scene": own.name, "version": own.version}

    def samples(self, rendering: Mapping[str, Any]) -> Iterator[Sample]:
        own = scene(self.split, self.number, light=self.light, speed=self.speed)
        yield from synchronize(SceneSource(own), render=RenderConfig(**rendering))


@dataclass(frozen=True, slots=True)
class ImagePairs:
    """RGB and event images that somebody else rendered, as HARDVS and PokerEvent lay them out.

    The number in a file's name says when it was taken, at 30 a second.
    """

    rgb: tuple[Path, ...]
    events: tuple[Path, ...]  # as many

    def fingerprint(self) -> dict[str, Any]:
        if not self.rgb:
            raise IndexError
        states = [(str(path.resolve()), path.stat()) for path in (*self.rgb, *self.events)]
        listed = repr([(name, state.st_size, state.st_mtime_ns) for name, state in states])
        return {"files": hashlib.sha256(listed.encode()).hexdigest()}

    def samples(self, rendering: Mapping[str, Any]) -> Iterator[Sample]:
        for index, (rgb, events) in enumerate(zip(self.rgb, self.events, strict=True)):
            number = int(rgb.stem)
            yield Sample(
                index=index,
                t_start_us=number * _PERIOD_US,
                t_end_us=(number + 1) * _PERIOD_US,
                rgb=read_picture(rgb),
                event_image=read_picture(events),
                events=no_events(),
                has_rgb=True,
                has_events=True,
                discontinuity=index == 0,
            )


def span_of(numbers: Sequence[int]) -> tuple[int, int]:
    """When the images of these numbers begin and end, microseconds."""
    return numbers[0] * _PERIOD_US, (numbers[-1] + 1) * _PERIOD_US


def read_picture(path: Path) -> Image:
    """A picture as uint8 [H, W, 3], RGB. Raises ValueError for one that is damaged, or larger than any camera's."""
    try:
        with Pictures.open(path, formats=("PNG", "JPEG")) as picture:  # reads the size alone
            width, height = picture.size
    except (OSError, ValueError, SyntaxError, Pictures.DecompressionBombError) as error:
        raise ValueError(f"{path} is no picture that can be read ({type(error).__name__})") from None
    if max(width, height) > _MOST_PIXELS:
        raise ValueError(f"{path} is {width} x {height}: no camera's picture")
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path} is damaged")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
