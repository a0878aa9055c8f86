"""The picture that the page shows of one sample: the panes that it asks for side by side, as one JPEG.

Made when somebody asks for it, and once, however many do.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from streams.items import Image, Sample
from streams.render import motion_image

PANES = ("rgb", "events", "motion")
GAP = 8  # columns between two panes; the page draws none of them
_MOST_BYTES = 64 << 20  # of the samples that motion looks back to
_MOST_HEIGHT, _MOST_WIDTH = 1080, 1920  # of a pane
JPEG_QUALITY = 85
# Events are single saturated pixels: halved colour resolution would smear red and blue into each other.
_FINE = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


@dataclass(frozen=True, slots=True)
class View:
    """What a page shows: which of PANES, in that order, and how many pixels of the screen each takes across."""

    panes: tuple[str, ...] = PANES
    width: int = _MOST_WIDTH


@dataclass(frozen=True, slots=True)
class Picture:
    """Panes as a JPEG with GAP black columns between them."""

    jpeg: bytes
    widths: tuple[int, ...]  # pixels, of each pane
    height: int


@dataclass(eq=False)
class Moment:
    """One sample to show, and the one that its motion is against."""

    number: int  # rising
    sample: Sample
    before: tuple[Image, Image] | None  # RGB and event image; None: nothing to compare with
    shown_at: float  # seconds of the monotonic clock
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pictures: dict[tuple[tuple[str, ...], int], Picture] = field(default_factory=dict)

    def picture(self, view: View) -> Picture:
        """Its panes, all of the RGB image's height; a large one is reduced to what the view can show."""
        with self._lock:
            key = view.panes, self._height(view)
            found = self._pictures.get(key)
            if found is None:
                found = self._pictures[key] = encode_strip(self.panes(view))
            return found

    def panes(self, view: View) -> list[Image]:
        """Uint8 [H, W, 3] of one height, RGB order. Motion is black where there is nothing to compare with."""
        images = {
            "rgb": lambda: self.sample.rgb,
            "events": lambda: self.sample.event_image,
            "motion": self._motion,
        }
        return [_of_height(images[name](), self._height(view)) for name in view.panes]

    def _motion(self) -> Image:
        now = (self.sample.rgb, self.sample.event_image)
        if self.before is None:
            return motion_image(now, now)
        rgb, event = (_of_size(image, *before.shape[:2]) for image, before in zip(now, self.before, strict=True))
        return motion_image(self.before, (rgb, event))

    def _height(self, view: View) -> int:
        """Of all panes: each pixel the mean of a square of whole ones."""
        height, width = int(self.sample.rgb.shape[0]), int(self.sample.rgb.shape[1])
        return max(1, min(height, _MOST_HEIGHT) // max(1, width // max(1, view.width)))


class Past:
    """Remembers as many samples as motion looks back; reduced, where they are so many or so large."""

    def __init__(self) -> None:
        self._images: deque[tuple[Image, Image]] = deque(maxlen=1)

    def before(self, sample: Sample, stride: int) -> tuple[Image, Image] | None:
        """RGB and event image of the sample `stride` before; None where it is missing, as after a discontinuity."""
        images = _in_bytes((sample.rgb, sample.event_image), _MOST_BYTES // stride)
        if stride != self._images.maxlen:
            self._images = deque(self._images, maxlen=stride)
        if sample.discontinuity or (self._images and self._images[0][0].shape != images[0].shape):
            self._images.clear()
        before = self._images[0] if len(self._images) == stride else None
        self._images.append(images)
        return before


def encode_strip(panes: Sequence[Image]) -> Picture:
    """Panes of equal height, uint8 [H, W, 3] in RGB order, as one JPEG."""
    gap = np.zeros((panes[0].shape[0], GAP, 3), np.uint8)
    columns = [column for pane in panes for column in (gap, pane)][1:]
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(np.hstack(columns), cv2.COLOR_RGB2BGR), _FINE)
    return Picture(jpeg.tobytes(), tuple(pane.shape[1] for pane in panes), panes[0].shape[0])


def _in_bytes(images: tuple[Image, Image], most: int) -> tuple[Image, Image]:
    """Two images, both reduced by one whole factor so that they take no more than about so many bytes."""
    factor = math.ceil(math.sqrt(sum(image.nbytes for image in images) / most))
    if factor <= 1:
        return images
    rgb, event = (_of_size(image, *(max(1, side // factor) for side in image.shape[:2])) for image in images)
    return rgb, event


def _of_height(image: Image, height: int) -> Image:
    return _of_size(image, height, min(max(1, round(image.shape[1] * height / image.shape[0])), _MOST_WIDTH))


def _of_size(image: Image, height: int, width: int) -> Image:
    if image.shape[:2] == (height, width):
        return image
    way = cv2.INTER_NEAREST if height >= image.shape[0] else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, (width, height), interpolation=way), np.uint8)
