"""The picture that the page shows: RGB, events and motion of one sample side by side, as one JPEG."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import cv2
import numpy as np

from streams.items import Image, Sample
from streams.render import motion_image

GAP = 8  # columns between two panes; the page draws its own background over them
_MOST_HEIGHT, _MOST_WIDTH = 1080, 1920  # of a pane
# Events are single saturated pixels: halved colour resolution would smear red and blue into each other.
_ENCODING = [
    cv2.IMWRITE_JPEG_QUALITY,
    85,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
]


class Panes:
    """Makes the three panes of each sample; remembers as many samples as motion needs."""

    def __init__(self) -> None:
        self._past: deque[tuple[Image, Image]] = deque(maxlen=1)

    def of(self, sample: Sample, stride: int) -> list[Image]:
        """RGB, events, and motion against the sample `stride` before, each uint8 [H, W, 3] of one height.

        That is the RGB image's, unless it is larger than a screen.
        Motion is black where that sample is missing, as after a discontinuity.
        """
        if stride != self._past.maxlen:
            self._past = deque(self._past, maxlen=stride)
        if sample.discontinuity:
            self._past.clear()
        now = (sample.rgb, sample.event_image)
        before = self._past[0] if len(self._past) == stride else now
        self._past.append(now)
        height = min(sample.rgb.shape[0], _MOST_HEIGHT)
        return [_of_height(image, height) for image in (*now, motion_image(before, now))]


def encode_strip(panes: Sequence[Image]) -> bytes:
    """Panes of equal height, uint8 [H, W, 3] in RGB order, as one JPEG with GAP black columns between them."""
    gap = np.zeros((panes[0].shape[0], GAP, 3), np.uint8)
    columns = [column for pane in panes for column in (gap, pane)][1:]
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(np.hstack(columns), cv2.COLOR_RGB2BGR), _ENCODING)
    return jpeg.tobytes()


def _of_height(image: Image, height: int) -> Image:
    width = min(max(1, round(image.shape[1] * height / image.shape[0])), _MOST_WIDTH)
    if image.shape[:2] == (height, width):
        return image
    way = cv2.INTER_NEAREST if height >= image.shape[0] else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, (width, height), interpolation=way), np.uint8)
